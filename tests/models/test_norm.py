"""The hand-written batch norm is torch's own in value and gradient, and right where torch's is
not.
"""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call, grad, vmap

from mdtheory.models import (
    POLICIES,
    BatchStatNorm,
    FixedStatNorm,
    collecting_statistics,
    set_policy,
    statistics_over_first,
)
from tests.models.references import live

SHAPES = {
    "features": (6, 3),
    "sequences": (4, 3, 5),
    "images": (4, 3, 5, 2),
    "volumes": (3, 3, 2, 2, 2),
}
NATIVE = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


def pair(shape: tuple[int, ...], **options) -> tuple[BatchStatNorm, nn.Module]:
    """Ours and torch's, in float64 with the same live weights."""
    native = live(NATIVE[len(shape)](shape[1], affine=options.get("affine", True)))
    ours = BatchStatNorm(shape[1], **options).double()
    ours.load_state_dict(
        {k: v for k, v in native.state_dict().items() if k != "num_batches_tracked"}
    )
    return ours, native


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_values_and_gradients_equal_torch(shape, affine):
    ours, native = pair(shape, affine=affine)
    x, weights = (
        torch.randn(shape, dtype=torch.float64) * 2 + 3,
        torch.randn(shape, dtype=torch.float64),
    )
    results = []
    for layer in (ours, native):
        inputs = x.clone().requires_grad_()
        y = layer(inputs)
        results.append(
            [y, *torch.autograd.grad((y * weights).sum(), [inputs, *layer.parameters()])]
        )
    assert len(results[0]) == (4 if affine else 2)
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_float32_far_from_zero_loses_only_what_the_inputs_lost():
    x = torch.randn(8, 3, 6, 6) + 300
    exact = nn.BatchNorm2d(3).double()(x.double())
    rounding = 3 * 300 * torch.finfo(torch.float32).eps
    assert (BatchStatNorm(3)(x).double() - exact).abs().max() < rounding
    mean, of_squares = x.mean((0, 2, 3), keepdim=True), (x * x).mean((0, 2, 3), keepdim=True)
    short_cut = (x - mean) / (
        of_squares - mean * mean + 1e-5
    ).sqrt()  # the one-pass variance cancels: a mutant
    assert (short_cut.double() - exact).abs().max() > rounding


@pytest.mark.parametrize("policy", POLICIES)
def test_second_derivatives(policy):
    layer = live(BatchStatNorm(2, policy=policy))
    x = torch.randn(4, 2, 2, 1, dtype=torch.float64, requires_grad=True)
    weight, bias = (torch.randn(2, dtype=torch.float64, requires_grad=True) for _ in range(2))

    def apply(x, weight, bias):
        with statistics_over_first(2):
            return functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    assert gradcheck(apply, (x, weight, bias))
    assert gradgradcheck(apply, (x, weight, bias))


class DetachedVariance(BatchStatNorm):
    """Mutant: the usual mistake of holding the variance constant."""

    def _centred(self, x):
        centred, var = super()._centred(x)
        return centred, var.detach()


def test_second_derivatives_catch_a_detached_variance():
    x = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    assert not gradcheck(DetachedVariance(2).double(), x, raise_exception=False)


@pytest.mark.parametrize("layer", [BatchStatNorm, FixedStatNorm])
def test_exact_even_when_differentiated_from_outside_through_vmap_of_grad(layer):
    network = live(nn.Sequential(nn.Linear(3, 4), layer(4), nn.Tanh(), nn.Linear(4, 2)))
    params = {name: value.detach() for name, value in network.named_parameters()}
    x = torch.randn(3, 5, 3, dtype=torch.float64)

    def after_a_step(params, x):
        def loss(p):
            return functional_call(network, p, (x,)).square().mean()

        gradient = grad(loss)(params)
        return loss({name: value - 0.3 * gradient[name] for name, value in params.items()})

    outside = grad(lambda p: vmap(after_a_step, in_dims=(None, 0))(p, x).sum())(params)
    loop = [grad(after_a_step)(params, one) for one in x]
    for name, value in outside.items():
        torch.testing.assert_close(value, sum(one[name] for one in loop), rtol=1e-10, atol=1e-12)


