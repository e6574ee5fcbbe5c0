r"""RA1: a scalable convex potential with certified curvature, so that g = grad h* is a mirror map;
what such sums cannot do.

*Proof of (curvature).* $\nabla^2h^*=\mu
I+\frac{L-\mu}\Gamma\sum_kW_k^\top\mathrm{diag}(c_k\psi'')W_k$, and $0\preceq
W^\top\mathrm{diag}(d)W\preceq\max d\,\|W\|^2I$. *(zonoid)* With $r=\sqrt2$ take the seven points
and weights of ``FUNCTIONAL``: they annihilate affine functions, are $\le0$ on every
$\mathrm{relu}(w\cdot z-b)$ (homogeneous and piecewise linear in $(w,b)$, so finitely many rays
decide), hence on every convex ridge function, and have total variation 1 and the value $(2-r)/8$ on
$\max(0,z_1,z_2)$. So no non-negative sum of convex ridge functions comes nearer than that on the
unit disc; one with a few ridges does come as near. *(budget)* Curvature $F''=\sum_ka_kb_k$ with
unimodal $0\le b_k\le1$, $\sum a_k\le L-\mu=1$: if $F''\ge1-e$ at a point of $[0,1]$ and one of
$[4,5]$, then between them $F''\ge\sum a_k\min(p_k,q_k)\ge\sum a_k(p_k+q_k-1)\ge1-2e$. A sequence
with $F_n\to f$ uniformly has such points for every $e$, as mean curvatures over intervals converge;
yet $f''=0$ on $[2,3]$.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations, pairwise

import numpy as np
import sympy as sp
import torch
from hypothesis import strategies as st

from mdtheory import descend
from mdtheory.geometry.base import Geometry
from proofs_check.claim import Claim, Formula, Statement, Verdict
from proofs_check.run import Run
from proofs_check.tools import potentials, ridges
from proofs_check.tools.iaf import Flat, OnVector, turned
from proofs_check.tools.strategies import for_all, seeds

ZONOID = Formula(
    left=sp.Symbol(r"\inf_F\sup_{\|z\|\le1}|F-\max(0,z_1,z_2)|"),
    relation=">=",
    right=(2 - sp.sqrt(2)) / 8,
    text=r"\text{over sums of convex ridges, which are not dense from dimension two on}:\ "
    r"{formula};"
    r"\ \max(|z_1|,|z_2|)\text{ is one}",
)
_MU, _L, _LF = sp.symbols(r"\mu L L_f", positive=True)
CURVATURE = Formula(
    left=sp.Symbol(r"\lambda(\nabla^2h^*)", positive=True),
    relation="<=",
    right=_L,
    text=r"{formula}\text{ and at least }{low},\text{ for all parameters and every eigenvalue}",
    terms={"low": _MU},
)
MIRROR = Formula(
    left=sp.Symbol(r"\alpha", positive=True),
    relation="<",
    right=2 / (_L * _LF),
    text=r"J_g\text{ symmetric and definite, }g^{-1}=\nabla h,\ h\text{ strongly convex with }"
    r"{modulus};\text{ steps descend for }{formula}",
    terms={"modulus": 1 / _L},
)

claim = Claim(
    id="RA1",
    title="A certified convex potential of ridge functions",
    source="Repair, for the poster's outlook 'model h*'",
    printed=Statement(
        given={
            "class": r"h^*(z)=\tfrac\mu2\|z\|^2+b^\top z+\tfrac{L-\mu}\Gamma\sum_kc_k^\top"
            r"\psi(W_kz+b_k),"
            r"\ c_k\ge0,\ L>\mu>0",
            "psi": (
                r"\psi\in C^2,\ 0\le\psi''\le\bar\psi;\ \Gamma=\bar\psi\sum_k\|c_k\|_\infty\|W_k"
                r"\|_2^2>0"
            ),
        },
        then=(
            r"\mu I\preceq\nabla^2h^*\preceq LI,\text{ so }g=\nabla h^*\text{ is a mirror map with "
            r"known constants}"
        ),
        parts={
            "curvature": CURVATURE,
            "attained": r"\text{one orthogonal }W\text{, argument zero: curvature }L",
            "mirror": MIRROR,
            "zonoid": ZONOID,
            "budget": (
                r"\psi''\text{ unimodal (softplus): at fixed }(\mu,L)\text{ not dense in }\mathcal "
                r"F_{\mu,L}\text{ even for }d=1"
            ),
        },
        scopes={"attained": "exists", "budget": "exists"},
    ),
    expected=Verdict("HOLDS", "PROVED"),
    uses=("T6/price",),
    remark="The library's ridge potential also allows negative amplitudes inside its certificate. "
    "Linear programs on grids "
    "that miss the seven points give smaller errors (0.069); over the disc it is (2 - sqrt 2)/8 = "
    "0.0732.",
)


@claim.check("certificate", about="printed", part="curvature")
def weights_bound_the_hessian(
    run: Run, *, gamma: Callable[..., sp.Expr] = lambda psi, c, w: psi * c * w**2
) -> None:
    """t (Wv)^2 - d (Wv)^2 = (t - d)(Wv)^2, t = max c psi-bar: the sum is at most Gamma, and (L -
    mu)/Gamma makes it L - mu.
    """
    v = sp.Matrix(sp.symbols("v0:2", real=True))
    w = sp.Matrix(2, 2, sp.symbols("w0:4", real=True))
    top, slack = sp.Symbol("t", positive=True), sp.symbols("s0:2", nonnegative=True)
    image = w * v
    gap = top * (image.T * image)[0] - (image.T * sp.diag(*(top - s for s in slack)) * image)[0]
    run.zero(
        sp.expand(gap - sum(s * value**2 for s, value in zip(slack, image, strict=True))),
        "a sum of squares",
    )
    psi, c, norm, mu, big_l = sp.symbols("psi c W mu L", positive=True)
    run.zero(
        mu + (big_l - mu) / gamma(psi, c, norm) * psi * c * norm**2 - big_l, "the normalisation"
    )
    p = sp.Symbol("p", positive=True)  # psi'' = p (1 - p) for softplus
    (top,) = sp.solve(sp.diff(p * (1 - p), p), p)
    run.quantity("psi-bar of softplus", top * (1 - top), meaning="sup psi'' = p (1 - p) at p = 1/2")


weights_bound_the_hessian.mutant("||W|| in place of ||W||^2", gamma=lambda psi, c, w: psi * c * w)
weights_bound_the_hessian.mutant("psi-bar forgotten", gamma=lambda psi, c, w: c * w**2)


def as_is(map: Flat) -> Flat:
    """The library's map."""
    return map


