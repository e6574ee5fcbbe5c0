r"""T1: what the poster's lemma should say: BlockIAF is a triangular bijection, a P-function, with
log-determinant sum log s.

*Proof.* (p_function) If block $i$ is the first where $z,z'$ differ, the prefixes are equal, so
$s_i,\mu_i$ are, and they cancel: $g_c(z)-g_c(z')=s_c(z_{<i})(z_c-z'_c)$. (bijection)
Back-substitution, block by block; $s>0$. (jacobian) $g_i$ does not depend on later blocks nor,
within block $i$, on any other coordinate than its own; so every principal submatrix is triangular
with entries $s_c>0$ on its diagonal. (inverse) Back-substitution *is* a BlockIAF with scales
$1/s_i$ and shifts $-\mu_i/s_i$; T2 applies to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations, pairwise, product

import sympy as sp
import torch
from hypothesis import assume
from torch import Tensor

from mdtheory.maps.iaf.base import Scale
from proofs_check.claim import Claim, Formula, Statement, Verdict
from proofs_check.run import Run
from proofs_check.tools import iaf
from proofs_check.tools.iaf import Flat
from proofs_check.tools.models import vector
from proofs_check.tools.strategies import for_all, seeds

_SCALE, _STEP = sp.Symbol("s_c(z_{<i})", positive=True), sp.Symbol("z_c-z'_c", real=True)
P_FUNCTION = Formula(
    left=sp.Symbol("(z_c-z'_c)(g_c(z)-g_c(z'))"),
    relation="==",
    right=_SCALE * _STEP**2,
    text=r"i\text{ the first block with }z_i\ne z_i':\ {formula}\ \forall c\in\mathcal B_i",
)
LOG_DET = Formula(
    left=sp.Symbol(r"\log|\det J|"),
    relation="==",
    right=sp.Symbol(r"\sum_c\log s_c"),
    text=r"J=D+N,\ D=\mathrm{diag}(s),\ N\text{ strictly block lower triangular};\ {formula};\ "
    r"\text{all principal minors are positive}",
)
INVERSE = Formula(
    left=sp.Symbol(r"\partial[g^{-1}]_c/\partial\phi_c"),
    relation="==",
    right=1 / sp.Symbol("s_c", positive=True),
    text=r"g^{-1}\text{ is a BlockIAF with scales }{right};\ \text{neither Lipschitz nor monotone "
    r"on }\mathbb R^d\text{ if some scale is not constant}",
)

claim = Claim(
    id="T1",
    title="BlockIAF: triangular bijection, P-function, log-determinant",
    source="Theorem, for the poster's Lemma",
    printed=Statement(
        given={
            "map": (
                r"[g(z)]_i=s_i(z_{<i})\odot z_i+\mu_i(z_{<i}),\ \text{any partition, any "
                r"functions }s_i>0,\ \mu_i"
            ),
            "smooth": r"\text{for (jacobian): }s_i,\mu_i\text{ differentiable}",
        },
        then=(
            r"g\text{ is a bijection of }\mathbb R^d\text{, strictly increasing in the "
            r"lexicographic sense}"
        ),
        parts={
            "p_function": P_FUNCTION,
            "bijection": (
                r"g^{-1}:\ z_i=(\phi_i-\mu_i(z_{<i}))\oslash s_i(z_{<i})\text{ for }i=1,"
                r"\dots,B"
            ),
            "jacobian": LOG_DET,
            "inverse": INVERSE,
        },
    ),
    expected=Verdict("HOLDS", "PROVED"),
    uses=("T2",),
    remark="A floor s >= s_min > 0 bounds 1/s, but does not make the inverse Lipschitz.",
)

Context = Callable[[Sequence[sp.Symbol], int, int], list[sp.Symbol]]


def before(z: Sequence[sp.Symbol], start: int, end: int) -> list[sp.Symbol]:
    """What the conditioners of the block start..end-1 read."""
    return list(z[:start])


def compositions(d: int) -> list[list[tuple[int, int]]]:
    """All partitions of 0..d-1 into consecutive blocks, as (start, end)."""
    found = []
    for cuts in product((False, True), repeat=d - 1):
        ends = [0, *(k + 1 for k, cut in enumerate(cuts) if cut), d]
        found.append(list(pairwise(ends)))
    return found


def conditioner(name: str, c: int, read: Sequence[sp.Symbol]) -> sp.Expr:
    """An arbitrary function of what it reads; a positive one for scales."""
    positive = {"positive": True} if name == "s" else {"real": True}
    return (
        sp.Function(f"{name}{c}", **positive)(*read)
        if read
        else sp.Symbol(f"{name}{c}", **positive)
    )


def symbolic_map(
    z: Sequence[sp.Symbol], blocks: list[tuple[int, int]], context: Context
) -> list[sp.Expr]:
    """g(z) with arbitrary conditioners."""
    return [
        conditioner("s", c, context(z, start, end)) * z[c]
        + conditioner("m", c, context(z, start, end))
        for start, end in blocks
        for c in range(start, end)
    ]


D = 4
Z = sp.symbols(f"z0:{D}", real=True)


@claim.check("symbolic", about="printed", part="p_function")
def prefixes_cancel(run: Run, *, context: Context = before) -> None:
    """All 8 partitions of 4 coordinates into consecutive blocks, arbitrary conditioners: equal
    prefixes cancel, exactly.
    """
    moved = sp.symbols(f"w0:{D}", real=True)
    for blocks in compositions(D):
        g = symbolic_map(Z, blocks, context)
        for start, end in blocks:
            other = [*Z[:start], *moved[start:]]
            gap = [
                value - value.subs(dict(zip(Z, other, strict=True)), simultaneous=True)
                for value in g
            ]
            for c in range(start, end):
                s = conditioner("s", c, Z[:start])
                run.zero(
                    (Z[c] - other[c]) * gap[c] - s * (Z[c] - other[c]) ** 2,
                    f"block {start}..{end - 1} of {blocks}",
                )
                run.that(s.is_positive, "s > 0")


prefixes_cancel.mutant(
    "conditioners read their own block", context=lambda z, start, end: list(z[:end])
)


def back_substitution(phi: Sequence[sp.Expr], blocks: list[tuple[int, int]]) -> list[sp.Expr]:
    """z_i = (phi_i - mu_i(z_<i)) / s_i(z_<i)."""
    z: list[sp.Expr] = []
    for start, end in blocks:
        z += [
            (phi[c] - conditioner("m", c, z[:start])) / conditioner("s", c, z[:start])
            for c in range(start, end)
        ]
    return z


def from_the_point(phi: Sequence[sp.Expr], blocks: list[tuple[int, int]]) -> list[sp.Expr]:
    """A wrong inverse: the conditioners read phi_<i."""
    return [
        (phi[c] - conditioner("m", c, phi[:start])) / conditioner("s", c, phi[:start])
        for start, end in blocks
        for c in range(start, end)
    ]


@claim.check("symbolic", about="printed", part="bijection")
def inverse_undoes(run: Run, *, inverse: Callable[..., list[sp.Expr]] = back_substitution) -> None:
    """g^{-1}(g(z)) = z and g(g^{-1}(phi)) = phi with arbitrary conditioners, for all 8
    partitions.
    """
    for blocks in compositions(D):
        back = inverse(symbolic_map(Z, blocks, before), blocks)
        forth = symbolic_map(inverse(Z, blocks), blocks, before)
        for c in range(D):
            run.zero(sp.expand(back[c]) - Z[c], f"g^-1(g(z)), {blocks}")
            run.zero(sp.expand(forth[c]) - Z[c], f"g(g^-1(phi)), {blocks}")


inverse_undoes.mutant("conditioners of the inverse read phi", inverse=from_the_point)


@claim.check("symbolic", about="printed", part="jacobian")
def jacobian_structure(
    run: Run, *, context: Context = before, volume: Callable[..., sp.Expr] = sp.log
) -> None:
    """Arbitrary differentiable conditioners: J_cc = s_c, zeros above, and every principal minor is
    the product of its s_c.
    """
    for blocks in compositions(D):
        jacobian = sp.Matrix(symbolic_map(Z, blocks, context)).jacobian(sp.Matrix(Z))
        for start, end in blocks:
            for c in range(start, end):
                run.zero(jacobian[c, c] - conditioner("s", c, Z[:start]), f"J_cc, {blocks}")
                for k in range(start, D):
                    run.that(k == c or jacobian[c, k] == 0, f"J_{c}{k} is not zero, {blocks}")
        for size in range(1, D + 1):
            for chosen in combinations(range(D), size):
                minor = jacobian.extract(list(chosen), list(chosen)).det(method="berkowitz")
                run.that(sp.expand(minor).is_positive, f"principal minor {chosen}, {blocks}")
        scales = [jacobian[c, c] for c in range(D)]
        values = dict(zip(scales, map(sp.Rational, (1, 2, 3, 5)), strict=True))
        log_det = sp.log(sp.expand(jacobian.det(method="berkowitz")).subs(values))
        run.zero(
            sp.expand_log(log_det, force=True) - sum(volume(values[s]) for s in scales),
            "log-determinant",
        )


jacobian_structure.mutant(
    "conditioners read the next coordinate", context=lambda z, start, end: list(z[: start + 1])
)
jacobian_structure.mutant("log-determinant sum s", volume=lambda s: s)


def as_is(map: Flat) -> Flat:
    """The library's map."""
    return map


