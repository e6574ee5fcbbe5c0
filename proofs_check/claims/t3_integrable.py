r"""T3: a BlockIAF is a gradient map iff all its conditioners are constant, and mirror descent with
it then *is* Meta-SGD.

*Proof of "only if"* (continuous conditioners). Let $g=\nabla H$, $a,a'$ two prefixes of the last
block, $y,y'$ two values of its coordinate $c$. The circulation of $g$ around the rectangle with
sides $a'a$ and $yy'$ is zero. $g_{<B}$ does not depend on $y$, so the two sides along $a'a$ cancel;
the others leave $(s_c(a)-s_c(a'))\frac{y'^2-y^2}2+(\mu_c(a)-\mu_c(a'))(y'-y)=0$ for all $y,y'$: so
$s_c,\mu_c$ are constant. Subtract $\sum_c(\frac{s_c}2y_c^2+\mu_cy_c)$ from $H$ and go on with $B-1$
blocks. *"If"*: $H=\sum_c\frac{s_c}2z_c^2+\mu_cz_c$.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import sympy as sp
import torch
from hypothesis import strategies as st
from torch import Tensor

from mdtheory.geometry.base import Geometry, geometries
from mdtheory.inner.solver import solve
from mdtheory.maps.iaf.base import Scale
from proofs_check.claim import Claim, Formula, Statement, Verdict
from proofs_check.run import Run
from proofs_check.tools import iaf
from proofs_check.tools.iaf import Flat
from proofs_check.tools.models import problem_of
from proofs_check.tools.strategies import for_all, numbers, orthogonal, seeds

_S, _Z, _PHI, _MU = (
    sp.Symbol("s_c", positive=True),
    sp.Symbol("z_c", real=True),
    sp.Symbol(r"\phi_c", real=True),
    sp.Symbol(r"\mu_c", real=True),
)
POTENTIAL = Formula(
    left=sp.Symbol("H_c"),
    relation="==",
    right=_S * _Z**2 / 2 + _MU * _Z,
    text=r"H=\sum_cH_c,\ {formula};\quad h=H^*=\sum_c{conjugate}",
    terms={"conjugate": (_PHI - _MU) ** 2 / (2 * _S)},
)
_ALPHA = sp.Symbol(r"\alpha", positive=True)
METASGD = Formula(
    left=sp.Symbol(r"\phi^k_c"),
    relation="==",
    right=sp.Symbol(r"\phi^{k-1}_c") - _ALPHA * _S * sp.Symbol(r"\partial_cf(\phi^{k-1})"),
    text=r"{formula}:\ \text{Meta-SGD with rates }{rate},\text{ between zero and }\alpha\sup\sigma"
    r";\ \mu\text{ is absorbed in }\phi^0",
    terms={"rate": _ALPHA * _S},
)

claim = Claim(
    id="T3",
    title="BlockIAF is a gradient map iff it is Meta-SGD",
    source="Theorem, for the poster's 'grad h* = g is a desirable choice'",
    printed=Statement(
        given={
            "map": r"[g(z)]_i=s_i(z_{<i})\odot z_i+\mu_i(z_{<i}),\ s_i>0,\ \mu_i\text{ continuous}",
            "smooth": r"\text{for (preconditioner): the last block's scale is differentiable}",
        },
        then=(
            r"g=\nabla H\text{ for some }H\in C^1(\mathbb R^d)\iff\text{all }s_i,\mu_i\text{ are "
            r"constant}"
        ),
        parts={
            "only_if": r"g=\nabla H\Rightarrow s_i,\mu_i\text{ constant}",
            "if": POTENTIAL,
            "metasgd": METASGD,
            "preconditioner": r"\text{last scale not constant}\Rightarrow\text{no fixed }Q\succ0"
            r"\text{ makes }J_g(z)Q"
            r"\text{ symmetric for all }z",
        },
    ),
    expected=Verdict("HOLDS", "PROVED"),
    remark="Gains cannot be credited to an exact Bregman geometry unless trained conditioners are "
    "constant; how near g is to "
    "a gradient field must be measured.",
)

S, R = sp.symbols("s r", positive=True)
MU, NU, Y, W = sp.symbols("mu nu y w", real=True)


def circulation(s: sp.Expr, r: sp.Expr) -> sp.Expr:
    """Around the rectangle: the sides at a and a' (scales s and r, shifts mu and nu); those along
    the prefix cancel.
    """
    t = sp.Symbol("t", real=True)
    return sp.integrate(s * t + MU, (t, Y, W)) - sp.integrate(r * t + NU, (t, Y, W))


@claim.check("certificate", about="printed", part="only_if")
def circulation_forces_constants(run: Run, *, around: Callable[..., sp.Expr] = circulation) -> None:
    """As a polynomial in y, y' the circulation has the coefficients (s - s')/2 and mu - mu': all
    zero iff both are constant.
    """
    polynomial = sp.Poly(sp.expand(around(S, R)), Y, W)
    run.zero(polynomial.coeff_monomial(W**2) - (S - R) / 2, "coefficient of y'^2")
    run.zero(polynomial.coeff_monomial(W) - (MU - NU), "coefficient of y'")
    solution = sp.solve(polynomial.coeffs(), [R, NU], dict=True)
    run.that(
        solution == [{R: S, NU: MU}],
        "the circulation vanishes for all y, y' only if s = s' and mu = mu'",
    )


circulation_forces_constants.mutant(
    "the shifts forgotten", around=lambda s, r: circulation(s, r).subs({MU: 0, NU: 0})
)
circulation_forces_constants.mutant(
    "one side counted twice", around=lambda s, r: circulation(s, r) + circulation(0, r)
)


def as_is(map: Flat) -> Flat:
    """The library's map."""
    return map