Certificate = Callable[[Flat], tuple[float, float]]
QUARTER, HALF = sp.Rational(1, 4), sp.Rational(1, 2)


@claim.check("property", about="printed", part="curvature")
def library_within_certificate(
    run: Run,
    *,
    certificate: Certificate = potentials.certificate,
    wrap: Callable[[Flat], Flat] = as_is,
) -> None:
    """The library's ridge potential, parameters near and far from the start: spectrum within
    certificate within [mu, L].
    """
    mu, big_l = 0.2, 5.0

    @for_all(
        seed=seeds(),
        spread=st.sampled_from([0.0, 0.3, 2.0, 20.0]),
        far=st.sampled_from([0.1, 3.0]),
        sign=st.sampled_from([0, 1, -1]),
    )
    def _(seed: int, spread: float, far: float, sign: int) -> None:
        map = wrap(
            potentials.extreme_ridge(sign) if sign else potentials.ridge(seed % 1000, spread)
        )
        low, high = certificate(map)
        z = map.random("ra1", seed, scale=0.0 if sign else far)
        least, largest = potentials.spectrum(map.jacobian(z))
        for a, b in ((mu, low), (low, least), (least, largest), (largest, high), (high, big_l)):
            run.at_most(a, b, what="mu <= low <= spectrum <= high <= L", slack=1e-9)