class TestRunningStatistics:
    def test_collected_as_torch_collects_them(self):
        ours, native = pair((4, 3, 5, 2), policy="running")
        for _ in range(3):
            x = torch.randn(4, 3, 5, 2, dtype=torch.float64) * 2 + 1
            native(x)
            with collecting_statistics():
                torch.testing.assert_close(ours(x), native(x))
            native(x)
            with collecting_statistics():
                ours(x)
                ours(x)
        for name in ("running_mean", "running_var"):
            torch.testing.assert_close(
                getattr(ours, name), getattr(native, name), rtol=1e-12, atol=0
            )
        torch.testing.assert_close(ours.eval()(x), native.eval()(x), rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("policy", POLICIES)
    def test_no_other_pass_changes_them(self, policy):
        layer, x = BatchStatNorm(3, policy=policy), torch.randn(4, 3, requires_grad=True)
        before = {name: value.clone() for name, value in layer.named_buffers()}
        for mode in (True, False):
            layer.train(mode)(x).square().sum().backward()
            with torch.no_grad():
                layer(x)
        assert all(torch.equal(value, before[name]) for name, value in layer.named_buffers())

    def test_collecting_takes_no_gradient(self):
        layer, x = BatchStatNorm(3), torch.randn(4, 3, requires_grad=True)
        with collecting_statistics():
            assert not layer(x).requires_grad
        assert layer(x).requires_grad

    def test_collecting_inside_a_differentiated_pass_is_refused_by_torch(self):
        layer = BatchStatNorm(3)
        with collecting_statistics(), pytest.raises(RuntimeError, match="mutate a captured Tensor"):
            grad(lambda x: layer(x).sum())(torch.randn(4, 3))
        assert torch.equal(layer.running_mean, torch.zeros(3))

    def test_collecting_uses_the_batch_in_evaluation_mode_too(self):
        layer, x = BatchStatNorm(3, policy="running").eval(), torch.randn(4, 3)
        with collecting_statistics():
            inside = layer(x)
        assert torch.equal(inside, BatchStatNorm(3)(x))
        assert not torch.equal(layer(x), inside)

    def test_fixed_statistics_never_move(self):
        layer, x = FixedStatNorm(3), torch.randn(4, 3)
        expected = x / (1 + layer.eps) ** 0.5
        with collecting_statistics():
            torch.testing.assert_close(layer.train()(x), expected)
        assert torch.equal(layer.running_mean, torch.zeros(3))


class TestPolicies:
    def test_support_statistics_come_from_the_first_items(self):
        layer, x = (
            live(BatchStatNorm(3, policy="support")),
            torch.randn(6, 3, 4, dtype=torch.float64),
        )
        with statistics_over_first(2):
            y = layer(x)
        mean, var = x[:2].mean((0, 2), keepdim=True), x[:2].var((0, 2), keepdim=True, correction=0)
        expected = (x - mean) / (var + layer.eps).sqrt() * layer.weight.view(
            1, -1, 1
        ) + layer.bias.view(1, -1, 1)
        torch.testing.assert_close(y, expected)
        torch.testing.assert_close(y[:2], layer(x[:2]))

    @pytest.mark.parametrize("policy", ["transductive", "running"])
    def test_other_policies_ignore_the_mark(self, policy):
        layer, x = BatchStatNorm(3, policy=policy), torch.randn(6, 3)
        with statistics_over_first(2):
            assert torch.equal(layer(x), layer(x))
            marked = layer(x)
        assert torch.equal(marked, layer(x))

    def test_marks_nest_and_end_with_an_error(self):
        layer, x = BatchStatNorm(3, policy="support"), torch.randn(6, 3)
        with statistics_over_first(2):
            with pytest.raises(KeyError), statistics_over_first(3):
                raise KeyError
            inside = layer(x)
        torch.testing.assert_close(inside[:2], layer(x[:2]))
        torch.testing.assert_close(layer(x), nn.BatchNorm1d(3)(x))

    def test_running_policy_in_both_modes(self):
        layer, x = BatchStatNorm(3, policy="running"), torch.randn(6, 3)
        torch.testing.assert_close(layer(x), nn.BatchNorm1d(3)(x))
        torch.testing.assert_close(layer.eval()(x), nn.BatchNorm1d(3).eval()(x))

    def test_set_policy_reaches_every_layer_but_the_fixed_ones(self):
        network = nn.Sequential(BatchStatNorm(3), nn.Sequential(BatchStatNorm(3)), FixedStatNorm(3))
        assert set_policy(network, "running") is network
        assert [network[0].policy, network[1][0].policy, network[2].policy] == [
            "running",
            "running",
            "transductive",
        ]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: BatchStatNorm(3, policy="transductiv"),
            "norm policy must be one of .* did you mean 'transductive'",
        ),
        (
            lambda: set_policy(nn.Linear(1, 1), "batch"),
            "norm policy must be one of the registered names, got 'batch'",
        ),
        (
            lambda: BatchStatNorm(3)(torch.randn(4, 2, 5)),
            r"x must have shape \(N, 3, ...\), got \(4, 2, 5\)",
        ),
        (lambda: BatchStatNorm(3)(torch.randn(3)), r"x must have shape \(N, 3, ...\), got \(3,\)"),
        (lambda: BatchStatNorm(3)(torch.randn(1, 3)), "at least 2 values per channel"),
        (lambda: BatchStatNorm(3)(torch.randn(0, 3)), "at least 2 values per channel"),
        (lambda: statistics_over_first(0).__enter__(), "n must be at least 1 item, got 0"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_more_support_items_than_items_is_refused():
    with (
        statistics_over_first(5),
        pytest.raises(ValueError, match="the batch must hold the 5 support items first, got 4"),
    ):
        BatchStatNorm(3, policy="support")(torch.randn(4, 3))


class Folded(nn.Module):
    """Frames of an item become rows of the batch."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, x):
        return self.norm(x.flatten(0, 1)).reshape(x.shape).mean(1)


def test_rows_of_an_item_count_with_it():
    """Three support items of eight frames: the statistics are those of 24 rows."""
    x = torch.randn(5, 8, 2, dtype=torch.float64)
    model = Folded(BatchStatNorm(2, policy="support", affine=False)).double()
    rows = x[:3].flatten(0, 1)
    wanted = ((x - rows.mean(0)) / (rows.var(0, correction=0) + 1e-5).sqrt()).mean(1)
    with statistics_over_first(3, of=5):
        assert torch.allclose(model(x), wanted, rtol=0, atol=1e-12)
    with statistics_over_first(3):  # as it was: the first 3 rows
        assert not torch.allclose(model(x), wanted, atol=0.01)
    with (
        statistics_over_first(3, of=7),
        pytest.raises(ValueError, match="as many rows for each of its 7 items, got 40"),
    ):
        model(x)


def test_running_averages_that_are_used_are_part_of_the_state():
    """``track_running_stats=False`` keeps none until a policy asks for them."""
    from mdtheory import MetaLearner

    def learner(**options):
        torch.manual_seed(0)
        norm = nn.BatchNorm1d(3, track_running_stats=False, **options)
        return MetaLearner(nn.Sequential(nn.Linear(2, 3), norm), norm="running", n_steps=1)

    first, second = learner(), learner()
    x, y = torch.randn(6, 2), torch.arange(6) % 3
    first.backward((x, y, x, y))
    second.load_state_dict(first.state_dict())
    found, wanted = (one.eval().adapt(x, y)(x) for one in (second, first))
    assert torch.equal(found, wanted)
    assert any(name.endswith("running_mean") for name in first.state_dict())
    with pytest.raises(ValueError, match="must have a momentum"):
        learner(momentum=None)


@pytest.mark.parametrize("collect", [False, True])
def test_float16_does_not_overflow(collect):
    """Activations of some hundreds, whose squares float16 cannot hold; buffers and output stay
    float16.
    """
    x = (300 * torch.randn(8, 3, 5, 5, generator=torch.Generator().manual_seed(0))).half()
    own, native = BatchStatNorm(3).half(), nn.BatchNorm2d(3)
    with collecting_statistics() if collect else nullcontext():
        y = own(x)
    assert y.dtype == torch.float16
    torch.testing.assert_close(y, native(x.float()).half(), rtol=0, atol=4e-3)
    if collect:
        torch.testing.assert_close(own.running_mean, native.running_mean.half())
