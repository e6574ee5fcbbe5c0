"""The block's Triton kernels against the C++ loops and against ordinary operations, on a card or in
Triton's interpreter.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.func import grad, jacrev

from mdtheory.kernels import compile, cpp
from mdtheory.kernels.formulas import First, Plan
from mdtheory.kernels.over_tasks import last
from tests.kernels.blocks import (
    EPS,
    Block,
    Size,
    all_derivatives,
    along,
    at_once,
    distance,
    inputs,
    looped,
    ordinary,
    ours,
)

SIZES = [
    Size(3, 2, 5, 5, 4, counted=2),
    Size(2, 1, 3, 2, 3, counted=1),
    Size(2, 2, 3, 3, 4, counted=2, window=1, slope=0.1),
    Size(2, 3, 4, 3, 3, counted=1, k=1, window=1, slope=1.0),
    Size(2, 2, 3, 4, 5, counted=2, window=2, slope=0.2),
    Size(2, 17, 2, 2, 2, counted=2),
    Size(1, 1, 66, 2, 2, counted=1),
]
TOLERANCE = 1e-12


def on(device: torch.device, data: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(x.to(device) for x in data)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_derivative_is_the_ordinary_one(size: Size, small_tiles: torch.device) -> None:
    data = [on(small_tiles, make(size, tasks=2)) for make in (inputs, along)]
    expected = looped(ordinary, size, *data)
    at_a_time, together = looped(ours, size, *data), at_once(ours, size, *data)
    assert distance(at_a_time, expected) < TOLERANCE
    assert distance(together, expected) < TOLERANCE
    assert all(torch.equal(a, b) for a, b in zip(at_a_time, together, strict=True))


@pytest.mark.parametrize("level", [1.0, 0.0], ids=["beside zero", "at zero"])
def test_a_gamma_of_zero_or_below(small_tiles: torch.device, level: float) -> None:
    """With a beta of 0 too, every z is 0, where a rectifier's slope is 0."""
    size = Size(2, 2, 3, 4, 4, counted=2)
    x, weight, bias, gamma, beta = on(small_tiles, inputs(size, tasks=1))
    gamma = gamma.abs() * torch.tensor([1.0, 0.0, -1.0], dtype=gamma.dtype, device=gamma.device)
    beta = beta * torch.tensor([1.0, level, 1.0], dtype=beta.dtype, device=beta.device)
    data = (x, weight, bias, gamma, beta), on(small_tiles, along(size, tasks=1))
    assert distance(looped(ours, size, *data), looped(ordinary, size, *data)) < TOLERANCE


def test_float32_is_as_good_as_the_ordinary_one(small_tiles: torch.device) -> None:
    size = Size(3, 3, 8, 4, 4, counted=3)
    low = [on(small_tiles, make(size, tasks=1, dtype=torch.float32)) for make in (inputs, along)]
    exact = looped(ordinary, size, *(tuple(x.double() for x in part) for part in low))
    mine, theirs = looped(ours, size, *low), looped(ordinary, size, *low)
    assert distance(mine, exact) < max(3 * distance(theirs, exact), 1e-5)


def test_weights_that_the_tasks_share(small_tiles: torch.device) -> None:
    size = Size(2, 2, 3, 4, 4, counted=2)
    data = [on(small_tiles, make(size, tasks=2)) for make in (inputs, along)]
    one = all_derivatives(ours, size)
    (xs, *rest), cotangents = data
    own = [x[0] for x in rest]
    together = torch.func.vmap(lambda x, c: one((x, *own), c))(xs, cotangents)
    shared = (xs, *(x[:1].expand_as(x) for x in rest)), cotangents
    assert distance(list(together), looped(ordinary, size, *shared)) < TOLERANCE


