r"""C26: the poster's Lemma, first half: g is increasing. False for monotone operators and
coordinatewise; true block by block.

*Refutation* in exact rationals: $s\equiv\frac12$, $\mu_2=2z_1$, $\langle
g(1,-1)-g(0,0),(1,-1)\rangle=\frac12-\frac32=-1$; with no shift at all,
$(z_1/2,z_2\,\mathrm{sigmoid}\,z_1)$ fails beyond $|z_2|=3\sqrt{3/2}$. *What is true*: T1
(P-function), T2 (exactly which maps are monotone), T5 (on which sets). The two thresholds follow
from T5's criterion for $B=2$, $|J_{21}|\le2\sqrt{s_1s_2}$.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import sympy as sp
import torch
from hypothesis import assume

from proofs_check.claim import Claim, Statement, Verdict
from proofs_check.claims.t2_no_go import SHIFT, STRIP, stated_shift, stated_strip
from proofs_check.formula import Formula
from proofs_check.run import Run
from proofs_check.tools import iaf
from proofs_check.tools.iaf import Flat
from proofs_check.tools.interval_recheck import recheck
from proofs_check.tools.intervals import Box, Certificate, UndecidedError, certify
from proofs_check.tools.models import vector
from proofs_check.tools.strategies import for_all, seeds

P_FUNCTION = Formula(
    left=sp.Symbol(r"\max_c(z_c-z'_c)(g_c(z)-g_c(z'))", real=True),
    relation=">",
    right=sp.Integer(0),
    text=r"{formula}\text{ for }z\ne z'",
)
CONSTANT = Formula(
    left=sp.Symbol(r"\langle g(z)-g(z'),\Delta\rangle"),
    relation="==",
    right=sp.Symbol(r"\langle D\Delta,\Delta\rangle")
    + sp.Symbol(r"\langle\mu(z)-\mu(z'),\Delta\rangle"),
    text=r"s\text{ constant: }{formula}",
)

claim = Claim(
    id="C26",
    title="Lemma: for any partition g is increasing",
    source="Learning inverse mirror map with a NN model, Lemma",
    printed=Statement(
        given={"map": r"\text{any partition, }\sigma\text{ positive and bounded}"},
        then=r"g\text{ is increasing: }\langle g(z)-g(z'),z-z'\rangle\ge0",
    ),
    amended=Statement(
        given={"map": r"\text{any partition, }\sigma>0"},
        then=(
            r"g\text{ is a P-function; it is monotone iff all scales are constant and }z\mapsto "
            r"Dz+\mu(z)\text{ is}"
        ),
        parts={
            "p_function": P_FUNCTION,
            "constant": CONSTANT,
            "shift": SHIFT,
            "strip": STRIP,
        },
    ),
    expected=Verdict("FALSE", "PROVED"),
    uses=("T1/p_function", "T2", "T5/two"),
)


def identity_map(*_: object, **__: object) -> Flat:
    """An impostor that is monotone."""
    return iaf.flat(iaf.Linear(torch.eye(2, dtype=torch.float64)), 2)


def turn(*_: object, **__: object) -> Flat:
    """An impostor that is monotone and no gradient: the quarter turn."""
    return iaf.flat(iaf.Linear(torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)), 2)


@claim.check("counterexample", about="printed")
def linear_shift(run: Run, *, make: Callable[[float], Flat] = iaf.shifted) -> None:
    """s = 1/2, mu_2 = 2 z_1 through the library's BlockIAF: exactly -1; its MLP form with hand-set
    weights gives the same.
    """
    product = Fraction(iaf.inner(make(2.0), vector(0.0, 0.0), vector(1.0, -1.0)))
    run.that(product == Fraction(1, 2) - Fraction(3, 2), f"the product is {product}, exactly")
    run.close(
        iaf.inner(iaf.shifted_mlp(2.0), vector(0.0, 0.0), vector(1.0, -1.0)),
        -1.0,
        tolerance=1e-14,
        what="MLP form",
    )
    run.quantity("<g(1,-1)-g(0,0),(1,-1)>", product, theory=-1, meaning="s = 1/2, mu_2 = 2 z_1")


linear_shift.mutant("impostor: the identity", make=identity_map)
linear_shift.mutant("impostor: the quarter turn", make=turn)


@claim.check("counterexample", about="printed")
def bounded_scale_no_shift(run: Run, *, make: Callable[[], Flat] = iaf.gated) -> None:
    """(z_1/2, z_2 sigmoid z_1): T2's pair gives -1 although sigma is bounded and there is no shift;
    no derivative is used.
    """
    pair = iaf.directed_pair(make(), vector(0.0, 0.0), vector(-1.0, 0.0))
    run.close(iaf.inner(make(), pair.z, pair.other), -1.0, tolerance=1e-12, what="the product")


bounded_scale_no_shift.mutant("impostor: the identity", make=identity_map)


@claim.check("counterexample", about="printed")
def not_coordinatewise(run: Run, *, slope: float = -1.0) -> None:
    """Reading 'increasing' coordinate by coordinate: mu_2 = -z_1 makes g_2 fall as z_1 rises,
    exactly by 1.
    """
    map = iaf.shifted(slope)
    change = map.at(vector(1.0, 0.0)) - map.at(vector(0.0, 0.0))
    run.that(Fraction(float(change[1])) == -1, f"g_2(1, 0) - g_2(0, 0) = {float(change[1])}")


not_coordinatewise.mutant("mu_2 = z_1", slope=1.0)


def as_is(map: Flat) -> Flat:
    """The library's map."""
    return map


