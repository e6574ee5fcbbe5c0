"""Theorem T1 on every form: block-triangular, positive diagonal, bijective, closed log-determinant;
and mutants that fail.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, strategies as st
from torch.func import jacrev, vmap

from mdtheory.core import tree
from mdtheory.core.seeding import generator
from mdtheory.maps.iaf import MLPIAF, KroneckerIAF
from mdtheory.maps.iaf.base import Scale
from tests.maps.iaf.cases import (
    PARTITIONS,
    distance,
    kronecker,
    mlp,
    perturbed,
    random_point,
    small_anchor,
)

SCALES = ["exp", "bounded", (0.25, 3.0)]


def dense(built, z):
    """J = dg/dz of the flattened map, and the block number of every coordinate. shapes: (d, d),
    (d,)
    """
    own = {n: v.detach() for n, v in built.own().items()}
    jacobian = jacrev(lambda x: tree.flatten(built.point(own, tree.unflatten(x, z))))(
        tree.flatten(z)
    )
    numbers = {name: torch.full(v.shape, -1) for name, v in z.items()}
    if isinstance(built, KroneckerIAF):
        for i, block in enumerate(built.blocks):
            numbers.update({name: torch.full(z[name].shape, i) for name in block})
        return jacobian, tree.flatten(numbers)
    order = torch.cat([torch.full((size,), i) for i, size in enumerate(built.sizes)])
    return jacobian, order[built.back]


def above_diagonal(jacobian, number):
    """The largest entry that T1 forbids: any off-diagonal one inside a block, or from a later
    block.
    """
    forbidden = (number[:, None] <= number[None, :]) & ~torch.eye(len(number), dtype=torch.bool)
    return float(jacobian[forbidden].abs().max()) if forbidden.any() else 0.0


def violations(built, z):
    """What of T1 does not hold at z, as words."""
    own = {n: v.detach() for n, v in built.own().items()}
    jacobian, number = dense(built, z)
    sign, log_det = torch.linalg.slogdet(jacobian)
    wrong = []
    if above_diagonal(jacobian, number) > 0:
        wrong.append("triangular")
    if not (jacobian.diagonal() > 0).all():
        wrong.append("positive")
    if not (
        sign > 0
        and abs(float(log_det - built.log_abs_det(own, z))) < 1e-9 * (1 + abs(float(log_det)))
    ):
        wrong.append("log-determinant")
    if not distance(built.inverse(own, built.point(own, z)), z) < 1e-10:
        wrong.append("inverse")
    return wrong


def coupled(built, z):
    """Whether conditioners are alive: some entry below the block diagonal is not zero."""
    jacobian, number = dense(built, z)
    return bool((jacobian[number[:, None] > number[None, :]].abs() > 1e-3).any())


@pytest.mark.parametrize("scale", SCALES, ids=str)
@pytest.mark.parametrize("form", ["live", "published", "mlp"])
@pytest.mark.parametrize("partition", PARTITIONS.values(), ids=PARTITIONS)
def test_theorem_t1_on_tensors(partition, form, scale):
    anchor = small_anchor()
    options = {"partition": partition, "scale": scale}
    built = perturbed(
        mlp(anchor, **options) if form == "mlp" else kronecker(anchor, init=form, **options)
    )
    z = random_point(anchor, "t1")
    assert violations(built, z) == []
    assert coupled(built, z) == (len(built.blocks) > 1)


@st.composite
def coordinate_blocks(draw):
    d = draw(st.integers(1, 9))
    order, cuts = (
        draw(st.permutations(range(d))),
        draw(st.sets(st.integers(1, d - 1))) if d > 1 else set(),
    )
    ends = [0, *sorted(cuts), d]
    return [list(order[a:b]) for a, b in pairwise(ends)]


@given(coordinate_blocks(), st.sampled_from(SCALES), st.integers(0, 9))
def test_theorem_t1_on_any_partition_of_coordinates(blocks, scale, seed):
    d = sum(map(len, blocks))
    z = (
        {"p": torch.randn(d // 2, generator=generator("t1", seed), dtype=torch.float64)}
        if d > 1
        else {}
    )
    z["q"] = torch.randn(
        d - d // 2 if d > 1 else d, generator=generator("t1", seed + 100), dtype=torch.float64
    )
    built = perturbed(mlp(z, partition=blocks, scale=scale, seed=seed), seed=seed)
    assert violations(built, z) == []
    jacobian, number = dense(built, z)
    assert [sorted(torch.nonzero(number == i).flatten().tolist()) for i in range(len(blocks))] == [
        sorted(b) for b in blocks
    ]
    minor = torch.randperm(d, generator=generator("minor", seed))[: 1 + seed % d]
    assert torch.linalg.det(jacobian[minor][:, minor]) > 0  # a P-matrix


@given(coordinate_blocks(), st.integers(0, 9))
def test_first_different_block_decides(blocks, seed):
    """T1 (a): if z, z' first differ in block i, then on it g(z) - g(z') = s (z - z') with one s >
    0.
    """
    d = sum(map(len, blocks))
    anchor = {"x": torch.randn(d, generator=generator("a", seed), dtype=torch.float64)}
    built = perturbed(mlp(anchor, partition=blocks, seed=seed), seed=seed)
    i = seed % len(blocks)
    other = {"x": anchor["x"].clone()}
    later = [index for block in blocks[i:] for index in block]
    other["x"][later] += torch.randn(
        len(later), generator=generator("b", seed), dtype=torch.float64
    )
    gap, moved = other["x"] - anchor["x"], built(other)["x"] - built(anchor)["x"]
    assert (moved[blocks[i]] / gap[blocks[i]] > 0).all()
    earlier = [index for block in blocks[:i] for index in block]
    assert not moved[earlier].any()


class PeeksAtItself(MLPIAF):
    """Mutant: every block's shift also reads its own input."""

    def conditioners(self, meta, pieces):
        scales, shifts = super().conditioners(meta, pieces)
        return scales, {
            name: shift + 0.5 * torch.tanh(pieces[name].sum()) for name, shift in shifts.items()
        }


class PeeksAhead(MLPIAF):
    """Mutant: the first block's shift reads the last block."""

    def conditioners(self, meta, pieces):
        scales, shifts = super().conditioners(meta, pieces)
        first, last = self.blocks[0][0], self.blocks[-1][0]
        return scales, {**shifts, first: shifts[first] + 0.5 * torch.tanh(pieces[last].sum())}


class Signed(Scale):
    """Mutant: s(a) = a - 1, not positive."""

    def __call__(self, a):
        return a - 1

    def log(self, a):
        return torch.log((a - 1).abs())


@pytest.mark.parametrize(
    "mutant,broken",
    [(PeeksAtItself, "triangular"), (PeeksAhead, "triangular"), ("signed", "positive")],
)
def test_t1_rejects_mutants(mutant, broken):
    z = random_point({"x": torch.zeros(6, dtype=torch.float64)}, "mutant")
    built = (MLPIAF if mutant == "signed" else mutant)([[0, 1], [2, 3], [4, 5]], hidden=6, code=3)
    built.build(z)
    if mutant == "signed":
        built.scale = Signed("exp")
    assert broken in violations(perturbed(built), z)


@pytest.mark.parametrize("form", ["live", "mlp"])
def test_vmap_over_tasks_is_the_loop(form):
    anchor = small_anchor()
    built = perturbed(mlp(anchor, partition=2) if form == "mlp" else kronecker(anchor, partition=2))
    own = {n: v.detach() for n, v in built.own().items()}
    tasks = [random_point(anchor, "vmap", i) for i in range(3)]
    together = {name: torch.stack([task[name] for task in tasks]) for name in anchor}
    for method in (built.point, built.inverse, lambda m, z: {"log_det": built.log_abs_det(m, z)}):
        batched = vmap(method, in_dims=(None, 0))(own, together)
        for i, task in enumerate(tasks):
            single = method(own, task)
            assert all(
                torch.allclose(batched[name][i], single[name], rtol=1e-12, atol=1e-13)
                for name in single
            )


@pytest.mark.parametrize("form", ["live", "mlp"])
def test_twice_differentiable(form):
    anchor = {"w": torch.randn(2, 2, dtype=torch.float64), "b": torch.randn(3, dtype=torch.float64)}
    built = perturbed(
        mlp(anchor, partition=1, hidden=3, code=2)
        if form == "mlp"
        else kronecker(anchor, partition=1, scale="bounded")
    )
    names = list(built.own())

    def scalar(*tensors):
        own = dict(zip(names, tensors[:-1], strict=True))
        phi = built.point(own, tree.unflatten(tensors[-1], anchor))
        return tree.flatten(phi).square().sum() + built.log_abs_det(
            own, tree.unflatten(tensors[-1], anchor)
        )

    inputs = [v.detach().clone().requires_grad_() for v in built.own().values()] + [
        tree.flatten(anchor).requires_grad_()
    ]
    assert torch.autograd.gradcheck(scalar, inputs)
    assert torch.autograd.gradgradcheck(scalar, inputs)


@pytest.mark.parametrize("form", SCALES, ids=str)
def test_scale_functions(form):
    scale, a = Scale(form), torch.linspace(-30, 30, 13, dtype=torch.float64)
    assert abs(float(scale(torch.zeros((), dtype=torch.float64))) - 1) < 1e-15
    assert torch.allclose(scale(a).log(), scale.log(a), rtol=1e-9, atol=1e-9)
    assert (scale(a).diff() >= 0).all()
    if scale.bounds is not None:
        assert scale(a).min() >= scale.bounds[0] and scale(a).max() <= scale.bounds[1]
        assert (
            abs(float(scale(-a).min()) - scale.bounds[0]) < 1e-12
            and abs(float(scale(a).max()) - scale.bounds[1]) < 1e-12
        )
    far = torch.tensor(-1e4, dtype=torch.float64, requires_grad=True)
    scale.log(far).backward()
    assert torch.isfinite(scale.log(far)) and torch.isfinite(far.grad)


@pytest.mark.parametrize(
    "form", ["tanh", (1.0, 2.0), (0.5,), (-0.1, 2.0), (0.0, float("inf"))], ids=str
)
def test_scale_refuses(form):
    with pytest.raises(ValueError, match=r"scale must be 'exp', 'bounded' or \(low, high\)"):
        Scale(form)


@pytest.mark.parametrize(
    "partition,sentence",
    [
        (0, "at least 1 tensor a block"),
        ([["a.w"], ["nope"]], r"unknown \['nope'\]"),
        ([["a.w", "a.b"]], r"without \['b.b', 'b.w', 'c.b'\]"),
        ([["a.w", "a.b", "b.w", "b.b"], ["c.w", "c.s", "c.k", "c.b", "a.w"]], "a name twice"),
        ([["a.w", "a.b", "b.w", "b.b"], ["c.w", "c.s", "c.k", "a.w"]], r"without \['c.b'\]"),
        ([["a.w", "a.b", "b.w", "b.b"], [], ["c.w", "c.s", "c.k", "c.b"]], "an empty block"),
    ],
)
def test_partitions_that_are_none(partition, sentence):
    for form in (kronecker, mlp):
        with pytest.raises(ValueError, match=sentence):
            form(small_anchor(), partition=partition)


@pytest.mark.parametrize("indices", [[[0, 1], [1, 2]], [[0], [1]], [[0, 1, 2], []], [[0, 1, 3]]])
def test_index_partitions_that_are_none(indices):
    with pytest.raises(
        ValueError, match=r"every coordinate 0\.\.2 of the flattened tensors exactly once"
    ):
        mlp({"x": torch.zeros(3)}, partition=indices)
