"""A model with peft's LoRA layers: the task solver moves the adapter and nothing else, and the
meta-gradient is right. Layers of the same shape stand in where peft is not installed.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from importlib.util import find_spec

import pytest
import torch
from torch import nn

from mdtheory import MetaLearner
from tests.docs.pages import DOCS, blocks

ADAPTERS = "*lora_*"


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.mid, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.mid(torch.tanh(self.body(x)))))


class StandIn(nn.Module):
    """W x + scaling B A x in the modules and under the names that peft gives them."""

    def __init__(self, base: nn.Linear, rank: int):
        super().__init__()
        self.base_layer = base.requires_grad_(False)
        self.lora_dropout = nn.ModuleDict({"default": nn.Identity()})
        down, up = (
            nn.Linear(base.in_features, rank, bias=False),
            nn.Linear(rank, base.out_features, bias=False),
        )
        nn.init.zeros_(up.weight)
        self.lora_A, self.lora_B = (
            nn.ModuleDict({"default": down}),
            nn.ModuleDict({"default": up}),
        )
        self.scaling = {"default": 2.0}

    def forward(self, x):
        found = self.base_layer(x)
        for name in self.lora_A:
            inner = self.lora_A[name](self.lora_dropout[name](x))
            found = found + self.scaling[name] * self.lora_B[name](inner)
        return found


def stand_in():
    net = Net()
    for value in net.parameters():
        value.requires_grad_(False)
    net.mid = StandIn(net.mid, rank=2)
    return net


def by_peft():
    if find_spec("peft") is None:
        pytest.skip("peft is not installed")
    from peft import LoraConfig, get_peft_model

    return get_peft_model(Net(), LoraConfig(r=2, lora_alpha=4, target_modules=["mid"]))


@pytest.fixture(params=[stand_in, by_peft], ids=lambda made: made.__name__)
def network(request, float64):
    torch.manual_seed(0)
    return request.param().double()


def episode():
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(12, 4, generator=generator), torch.arange(12) % 3
    return x[:6], y[:6], x[6:], y[6:]


def adapters(network):
    return {name for name, _ in network.named_parameters() if fnmatchcase(name, ADAPTERS)}


@pytest.mark.parametrize("geometry", ["maml", "metasgd", "metamida"])
@pytest.mark.parametrize("adapt", ["*", ADAPTERS])
def test_the_adapter_moves_and_nothing_else(network, geometry, adapt):
    learner = MetaLearner(network, geometry, n_steps=2, task_lr=0.1, adapt=adapt)
    learner.backward([episode()])  # only B has a gradient at the start
    torch.optim.SGD(learner.parameters(), lr=0.5).step()
    own = adapters(network)
    moved = {key for key in learner.meta() if key.startswith("anchor.")}
    assert len(own) == 2 and moved == {f"anchor.{name}" for name in own}
    assert not any(key.startswith("shared.") for key in learner.meta())
    x, y, _, _ = episode()
    adapted = learner.adapt(x, y)
    changed = {
        name
        for name, old in network.named_parameters()
        if not torch.equal(old, adapted.network.get_parameter(name))
    }
    assert changed == own
    assert not torch.equal(adapted(x), learner.adapt(x, y, n_steps=0)(x))


def test_a_base_that_is_not_frozen_is_seen(network):
    """The planted fault: a weight outside the adapter that trains."""
    network.get_parameter(
        next(n for n, _ in network.named_parameters() if n.endswith("body.bias"))
    ).requires_grad_(True)
    learner = MetaLearner(network, "maml", n_steps=1, task_lr=0.1)
    assert len([key for key in learner.meta() if key.startswith("anchor.")]) == 3


def test_the_meta_gradient_is_that_of_finite_differences(network):
    learner = MetaLearner(network, "metasgd", n_steps=2, task_lr=0.3)
    with torch.no_grad():  # both factors away from zero
        for name, value in learner.named_parameters():
            if "lora" in name:
                value.add_(
                    0.3 * torch.randn(value.shape, generator=torch.Generator().manual_seed(5))
                )
    found = learner.meta_gradient([episode()]).grads
    meta = {name: value.detach() for name, value in learner.meta().items()}
    tasks = [learner.task(task) for task in learner.fitted([episode()])]
    for name, gradient in found.items():
        direction = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(2))
        ends = [
            learner.estimator(
                learner.problem(), {**meta, name: meta[name] + step * direction}, tasks
            ).value
            for step in (1e-5, -1e-5)
        ]
        slope = (gradient * direction).sum()
        assert slope.abs() > 1e-6
        torch.testing.assert_close(slope, (ends[0] - ends[1]) / 2e-5, rtol=1e-6, atol=1e-9)


def test_the_guide_s_program_with_peft():
    if find_spec("peft") is None:
        pytest.skip("peft is not installed")
    every = blocks(DOCS / "how-to" / "encoder.md", "python")
    assert any(block.startswith("# peft") for block in every)
    names: dict[str, object] = {}
    for block in every:
        exec(compile(block, "encoder.md", "exec"), names)
