"""Every registered network, at random sizes, is a function of its weights and its batch alone; the
norm layer is torch's, and each policy uses whose statistics it says. Mutants do not.
"""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, strategies as st
from torch.func import functional_call, vmap

from mdtheory.contract.strategies import networks, seeds
from mdtheory.core.seeding import generator
from mdtheory.models import BatchStatNorm, prepare, set_policy, statistics_over_first
from tests.property.mutants import assert_rejects

# -- networks: (network, batch)


def scores_every_item(case) -> None:
    """(N, ...) -> (N, n_way), all finite"""
    network, x = case
    scores = network(x)
    assert scores.shape[0] == len(x) and scores.dim() == 2 and scores.shape[1] >= 2
    assert torch.isfinite(scores).all()


def leaves_nothing_behind(case) -> None:
    """a pass changes no buffer and no draw, so that the next one is the same"""
    network, x = case
    before, state = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    first = network(x)
    assert torch.equal(first, network(x))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def one_task_at_a_time(case) -> None:
    """vmap over the weights and the batches of several tasks is the loop"""
    network, x = case
    weights = {name: value.detach() for name, value in network.named_parameters()}
    both = {name: torch.stack([value, 1.1 * value]) for name, value in weights.items()}
    batches = torch.stack([x, x.flip(0) ** 2])
    together = vmap(lambda w, b: functional_call(network, w, (b,)))(both, batches)
    for i in range(2):
        alone = functional_call(network, {n: v[i] for n, v in both.items()}, (batches[i],))
        torch.testing.assert_close(together[i], alone, rtol=1e-9, atol=1e-9)


# -- the norm layer: (layer, images)


@st.composite
def norms(draw, kind=BatchStatNorm):
    """A norm layer with random weights, and a batch of shape (N, C), (N, C, L) or (N, C, H, W)."""
    channels, extra, seed = draw(st.integers(1, 3)), draw(st.integers(0, 2)), draw(seeds())
    rng = generator("norm", seed)
    layer = kind(channels, affine=draw(st.booleans())).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(channels, generator=rng, dtype=torch.float64))
    size = (draw(st.integers(3, 6)), channels, *(2 for _ in range(extra)))
    return layer, 1 + 2 * torch.randn(size, generator=rng, dtype=torch.float64)


def is_torch_s(case) -> None:
    """value and gradient are those of torch's batch norm in training"""
    layer, x = case
    x = x.requires_grad_()
    expected = F.batch_norm(x, None, None, layer.weight, layer.bias, training=True, eps=layer.eps)
    torch.testing.assert_close(layer(x), expected, rtol=1e-9, atol=1e-9)
    mine, torch_s = (torch.autograd.grad((y**3).sum(), x)[0] for y in (layer(x), expected))
    torch.testing.assert_close(mine, torch_s, rtol=1e-7, atol=1e-7)


def support_ignores_queries(case) -> None:
    """policy "support": the first items decide, whatever comes behind them"""
    layer, x = case
    set_policy(layer, "support")
    n = len(x) - 1
    with statistics_over_first(n):
        whole, changed = layer(x), layer(torch.cat([x[:n], 5 + 3 * x[n:]]))
    torch.testing.assert_close(whole[:n], layer(x[:n]), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(changed[:n], whole[:n], rtol=1e-12, atol=1e-12)


def running_ignores_the_batch(case) -> None:
    """policy "running", in evaluation: an item's output is its own"""
    layer, x = case
    set_policy(layer, "running").eval()
    torch.testing.assert_close(layer(x)[:2], layer(x[:2]), rtol=1e-12, atol=1e-12)


def prepared_is_the_same(case) -> None:
    """torch's own layer, prepared, gives the numbers that it gave in training"""
    _, x = case
    if x.dim() != 4:
        return
    native = torch.nn.Sequential(torch.nn.BatchNorm2d(x.shape[1])).double()
    ours = prepare(native, norm="transductive")
    torch.testing.assert_close(ours(x), native.train()(x), rtol=1e-9, atol=1e-9)


NETWORK = [scores_every_item, leaves_nothing_behind, one_task_at_a_time]
NORM = [is_torch_s, support_ignores_queries, running_ignores_the_batch, prepared_is_the_same]


@pytest.mark.parametrize("check", [*NETWORK, *NORM], ids=lambda one: one.__name__)
def test_layers_and_networks_keep_their_promises(check):
    @given(networks() if check in NETWORK else norms())
    def holds(case):
        check(case)

    holds()


# -- mutants


def with_tail(tail):
    """Every network, with a faulty layer behind it."""
    return networks().map(lambda case: (torch.nn.Sequential(case[0], tail().double()), case[1]))


class Sums(torch.nn.Module):
    def forward(self, y):
        return y.sum(-1)


class Counts(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, y):
        self.calls = self.calls + 1
        return y * self.calls


class Drops(torch.nn.Dropout):
    """Noise of the global generator."""


class Unbiased(BatchStatNorm):
    def _centred(self, x):
        centred, var = super()._centred(x)
        values = x.numel() // self.channels
        return centred, var * values / (values - 1)


class Held(BatchStatNorm):
    """Right values, but no gradient through the statistics."""

    def _centred(self, x):
        centred, var = super()._centred(x)
        return centred, var.detach()


class AllItems(BatchStatNorm):
    def _count(self, x):
        return x.shape[0]


class NeverStored(BatchStatNorm):
    def _uses_stored(self):
        return False


@pytest.mark.parametrize(
    ("mutant", "check"),
    [
        (Sums, scores_every_item),
        (Counts, leaves_nothing_behind),
        (Drops, leaves_nothing_behind),
        (Counts, one_task_at_a_time),
        (Unbiased, is_torch_s),
        (Held, is_torch_s),
        (AllItems, support_ignores_queries),
        (NeverStored, running_ignores_the_batch),
    ],
    ids=lambda one: one.__name__,
)
def test_mutants_are_rejected(mutant, check):
    assert_rejects(check, with_tail(mutant) if check in NETWORK else norms(mutant))