def tightened(map: Flat) -> tuple[float, float]:
    """A certificate that promises 1% more at both ends."""
    low, high = potentials.certificate(map)
    return 1.01 * low, 0.99 * high


library_within_certificate.mutant("1% better at both ends", certificate=tightened)
library_within_certificate.mutant(
    "an amplitude out of bounds", wrap=lambda m: m.altered(lambda z, phi: phi + 5 * torch.tanh(z))
)


@claim.check("exact", about="printed", part="attained")
def library_attains_its_certificate(run: Run, *, point: float = 0.0) -> None:
    """Orthogonal projections and mixing, no offsets, amplitudes at either end: at z = 0 the
    spectrum is the certificate.
    """
    for sign, name in ((1.0, "largest"), (-1.0, "least")):
        map = potentials.extreme_ridge(sign)
        found = potentials.spectrum(map.jacobian(torch.full((3,), point, dtype=torch.float64)))
        low, high = potentials.certificate(map)
        value, bound = (found[1], high) if sign > 0 else (found[0], low)
        run.close(value, bound, tolerance=1e-10, what=f"{name} curvature at 0")
        limit = 5.0 if sign > 0 else 0.2
        run.quantity(
            f"{name} curvature attained, (mu, L) = (0.2, 5)",
            value,
            tolerance=1e-8,
            meaning=f"allowed: {limit:g}",
        )
    scalar = potentials.extreme_ridge(1.0, size=1)
    run.close(
        float(scalar.jacobian(torch.full((1,), point, dtype=torch.float64))),
        5.0,
        tolerance=1e-9,
        what="d = 1: L itself",
    )


library_attains_its_certificate.mutant("away from 0", point=0.7)


@claim.check("exact", about="printed", part="attained")
def softplus_attains(run: Run, *, constant: sp.Rational = QUARTER) -> None:
    """The theorem's own form: softplus'' (0) = 1/4; with one orthogonal W and equal c the Hessian
    at 0 is mu + (L - mu) = L.
    """
    t, mu, big_l, c = sp.symbols("t mu L c", positive=True)
    bend = sp.diff(sp.log(1 + sp.exp(t)), t, 2).subs(t, 0)
    run.zero(bend - constant, "psi''(0)")
    run.zero(mu + (big_l - mu) / (constant * c) * c * bend - big_l, "curvature at 0")


softplus_attains.mutant("1/2", constant=sp.Rational(1, 2))


@claim.check("certificate", about="printed", part="mirror")
def consequences(
    run: Run, *, largest: Callable[..., sp.Expr] = lambda big_l, smooth: 2 / (big_l * smooth)
) -> None:
    """A general ridge: Hessian symmetric; h'' = 1/h*'' >= 1/L; by T6, -a t + a^2 L_f t^2/2 <= 0 for
    t <= L.
    """
    z = sp.Matrix(sp.symbols("z1 z2", real=True))
    w = sp.Matrix(sp.symbols("w1 w2", real=True))
    ridge = sp.Function("psi")(w.dot(z) + sp.Symbol("b"))
    hessian = sp.hessian(ridge, list(z)).doit()
    run.zero(hessian - hessian.T, "symmetry")
    x, t, room, smooth, share = sp.symbols("x t r F s", positive=True)  # t = h*'' , L = t + r
    slope = sp.Function("k")(x)  # z = h'(phi), so h*'(z(phi)) = phi: h*'' z' = 1
    run.zero(sp.solve(t * sp.diff(slope, x) - 1, sp.diff(slope, x))[0] - 1 / t, "h'' = 1/h*''")
    run.that((1 / t - 1 / (t + room)).simplify().is_positive, "1/t >= 1/L for t <= L")
    alpha = largest(t + room, smooth) / (1 + share)
    change = sp.simplify((-alpha * t + alpha**2 * smooth * t**2 / 2) * (1 + share) ** 2 / alpha / t)
    run.that(
        sp.expand(sp.simplify(change * (t + room))).is_negative, f"the change is negative: {change}"
    )