@claim.check("counterexample", about="printed")
def every_live_map_refutes(run: Run, *, wrap: Callable[[Flat], Flat] = as_is) -> None:
    """Both forms of the library, random partitions and weights, conditioners asserted alive: T2's
    pair gives -1, wherever float64 resolves it.
    """

    @for_all(map=iaf.block_maps(min_blocks=2), seed=seeds())
    def _(map: Flat, seed: int) -> None:
        map, a, b = wrap(map), map.random("c26", "a", seed), map.random("c26", "b", seed)
        iaf.alive(run, map, a)
        pair = iaf.directed_pair(map, a, b)
        assume(iaf.resolved(map, pair))
        run.at_most(iaf.inner(map, pair.z, pair.other), -0.99, what="<g(z') - g(z), z' - z>")


every_live_map_refutes.mutant(
    "impostor: monotone, no gradient", wrap=lambda m: m.altered(lambda z, _: z + iaf.turned(z))
)
every_live_map_refutes.mutant("dead conditioners", wrap=lambda m: m.altered(lambda z, _: 2 * z))


@claim.check("property", part="p_function")
def some_coordinate_increases(run: Run, *, wrap: Callable[[Flat], Flat] = as_is) -> None:
    """max_c (z_c - z'_c)(g_c(z) - g_c(z')) > 0, at random pairs, at T2's pairs, and on pairs with
    equal first blocks.
    """

    @for_all(map=iaf.block_maps(min_blocks=2), seed=seeds())
    def _(map: Flat, seed: int) -> None:
        a, b = map.random("c26", "p", seed), map.random("c26", "q", seed)
        pair = iaf.directed_pair(map, a, b)
        same = torch.where(iaf.number_of(map) == 0, a, b)
        for z, other in ((a, b), (pair.z, pair.other), (a, same)):
            products = (wrap(map).at(other) - wrap(map).at(z)) * (other - z)
            run.above(float(products.max()), 0.0, what="the largest coordinate product")


some_coordinate_increases.mutant("impostor: -z", wrap=lambda m: m.altered(lambda z, _: -z))
some_coordinate_increases.mutant(
    "a negative scale in block 1", wrap=lambda m: m.altered(lambda z, phi: phi - 50 * z)
)