def peeking(map: Flat) -> Flat:
    """Every shift also reads its own block."""

    def change(z: Tensor, phi: Tensor) -> Tensor:
        extra = torch.zeros_like(z)
        for block in map.blocks:
            index = torch.tensor(block)
            extra = extra.index_add(0, index, 0.3 * torch.tanh(z[index].sum()).expand(len(block)))
        return phi + extra

    return map.altered(change)


@claim.check("property", about="printed", part="jacobian")
def library_jacobian(run: Run, *, wrap: Callable[[Flat], Flat] = as_is) -> None:
    """Both conditioner forms, random partitions and weights: exact zeros, positive diagonal, pairs
    of minors, log-det.
    """

    @for_all(map=iaf.block_maps(min_blocks=2), seed=seeds())
    def _(map: Flat, seed: int) -> None:
        z, number, map = map.random("t1", seed, scale=2.0), iaf.number_of(map), wrap(map)
        jacobian = map.jacobian(z)
        iaf.alive(run, map, z)
        forbidden = (number[:, None] <= number[None, :]) & ~torch.eye(map.size, dtype=torch.bool)
        run.that(
            not jacobian[forbidden].any(),
            "an entry on or above the block diagonal is not exactly zero",
        )
        run.above(float(jacobian.diagonal().min()), 0.0, what="smallest scale")
        pairs = (
            jacobian.diagonal().outer(jacobian.diagonal()) - jacobian * jacobian.T
        )  # principal 2 x 2 minors
        run.above(
            float((pairs + torch.eye(map.size)).min()),
            0.0,
            what="smallest principal minor of two coordinates",
        )
        log_det = float(torch.linalg.slogdet(jacobian)[1])
        run.close(
            map.log_abs_det(z), log_det, tolerance=1e-10 * (1 + abs(log_det)), what="log |det J|"
        )