consequences.mutant("alpha < 3/(L L_f)", largest=lambda big_l, smooth: 3 / (big_l * smooth))


@claim.check("property", about="printed", part="mirror")
def library_is_a_mirror_map(run: Run, *, wrap: Callable[[Flat], Flat] = as_is) -> None:
    """g is the gradient of the library's h*; J is symmetric and positive; grad h (g(z)) = z; the
    start is the identity.
    """

    @for_all(seed=seeds(), spread=st.sampled_from([0.0, 0.3, 2.0]))
    def _(seed: int, spread: float) -> None:
        plain = potentials.ridge(seed % 1000, spread)
        map, z = wrap(plain), plain.random("ra1", "mirror", seed)
        jacobian = map.jacobian(z)
        run.close(jacobian, jacobian.T, tolerance=1e-10, what="asymmetry of J")
        run.above(potentials.spectrum(jacobian)[0], 0.0, what="least curvature")
        run.close(
            map.at(z),
            torch.func.grad(lambda v: potentials.conjugate(plain, v))(z),
            tolerance=1e-10,
            what="g - grad h*",
        )
        run.close(plain.inverse(map.at(z)), z, tolerance=1e-6, what="grad h (g(z)) - z")
        if spread == 0.0:
            run.close(map.at(z), z, tolerance=1e-12, what="the start is the identity")


library_is_a_mirror_map.mutant(
    "impostor: a turn added", wrap=lambda m: m.altered(lambda z, phi: phi + 0.1 * turned(z))
)
library_is_a_mirror_map.mutant(
    "impostor: Lipschitz, not monotone", wrap=lambda m: m.altered(lambda z, phi: -phi)
)


@claim.check("property", about="printed", part="mirror")
def library_descends(run: Run, *, factor: float = 1.99) -> None:
    """The library's solver with alpha = 1.99/(L_f L), L from the certificate: the loss never
    rises.
    """

    @for_all(seed=seeds(), extreme=st.booleans())
    def _(seed: int, extreme: bool) -> None:
        map = potentials.extreme_ridge(1.0) if extreme else potentials.ridge(seed % 1000, 0.5)
        target = 0 * map.random("ra1", "t", seed) if extreme else map.random("ra1", "t", seed)

        def f(phi):
            ripple = 0.25 * torch.cos(2 * (phi - target)).sum() * (not extreme)
            return 0.5 * (phi - target).square().sum() + ripple

        alpha = factor / (potentials.certificate(map)[1] * (1.0 if extreme else 2.0))
        start = 1e-3 * map.random("ra1", "s", seed) if extreme else map.random("ra1", "s", seed)
        points = descend(f, start, task_lr=alpha, n_steps=4, geometry=Geometry(map=OnVector(map)))
        values = [float(f(phi)) for phi in points]
        run.that(all(b <= a + 1e-12 * abs(a) for a, b in pairwise(values)), f"losses {values}")


library_descends.mutant("alpha = 2.1/(L_f L)", factor=2.1)

ROOT = sp.sqrt(2)
FUNCTIONAL = (
    ((sp.Integer(0), sp.Integer(0)), -sp.Rational(1, 4)),
    ((ROOT - 1, sp.Integer(0)), ROOT / 8),
    ((sp.Integer(0), ROOT - 1), ROOT / 8),
    ((-HALF, -HALF), (2 - ROOT) / 4),
    ((1 / ROOT, 1 / ROOT), -(ROOT - 1) / 4),
    ((-sp.Integer(1), sp.Integer(0)), -(2 - ROOT) / 8),
    ((sp.Integer(0), -sp.Integer(1)), -(2 - ROOT) / 8),
)
"""Points of the unit disc with weights."""


def positive(x: sp.Expr) -> sp.Expr:
    """max(0, x) for a number of Q(sqrt 2)."""
    x = sp.radsimp(sp.expand(x))
    return x if x > 0 else sp.Integer(0)


