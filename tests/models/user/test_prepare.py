"""What ``prepare`` keeps and what it changes in a user's own module."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from mdtheory.models import BatchStatNorm, FixedStatNorm, models
from mdtheory.models.user import prepare
from tests.models.references import (
    central_differences,
    error,
    live,
    looped,
    meta_loss,
    regression_tasks,
    trainable,
    vmapped,
)


class Ours(nn.Module):
    """Native norms, tied weights, a layer used twice, a norm used twice, a frozen part, a
    buffer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(3, 4).requires_grad_(False)
        self.batch = nn.BatchNorm1d(4)
        self.same_batch = self.batch
        self.twice = nn.Linear(4, 4)
        self.layer = nn.LayerNorm(4)
        self.tied = nn.Linear(4, 4)
        self.tied.weight = self.twice.weight
        self.head = nn.Linear(4, 2)
        self.register_buffer("scale", torch.linspace(0.5, 2, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.batch(self.frozen(x))
        x = torch.tanh(self.twice(torch.tanh(self.twice(x))))
        return self.head(self.layer(self.tied(self.same_batch(x)) * self.scale))


@pytest.fixture
def original() -> nn.Module:
    return live(Ours())


@pytest.mark.parametrize("norm", ["transductive", "support", "running"])
def test_meta_gradients_of_a_users_module(original, norm):
    model = prepare(original, norm=norm, example=torch.randn(4, 3, dtype=torch.float64))
    tasks, params, function = regression_tasks(model, (3,)), trainable(model), meta_loss(model)
    assert not any(name.startswith("frozen") for name in params)
    loop = looped(function, params, tasks)
    assert error(loop, central_differences(function, params, tasks)) < 1e-7
    assert error(vmapped(function, params, tasks), loop) < 1e-10


def test_an_untied_copy_has_another_meta_gradient(original):
    """Control for the ties: the same numbers in two separate tensors give another gradient."""
    untied = copy.deepcopy(original)
    untied.tied.weight = nn.Parameter(original.tied.weight.detach().clone())
    tied, loose = (prepare(model, norm="transductive") for model in (original, untied))
    tasks = regression_tasks(tied, (3,))
    one, other = (
        looped(meta_loss(model), trainable(model), tasks)["twice.weight"] for model in (tied, loose)
    )
    assert (one - other).abs().max() > 1e-3


class TestTheCopy:
    def test_the_users_module_is_not_touched(self, original):
        before, kinds = (
            copy.deepcopy(original.state_dict()),
            [type(module) for module in original.modules()],
        )
        model = prepare(original, norm="running", example=torch.randn(4, 3, dtype=torch.float64))
        with torch.no_grad():
            for value in model.parameters():
                value.zero_()
        assert all(
            torch.equal(value, before[name]) for name, value in original.state_dict().items()
        )
        assert [type(module) for module in original.modules()] == kinds
        assert not original._forward_hooks

    def test_names_values_flags_and_ties_stay(self, original):
        model = prepare(original, norm="transductive")
        for kind in ("named_parameters", "named_buffers"):
            old, new = (list(getattr(m, kind)(remove_duplicate=False)) for m in (original, model))
            assert [name for name, _ in old] == [name for name, _ in new]
            for (_, before), (_, after) in zip(old, new, strict=True):
                assert (
                    torch.equal(before, after)
                    and before.requires_grad == after.requires_grad
                    and before.dtype == after.dtype
                )
        assert model.tied.weight is model.twice.weight
        assert model.same_batch is model.batch
        assert model.load_state_dict(original.state_dict()).missing_keys == []

    def test_replacing_a_tied_weight_replaces_it_everywhere(self, original):
        model, x = prepare(original, norm="transductive"), torch.randn(4, 3, dtype=torch.float64)
        weight = torch.randn(4, 4, dtype=torch.float64)
        called = functional_call(model, {"twice.weight": weight}, (x,))
        with torch.no_grad():
            model.twice.weight.copy_(weight)
        assert torch.equal(called, model(x))

    def test_batch_norm_equals_torchs_in_training(self, original):
        x = torch.randn(4, 3, dtype=torch.float64)
        model = prepare(original, norm="transductive")
        torch.testing.assert_close(model(x), original(x), rtol=1e-10, atol=1e-10)
        assert type(model.batch) is BatchStatNorm and model.batch.policy == "transductive"

    def test_the_policy_reaches_our_own_networks(self):
        network = models.get("conv4")(in_channels=1, image_size=16, channels=2)
        assert {block.norm.policy for block in prepare(network, norm="support").blocks} == {
            "support"
        }
        assert {block.norm.policy for block in network.blocks} == {"transductive"}

    @pytest.mark.parametrize("shape", [(5, 3), (5, 3, 2), (5, 3, 2, 2), (5, 3, 2, 2, 2)])
    def test_a_batch_norm_alone(self, shape):
        native = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[
            len(shape)
        ](3, eps=0.1)
        x = torch.randn(shape)
        torch.testing.assert_close(prepare(native, norm="transductive")(x), native(x))

    def test_hooks_on_a_batch_norm_stay(self, original):
        seen = []
        original.batch.register_forward_hook(lambda module, args, output: seen.append(type(module)))
        prepare(original, norm="transductive")(torch.randn(4, 3, dtype=torch.float64))
        assert seen == [BatchStatNorm, BatchStatNorm]

    def test_it_can_be_copied_cast_and_prepared_again(self, original):
        x = torch.randn(4, 3, dtype=torch.float64)
        model = prepare(original, norm="transductive")
        again = prepare(copy.deepcopy(model), norm="transductive")
        assert torch.equal(model(x), again(x))
        assert copy.deepcopy(model).float()(x.float()).dtype == torch.float32
        torch.testing.assert_close(
            model.float()(x.float()).double(), again(x), rtol=1e-4, atol=1e-4
        )


class TestEvaluationMode:
    def test_a_batch_norm_keeps_its_running_statistics_for_good(self):
        native = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2))
        native(torch.randn(6, 3) * 2 + 1)
        native[0].eval().requires_grad_(False)
        x = torch.randn(4, 3)
        expected = native(x)
        model = prepare(native, norm="transductive").train()
        assert type(model[0]) is FixedStatNorm and not model[0].weight.requires_grad
        torch.testing.assert_close(model(x), expected)
        torch.testing.assert_close(model(x[:1]), expected[:1])

    def test_without_running_statistics_it_uses_the_batch(self):
        native = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3, track_running_stats=False)).eval()
        model, x = prepare(native, norm="transductive"), torch.randn(4, 3)
        assert type(model[1]) is BatchStatNorm
        torch.testing.assert_close(model(x), native(x))

    def test_dropout_stays_off(self):
        native = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.9), nn.Linear(3, 2))
        native[1].eval()
        model, x = prepare(native, norm="transductive").train(), torch.randn(4, 3)
        assert torch.equal(model(x), native(x)) and native[1].p == 0.9
        attention = prepare(nn.MultiheadAttention(2, 1, dropout=0.5).eval(), norm="transductive")
        assert attention.dropout == 0

    def test_modes_are_kept(self):
        native = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).eval()
        native[0].train()
        assert [module.training for module in prepare(native, norm="running").modules()] == [
            False,
            True,
            False,
        ]