def around_last_block(map: Flat, a: Tensor, b: Tensor, y: float, w: float) -> tuple[float, float]:
    """The circulation around the rectangle, exactly (g is affine on two sides, the others cancel),
    and s(a) - s(a').
    """
    last, before = list(map.blocks[-1]), [c for block in map.blocks[:-1] for c in block]
    corners = {}
    for name, prefix in (("a", a), ("b", b)):
        for level in (y, w):
            z = torch.zeros_like(a)
            z[before] = prefix[before]
            z[last[0]] = level
            corners[name, level] = map.at(z)
    slide = max(float((corners[n, w] - corners[n, y])[before].abs().max()) for n in "ab")
    c = last[0]
    side = {n: (corners[n, y][c] + corners[n, w][c]) / 2 * (w - y) for n in "ab"}
    gap = float((corners["a", w] - corners["a", y] - corners["b", w] + corners["b", y])[c]) / (
        w - y
    )
    return float(side["a"] - side["b"]) if slide == 0 else math.nan, gap


@claim.check("property", about="printed", part="only_if")
def live_conditioners_circulate(run: Run, *, wrap: Callable[[Flat], Flat] = as_is) -> None:
    """Both forms with live conditioners: the circulation is not zero at two sizes of rectangle, and
    J is not symmetric.
    """

    @for_all(map=iaf.block_maps(min_blocks=2), seed=seeds())
    def _(map: Flat, seed: int) -> None:
        map, a, b = wrap(map), map.random("t3", "a", seed), map.random("t3", "b", seed)
        iaf.alive(run, map, a)
        found = [around_last_block(map, a, b, 0.0, w) for w in (1.0, 2.0)]
        gap = found[0][1]
        run.close(
            found[1][0] - 2 * found[0][0],
            gap,
            tolerance=1e-9 * (1 + abs(found[1][0])),
            what="circulation(2) - 2 circulation(1)",
        )
        run.above(max(abs(value) for value, _ in found), 1e-13, what="circulation")
        jacobian = map.jacobian(a)
        run.above(float((jacobian - jacobian.T).abs().max()), 1e-13, what="asymmetry of J")


live_conditioners_circulate.mutant(
    "dead conditioners", wrap=lambda m: m.altered(lambda z, _: 2 * z)
)
live_conditioners_circulate.mutant(
    "impostor: a gradient", wrap=lambda m: m.altered(lambda z, _: z + torch.tanh(z.sum()))
)


@claim.check("symbolic", about="printed", part="if")
def constants_are_a_gradient(
    run: Run, *, potential: Callable[..., sp.Expr] = lambda z, s, m: s * z**2 / 2 + m * z
) -> None:
    """H' = s z + mu, h(phi) = phi z - H(z) = (phi - mu)^2/(2 s) at z = (phi - mu)/s, h' = g^{-1},
    h'' = 1/s > 0.
    """
    z, phi, s, m = sp.Symbol("z", real=True), sp.Symbol("phi", real=True), S, MU
    run.zero(sp.diff(potential(z, s, m), z) - (s * z + m), "H' - g")
    back = (phi - m) / s
    h = phi * back - potential(back, s, m)
    run.zero(h - (phi - m) ** 2 / (2 * s), "h")
    run.zero(sp.diff(h, phi) - back, "h' - g^-1")
    run.that(sp.diff(h, phi, 2).is_positive, "h'' > 0")


