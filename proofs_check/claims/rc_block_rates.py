r"""RC: one rate per block makes the dual step with any BlockIAF a descent step, where its couplings
are bounded.

*Proof.* $Q=\mathrm{diag}(q_iI)$. With $x_i=\|v_i\|$: $v^\top
JQv\ge\sum_id_iq_ix_i^2-\sum_{j<i}n_{ij}q_jx_ix_j$, and by AM-GM
$n_{ij}q_jx_ix_j\le\frac{d_jq_j}{2(B-1)}x_j^2+\frac{d_iq_i}{2(B-1)}x_i^2$ as soon as
$q_i\ge(B-1)^2n_{ij}^2q_j/(d_id_j)$. Every block is in $B-1$ pairs, so half of the diagonal is left.
T6 then applies to $g(Q\,\cdot)$ with $m=\frac12\min_id_iq_i$, $M=\sup\|JQ\|$.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np
import sympy as sp
import torch
from torch import Tensor

from mdtheory.core import tree
from mdtheory.core.types import Params
from mdtheory.geometry.base import Geometry, GradientStep, StepRule
from mdtheory.geometry.rules import BlockDualStep, block_bounds, block_rates
from mdtheory.inner import Problem, Task, states
from mdtheory.maps.iaf.mlp import MLPIAF
from proofs_check.claim import Claim, Formula, Statement, Verdict
from proofs_check.formula import tex
from proofs_check.run import Run
from proofs_check.tools import iaf
from proofs_check.tools.intervals import Box, entry_bounds
from proofs_check.tools.models import vector
from proofs_check.tools.strategies import for_all, seeds

_B = sp.Symbol("B", integer=True, positive=True)
_N, _D = sp.symbols("n d", positive=True)
PRICE = Formula(
    left=sp.Symbol("q_B"),
    relation="==",
    right=((_B - 1) ** 2 * _N**2 / _D**2) ** (_B - 1),
    text=r"{formula}\text{ for a chain with }{given}:\text{ geometric growth}",
    given={"coupled": sp.Ge((_B - 1) * _N, _D)},
)
_Q, _DI, _DJ, _NIJ = sp.symbols("q_j d_i d_j n_{ij}", positive=True)
_LOW, _BIG, _L = sp.symbols("m M L", positive=True)
RATES = Formula(
    left=sp.Symbol("r_{ij}"),
    relation="==",
    right=(_B - 1) ** 2 * _NIJ**2 * _Q / (_DI * _DJ),
    text=r"q_1={one},\ q_i=\max\{{one},\max_{j<i}r_{ij}\},\ {formula}",
    terms={"one": sp.Integer(1)},
)
DESCENT = Formula(
    left=sp.Symbol(r"\alpha", positive=True),
    relation="<",
    right=2 * _LOW / (_L * _BIG**2),
    text=r"m={half}\min_id_iq_i,\ M=\sup\|JQ\|:\ {formula}\text{ descends (T6)}",
    terms={"half": sp.Rational(1, 2)},
)
RESCUE = Formula(
    left=sp.Symbol("q_2"),
    relation="==",
    right=sp.Integer(64),
    text=r"\text{T7's divergent example converges with }{formula}",
)

claim = Claim(
    id="RC",
    title="Block-wise dual steps rescue BlockIAF on bounded sets",
    source="Repair, for the poster's dual iteration with g",
    printed=Statement(
        given={
            "bounds": r"J_{ii}=D_i\succeq d_iI,\ d_i>0;\ \|J_{ij}\|\le n_{ij}<\infty\ (j<i)"
            r"\text{ on a convex set with every segment }[z^k,z^{k+1}]",
            "loss": r"f\ L\text{-smooth}",
        },
        then=r"z^+=z-\alpha Qu,\ Q=\mathrm{diag}(q_iI):\quad\operatorname{sym}(JQ)\succeq"
        + tex(DESCENT.terms["half"])
        + r"\mathrm{diag}(d_iq_i)\succ0",
        parts={
            "rates": RATES,
            "descent": DESCENT,
            "rescue": RESCUE,
            "price": PRICE,
        },
        scopes={"rescue": "instance"},
    ),
    expected=Verdict("HOLDS", "PROVED"),
    uses=("T6/descent",),
    remark="That the segments stay in the set must be checked along the run.",
)

Rates = Callable[..., Tensor]


@claim.check("certificate", about="printed", part="rates")
def young(run: Run, *, half: sp.Rational = sp.S.Half) -> None:
    """With q_i = (B-1)^2 n^2 q_j/(d_i d_j) the AM-GM gap is a square: (sqrt(d_j q_j) x_j - sqrt(d_i
    q_i) x_i)^2/(2(B-1)).
    """
    n, q, d, e, x, y, b = sp.symbols(
        "n q d e x y B", positive=True
    )  # d, q, x of block j; e, y of block i; b = B - 1
    rate = b**2 * n**2 * q / (d * e)
    gap = half * (d * q / b * x**2 + e * rate / b * y**2) - n * q * x * y
    run.zero(
        sp.expand(gap - (sp.sqrt(d * q) * x - sp.sqrt(e * rate) * y) ** 2 / (2 * b)), "the gap"
    )
    blocks = sp.Symbol("blocks", positive=True)
    run.zero((blocks - 1) * half / (blocks - 1) - half, "B - 1 pairs use half of the diagonal")


young.mutant("a quarter of the diagonal", half=sp.Rational(1, 4))


def random_triangular(
    draw: np.random.Generator, blocks: int
) -> tuple[Tensor, tuple[tuple[int, ...], ...]]:
    """A block lower triangular matrix with positive diagonal, off-diagonal blocks large and of any
    sign.
    """
    sizes = draw.integers(1, 3, blocks)
    ends = np.concatenate([[0], np.cumsum(sizes)])
    index = tuple(tuple(range(a, b)) for a, b in pairwise(ends.tolist()))
    matrix = np.zeros((ends[-1], ends[-1]))
    for i, rows in enumerate(index):
        matrix[rows, rows] = draw.uniform(0.2, 2.0, len(rows))
        for columns in index[:i]:
            matrix[np.ix_(rows, columns)] = 3 * draw.standard_normal((len(rows), len(columns)))
    return torch.tensor(matrix), index


def measured(jacobian: Tensor, blocks: tuple[tuple[int, ...], ...]) -> tuple[Tensor, Tensor]:
    """n_ij and d_i of a matrix."""
    coupling = torch.zeros(len(blocks), len(blocks), dtype=torch.float64)
    for i, rows in enumerate(blocks):
        for j, columns in enumerate(blocks[:i]):
            coupling[i, j] = iaf.norm(jacobian[list(rows)][:, list(columns)])
    diagonal = jacobian.diagonal()
    return coupling, torch.stack([diagonal[list(rows)].min() for rows in blocks])


def worst_chain(blocks: int, n: float = 3.0) -> tuple[Tensor, tuple[tuple[int, ...], ...]]:
    """J_ii = 1 and all couplings -n: B(B-1)/2 pairs at once."""
    matrix = torch.eye(blocks, dtype=torch.float64) - n * torch.ones(
        blocks, blocks, dtype=torch.float64
    ).tril(-1)
    return matrix, tuple((i,) for i in range(blocks))


@claim.check("property", about="printed", part="rates")
def library_rates(run: Run, *, rates: Rates = block_rates, least: float = 0.5) -> None:
    """The library's rates on random block-triangular matrices, large couplings: sym(JQ) - 1/2
    diag(d_i q_i) >= 0.
    """

    @for_all(seed=seeds())
    def _(seed: int) -> None:
        draw = np.random.default_rng(seed)
        size = int(draw.integers(2, 5))
        jacobian, blocks = worst_chain(size) if seed % 3 == 0 else random_triangular(draw, size)
        coupling, diagonal = measured(jacobian, blocks)
        q = rates(coupling=coupling, diagonal=diagonal)
        spread = torch.zeros(len(jacobian), dtype=torch.float64)
        floor = torch.zeros(len(jacobian), dtype=torch.float64)
        for block, rate, low in zip(blocks, q, diagonal, strict=True):
            spread[list(block)], floor[list(block)] = rate, least * low * rate
        product = jacobian * spread[None, :] - torch.diag(floor)
        run.at_most(
            -iaf.least(product),
            0.0,
            slack=1e-9 * float(spread.max()) * iaf.norm(jacobian),
            what="-lambda_min",
        )


def changed(power: int = 2, squared: bool = True) -> Rates:
    """The library's recursion with (B-1)^power, or n_ij not squared."""

    def rates(*, coupling: Tensor, diagonal: Tensor) -> Tensor:
        n = len(diagonal)
        used = coupling if squared else coupling.sqrt()
        return block_rates(coupling=used * (n - 1) ** (power / 2 - 1), diagonal=diagonal)

    return rates


