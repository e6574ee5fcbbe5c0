r"""T4: on a bounded set BlockIAF is Lipschitz with the constant ||M||_2, whose dependence on the
radius is unavoidable.

*Proof.* $g_i(z)-g_i(z')=s_i(z)\odot(z_i-z_i')+(s_i(z)-s_i(z'))\odot z_i'+\mu_i(z)-\mu_i(z')$
(``splitting``). With $\|v\odot w\|_2\le\|v\|_2\|w\|_\infty$ the norm of block $i$ is at most
$\sum_jM_{ij}\|z_j-z_j'\|$, and $M\ge0$, so the vector of block norms is dominated by $M$ times that
of the differences. $|\sigma'|=p(1-p)\le\frac14$ for a sigmoid; $\sigma'=\sigma$ for $\exp$.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import sympy as sp
import torch
from hypothesis import assume, strategies as st

from mdtheory.maps.iaf.base import Scale
from proofs_check.claim import Claim, Formula, Statement, Verdict
from proofs_check.formula import tex
from proofs_check.run import Run
from proofs_check.tools import iaf
from proofs_check.tools.interval_recheck import recheck
from proofs_check.tools.intervals import Box, certify
from proofs_check.tools.local_lipschitz import Constants, constants
from proofs_check.tools.models import vector
from proofs_check.tools.strategies import for_all, seeds

_R, _SLOPE, _LA, _LM = sp.symbols(r"R_i \sigma_i' \ell^\alpha_{ij} \ell^\mu_{ij}", nonnegative=True)
ENTRY = Formula(
    left=sp.Symbol(r"\|J_{ij}\|"),
    relation="<=",
    right=_R * _SLOPE * _LA + _LM,
    text=r"{formula}=:M_{ij}",
)
_ZERO, _REACH = sp.symbols(
    r"\|\alpha_i(0)\|_\infty \sum_j\ell^\alpha_{ij}\|z_j\|", nonnegative=True
)
_TOP = sp.Symbol(r"\max_i\bar s_i", nonnegative=True)
_ROWS = sp.Symbol(r"(\sum_{i\ge2}\rho_i^2)", nonnegative=True)
CRUDE = Formula(
    left=sp.Symbol(r"\|M\|_2"),
    relation="<=",
    right=_TOP + sp.sqrt(_ROWS),
    text=r"\mathrm{Lip}(g;\mathcal C)\text{ is at most }\|M\|_2;\ {formula},\ "
    r"\rho_i=\|(M_{ij})_{j<i}\|_2",
)
GROWTH = Formula(
    left=sp.Symbol(r"\bar s_i"),
    relation="<=",
    right=sp.exp(_ZERO + _REACH),
    text=r"\sigma=\exp:\ {formula}",
)

claim = Claim(
    id="T4",
    title="BlockIAF's local Lipschitz constant",
    source="Theorem, for the poster's Lemma",
    printed=Statement(
        given={
            "conditioners": r"\|\alpha_i(a)-\alpha_i(a')\|_2\le\sum_{j<i}\ell^\alpha_{ij}\|a_j-a_j'"
            r"\|,\ "
            r"\text{the same for }\mu_i\text{ with }\ell^\mu_{ij}",
            "set": r"\mathcal C\text{ convex, on it }|z_c|\le R_i\ (c\in\mathcal B_i),\ \sup s_i="
            r"\bar s_i,"
            r"\ \sup|\sigma'|\le\sigma'_i",
        },
        then=r"\mathrm{Lip}(g;\mathcal C)\le\|M\|_2,\quad M_{ii}=\bar s_i,\ M_{ij}="
        + tex(ENTRY.right)
        + r"\ (j<i)",
        parts={
            "bound": ENTRY,
            "crude": CRUDE,
            "tight": (
                r"\text{attained by affine shifts; the slope in }R\text{ by }(s_1z_1,\,z_2\,"
                r"\mathrm{sigmoid}\,z_1)"
            ),
            "exp": GROWTH,
        },
        scopes={"tight": "exists"},
    ),
    expected=Verdict("HOLDS", "PROVED"),
    uses=("T2",),
)


@claim.check("symbolic", about="printed", part="bound")
def splitting(run: Run, *, middle: Callable[..., sp.Expr] = lambda s, r, z, w: (s - r) * w) -> None:
    """s z + m - (r w + n) = s (z - w) + (s - r) w + (m - n); p(1-p) <= 1/4; (|Mx|) is at most M|x|
    for 2 x 2 non-negative M.
    """
    s, r, z, w, m, n, p = sp.symbols("s r z w m n p", real=True)
    run.zero(s * z + m - r * w - n - (s * (z - w) + middle(s, r, z, w) + m - n), "the splitting")
    run.zero(
        sp.Rational(1, 4) - p * (1 - p) - (p - sp.Rational(1, 2)) ** 2,
        "1/4 - p (1 - p) is a square",
    )
    v, u = sp.symbols("v0:2", real=True), sp.symbols("u0:2", real=True)
    cauchy = (v[0] ** 2 + v[1] ** 2) * (u[0] ** 2 + u[1] ** 2) - (v[0] * u[0] + v[1] * u[1]) ** 2
    run.zero(cauchy - (v[0] * u[1] - v[1] * u[0]) ** 2, "Cauchy-Schwarz is a square")


splitting.mutant("(s - s') z_i in place of (s - s') z_i'", middle=lambda s, r, z, w: (s - r) * z)
splitting.mutant("the scale's change forgotten", middle=lambda s, r, z, w: sp.Integer(0))


def as_given(c: Constants) -> Constants:
    """The constants of T4."""
    return c


@claim.check("certificate", about="printed", part="bound", covers="exact")
def certified_on_real_weights(
    run: Run, *, change: Callable[[Constants], Constants] = as_given
) -> None:
    """Library maps with random weights on a box: attained <= sup ||J|| <= ||M||_2, by balls and
    again by other intervals.
    """
    for name, map, radius in (
        ("B=2, bounded", iaf.mlp([[0], [1]], seed=3, size=0.6, hidden=3, code=1), 1.0),
        ("B=2, exp", iaf.mlp([[0], [1]], seed=3, size=0.6, hidden=3, code=1, scale="exp"), 1.0),
        ("B=3, bounded", iaf.mlp([[0], [2], [1]], seed=4, size=0.4, hidden=2, code=1), 0.5),
    ):
        box = Box.cube(radius, map.size)
        found = certify(map.map, box, "lipschitz", tolerance=0.1, max_boxes=400)
        recheck(map.map, found)
        theorem = change(constants(map.map, box))
        run.above(found.bound, found.attained, what="the certificate brackets the constant")
        run.at_most(
            found.bound, theorem.lipschitz(), what=f"{name}: certified constant within T4's"
        )
        run.at_most(theorem.lipschitz(), theorem.crude(), slack=1e-9, what="the cruder bound")
        run.quantity(
            f"certified sup ||J||, {name}",
            found.bound,
            tolerance=0.12,
            meaning=f"library's MLP form on |z|<={radius}",
        )
        run.quantity(
            f"T4's ||M||, {name}",
            theorem.lipschitz(),
            tolerance=1e-6,
            meaning="the same map and box",
        )


certified_on_real_weights.mutant(
    "no scale bound",
    change=lambda c: replace(c, top=0 * c.top, shifts=0 * c.shifts, radius=0 * c.radius),
)
certified_on_real_weights.mutant(
    "half the matrix",
    change=lambda c: Constants(c.scales / 9, c.shifts / 9, c.top / 9, c.bend, c.radius),
)


def local_matrix(
    *, radius: float, top: list[float], bend: float, scales: float, shifts: float
) -> np.ndarray:
    """M for two scalar blocks."""
    zero = np.zeros((2, 2))
    below = np.array([[0.0, 0.0], [1.0, 0.0]])
    found = Constants(
        zero + scales * below,
        zero + shifts * below,
        np.array(top),
        np.full(2, bend),
        np.full(2, radius),
    )
    return found.matrix()


@claim.check("exact", about="printed", part="tight")
def attained_by_affine_shifts(
    run: Run, *, matrix: Callable[..., np.ndarray] = local_matrix
) -> None:
    """Constant scales, linear shift: J = M exactly, for the map and for the library's MLP form with
    hand-set weights.
    """
    for slope in (0.5, 2.0, 7.0):
        m = matrix(radius=3.0, top=[0.5, 0.5], bend=0.25, scales=0.0, shifts=slope)
        for map in (iaf.shifted(slope), iaf.shifted_mlp(slope)):
            run.close(
                iaf.norm(map.jacobian(vector(0.3, -2.0))),
                np.linalg.norm(m, 2),
                tolerance=1e-12,
                what="||J|| and ||M||",
            )


attained_by_affine_shifts.mutant(
    "shift constants halved", matrix=lambda *, shifts, **how: local_matrix(shifts=shifts / 2, **how)
)
attained_by_affine_shifts.mutant(
    "shift constants doubled",
    matrix=lambda *, shifts, **how: local_matrix(shifts=2 * shifts, **how),
)


@claim.check("exact", about="printed", part="tight")
def radius_is_unavoidable(run: Run, *, matrix: Callable[..., np.ndarray] = local_matrix) -> None:
    """(s_1 z_1, z_2 sigmoid z_1) at (0, R): J_21 = R/4 = M_21 exactly, so ||J||/||M|| -> 1; J_22 =
    1/2 against the bound 1.
    """
    map = iaf.gated(0.5)
    for radius in (1.0, 10.0, 1000.0):
        m = matrix(radius=radius, top=[0.5, 1.0], bend=0.25, scales=1.0, shifts=0.0)
        jacobian = map.jacobian(vector(0.0, radius))
        run.close(float(jacobian[1, 0]), m[1, 0], tolerance=1e-12 * radius, what="J_21 and M_21")
        share = iaf.norm(jacobian) / np.linalg.norm(m, 2)
        run.at_most(share, 1.0, what="validity", slack=1e-12)
        run.quantity(
            f"||J||/||M|| at (0, R), R={radius:g}",
            share,
            tolerance=1e-6,
            meaning="(z_1/2, z_2 sigmoid z_1): the R-slope is sharp",
        )
    run.above(share, 0.99999, what="ratio at R = 1000")
    p = sp.Symbol("p", positive=True)  # sigma' = p (1 - p)
    (top,) = sp.solve(sp.diff(p * (1 - p), p), p)
    run.quantity("largest slope of a sigmoid", top * (1 - top), meaning="sigma' <= 1/4")


radius_is_unavoidable.mutant(
    "no R in the bound", matrix=lambda *, radius, **how: local_matrix(radius=1.0, **how)
)
radius_is_unavoidable.mutant(
    "slope 1/2 of the sigmoid", matrix=lambda *, bend, **how: local_matrix(bend=0.5, **how)
)
radius_is_unavoidable.mutant(
    "slope 1/8 of the sigmoid", matrix=lambda *, bend, **how: local_matrix(bend=0.125, **how)
)


def exp_bound(at_zero: float, slope: float, length: float) -> float:
    """exp(|alpha(0)| + l ||z||)."""
    return math.exp(at_zero + slope * length)


@claim.check("exact", about="printed", part="exp")
def exponential_growth(
    run: Run, *, bound: Callable[[float, float, float], float] = exp_bound
) -> None:
    """s_2 = exp(1/2 + 3/4 z_1) attains the bound at every z_1 > 0; so the norm of J does grow
    exponentially.
    """
    map = iaf.formula(
        lambda _: (vector(0.0), vector(0.0)), lambda z: (0.5 + 0.75 * z, 0 * z), scale=Scale("exp")
    )
    for length in (1.0, 4.0, 20.0):
        scale = float(map.jacobian(vector(length, 0.0))[1, 1])
        run.close(scale / bound(0.5, 0.75, length), 1.0, tolerance=1e-12, what="s_2 and its bound")


exponential_growth.mutant(
    "alpha(0) forgotten", bound=lambda at_zero, slope, length: math.exp(slope * length)
)
exponential_growth.mutant(
    "half the slope", bound=lambda at_zero, slope, length: math.exp(at_zero + slope * length / 2)
)


@claim.check("experiment", about="printed", part="exp")
def growth_of_the_official_form(run: Run, *, scale: object = "exp") -> None:
    """The library's Kronecker form with random heads: the largest ||J|| at six points of size 1,
    10, 100; exp explodes.
    """
    map = iaf.kronecker([(4,), (4,), (4,)], seed=3, size=0.5, scale=scale)
    found = [
        math.log10(
            max(iaf.norm(map.jacobian(map.random("t4", "growth", k, scale=far))) for k in range(6))
        )
        for far in (1.0, 10.0, 100.0)
    ]
    for far, value in zip((1, 10, 100), found, strict=True):
        run.quantity(
            f"log10 ||J||, exp scales, inputs of size {far}",
            value,
            tolerance=1e-6,
            meaning="random weights, B = 3",
        )
    run.above(found[2] - found[1], 3.0, what="decades from 10 to 100")
    run.above(found[1], found[0], what="growth from 1 to 10")


growth_of_the_official_form.mutant("bounded scales", scale="bounded")


@claim.check("property", about="printed", part="bound")
def library_pairs_within_bound(
    run: Run, *, change: Callable[[Constants], Constants] = as_given
) -> None:
    """Random maps with prefixes that matter, far and near pairs of the box: the difference quotient
    is at most ||M||.
    """

    @for_all(
        blocks=iaf.partitions(min_blocks=2),
        seed=seeds(),
        radius=st.sampled_from([0.3, 3.0, 30.0]),
        size=st.sampled_from([0.3, 2.0]),
    )
    def _(blocks: list[list[int]], seed: int, radius: float, size: float) -> None:
        map = iaf.mlp(blocks, seed=seed % 1000, size=size)
        bound = change(constants(map.map, Box.cube(radius, map.size))).lipschitz()
        for share in (0.001, 1.0):
            z = torch.clamp(map.random("t4", "z", seed), -1, 1) * radius
            other = torch.clamp(z + share * radius * map.random("t4", "w", seed), -radius, radius)
            assume(not torch.equal(z, other))  # both in one corner of the box
            run.at_most(
                iaf.ratio(map, z, other), bound, what="difference quotient", slack=1e-9 * bound
            )


library_pairs_within_bound.mutant(
    "a hundredth of M",
    change=lambda c: Constants(c.scales / 100, c.shifts / 100, c.top / 100, c.bend, c.radius),
)


@claim.check("symbolic", about="printed", part="exp")
def exponential_is_monotone(run: Run, *, sign: int = 1) -> None:
    """alpha <= |alpha(0)| + sum l |z| =: b by the definition of l; with b = alpha + d, d >= 0: e^b
    - e^alpha = e^alpha (e^d - 1) >= 0, whose derivative in d is positive and which is 0 at d = 0.
    """
    a, d = sp.Symbol("a", real=True), sp.Symbol("d", nonnegative=True)
    gap = sign * (sp.exp(a + d) - sp.exp(a))
    run.zero(gap.subs(d, 0), "gap at d = 0")
    run.that(sp.diff(gap, d).is_positive, "the gap grows with d")


exponential_is_monotone.mutant("the other way round", sign=-1)


@claim.check("exact", about="printed", part="bound")
def stated_entry(run: Run, *, stated: Formula) -> None:
    """J_21 of the library's gated map at (0, R) attains the printed entry (slope of the sigmoid
    1/4), a linear shift attains its second term, and (3, R) lies below.
    """
    for radius in (2.0, 10.0):
        for z1, tight in ((0.0, True), (3.0, False)):
            entry = float(iaf.gated().jacobian(vector(z1, radius))[1, 0])
            at = {stated.left: abs(entry), "R_i": radius, r"\sigma_i'": 0.25}
            at |= {r"\ell^\alpha_{ij}": 1, r"\ell^\mu_{ij}": 0}
            run.stands(stated, at, slack=1e-12)
            if tight:
                run.attained(stated, at, tolerance=1e-12)
    entry = float(iaf.shifted(3.0).jacobian(vector(0.0, 1.0))[1, 0])
    at = {stated.left: entry, "R_i": 1, r"\sigma_i'": 0.25, r"\ell^\alpha_{ij}": 0}
    run.attained(stated, {**at, r"\ell^\mu_{ij}": 3}, tolerance=1e-12)


@claim.check("exact", about="printed", part="crude", covers="samples")
def stated_crude(run: Run, *, stated: Formula) -> None:
    """Two blocks: attained where the diagonal is zero, strict where it is not."""
    for top, row in ((0.0, 0.5), (0.0, 2.0), (0.5, 1.0)):
        found = float(np.linalg.norm(np.array([[top, 0.0], [row, top]]), 2))
        at = {stated.left: found, r"\max_i\bar s_i": top, r"(\sum_{i\ge2}\rho_i^2)": row**2}
        run.stands(stated, at, slack=1e-12)
        if top == 0.0:
            run.attained(stated, at, tolerance=1e-12)


@claim.check("symbolic", about="printed", part="crude")
def diagonal_and_rows(run: Run, *, power: int = 1) -> None:
    """|M x| <= |D x| + |N x|; |D x| <= max s |x|, and row by row (N x)_i^2 <= rho_i^2 |x|^2 by
    Cauchy-Schwarz, a square.
    """
    a, b, x, y = sp.symbols("a b x y", real=True)
    rest = (a**2 + b**2) * (x**2 + y**2) ** power - (a * x + b * y) ** 2
    run.zero(rest - (a * y - b * x) ** 2, "Cauchy-Schwarz")


diagonal_and_rows.mutant("|x|^4", power=2)


@claim.check("exact", about="printed", part="exp")
def stated_growth(run: Run, *, stated: Formula) -> None:
    """s_2 = exp(1/2 + 3/4 z_1) on the library attains it for z_1 > 0, and lies below it for z_1 <
    0.
    """
    map = iaf.formula(
        lambda _: (vector(0.0), vector(0.0)), lambda z: (0.5 + 0.75 * z, 0 * z), scale=Scale("exp")
    )
    for first in (1.0, 4.0, -2.0):
        at = {stated.left: float(map.jacobian(vector(first, 0.0))[1, 1])}
        at |= {r"\|\alpha_i(0)\|_\infty": 0.5, r"\sum_j\ell^\alpha_{ij}\|z_j\|": 0.75 * abs(first)}
        run.stands(stated, at, slack=1e-9)
        if first > 0:
            run.attained(stated, at, tolerance=1e-9)