@claim.check("symbolic", part="p_function")
def first_block_decides(
    run: Run, *, read: Callable[[sp.Symbol, sp.Symbol], sp.Symbol] = lambda prefix, own: prefix
) -> None:
    """With equal prefixes s and mu are equal numbers: (z - z')(s z + mu - s z' - mu) = s (z - z')^2
    > 0.
    """
    z, w, a = sp.symbols("z w a", real=True)
    s, m = sp.Function("s", positive=True), sp.Function("m", real=True)
    gap = s(read(a, z)) * z + m(read(a, z)) - s(read(a, w)) * w - m(read(a, w))
    run.zero((z - w) * gap - s(a) * (z - w) ** 2, "the product")


first_block_decides.mutant("conditioners peek at their own block", read=lambda prefix, own: own)


@claim.check("symbolic", part="constant")
def constant_scales(
    run: Run, *, scale: Callable[[sp.Expr], sp.Expr] = lambda a: sp.Symbol("s", positive=True)
) -> None:
    """<g - g', Delta> = sum_c s_c Delta_c^2 + <mu - mu', Delta> when the scales are constant."""
    a, b, y, w = sp.symbols("a b y w", real=True)
    s, mu = sp.Symbol("s", positive=True), sp.Function("mu")
    product = (scale(a) * y + mu(a) - scale(b) * w - mu(b)) * (y - w)
    run.zero(
        product - s * (y - w) ** 2 - (mu(a) - mu(b)) * (y - w), "the product of one coordinate"
    )


constant_scales.mutant("scales that read z_1", scale=lambda a: sp.exp(a))


@claim.check("certificate", part="shift")
def shift_threshold(run: Run, *, largest: Callable[[sp.Expr], sp.Expr] = lambda s: 2 * s) -> None:
    """T5: |J_21| <= 2 sqrt(s_1 s_2) = 2 s; and 257/256 of it already fails, exactly, at (1, -1) on
    the library's map.
    """
    s = sp.Symbol("s", positive=True)
    run.zero(2 * sp.sqrt(s * s) - largest(s), "T5's criterion")
    edge = float(largest(sp.Rational(1, 2)))
    for factor, holds in ((Fraction(1), True), (Fraction(257, 256), False)):
        product = Fraction(
            iaf.inner(iaf.shifted(edge * float(factor)), vector(0.0, 0.0), vector(1.0, -1.0))
        )
        run.that((product >= 0) == holds, f"product {product} at {factor} of the threshold")
    run.quantity("threshold |m| at s=1/2", Fraction(edge), theory=1, meaning="|m| <= 2 s")


shift_threshold.mutant("|m| <= s", largest=lambda s: s)
shift_threshold.mutant("|m| <= 3 s", largest=lambda s: 3 * s)


@claim.check("certificate", part="strip")
def strip_threshold(
    run: Run, *, radius: Callable[[sp.Expr], sp.Expr] = lambda s: 3 * sp.sqrt(3 * s)
) -> None:
    """T5: R p (1-p) <= 2 sqrt(s_1 p) for all p: sqrt(p) (1-p) is largest at p = 1/3: R = 3 sqrt(3
    s_1), z_1 = -log 2.
    """
    p, s = sp.symbols("p s", positive=True)
    criterion = sp.sqrt(p) * (1 - p)
    stationary = sp.solve(sp.diff(criterion, p), p)
    run.that(stationary == [sp.Rational(1, 3)], f"stationary p: {stationary}")
    run.zero(2 * sp.sqrt(s) / criterion.subs(p, stationary[0]) - radius(s), "R")
    run.zero(sp.log(stationary[0] / (1 - stationary[0])) + sp.log(2), "z_1 at p = 1/3")
    run.quantity(
        "R at s_1=1/2",
        radius(sp.Rational(1, 2)),
        theory=3.6742346,
        tolerance=1e-6,
        meaning="3 sqrt(3 s_1)",
    )
    run.quantity("critical z_1", -math.log(2), tolerance=1e-12, meaning="-log 2")