library_rates.mutant("no factor B - 1", rates=changed(power=0))
library_rates.mutant("n_ij not squared", rates=changed(squared=False))
library_rates.mutant("all rates 1", rates=lambda *, coupling, diagonal: torch.ones_like(diagonal))
library_rates.mutant("0.9 of the diagonal left", least=0.9)


@dataclass(frozen=True)
class TwoTensors(Task):
    """A loss of the parameters a and b, one number each."""

    function: Callable[[Tensor], Tensor]

    def task_loss(self, meta: Params, weights: Params) -> Tensor:
        """f((a, b)). shape: ()"""
        return self.function(torch.cat([weights["a"], weights["b"]]))

    query_loss = task_loss


BLOCKS = [["a"], ["b"]]


def on_two_tensors(map: iaf.Flat) -> MLPIAF:
    """The same library map (two blocks of one coordinate) on two tensors."""
    source = map.map
    again = MLPIAF([[0], [1]], hidden=source.hidden, code=source.code)
    again.build({"a": vector(0.0), "b": vector(0.0)})
    again.load_state_dict(source.state_dict())
    return again


def run_steps(
    map: MLPIAF,
    rule: StepRule,
    function: Callable[[Tensor], Tensor],
    start: Tensor,
    *,
    task_lr: float,
    n_steps: int,
) -> list[tuple[Tensor, Tensor]]:
    """(z^k, phi^k) for k = 0..K of the library's problem with this map and rule."""
    geometry = Geometry(map=map, rule=rule)
    problem = Problem(geometry=geometry, n_steps=n_steps, task_lr=task_lr)
    meta = {"anchor.a": start[:1], "anchor.b": start[1:]}
    meta |= tree.prefixed("geometry.", tree.detach(dict(geometry.named_parameters())))
    return [
        (tree.flatten(state), tree.flatten(problem.point(meta, state)))
        for state in states(problem, meta, TwoTensors(function))
    ]