constants_are_a_gradient.mutant(
    "H without the factor 1/2", potential=lambda z, s, m: s * z**2 + m * z
)
constants_are_a_gradient.mutant("H without the shift", potential=lambda z, s, m: s * z**2 / 2)


@claim.check("property", about="printed", part="if")
def library_constants_are_symmetric(run: Run, *, wrap: Callable[[Flat], Flat] = iaf.frozen) -> None:
    """Both forms with the decoders' last weights zero: J = diag(s), the same everywhere."""

    @for_all(map=iaf.block_maps(min_blocks=2), seed=seeds())
    def _(map: Flat, seed: int) -> None:
        map = wrap(map)
        first, second = (map.jacobian(map.random("t3", part, seed)) for part in ("c", "d"))
        run.that(torch.equal(first, torch.diag(first.diagonal())), "J is not diagonal")
        run.close(first, second, tolerance=1e-14 * float(first.abs().max()), what="J depends on z")
        run.above(float(first.diagonal().min()), 0.0, what="smallest scale")


library_constants_are_symmetric.mutant("live conditioners", wrap=as_is)
library_constants_are_symmetric.mutant(
    "impostor: monotone, not a gradient",
    wrap=lambda m: iaf.frozen(m).altered(lambda z, phi: phi + iaf.turned(z)),
)


def loss_of(target: Tensor) -> Callable[[Tensor], Tensor]:
    """A nonconvex loss of the flattened parameters."""
    return lambda phi: (
        0.5 * (phi - target).square().sum() + torch.cos(2 * phi).sum() + 0.3 * torch.sin(phi.sum())
    )


def trajectory(
    geometry: Geometry, like: Tensor, start: Tensor, loss: Callable, *, task_lr: float, n_steps: int
) -> Tensor:
    """phi^K of a geometry from the state's start. shape: (d,)"""
    problem, meta, posed = problem_of(
        loss, start, task_lr=task_lr, n_steps=n_steps, geometry=geometry
    )
    return problem.point(meta, solve(problem, meta, posed))["phi"]


@claim.check("property", about="printed", part="metasgd")
def same_trajectory_as_metasgd(
    run: Run,
    *,
    wrap: Callable[[Flat], Flat] = iaf.frozen,
    rates: Callable[[Tensor], Tensor] = torch.log,
) -> None:
    """The library's dual iteration with constant conditioners and its Meta-SGD with log-rates log
    s, from the same phi^0.
    """

    @for_all(
        map=iaf.block_maps(), seed=seeds(), task_lr=numbers(0.001, 0.3), n_steps=st.integers(1, 6)
    )
    def _(map: Flat, seed: int, task_lr: float, n_steps: int) -> None:
        z, target, map = map.random("t3", "z", seed), map.random("t3", "t", seed), wrap(map)
        loss, phi = loss_of(target), map.at(z)
        how = {"task_lr": task_lr, "n_steps": n_steps}
        dual = trajectory(Geometry(map=iaf.OnVector(map)), z, z, loss, **how)
        metasgd = geometries.get("metasgd")()
        metasgd.build({"phi": phi})
        metasgd.rule.scale.phi.data = rates(map.jacobian(z).diagonal()).clone()
        other = trajectory(metasgd, phi, phi, loss, **how)
        run.close(
            dual,
            other,
            tolerance=1e-12 * (1 + float(other.abs().max())),
            what=f"phi^{n_steps} of the two",
        )


same_trajectory_as_metasgd.mutant("live conditioners", wrap=as_is)
same_trajectory_as_metasgd.mutant("rates 1/s", rates=lambda s: -torch.log(s))
same_trajectory_as_metasgd.mutant(
    "impostor: a turn added", wrap=lambda m: iaf.frozen(m).altered(lambda z, p: p + iaf.turned(z))
)


@claim.check("exact", about="printed", part="metasgd", covers="all")
def dual_step_is_metasgd(
    run: Run, *, rate: Callable[[sp.Expr, sp.Expr], sp.Expr] = lambda alpha, s: alpha * s
) -> None:
    """g(z - alpha u) = phi - alpha s u whatever mu; and the rates' range: s < sup sigma, 1 on the
    poster, 2 in the library.
    """
    alpha, u, z = sp.symbols("alpha u z", real=True)
    run.zero(S * (z - alpha * u) + MU - ((S * z + MU) - rate(alpha, S) * u), "phi^+")
    top = Scale("bounded")(torch.tensor([-800.0, 0.0, 800.0], dtype=torch.float64))
    run.that(
        bool((top >= 0).all()) and float(top[1]) == 1.0, "the library's bounded scale starts at 1"
    )
    run.quantity(
        "sup of rate/alpha, library's bounded scale",
        float(top[2]),
        tolerance=1e-12,
        theory=2.0,
        meaning="s in (0, 2)",
    )
    poster = float(iaf.Sigmoid()(torch.tensor(800.0, dtype=torch.float64)))
    run.quantity(
        "sup of rate/alpha, poster's sigmoid",
        poster,
        tolerance=1e-12,
        theory=1.0,
        meaning="s in (0, 1)",
    )


