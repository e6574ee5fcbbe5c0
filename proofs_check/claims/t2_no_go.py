r"""T2: a BlockIAF with a scale that is not constant is neither monotone nor Lipschitz on R^d,
whatever bounds its scales.

*Proof.* Let $\delta=s_c(a')-s_c(a)\ne0$ for a coordinate $c$ of block $i\ge2$. For $z=(a,te_c,0)$,
$z'=(a',(t+\tau)e_c,0)$ only the blocks before $i$ and the coordinate $c$ contribute: $\langle
g(z')-g(z),z'-z\rangle=C_0(a,a')+\tau[t\delta+\tau s_c(a')+\mu_c(a')-\mu_c(a)]$, affine in $t$ with
slope $\tau\delta$: for $\tau=\pm1$ it takes every value. For $\tau=0$,
$g_c(z')-g_c(z)=t\delta+\mu_c(a')-\mu_c(a)$ takes every value too, at the fixed distance $\|a'-a\|$.
If all scales are constant, $g(z)-g(z')=D(z-z')+\mu(z)-\mu(z')$. No differentiability is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import sympy as sp
import torch
from hypothesis import assume, strategies as st
from torch import Tensor

from mdtheory.core.seeding import generator
from proofs_check import formula
from proofs_check.claim import Claim, Formula, Statement, Verdict
from proofs_check.run import Run
from proofs_check.tools import iaf
from proofs_check.tools.iaf import Flat
from proofs_check.tools.models import vector
from proofs_check.tools.strategies import for_all, seeds

_SCALE, _RADIUS = sp.Symbol("s", positive=True), sp.Symbol("R", positive=True)
SHIFT = Formula(
    left=sp.Symbol("|m|", nonnegative=True),
    relation="<=",
    right=2 * _SCALE,
    text=r"g=(sz_1,\ sz_2+mz_1)\text{ monotone}\iff {formula}",
)
STRIP = Formula(
    left=_RADIUS,
    relation="<=",
    right=3 * sp.sqrt(3 * sp.Symbol("s_1", positive=True)),
    text=r"g=(s_1z_1,\ z_2\,\mathrm{sigmoid}(z_1))\text{ monotone on }\mathbb R\times[-R,R]"
    r"\iff {formula}",
)
_C0, _DELTA = sp.symbols(r"C_0 \delta", real=True)
_MOVED = sp.Symbol(r"(\mu_c(a')-\mu_c(a))", real=True)
_AFTER, _ANY = sp.Symbol("s_c(a')", positive=True), sp.Symbol("P", real=True)
MONOTONE = Formula(
    left=sp.Symbol(r"\langle g(z')-g(z),z'-z\rangle"),
    relation="==",
    right=_ANY,
    text=r"s_c(a')\ne s_c(a)\Rightarrow\forall P:\ {formula}\text{ at }t={t}",
    terms={"t": (_ANY - _C0 - _AFTER - _MOVED) / _DELTA},
)
LIPSCHITZ = Formula(
    left=sp.Symbol(r"g_c(z')-g_c(z)"),
    relation="==",
    right=_ANY,
    text=r"s_c(a')\ne s_c(a)\Rightarrow\forall P:\ {formula}\text{ at }t={t},\ "
    r"\|z'-z\|=\|a'-a\|",
    terms={"t": (_ANY - _MOVED) / _DELTA},
)

claim = Claim(
    id="T2",
    title="No BlockIAF with live scales is monotone or Lipschitz",
    source="Theorem, for the poster's Lemma",
    printed=Statement(
        given={
            "map": r"[g(z)]_i=s_i(z_{<i})\odot z_i+\mu_i(z_{<i}),\ s_i>0\text{ (bounded or not)}"
        },
        then=r"g\text{ monotone}\iff\text{all scales constant and }z\mapsto Dz+\mu(z)\text{ "
        r"monotone};\quad "
        r"g\text{ Lipschitz}\iff\text{all scales constant and all }\mu_i\text{ Lipschitz}",
        parts={
            "monotone": MONOTONE,
            "lipschitz": LIPSCHITZ,
            "converse": r"s\text{ constant}\Rightarrow g(z)-g(z')=D(z-z')+\mu(z)-\mu(z')",
            "shift": SHIFT,
            "strip": STRIP,
        },
    ),
    expected=Verdict("HOLDS", "PROVED"),
    remark=(
        "Two independent random points do not find this: see the counts of directed and "
        "undirected pairs."
    ),
)

A, B, T, G, H, MU, NU = sp.symbols("a b t g h mu nu", real=True)  # b, h, nu: at the other point
S, R = sp.symbols("s r", positive=True)
TAU, P = sp.symbols("tau P", real=True)


def product_of(tau: sp.Expr, s: sp.Expr, r: sp.Expr) -> sp.Expr:
    """<g(z') - g(z), z' - z> for z = (a, t), z' = (b, t + tau), first component g, h and scale s, r
    at a, b.
    """
    return (H - G) * (B - A) + (r * (T + tau) + NU - s * T - MU) * tau


def solved(tau: sp.Expr) -> sp.Expr:
    """The t at which the product is P: C_0 + tau [t delta + tau r + nu - mu] = P."""
    return (P - (H - G) * (B - A) - tau * (tau * R + NU - MU)) / (tau * (R - S))


@claim.check("certificate", about="printed", part="monotone")
def product_takes_every_value(
    run: Run, *, t: Callable[[sp.Expr], sp.Expr] = solved, scales: tuple = (S, R)
) -> None:
    """For arbitrary g(a), g(a'), mu, mu' and s != s': the product equals any prescribed P, so also
    -1; tau = 1 and tau = -1.
    """
    for tau in (sp.Integer(1), sp.Integer(-1)):
        run.zero(
            product_of(tau, *scales).subs(T, t(tau)) - P, f"product at the chosen t, tau = {tau}"
        )
    slope = sp.diff(product_of(TAU, *scales), T)
    run.zero(slope - TAU * (R - S), "slope in t")
    run.quantity(
        "prescribed product",
        product_of(1, S, R).subs(T, solved(1)).subs(P, -1).simplify(),
        meaning="any value will do",
    )


product_takes_every_value.mutant("equal scales", scales=(S, S))
product_takes_every_value.mutant(
    "sign of delta", t=lambda tau: solved(tau).subs({R: S, S: R}, simultaneous=True)
)
product_takes_every_value.mutant(
    "mu' - mu forgotten", t=lambda tau: solved(tau) + (NU - MU) / (R - S)
)


@claim.check("certificate", about="printed", part="lipschitz")
def difference_takes_every_value(run: Run, *, scales: tuple = (S, R)) -> None:
    """tau = 0: g_c(z') - g_c(z) = t delta + mu' - mu equals any P at t = (P - mu' + mu)/delta,
    while z' - z = (a' - a, 0).
    """
    s, r = scales
    difference = r * T + NU - s * T - MU
    run.zero(difference.subs(T, (P - NU + MU) / (R - S)) - P, "difference at the chosen t")


difference_takes_every_value.mutant("equal scales", scales=(S, S))


@claim.check("symbolic", about="printed", part="converse")
def constant_scales(run: Run, *, scale: Callable[[sp.Expr], sp.Expr] = lambda z: S) -> None:
    """With constant scales the difference is D(z - z') + mu(z) - mu(z'): both equivalences can be
    read off.
    """
    mu, (y, w) = sp.Function("mu"), sp.symbols("y w", real=True)
    gap = (scale(A) * y + mu(A)) - (scale(B) * w + mu(B))
    run.zero(gap - (S * (y - w) + mu(A) - mu(B)), "g_2(z) - g_2(z')")


constant_scales.mutant("a scale that reads z_1", scale=lambda z: S * sp.exp(z))


def as_is(map: Flat) -> Flat:
    """The library's map."""
    return map


@claim.check("property", about="printed", part="monotone")
def library_is_not_monotone(run: Run, *, wrap: Callable[[Flat], Flat] = as_is) -> None:
    """Both forms, random partitions and weights, every kind of scale: at the pair of T2 the product
    is -1. Pairs that float64 does not resolve are left out.
    """

    @for_all(map=iaf.block_maps(min_blocks=2), seed=seeds(), tau=st.sampled_from([-1.0, 1.0]))
    def _(map: Flat, seed: int, tau: float) -> None:
        map, a, b = wrap(map), map.random("t2", "a", seed), map.random("t2", "b", seed)
        iaf.alive(run, map, a)
        pair = iaf.directed_pair(map, a, b, tau=tau)
        assume(iaf.resolved(map, pair))
        run.close(
            iaf.inner(map, pair.z, pair.other),
            -1.0,
            tolerance=1e-3,
            what="<g(z') - g(z), z' - z> + 1",
        )


library_is_not_monotone.mutant(
    "impostor: monotone, not a gradient", wrap=lambda m: m.altered(lambda z, _: z + iaf.turned(z))
)
library_is_not_monotone.mutant("dead conditioners", wrap=lambda m: m.altered(lambda z, _: 2 * z))
library_is_not_monotone.mutant(
    "a shift that is not affine", wrap=lambda m: m.altered(lambda z, phi: phi + torch.sin(z))
)


@claim.check("property", about="printed", part="lipschitz")
def library_is_not_lipschitz(run: Run, *, wrap: Callable[[Flat], Flat] = as_is) -> None:
    """Same maps: a difference quotient above 1000, at prefixes a moderate distance apart."""

    @for_all(map=iaf.block_maps(min_blocks=2), seed=seeds())
    def _(map: Flat, seed: int) -> None:
        map, a, b = wrap(map), map.random("t2", "c", seed), map.random("t2", "d", seed)
        pair = iaf.directed_pair(map, a, b)
        far, last = 2e3 / abs(pair.delta), list(map.blocks[-1])
        z, other = map.random("t2", "e", seed), map.random("t2", "f", seed)
        lift = (pair.other - pair.z) * torch.isin(torch.arange(map.size), torch.tensor(last))
        z, other = a.clone(), b.clone()
        z[last] = other[last] = far * float(torch.linalg.vector_norm(a - b)) * lift[last]
        run.above(iaf.ratio(map, z, other), 1e3, what="difference quotient")


library_is_not_lipschitz.mutant(
    "impostor: Lipschitz, not monotone", wrap=lambda m: m.altered(lambda z, _: z - 2 * z.roll(1))
)


def undirected(draw: torch.Generator, size: int) -> tuple[Tensor, Tensor]:
    """Two independent normal points."""
    return tuple(torch.randn(2, size, generator=draw, dtype=torch.float64))


def directed(draw: torch.Generator, size: int) -> tuple[Tensor, Tensor]:
    """T2 without solving: normal prefixes, z_c = t with |t| log-uniform in [1, 10^6], tau = +-1
    (last block: c).
    """
    z, other = undirected(draw, size)
    u = torch.rand(3, generator=draw, dtype=torch.float64)
    t = 10 ** (6 * u[0]) * torch.sign(u[1] - 0.5)
    z[-1], other[-1] = t, t + torch.sign(u[2] - 0.5)
    return z, other


def found(
    map: Flat, pairs: Callable[..., tuple[Tensor, Tensor]], draws: int = 150
) -> tuple[int, int]:
    """How many of 150 pairs show that the map is not monotone, and how many a difference quotient
    above 10.
    """
    draw = generator("proofs", "t2", "pairs")
    drawn = [pairs(draw, map.size) for _ in range(draws)]
    return sum(iaf.inner(map, *p) < 0 for p in drawn), sum(iaf.ratio(map, *p) > 10 for p in drawn)


@claim.check("experiment", about="printed", part="monotone")
def sampling_must_be_directed(
    run: Run,
    *,
    blind: Callable = undirected,
    sharp: Callable = directed,
    make: Callable[..., Flat] = iaf.mlp,
) -> None:
    """150 undirected pairs refute nothing on the library's MLP form; 150 directed ones refute both
    properties many times.
    """
    map = make([[0], [1], [2]], seed=0, size=0.2)
    iaf.alive(run, map, map.random("t2", "alive"))
    for name, pairs, few in (("undirected", blind, True), ("directed", sharp, False)):
        counts = found(map, pairs)
        for what, count in zip(("not monotone", "quotient > 10"), counts, strict=True):
            run.that(
                count == 0 if few else count >= 20, f"{name} pairs that show {what}: {count} of 150"
            )
            run.quantity(
                f"{name} pairs of 150: {what}",
                count,
                meaning="library's MLP form, B = 3, random weights",
            )


sampling_must_be_directed.mutant("undirected pairs only", sharp=undirected)
sampling_must_be_directed.mutant("directed pairs called undirected", blind=directed)
sampling_must_be_directed.mutant(
    "impostor: monotone, not a gradient",
    make=lambda blocks, **_: iaf.flat(iaf.Linear(torch.eye(3, dtype=torch.float64)), 3),
)


@claim.check("exact", about="printed", part="shift")
def shift_threshold(
    run: Run, *, threshold: Callable[[Fraction], Fraction] = lambda s: 2 * s
) -> None:
    """sym J = [[s, m/2], [m/2, s]] has determinant s^2 - m^2/4: exact rationals, and the library's
    map at the worst pair.
    """
    s, m = sp.symbols("s m", positive=True)
    run.zero(sp.Matrix([[s, m / 2], [m / 2, s]]).det() - (2 * s - m) * (2 * s + m) / 4, "det sym J")
    for scale in (Fraction(1, 4), Fraction(1, 2), Fraction(3)):
        for factor in (Fraction(1, 2), Fraction(1), Fraction(257, 256)):
            slope = factor * threshold(scale)
            product = Fraction(
                iaf.inner(
                    iaf.shifted(float(slope), float(scale)), vector(0.0, 0.0), vector(1.0, -1.0)
                )
            )
            run.that(product == 2 * scale - slope, "the library's product is 2 s - m, exactly")
            run.that(
                (product >= 0) == (factor <= 1), f"sign at m = {factor} of the threshold: {product}"
            )
    run.quantity(
        "largest |m|/s of a monotone linear shift",
        threshold(Fraction(1)),
        theory=2,
        meaning="sym J >= 0 iff |m| <= 2 s",
    )


shift_threshold.mutant("|m| <= s", threshold=lambda s: s)
shift_threshold.mutant("|m| <= 4 s", threshold=lambda s: 4 * s)


@claim.check("exact", about="printed", part="strip", covers="all")
def strip_threshold(
    run: Run, *, radius: Callable[[sp.Expr], sp.Expr] = lambda s: 3 * sp.sqrt(3 * s)
) -> None:
    """sym J >= 0 iff z_2^2 p (1-p)^2 <= 4 s_1, and 4 - 27 p (1-p)^2 = (1-3p)^2 (4-3p) >= 0 with
    equality at p = 1/3 only.
    """
    p, s, z2 = sp.symbols("p s z", positive=True)
    slope = z2 * p * (1 - p)  # d g_2 / d z_1, since sigmoid' = p (1 - p)
    run.zero(
        sp.Matrix([[s, slope / 2], [slope / 2, p]]).det()
        - p * (4 * s - z2**2 * p * (1 - p) ** 2) / 4,
        "det sym J",
    )
    run.zero(4 - 27 * p * (1 - p) ** 2 - (1 - 3 * p) ** 2 * (4 - 3 * p), "the factorisation")
    run.zero(radius(s) ** 2 * sp.Rational(4, 27) - 4 * s, "the largest R")
    critical = float(sp.log(sp.Rational(1, 3) / (1 - sp.Rational(1, 3))))  # p = 1/3
    for first in (0.25, 0.5):
        map, top = iaf.gated(first), float(radius(sp.Float(first)))
        for factor, sign in ((0.999, 1), (1.001, -1)):
            value = iaf.least(map.jacobian(vector(critical, factor * top)))
            run.above(sign * value, 0.0, what=f"lambda_min of sym J at z_2 = {factor} R")
        for z1 in torch.linspace(-6.0, 6.0, 41):
            run.at_most(
                -iaf.least(map.jacobian(vector(float(z1), top))),
                0.0,
                slack=1e-12,
                what=f"inside the strip, z_1 = {float(z1)}",
            )
    run.quantity(
        "R of the strip, s_1=1/2",
        radius(sp.Rational(1, 2)),
        theory=1.5 * math.sqrt(6),
        meaning="3 sqrt(3 s_1)",
    )
    run.quantity(
        "critical z_1 of the strip",
        critical,
        tolerance=1e-12,
        theory=-math.log(2),
        meaning="-log 2",
    )
    zeros = sp.solve(4 - 27 * p * (1 - p) ** 2, p)
    run.quantity("critical p of the strip", min(zeros), meaning="sigmoid of the critical z_1")


strip_threshold.mutant("3 sqrt(s_1)", radius=lambda s: 3 * sp.sqrt(s))
strip_threshold.mutant("2 sqrt(3 s_1)", radius=lambda s: 2 * sp.sqrt(3 * s))


@claim.check("exact", about="printed", part="monotone")
def minimal_counterexample(run: Run, *, slope: float = 2.0) -> None:
    """s = 1/2, mu_2 = 2 z_1: <g(1,-1) - g(0,0), (1,-1)> = 1/2 - 3/2 = -1, exactly, and by the MLP
    form with ReLU-like units.
    """
    for map in (iaf.shifted(slope), iaf.shifted_mlp(slope)):
        gap = map.at(vector(1.0, -1.0)) - map.at(vector(0.0, 0.0))
        run.close(gap, vector(0.5, 1.5), tolerance=1e-14, what="g(1,-1) - g(0,0)")
    product = Fraction(iaf.inner(iaf.shifted(slope), vector(0.0, 0.0), vector(1.0, -1.0)))
    run.quantity(
        "<g(1,-1)-g(0,0),(1,-1)> at s=1/2, mu_2=2z_1",
        product,
        theory=-1,
        meaning="negative: not monotone",
    )


minimal_counterexample.mutant("slope 1", slope=1.0)


@claim.check("symbolic", about="printed", part="shift")
def stated_shift(run: Run, *, stated: Formula) -> None:
    """sym J = [[s, m/2], [m/2, s]] has the least eigenvalue s - |m|/2, which vanishes at the
    printed limit, symbolically; the library's maps on either side of it.
    """
    s = _SCALE
    size = sp.Symbol("m", nonnegative=True)
    least = min(
        sp.Matrix([[s, size / 2], [size / 2, s]]).eigenvals(),
        key=lambda value: value.subs({s: 1, size: 1}),
    )
    run.zero(least.subs(size, stated.right), "least eigenvalue at the limit")
    run.that(sp.diff(least, size).is_negative, "it falls with |m|")
    for scale in (0.5, 1.5):
        for slope in (0.4, 0.99, 1.01, 2.9, 3.1):
            value = iaf.least(iaf.shifted(slope, scale).jacobian(vector(0.0, 0.0)))
            run.decides(stated, {"|m|": slope, "s": scale}, value >= 0)


@claim.check("exact", about="printed", part="strip")
def stated_strip(run: Run, *, stated: Formula) -> None:
    """The library's gated maps at the critical z_1 = -log 2, just inside and outside the printed
    radius, decide as it says.
    """
    for first in (0.25, 0.5):
        for share in (0.4, 0.7, 0.999, 1.001, 1.3):
            edge = share * 3 * (3 * first) ** 0.5
            value = iaf.least(iaf.gated(first).jacobian(vector(-math.log(2), edge)))
            run.decides(stated, {"R": edge, "s_1": first}, value >= 0)


claim.kernel("block_iaf_not_monotone", part="monotone", about="printed")
claim.kernel("block_iaf_not_lipschitz", part="lipschitz", about="printed")


def pair_of(t: float, tau: float) -> tuple[Tensor, Tensor, dict[str, float]]:
    """Two points of the library's gated map with prefixes 0 and 1, and the numbers of the
    statement.
    """
    delta = 1 / (1 + math.exp(-1)) - 0.5
    names = {"C_0": 0.5, r"\delta": delta, "s_c(a')": delta + 0.5, r"(\mu_c(a')-\mu_c(a))": 0.0}
    return vector(0.0, t), vector(1.0, t + tau), names


@claim.check("exact", about="printed", part="monotone")
def stated_product(run: Run, *, stated: Formula) -> None:
    """The library's gated map at the printed t gives P = -1, 3 and 1/2."""
    for chosen in (-1.0, 3.0, 0.5):
        _, _, names = pair_of(0.0, 1.0)
        t = float(formula.value(stated.terms["t"], {**names, "P": chosen}))
        z, other, _ = pair_of(t, 1.0)
        found = iaf.inner(iaf.gated(), z, other)
        run.stands(stated, {stated.left: found, "P": chosen}, slack=1e-12)


@claim.check("exact", about="printed", part="lipschitz")
def stated_difference(run: Run, *, stated: Formula) -> None:
    """The same with tau = 0: the difference of the second coordinate."""
    for chosen in (-1.0, 3.0, 100.0):
        _, _, names = pair_of(0.0, 0.0)
        t = float(formula.value(stated.terms["t"], {**names, "P": chosen}))
        z, other, _ = pair_of(t, 0.0)
        found = float(iaf.gated().at(other)[1] - iaf.gated().at(z)[1])
        run.stands(stated, {stated.left: found, "P": chosen}, slack=1e-12)