def tilted(phi: Tensor) -> Tensor:
    """1/2 phi^T A phi with A = ((1, -1/2), (-1/2, 1)). shape: ()"""
    return 0.5 * phi @ phi - 0.5 * phi[0] * phi[1]


@claim.check("exact", about="printed", part="rescue")
def divergent_example_converges(
    run: Run, *, rule: Callable[[Tensor], StepRule] = lambda q: BlockDualStep(BLOCKS, q)
) -> None:
    """n = 4, d = 1/2: q_2 = 64, exactly; spec(JQA) > 0, and the library's block step converges
    where the plain one diverges.
    """
    q = block_rates(
        coupling=torch.tensor([[0.0, 0.0], [4.0, 0.0]], dtype=torch.float64),
        diagonal=vector(0.5, 0.5),
    )
    run.that([Fraction(float(v)) for v in q] == [1, 64], f"rates {q.tolist()}")
    jacobian = torch.tensor([[0.5, 0.0], [4.0, 0.5]], dtype=torch.float64)
    half_norm = Fraction(1, 2) * min(Fraction(1, 2) * 1, Fraction(1, 2) * 64)
    m, big_m = float(half_norm), iaf.norm(jacobian * q[None, :])
    run.at_most(
        m, iaf.least(jacobian * q[None, :]), what="m = min d_i q_i / 2 against lambda_min(sym JQ)"
    )
    map, start = on_two_tensors(iaf.shifted_mlp(4.0)), vector(1.0, 1.0)
    points = run_steps(map, rule(q), tilted, start, task_lr=m / (1.5 * big_m**2), n_steps=120)
    losses = [float(tilted(phi)) for _, phi in points]
    run.that(all(b < a for a, b in pairwise(losses)), "the loss falls at every step")
    fast = run_steps(map, rule(q), tilted, start, task_lr=0.02, n_steps=400)
    run.at_most(float(tilted(fast[-1][1])), 1e-3 * losses[0], what="loss after 400 steps of 0.02")
    run.quantity(
        "q_2 for the divergent example",
        sp.Integer(int(q[1])),
        theory=64,
        meaning="(B-1)^2 n^2/(d_1 d_2) = 16/(1/4)",
    )
    run.quantity(
        "m of the divergent example",
        sp.Rational(half_norm.numerator, half_norm.denominator),
        meaning="min d_i q_i / 2",
    )
    run.quantity("M of the divergent example", big_m, tolerance=1e-9, meaning="||JQ||")