strip_threshold.mutant("3 sqrt(s_1)", radius=lambda s: 3 * sp.sqrt(s))
strip_threshold.mutant("2 sqrt(3 s_1)", radius=lambda s: 2 * sp.sqrt(3 * s))


def on_strip(radius: float, map: Flat | None = None, *, max_boxes: int = 600) -> Certificate:
    """Is (z_1, 2 z_2 sigmoid z_1), the library's MLP form, monotone on [-3, 1] x [-R, R]? (Twice
    the map of the claim.)
    """
    chosen = iaf.gated_mlp() if map is None else map
    box = Box((-3.0, -radius), (1.0, radius))
    return certify(chosen.map, box, "monotone", threshold=0.0, max_boxes=max_boxes)


def decided(certificate: Certificate) -> bool | None:
    """True, False, or None where the certificate refuses."""
    try:
        return certificate.decide()
    except UndecidedError:
        return None


@claim.check("certificate", part="strip", covers="exact")
def strip_by_intervals(run: Run, *, edge: float = 1.5 * math.sqrt(6), most: int = 600) -> None:
    """Ball arithmetic decides the strip on either side of R, a second routine agrees, and at R
    itself it refuses.
    """
    inside, outside, at_edge = (
        on_strip(factor * edge, max_boxes=most) for factor in (0.9, 1.05, 1.0)
    )
    run.that(decided(inside) is True, f"monotone at 0.9 R: {decided(inside)}")
    run.that(decided(outside) is False, f"not monotone at 1.05 R: {decided(outside)}")
    run.that(
        decided(at_edge) is None and not at_edge.settled, f"undecided at R: {decided(at_edge)}"
    )
    looked = [recheck(iaf.gated_mlp().map, certificate) for certificate in (inside, outside)]
    run.that(all(looked), "the second routine looked at every box")
    run.quantity(
        "boxes to certify 0.9 R",
        len(inside.leaves),
        meaning="balls of 30 digits, bisected where needed",
    )
    run.quantity(
        "box width at which the search stops at R",
        at_edge.width,
        tolerance=1e-9,
        meaning="it refuses to decide",
    )


strip_by_intervals.mutant("R a fifth too large", edge=1.2 * 1.5 * math.sqrt(6))
strip_by_intervals.mutant("R a fifth too small", edge=0.8 * 1.5 * math.sqrt(6))
strip_by_intervals.mutant("three boxes only", most=3)


@claim.check("exact", part="shift")
def stated_threshold(run: Run, *, stated: Formula) -> None:
    """T2's statement, read by T2's check."""
    stated_shift.function(run, stated=stated)


@claim.check("exact", part="strip")
def stated_radius(run: Run, *, stated: Formula) -> None:
    """T2's statement, read by T2's check."""
    stated_strip.function(run, stated=stated)


@claim.check("property", part="p_function")
def stated_products(run: Run, *, stated: Formula) -> None:
    """The library's gated map between points with equal and with unequal first blocks."""
    map = iaf.gated()
    for z, other in (((0.3, 0.1), (0.3, -0.2)), ((0.5, 3.0), (-0.5, 4.0))):
        gap = vector(*z) - vector(*other)
        products = gap * (map.at(vector(*z)) - map.at(vector(*other)))
        run.stands(stated, {stated.left: float(products.max())})


@claim.check("exact", part="constant")
def stated_split(run: Run, *, stated: Formula) -> None:
    """The library's linear shift s = 1/2, mu_2 = 3 z_1, at two pairs."""
    map = iaf.shifted(3.0)
    for z, other in (((1.0, 2.0), (0.0, -1.0)), ((0.5, -2.0), (2.0, 0.0))):
        gap = vector(*z) - vector(*other)
        at = {stated.left: iaf.inner(map, vector(*other), vector(*z))}
        at[r"\langle D\Delta,\Delta\rangle"] = 0.5 * float(gap @ gap)
        at[r"\langle\mu(z)-\mu(z'),\Delta\rangle"] = 3.0 * float(gap[0] * gap[1])
        run.stands(stated, at, slack=1e-12)