library_jacobian.mutant("conditioners peek at their own block", wrap=peeking)
library_jacobian.mutant(
    "scales without positivity", wrap=lambda map: map.altered(lambda z, phi: -phi)
)
library_jacobian.mutant(
    "impostor: monotone, not triangular",
    wrap=lambda map: map.altered(lambda z, phi: z + iaf.turned(z)),
)
library_jacobian.mutant(
    "a scale that the log-determinant forgets", wrap=lambda map: map.altered(lambda z, phi: 2 * phi)
)
library_jacobian.mutant("dead conditioners", wrap=lambda map: map.altered(lambda z, phi: z))


@claim.check("property", about="printed", part="bijection")
def library_inverse(run: Run, *, wrap: Callable[[Flat], Flat] = as_is) -> None:
    """The library's inverse on both forms, there and back; without overflow."""

    @for_all(map=iaf.block_maps(), seed=seeds())
    def _(map: Flat, seed: int) -> None:
        z, map = map.random("t1", "inverse", seed), wrap(map)
        assume(bool(map.inverse(z).isfinite().all()))
        run.close(
            map.inverse(map.at(z)),
            z,
            tolerance=1e-9 * (1 + float(map.at(z).abs().max())),
            what="g^-1(g(z)) - z",
        )
        run.close(
            map.at(map.inverse(z)),
            z,
            tolerance=1e-9 * (1 + float(map.inverse(z).abs().max())),
            what="g(g^-1(phi)) - phi",
        )