divergent_example_converges.mutant("the plain step", rule=lambda q: GradientStep())
divergent_example_converges.mutant(
    "rates exchanged", rule=lambda q: BlockDualStep(BLOCKS, q.flip(0))
)


@claim.check("certificate", about="printed", part="descent")
def constants_of_t6(run: Run, *, share: sp.Rational = sp.S.Half) -> None:
    """sym(JQ) >= 1/2 diag(d_i q_i) >= m I with m = 1/2 min d_i q_i; T6 for g(Q .), whose Jacobian
    at w is J(Qw) Q.
    """
    d, q, w = sp.symbols("d q w", positive=True)
    g = sp.Function("g")
    run.zero(
        (sp.diff(g(q * w), w) - q * sp.Subs(sp.diff(g(w), w), w, q * w)).doit(),
        "chain rule: z = Q w",
    )
    alpha, u = sp.symbols("alpha u")
    run.zero(q * (w - alpha * u) - (q * w - alpha * q * u), "the step in w is the block step in z")
    run.that(
        (d * q * share - d * q / 2).is_nonnegative and share <= sp.S.Half,
        "the share of the diagonal that is left",
    )


constants_of_t6.mutant("the whole diagonal", share=sp.S.One)


@claim.check("certificate", about="printed", part="descent", covers="exact")
def certified_on_a_box(
    run: Run, *, promise: float = 1.0, start: tuple[float, float] = (0.7, 0.6)
) -> None:
    """Interval bounds for n_21 and d_i on [-1, 1]^2; the library's steps stay inside and gain
    m^2/(2LM^2)|u|^2 at least.
    """
    flat = iaf.mlp([[0], [1]], seed=11, size=0.5, hidden=3, code=1)
    low, high = entry_bounds(flat.map, Box.cube(1.0, 2))
    coupling = torch.zeros(2, 2, dtype=torch.float64)
    coupling[1, 0] = max(abs(low[1, 0]), abs(high[1, 0]))
    diagonal = vector(float(low[0, 0]), float(low[1, 1]))
    q = block_rates(coupling=coupling, diagonal=diagonal)
    m = 0.5 * float((diagonal * q).min())
    big_m = iaf.norm(torch.tensor(np.maximum(np.abs(low), np.abs(high))) * q[None, :])
    target = flat.at(vector(0.2, -0.3))
    f = lambda phi: 0.5 * (phi - target).square().sum()  # noqa: E731
    how = {"task_lr": m / big_m**2, "n_steps": 25}
    found = run_steps(on_two_tensors(flat), BlockDualStep(BLOCKS, q), f, vector(*start), **how)
    run.at_most(
        max(float(z.abs().max()) for z, _ in found),
        1.0,
        what="largest |z|: the segments stay in the convex box",
    )
    for (_, before), (_, after) in pairwise(found):
        gain = float(f(before) - f(after))
        run.at_most(promise * m**2 / (2 * big_m**2) * 2 * float(f(before)), gain, what="T6's gain")
    left = float(f(found[-1][1]) / f(found[0][1]))
    run.quantity(
        "share of the loss left after 25 block steps",
        left,
        tolerance=0.004,
        meaning="certified rates",
    )