def applied(function: Callable[[tuple[sp.Expr, sp.Expr]], sp.Expr], functional: tuple) -> sp.Expr:
    """sum_i nu_i f(z_i), exactly."""
    return sp.radsimp(sp.expand(sum(weight * function(z) for z, weight in functional)))


@claim.check("exact", about="printed", part="zonoid", covers="all")
def no_ridge_sum_comes_near(run: Run, *, functional: tuple = FUNCTIONAL) -> None:
    """In Q(sqrt 2): the functional kills affine functions, is <= 0 at all 42 rays of (w, b), and
    sees the triangle.
    """
    for name, function in (("1", lambda z: 1), ("z_1", lambda z: z[0]), ("z_2", lambda z: z[1])):
        run.zero(applied(function, functional), f"value on {name}")
    run.zero(sum(sp.Abs(weight) for _, weight in functional) - 1, "total variation")
    run.that(
        all(sp.simplify(x**2 + y**2) <= 1 for (x, y), _ in functional), "points of the unit disc"
    )
    for ((x, y), _), ((u, v), _) in combinations(functional, 2):
        for sign in (
            1,
            -1,
            # F(w, b) is linear on the cones of the arrangement w.z_i = b; these are their extreme
            # rays
        ):
            w = (sign * (v - y), sign * (x - u))
            ridge = applied(
                lambda z, w=w, at=(x, y): positive(w[0] * (z[0] - at[0]) + w[1] * (z[1] - at[1])),
                functional,
            )
            run.that(ridge <= 0, f"value {ridge} on a ridge through {(x, y)} and {(u, v)}")
    value = applied(
        lambda z: positive(z[0] + positive(z[1] - z[0])), functional
    )  # max(0, max(z_1, z_2))
    run.zero(value - (2 - ROOT) / 8, "value on the triangle")
    run.quantity(
        "least sup-error of ridge sums, max(0,z1,z2), unit disc", value, meaning="(2 - sqrt 2)/8"
    )
    z1, z2 = sp.symbols("z1 z2", real=True)
    for a, b in ((3, -2), (-1, 5), (2, 2)):
        sides = sp.Max(abs(z1), abs(z2)) - (abs(z1 + z2) + abs(z1 - z2)) / 2
        run.zero(sides.subs({z1: a, z2: b}), "max(|z1|, |z2|) is a sum of two ridges")


no_ridge_sum_comes_near.mutant(
    "the square's functional", functional=tuple(((-x, y), w) for (x, y), w in FUNCTIONAL)
)
no_ridge_sum_comes_near.mutant(
    "a point moved",
    functional=(
        *FUNCTIONAL[:3],
        ((-sp.Rational(3, 5), -sp.Rational(3, 5)), FUNCTIONAL[3][1]),
        *FUNCTIONAL[4:],
    ),
)
no_ridge_sum_comes_near.mutant(
    "weights changed in sign", functional=tuple((z, -w) for z, w in FUNCTIONAL)
)


@claim.check("certificate", about="printed", part="zonoid", covers="samples")
def a_ridge_sum_comes_as_near(run: Run, *, offsets: int = 7) -> None:
    """Linear programs: 12 directions x 7 offsets reach (2 - sqrt 2)/8 on the whole disc; other
    dictionaries stall above.
    """
    limit = (2 - math.sqrt(2)) / 8
    grid = ridges.polar(8, 24)
    _, fit = ridges.best_fit(ridges.triangle, angles=12, offsets=offsets, points=grid)
    run.close(ridges.sup_error(fit), limit, tolerance=1e-9, what="sup-error over the disc")
    run.quantity(
        "sup-error of six to eight ridges on the unit disc",
        ridges.sup_error(fit),
        tolerance=1e-9,
        meaning="attained",
    )
    for angles, levels in ((8, 5), (16, 9), (24, 11)):
        error, fit = ridges.best_fit(ridges.triangle, angles=angles, offsets=levels, points=grid)
        run.above(ridges.sup_error(fit), limit, what="sup-error of another dictionary")
        run.quantity(
            f"LP on a coarse grid, {angles} x {levels} ridges",
            error,
            tolerance=1e-6,
            meaning="below its sup over the disc",
        )
    error, _ = ridges.best_fit(ridges.square, angles=8, offsets=1, points=grid)
    run.quantity(
        "LP for max(|z1|, |z2|)",
        error,
        tolerance=1e-9,
        theory=0.0,
        meaning="a zonotope: fitted exactly",
    )