library_inverse.mutant(
    "a shift that the inverse forgets", wrap=lambda map: map.altered(lambda z, phi: phi + 1e-3)
)
library_inverse.mutant("conditioners peek at their own block", wrap=peeking)


@claim.check("property", about="printed", part="p_function")
def library_p_function(run: Run, *, wrap: Callable[[Flat], Flat] = as_is) -> None:
    """Two points that first differ in a random block: on it, the differences have the ratio s_c >
    0, and before it none is.
    """

    @for_all(map=iaf.block_maps(min_blocks=2), seed=seeds())
    def _(map: Flat, seed: int) -> None:
        i = seed % len(map.blocks)
        z, map = map.random("t1", "p", seed), wrap(map)
        changed = [c for block in map.blocks[i:] for c in block]
        other = z.clone()
        other[changed] += map.random("t1", "q", seed, scale=3.0)[changed]
        gap, moved, s = other - z, map.at(other) - map.at(z), map.jacobian(z).diagonal()
        here, earlier = list(map.blocks[i]), [c for block in map.blocks[:i] for c in block]
        run.that(not moved[earlier].any(), "an earlier block moved")
        run.close(
            moved[here],
            (s * gap)[here],
            tolerance=1e-10 * (1 + float(moved.abs().max())),
            what="g_c - g'_c",
        )
        run.above(float((moved * gap)[here].min()), 0.0, what="(z_c - z'_c)(g_c - g'_c)")


library_p_function.mutant("conditioners peek at their own block", wrap=peeking)
library_p_function.mutant(
    "impostor: a rotation", wrap=lambda map: map.altered(lambda z, phi: z + iaf.turned(z))
)


@claim.check("symbolic", about="printed", part="inverse")
def inverse_has_the_form(
    run: Run, *, scale: Callable[[sp.Expr], sp.Expr] = lambda s: 1 / s
) -> None:
    """d z_c / d phi_c = 1/s_c(z_<i), and z_c is affine in phi_c: the inverse is again a BlockIAF,
    for all 8 partitions.
    """
    phi = sp.symbols(f"p0:{D}", real=True)
    for blocks in compositions(D):
        z = back_substitution(phi, blocks)
        for start, end in blocks:
            for c in range(start, end):
                run.zero(
                    sp.diff(z[c], phi[c]) - scale(conditioner("s", c, z[:start])), "dz_c/dphi_c"
                )
                run.that(not any(z[c].has(later) for later in phi[end:]), "reads a later block")


inverse_has_the_form.mutant("scales s in place of 1/s", scale=lambda s: s)