certified_on_a_box.mutant("thirty times the gain", promise=30.0)
certified_on_a_box.mutant("a start outside the box", start=(0.7, 1.6))


@claim.check("property", about="printed", part="descent")
def library_measures_bounds(run: Run, *, measure: Callable = block_bounds) -> None:
    """The library's n_ij and d_i at a point equal those of its dense Jacobian, on both forms."""

    @for_all(seed=seeds())
    def _(seed: int) -> None:
        map = iaf.kronecker([(2,), (2, 2), (1,)], seed=seed % 1000)
        z, blocks = map.random("rc", seed), [["t0"], ["t1"], ["t2"]]
        coupling, diagonal = measure(map.map, map.own(), tree.unflatten(z, map.like), blocks)
        expected = measured(map.jacobian(z), map.blocks)
        run.close(
            coupling, expected[0], tolerance=1e-10 * (1 + float(expected[0].max())), what="n_ij"
        )
        run.close(
            diagonal, expected[1], tolerance=1e-12 * (1 + float(expected[1].max())), what="d_i"
        )


library_measures_bounds.mutant(
    "couplings halved", measure=lambda *a: (0.5 * block_bounds(*a)[0], block_bounds(*a)[1])
)


@claim.check("exact", about="printed", part="price")
def geometric_growth(
    run: Run, *, base: Callable[[int], Fraction] = lambda b: Fraction((b - 1) ** 2 * 16 * 4)
) -> None:
    """A chain with n_(i,i-1) = 4, d = 1/2 through the library: q_i = ((B-1)^2 n^2/d^2)^(i-1),
    exactly, B = 2, 3, 4.
    """
    for blocks in (2, 3, 4):
        coupling = torch.zeros(blocks, blocks, dtype=torch.float64)
        for i in range(1, blocks):
            coupling[i, i - 1] = 4.0
        q = block_rates(coupling=coupling, diagonal=torch.full((blocks,), 0.5, dtype=torch.float64))
        expected = [base(blocks) ** i for i in range(blocks)]
        run.that([Fraction(float(v)) for v in q] == expected, f"rates {q.tolist()}")
        run.quantity(
            f"q_B of the chain, B={blocks}",
            int(expected[-1]),
            meaning="n = 4, d = 1/2: the price grows geometrically",
        )


geometric_growth.mutant("no factor B - 1", base=lambda b: Fraction(64))


@claim.check("symbolic", about="printed", part="price")
def growth_for_every_block(run: Run, *, power: int = 1) -> None:
    """A chain has one coupling a row: q_i = r q_{i-1} with r = (B-1)^2 n^2/d^2 >= 1, q_1 = 1, is
    solved by r^{i-1}, for a symbolic i.
    """
    r = sp.Symbol("r", positive=True)
    i = sp.Symbol("i", integer=True, positive=True)
    q = r ** (power * (i - 1))
    run.zero(q.subs(i, 1) - 1, "q_1")
    run.zero(sp.powsimp(q.subs(i, i + 1) - r * q), "from i to i + 1")


growth_for_every_block.mutant("the square", power=2)
