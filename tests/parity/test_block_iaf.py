"""The library's Kronecker form against an independent serial construction, with live random
weights.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.func import jvp

from mdtheory.core.seeding import generator
from mdtheory.maps.iaf.kronecker_init import kron_linear
from tests.maps.iaf.cases import (
    PARTITIONS,
    conv4_anchor,
    distance,
    kronecker,
    random_point,
    small_anchor,
)
from tests.parity.official_block_iaf import Dual, official_map, official_shapes

pytestmark = pytest.mark.filterwarnings(
    "ignore:.torch.jit.script. is deprecated:DeprecationWarning"
)  # torch's own, in jvp

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


def official_tensors(shapes, blocks, seed=0):
    """Live weights for every tensor of the official map, with tangents, in float64."""
    draw = generator("blockiaf", "official", seed)

    def random(shape):
        uniform = 2 * torch.rand(shape, generator=draw, dtype=torch.float64) - 1
        return (
            1.5 * uniform / shape[-1] ** 0.5 if len(shape) == 2 else 0.3 * uniform + 0.3
        ).numpy()

    return [Dual(random(shape), random(shape)) for shape in official_shapes(shapes, blocks)]


def both(anchor, partition, dtype, *, mutate=lambda tensors: tensors):
    """(outputs, J v) of the library and of the reference; v moves z and all the weights at once."""
    built = kronecker(anchor, partition=partition, init="published", scale="exp")
    shapes = {name: tuple(value.shape) or (1,) for name, value in anchor.items()}
    tensors = official_tensors(shapes, built.blocks)
    z, v = random_point(anchor, "z", scale=0.5), random_point(anchor, "v")
    expected = official_map(
        [Dual(t.value, t.tangent) for t in tensors],
        {
            n: Dual(
                z[n].double().numpy().reshape(shapes[n]), v[n].double().numpy().reshape(shapes[n])
            )
            for n in anchor
        },
        built.blocks,
    )
    own = []
    for part in ("value", "tangent"):
        built.load_flat([torch.from_numpy(getattr(t, part)).to(dtype) for t in mutate(tensors)])
        own.append({name: value.detach().clone() for name, value in built.own().items()})
    got = jvp(built.point, (own[0], z), (own[1], v))
    wanted = [
        {n: torch.from_numpy(getattr(d, part)) for n, d in expected.items()}
        for part in ("value", "tangent")
    ]
    return [{n: t.double().reshape(shapes[n]) for n, t in tree.items()} for tree in got], wanted, z


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_full_size_conv4(dtype):
    got, wanted, z = both(conv4_anchor(dtype=dtype), 4, dtype)
    assert distance(got[0], wanted[0]) < TOLERANCE[dtype]
    assert distance(got[1], wanted[1]) < TOLERANCE[dtype]
    moved = {n: float((wanted[0][n] - z[n].double().reshape(wanted[0][n].shape)).std()) for n in z}
    assert min(moved.values()) > 0.02  # live: nowhere near the identity


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("partition", PARTITIONS.values(), ids=PARTITIONS)
def test_every_partition(partition, dtype):
    got, wanted, _ = both(small_anchor(dtype), partition, dtype)
    assert distance(got[0], wanted[0]) < TOLERANCE[dtype]
    assert distance(got[1], wanted[1]) < TOLERANCE[dtype]


def test_the_reference_conditioners_are_alive():
    """A change of the first block alone must reach the last one, or the parity above would say
    nothing about conditioners.
    """
    anchor = conv4_anchor(channels=16)
    built = kronecker(anchor, init="published")
    shapes = {name: tuple(value.shape) for name, value in anchor.items()}
    still = [Dual(t.value, 0 * t.value) for t in official_tensors(shapes, built.blocks)]
    z = {
        n: Dual(value.numpy(), np.zeros(value.shape))
        for n, value in random_point(anchor, "z").items()
    }
    for name in built.blocks[0]:
        z[name].tangent += 1.0
    moved = official_map(still, z, built.blocks)
    later = [
        name for block in built.blocks[1:] for name in block if name != "classifier.bias"
    ]  # one unit decodes it: off here
    assert all(np.abs(moved[name].tangent).max() > 1e-2 for name in later)


def first_run(tensors, shapes):
    """Where consecutive tensors of these shapes begin."""
    return next(
        i
        for i in range(len(tensors))
        if [t.value.shape for t in tensors[i : i + len(shapes)]] == shapes
    )


def swap_heads(tensors):
    """a2's log-scale and shift heads exchanged: equal shapes, another map."""
    at = first_run(tensors, [(4,), (4, 2)] * 2)
    return [*tensors[:at], *tensors[at + 2 : at + 4], *tensors[at : at + 2], *tensors[at + 4 :]]


def swap_modes(tensors):
    """The row and the column factor of b2's log-scale head exchanged."""
    at = first_run(tensors, [(4, 4), (4, 2), (4, 2)])
    return [*tensors[: at + 1], tensors[at + 2], tensors[at + 1], *tensors[at + 3 :]]


@pytest.mark.parametrize("mutate", [swap_heads, swap_modes])
def test_parity_rejects_a_wrong_order(mutate):
    """Negative control: tensors of the right shapes in the wrong places."""
    got, wanted, _ = both(square_anchor(), 2, torch.float64, mutate=mutate)
    assert distance(got[0], wanted[0]) > 1e-3


def square_anchor():
    anchor = random_point(
        {name: torch.zeros(s, dtype=torch.float64) for name, s in (("a", (4,)), ("b", (4, 4)))},
        "square",
    )
    return {**anchor, **{f"{n}2": v.clone() for n, v in anchor.items()}}


@pytest.mark.parametrize("inner,outer", [((3,), (5,)), ((2, 3), (4, 1)), ((2, 3, 4), (5, 2, 3))])
def test_kron_linear_is_the_dense_kronecker_matrix(inner, outer):
    draw = generator("kron", *inner)

    def random(*shape):
        return torch.randn(shape, generator=draw, dtype=torch.float64)

    x, factors, bias = (
        random(2, *inner),
        [random(2, o, i) for o, i in zip(outer, inner, strict=True)],
        random(2, *outer),
    )
    for n in range(2):
        dense = factors[0][n]
        for factor in factors[1:]:
            dense = torch.kron(dense, factor[n])
        expected = (dense @ x[n].reshape(-1)).reshape(outer) + bias[n]
        assert torch.allclose(kron_linear(x, factors, bias)[n], expected, rtol=1e-12, atol=1e-12)


def test_load_flat_refuses_what_does_not_fit():
    anchor = small_anchor()
    built = kronecker(anchor, partition=2, init="published")
    shapes = {name: tuple(value.shape) or (1,) for name, value in anchor.items()}
    tensors = [torch.from_numpy(t.value) for t in official_tensors(shapes, built.blocks)]
    before = {n: v.detach().clone() for n, v in built.own().items()}
    with pytest.raises(
        ValueError, match=rf"tensors must hold {len(tensors)} tensors .* got {len(tensors) - 1}"
    ):
        built.load_flat(tensors[:-1])
    with pytest.raises(
        ValueError,
        match=r"tensors\[1\] \(encoders.a.w.0.factors.0\) must have shape \(1, 3\), got \(3, 1\)",
    ):
        built.load_flat([tensors[0], tensors[1].T, *tensors[2:]])
    assert all(torch.equal(before[n], v) for n, v in built.own().items())  # nothing half-loaded
    for options in ({"init": "live"}, {"init": "published", "scale": "bounded"}):
        with pytest.raises(ValueError, match=r"init='published', scale='exp'"):
            kronecker(anchor, partition=2, **options).load_flat(tensors)
