"""Layers that ``prepare`` leaves alone, or replaces: whole task gradients, looped and vmapped,
against finite differences.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from mdtheory.models import POLICIES, collecting_statistics
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

CHANNELS, LENGTH = 4, 3
TIGHT = 1e-7


class Net(nn.Module):
    """linear, the layer under test on (N, CHANNELS, LENGTH), tanh, linear."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.before = nn.Linear(2, LENGTH)
        self.layer = layer
        self.after = nn.Linear(LENGTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(torch.tanh(self.layer(self.before(x)))).mean(1)


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]):
        super().__init__()
        self.cell = kind(2, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x)[0].mean(1)


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(2, 1, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x)[0].mean(1)


def evaluated_batch_norm() -> nn.Module:
    layer = nn.BatchNorm1d(CHANNELS)
    layer.running_mean += torch.arange(CHANNELS) * 0.1
    layer.running_var *= 2
    return layer.eval()


def half_frozen_layer_norm() -> nn.Module:
    layer = nn.LayerNorm(LENGTH)
    layer.weight.requires_grad_(False)
    return layer


LAYERS = {
    "LayerNorm": lambda: nn.LayerNorm(LENGTH),
    "LayerNorm over two axes": lambda: nn.LayerNorm((CHANNELS, LENGTH)),
    "GroupNorm": lambda: nn.GroupNorm(2, CHANNELS),
    "InstanceNorm": lambda: nn.InstanceNorm1d(CHANNELS, affine=True),
    "RMSNorm": lambda: nn.RMSNorm(LENGTH),
    "BatchNorm": lambda: nn.BatchNorm1d(CHANNELS),
    "BatchNorm untracked": lambda: nn.BatchNorm1d(CHANNELS, track_running_stats=False),
    "BatchNorm plain": lambda: nn.BatchNorm1d(CHANNELS, affine=False),
    "BatchNorm in eval": evaluated_batch_norm,
    "BatchNorm frozen": lambda: nn.BatchNorm1d(CHANNELS).requires_grad_(False),
    "LayerNorm without bias": lambda: nn.LayerNorm(LENGTH, bias=False),
    "LayerNorm with a frozen weight": half_frozen_layer_norm,
    "GroupNorm plain": lambda: nn.GroupNorm(2, CHANNELS, affine=False),
    "weight norm by rows": lambda: parametrizations.weight_norm(nn.Linear(LENGTH, LENGTH)),
    "weight norm by columns": lambda: parametrizations.weight_norm(
        nn.Linear(LENGTH, LENGTH), dim=1
    ),
    "weight norm over all": lambda: parametrizations.weight_norm(
        nn.Linear(LENGTH, LENGTH), dim=None
    ),
    "spectral norm in eval": lambda: parametrizations.spectral_norm(
        nn.Linear(LENGTH, LENGTH)
    ).eval(),
    "orthogonal": lambda: parametrizations.orthogonal(
        nn.Linear(LENGTH, LENGTH), orthogonal_map="cayley"
    ),
    "dropout in eval": lambda: nn.Dropout(0.5).eval(),
}


def checked(model: nn.Module, *, batched: bool = True) -> None:
    """batched = loop = central differences for this prepared model, and a first-order gradient is
    told apart.
    """
    tasks, params, function = (
        regression_tasks(model, (CHANNELS, 2)),
        trainable(model),
        meta_loss(model),
    )
    loop, truth = looped(function, params, tasks), central_differences(function, params, tasks)
    assert error(loop, truth) < TIGHT
    assert error(looped(meta_loss(model, first_order=True), params, tasks), truth) > 1e3 * TIGHT
    if batched:
        assert error(vmapped(function, params, tasks), loop) < 1e-10


@pytest.mark.parametrize("name", LAYERS)
def test_meta_gradients_of_whole_tasks(name):
    checked(prepare(live(Net(LAYERS[name]())), norm="transductive"))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("training", [True, False])
def test_meta_gradients_under_every_policy_and_mode(policy, training):
    model = prepare(live(Net(nn.BatchNorm1d(CHANNELS))), norm=policy).train(training)
    with collecting_statistics():
        model(torch.randn(5, CHANNELS, 2, dtype=torch.float64))
    checked(model)


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_recurrent_layers_in_a_loop(kind):
    checked(prepare(live(Recurrent(kind)), norm="transductive"), batched=False)


def test_attention_with_weights():
    checked(prepare(live(Attending()), norm="transductive"))


@pytest.mark.parametrize("dim", [0, 1, 2, None])
def test_weight_norm_is_torchs_in_value(dim):
    torchs = parametrizations.weight_norm(nn.Conv1d(2, 3, 2), dim=dim)
    ours, x = prepare(torchs, norm="transductive"), torch.randn(4, 2, 5)
    torch.testing.assert_close(ours(x), torchs(x))
    assert [name for name, _ in ours.named_parameters()] == [
        name for name, _ in torchs.named_parameters()
    ]