def test_whole_jacobians(small_tiles: torch.device) -> None:
    """The cotangents alone have a batch axis: what is saved is repeated without a copy."""
    size = Size(2, 2, 3, 4, 4, counted=2)
    x, weight, *rest = (one[0] for one in on(small_tiles, inputs(size, tasks=1)))

    def jacobians(block: Block) -> list[Tensor]:
        def value(w: Tensor) -> Tensor:
            return block(x, w, *rest, size=size)

        return [jacrev(value)(weight), jacrev(grad(lambda w: value(w).square().sum()))(weight)]

    assert distance(jacobians(ours), jacobians(ordinary)) < TOLERANCE


def test_a_nan_of_an_item_that_does_not_count_is_not_swallowed(small_tiles: torch.device) -> None:
    """It is in no statistic, and here it is first in no window."""
    size = Size(2, 1, 2, 5, 5, counted=1)
    x, *rest = (one[0] for one in on(small_tiles, inputs(size, tasks=1)))
    x[1, 0, 4, 4] = float("nan")
    found, expected = ours(x, *rest, size=size), ordinary(x, *rest, size=size)
    assert expected.isnan().any()
    assert torch.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)


def test_the_number_of_programs_moves_no_result(
    small_tiles: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mdtheory.kernels import triton

    size = Size(3, 2, 4, 4, 4, counted=3)
    data = [on(small_tiles, make(size, tasks=1, dtype=torch.float32)) for make in (inputs, along)]
    few = looped(ours, size, *data)
    monkeypatch.setattr(triton, "PROGRAMS", 5)
    assert all(torch.equal(a, b) for a, b in zip(few, looped(ours, size, *data), strict=True))


@pytest.mark.skipif(compile.library() is None, reason="no C++ compiler on this machine")
class TestAgainstTheLoops:
    """Kernel by kernel, on the same numbers."""

    size = SIZES[0]
    plan = Plan(EPS, size.counted)
    tasks = 2

    @pytest.fixture
    def images(self, small_tiles: torch.device) -> tuple[Tensor, ...]:
        if small_tiles.type != "cpu":
            pytest.skip("the loops are a CPU's: there the interpreter compares")
        x, weight, _, gamma, beta = inputs(self.size, tasks=self.tasks)
        return last(x.flatten(0, 1)), weight, gamma, beta

    def test_forward(self, images: tuple[Tensor, ...]) -> None:
        from mdtheory.kernels import triton

        x, weight, gamma, beta = images
        u = cpp.conv((x, weight), (2 * x, weight.flip(0)))
        assert distance([triton.conv((x, weight), (2 * x, weight.flip(0)))], [u]) < TOLERANCE
        y, code, mean, r = triton.normalise(u, gamma, beta, self.plan)
        expected = cpp.normalise(u, gamma, beta, self.plan)
        assert distance([y, mean, r], [expected[0], *expected[2:]]) < TOLERANCE
        assert torch.equal(code.clamp(max=4), expected[1])

    @pytest.mark.parametrize("with_gu", [True, False])
    def test_first_and_second(self, images: tuple[Tensor, ...], with_gu: bool) -> None:
        from mdtheory.kernels import triton

        x, weight, gamma, beta = images
        u = cpp.conv((x, weight))
        y, code, mean, r = cpp.normalise(u, gamma, beta, self.plan)
        gy, gu, v = (torch.randn_like(like) for like in (y, u, u))
        dgamma, dbeta = cpp.slopes(gy, u, code, mean, r, self.plan)
        found = triton.slopes(gy, u, code, mean, r, self.plan)
        assert distance(list(found), [dgamma, dbeta]) < TOLERANCE
        first = First(gy, None, gamma, u, code, mean, r, dgamma, dbeta, self.plan)
        first = replace(first, gu=gu if with_gu else None)
        needs = {"need_x": True, "need_w": True}
        expected = cpp.through_conv(first, x, weight, **needs)
        assert (
            distance(list(triton.through_conv(first, x, weight, **needs)), list(expected))
            < TOLERANCE
        )
        vgamma, vbeta = torch.randn_like(gamma), None
        shares = [machine.second(first, v, vgamma, vbeta) for machine in (triton, cpp)]
        assert distance(*map(list, shares)) < TOLERANCE