a_ridge_sum_comes_as_near.mutant("3 offsets", offsets=3)


def curvature(t: np.ndarray) -> np.ndarray:
    """1 on [0, 1] and [4, 5], 0 on [2, 3], linear between."""
    return np.interp(t, [0, 1, 2, 3, 4, 5], [1.0, 1.0, 0.0, 0.0, 1.0, 1.0])


def integrated(points: np.ndarray) -> np.ndarray:
    """The function with this curvature (L - mu = 1)."""
    t = np.linspace(0, 5, 5001)
    slope = np.concatenate(
        [[0.0], np.cumsum((curvature(t)[1:] + curvature(t)[:-1]) / 2 * np.diff(t))]
    )
    value = np.concatenate([[0.0], np.cumsum((slope[1:] + slope[:-1]) / 2 * np.diff(t))])
    return np.interp(points, t, value)


@claim.check("certificate", about="printed", part="budget", covers="samples")
def budget_is_a_limit(run: Run, *, budget: float | None = 1.0) -> None:
    """d = 1, L - mu = 1: sum of peak curvatures <= 1 leaves an error of .09, a free budget 1e-4;
    below, the exact reason.
    """
    points = np.linspace(0, 5, 201)
    centres, sharpness = np.linspace(-2, 7, 55), [0.01, 0.1, 0.3, 0.6, 1.0, 2.0, 4.0, 8.0]
    t = np.concatenate([s * (points[:, None] - centres) for s in sharpness], axis=1)
    bumps = (np.logaddexp(t, -t) - math.log(2)) / np.repeat(
        np.square(sharpness), len(centres)
    )  # second derivative sech^2
    free = np.stack([np.ones_like(points), points], axis=1)
    tight, _ = ridges.chebyshev(bumps, free, integrated(points), budget=budget)
    loose, _ = ridges.chebyshev(bumps, free, integrated(points))
    run.close(tight, 0.09, tolerance=0.005, what="error at the budget")
    run.at_most(loose, 2e-4, what="error without one")
    run.quantity(
        "sup-error at the budget L - mu",
        tight,
        tolerance=1e-3,
        theory=0.09,
        meaning="log-cosh units, LP over a dictionary",
    )
    run.quantity("sup-error with a free budget", loose, tolerance=2e-5, meaning="the same units")


budget_is_a_limit.mutant("no budget", budget=None)
budget_is_a_limit.mutant("twice the budget", budget=2.0)


@claim.check("exact", about="printed", part="budget")
def budget_argument(run: Run, *, share: sp.Rational = HALF) -> None:
    """min(p, q) >= p + q - 1 on [0, 1]; so curvature 1 - e on both sides leaves 1 - 2e between,
    where it should be 0.
    """
    left, right, e = sp.symbols("p q e", nonnegative=True)
    run.that(
        all(min(p, q) >= p + q - 1 for p in (0, share, 1) for q in (0, share, 1)),
        "min(p, q) >= p + q - 1",
    )
    middle = (left + right - 1).subs({left: 1 - e, right: 1 - e})
    run.zero(middle - (1 - 2 * e), "sum of a_k min(p_k, q_k) >= (1 - e) + (1 - e) - 1")
    run.above(
        float(middle.subs(e, share / 2)), 0.0, what="curvature at 5/2 where the target has none"
    )


budget_argument.mutant("an error of one in the curvature", share=sp.Integer(1))