@claim.check("exact", about="printed", part="inverse")
def inverse_slopes(run: Run, *, bounds: tuple[float, float] = (0.5, 1.5)) -> None:
    """Scales in [1/2, 3/2], g = (z_1, s(z_1) z_2): the inverse's slope between phi_1 = 0 and 1
    grows like |phi_2|.
    """
    map = iaf.formula(
        lambda _: (vector(0.0), vector(0.0)), lambda z: (z, 0 * z), scale=Scale(bounds)
    )
    rate = 1 - 1 / (0.5 + 1 / (1 + math.exp(-1)))  # 1/s(0) - 1/s(1)
    for far, theory, tolerance in ((10.0, 2.1, 0.05), (1e3, 188.0, 0.5), (1e5, 18769.0, 0.5)):
        slope = iaf.ratio(map.inverted(), vector(0.0, far), vector(1.0, far))
        run.close(slope, math.hypot(1, rate * far), tolerance=1e-9 * far, what="closed form")
        run.quantity(
            f"inverse slope at |phi_2|={far:g}",
            slope,
            tolerance=tolerance,
            theory=theory,
            meaning="scales in [0.5, 1.5]",
        )


inverse_slopes.mutant("scales in [0.9, 1.1]", bounds=(0.9, 1.1))


FAR = 100.0


@claim.check("property", about="printed", part="inverse")
def library_inverse_by_t2(run: Run, *, wrap: Callable[[Flat], Flat] = as_is) -> None:
    """The pair of T2, made for the library's inverse maps, refutes their monotonicity: the inner
    product is -1. Left out: prefixes whose inverse is far, where the scales saturate, and pairs
    that float64 does not resolve.
    """

    @for_all(map=iaf.block_maps(min_blocks=2), seed=seeds())
    def _(map: Flat, seed: int) -> None:
        back = wrap(map.inverted())
        a, b = map.random("t1", "a", seed), map.random("t1", "b", seed)
        assume(bool(torch.stack([back.at(a), back.at(b)]).abs().max() < FAR))
        pair = iaf.directed_pair(back, a, b)
        assume(iaf.resolved(back, pair))
        run.at_most(
            iaf.inner(back, pair.z, pair.other), -0.9, what="<g^-1(phi') - g^-1(phi), phi' - phi>"
        )


library_inverse_by_t2.mutant(
    "impostor: a linear map", wrap=lambda map: map.altered(lambda z, phi: 2 * z)
)


@claim.check("symbolic", about="printed", part="p_function")
def any_prefix(run: Run, *, shared: bool = True) -> None:
    """Any number of blocks: with equal prefixes the scale and the shift of a coordinate are two
    numbers s > 0 and m, the same at both points.
    """
    s, r = sp.symbols("s r", positive=True)
    m, z, w = sp.symbols("m z w", real=True)
    other = s if shared else r
    run.zero((z - w) * (s * z + m - other * w - m) - s * (z - w) ** 2, "one coordinate")


any_prefix.mutant("another prefix", shared=False)


@claim.check("symbolic", about="printed", part="bijection")
def one_block_more(run: Run, *, order: int = 1) -> None:
    """Induction over blocks: once the prefix a is recovered, s(a) and m(a) are numbers, and (s z +
    m - m)/s = z on both sides.
    """
    a = sp.Symbol("a", real=True)
    s, m = sp.Function("s", positive=True)(a), sp.Function("m", real=True)(a)
    z = sp.Symbol("z", real=True)
    forward = s * z + m
    run.zero((forward - order * m) / s - z, "back after forward")
    run.zero(s * ((z - order * m) / s) + m - z, "forward after back")


one_block_more.mutant("the shift twice", order=2)


@claim.check("symbolic", about="printed", part="jacobian")
def one_coordinate_more(run: Run, *, above: int = 0) -> None:
    """Induction over coordinates: a last row (r, s) under (A, 0) multiplies the determinant by s,
    for a general A; expansion along the last column needs its last entry only.
    """
    old = sp.Matrix(3, 3, sp.symbols("a0:9"))
    s, row = sp.Symbol("s"), sp.Matrix([sp.symbols("r0:3")])
    column = sp.Matrix([above * sp.Symbol("x"), 0, 0])
    new = sp.Matrix(sp.BlockMatrix([[old, column], [row, sp.Matrix([[s]])]]))
    run.zero(sp.expand(new.det() - s * old.det()), "det of one row more")


one_coordinate_more.mutant("a coordinate that is read too early", above=1)