dual_step_is_metasgd.mutant("rate alpha/s", rate=lambda alpha, s: alpha / s)


def general_spd(n: int) -> sp.Matrix:
    """Q = L L^T with a general lower triangular L with positive diagonal."""
    low = sp.zeros(n)
    for i in range(n):
        for j in range(i + 1):
            low[i, j] = sp.Symbol(f"l{i}{j}", **({"positive": True} if i == j else {"real": True}))
    return low * low.T


@claim.check("certificate", about="printed", part="preconditioner")
def no_fixed_preconditioner(run: Run, *, reads_itself: bool = False) -> None:
    """The z_c-coefficient e_c v^T Q of JQ is symmetric only if (Qv)_k = 0 for k != c; with v_c = 0
    and Q > 0, so v = 0.
    """
    n, c = 3, 2
    q, (v1, v2, v3) = general_spd(n), sp.symbols("v1 v2 v3", real=True)
    v = sp.Matrix(
        [v1, v2, v3 if reads_itself else 0]
    )  # the gradient of s_c: it does not read block c
    coefficient = sp.zeros(n)
    coefficient[c, :] = v.T * q
    conditions = [entry for entry in coefficient - coefficient.T if entry != 0]
    solution = sp.solve([sp.expand(entry) for entry in conditions], list(v.free_symbols), dict=True)
    run.that(
        solution == [dict.fromkeys(sorted(v.free_symbols, key=str), 0)],
        f"v = 0 is the only solution: {solution}",
    )
    corner = q.extract([0, 1], [0, 1]).det()
    run.zero(
        corner - (q[0, 0] * q[1, 1] - q[0, 1] ** 2),
        "the system's determinant is a principal minor of Q",
    )


no_fixed_preconditioner.mutant("a scale that reads its own coordinate", reads_itself=True)


@claim.check("property", about="printed", part="preconditioner")
def library_has_no_preconditioner(run: Run, *, wrap: Callable[[Flat], Flat] = as_is) -> None:
    """Both forms, random Q > 0: JQ is not symmetric at every z; moving z_c far shows it."""

    @for_all(data=st.data(), map=iaf.block_maps(min_blocks=2), seed=seeds())
    def _(data: st.DataObject, map: Flat, seed: int) -> None:
        map, d = wrap(map), map.size
        turn = torch.tensor(data.draw(orthogonal(d)))
        spectrum = torch.tensor(np.random.default_rng(seed).uniform(0.2, 5.0, d))
        q = turn @ torch.diag(spectrum) @ turn.T
        z, c = map.random("t3", "q", seed), map.blocks[-1][0]
        lift = torch.zeros(d, dtype=torch.float64)
        lift[c] = 1.0
        both = [map.jacobian(z + t * lift) @ q for t in (0.0, 100.0)]
        asymmetry = max(float((m - m.T).abs().max() / m.abs().max()) for m in both)
        run.above(asymmetry, 1e-10, what="asymmetry of JQ at the worse of two points")


library_has_no_preconditioner.mutant(
    "the identity map with Q", wrap=lambda m: m.altered(lambda z, _: z)
)


@claim.check("symbolic", about="printed", part="if")
def stated_potential(run: Run, *, stated: Formula) -> None:
    """The printed H_c has the derivative s z + mu; the printed h_c is its Legendre transform."""
    slope = sp.diff(stated.right, _Z)
    run.zero(slope - (_S * _Z + _MU), "grad H")
    (z,) = sp.solve(_S * _Z + _MU - _PHI, _Z)
    run.zero(_PHI * z - stated.right.subs(_Z, z) - stated.terms["conjugate"], "h = H^*")


@claim.check("symbolic", about="printed", part="metasgd")
def stated_step(run: Run, *, stated: Formula) -> None:
    """s (z - alpha u) + mu is the printed right side at phi = s z + mu, and the step is the printed
    rate times u.
    """
    u, before = sp.Symbol(r"\partial_cf(\phi^{k-1})"), sp.Symbol(r"\phi^{k-1}_c")
    after = _S * (_Z - _ALPHA * u) + _MU
    run.zero(after - stated.right.subs(before, _S * _Z + _MU), "phi^k")
    run.zero(_S * _Z + _MU - stated.terms["rate"] * u - after, "the rate")
