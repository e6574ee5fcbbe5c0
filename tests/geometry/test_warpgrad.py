"""Where the warps go, that they start as nothing at all, and what is refused."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mdtheory.geometry import geometries
from mdtheory.meta import MetaLearner
from mdtheory.models import models
from tests.geometry.cases import conv4

WarpGrad = geometries.get("warpgrad")


def warps(model, **options):
    wrapped = WarpGrad(**options).wrap(copy.deepcopy(model))
    return wrapped, [name for name, _ in wrapped.named_parameters() if ".warp." in name]


def test_default_on_conv4_is_after_every_block():
    _, names = warps(conv4())
    assert names == [f"blocks.{i}.warp.{kind}" for i in range(4) for kind in ("weight", "bias")]


def test_other_parameters_keep_their_names_and_outputs_are_exactly_the_same():
    model, x = conv4(), torch.randn(5, 1, 16, 16)
    wrapped, added = warps(model)
    assert [name for name, _ in wrapped.named_parameters() if name not in added] == [
        name for name, _ in model.named_parameters()
    ]
    assert torch.equal(wrapped(x), model(x))
    with torch.no_grad():
        wrapped.blocks[1].warp.bias += 1
    assert not torch.allclose(wrapped(x), model(x))


def test_a_matrix_gets_a_linear_warp_behind_its_activation_where_asked():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    wrapped, names = warps(model, after="1")
    assert names == ["1.warp.weight", "1.warp.bias"]
    assert wrapped[1].warp.weight.shape == (4, 4)
    with torch.no_grad():
        wrapped[1].warp.weight.mul_(2)
    x = torch.randn(5, 3)
    assert torch.allclose(wrapped(x), model[2](2 * torch.tanh(model[0](x))))


def test_default_without_blocks_is_every_hidden_layer_that_learns_with_its_activation():
    model = nn.Sequential(
        nn.Linear(3, 4), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 6), nn.Linear(6, 2)
    )
    model[0].requires_grad_(False)
    assert warps(model)[1] == ["2.warp.weight", "2.warp.bias", "3.warp.weight", "3.warp.bias"]
    perceptron = models.get("mlp")(in_features=6, hidden=(5, 4))
    wrapped, names = warps(perceptron)
    assert names == [f"layers.{i}.warp.{kind}" for i in (1, 3) for kind in ("weight", "bias")]
    assert [len(wrapped.get_parameter(name)) for name in names] == [5, 5, 4, 4]


def test_a_sequential_block_is_warped_once():
    block = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    wrapped, names = warps(nn.Sequential(block, nn.Flatten()), after=("0",))
    assert names == ["0.warp.weight", "0.warp.bias"]
    with torch.no_grad():
        wrapped[0].warp.weight.mul_(3)
    x = torch.randn(2, 1, 5, 5)
    assert torch.allclose(wrapped(x), 3 * block(x).flatten(1), atol=1e-6)


def test_no_random_number_is_drawn():
    before = torch.get_rng_state()
    WarpGrad().wrap(conv4())
    assert torch.equal(before, torch.get_rng_state())


def test_patterns_do_not_reach_inside():
    assert warps(conv4(), after="blocks.*")[1] == warps(conv4())[1]


def test_warps_are_shared_and_everything_else_is_adapted():
    meta = MetaLearner(conv4(), "warpgrad").meta()
    assert [name for name in meta if name.startswith("shared.")] == [
        f"shared.{name}" for name in warps(conv4())[1]
    ]
    assert sum(name.startswith("anchor.") for name in meta) == 18


@pytest.mark.parametrize(
    ("model", "after", "message"),
    [
        (
            nn.Linear(3, 2),
            None,
            "after must name modules where there are no `blocks` or hidden layers",
        ),
        (
            conv4(),
            "block.*",
            "after must match submodules of the model, got 'block.*'; choose from blocks",
        ),
        (
            nn.Sequential(nn.Tanh(), nn.Linear(3, 2)),
            "0",
            "after must name modules behind an nn.Linear or nn.Conv2d, got '0'",
        ),
        (warps(conv4())[0], "blocks.0", "a module must be warped once, got 'blocks.0'"),
    ],
)
def test_refusals_say_what_to_do(model, after, message):
    with pytest.raises(ValueError) as refusal:
        WarpGrad(after=after).wrap(copy.deepcopy(model))
    assert message in str(refusal.value)


def test_a_block_of_a_learners_network_is_warped_once() -> None:
    blocks = nn.Sequential(nn.Sequential(nn.Linear(4, 5), nn.ReLU()), nn.Linear(5, 2))
    earlier = MetaLearner(blocks).network  # its sequences are fused
    learner = MetaLearner(earlier, geometries.get("warpgrad")(after="0"))
    calls: list[int] = []
    learner.network.get_submodule("0.warp").register_forward_hook(lambda *_: calls.append(1))
    learner.network(torch.ones(1, 4))
    assert len(calls) == 1


def test_a_learners_network_is_warped_where_the_bare_one_is() -> None:
    bare = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    names = [MetaLearner(one, "warpgrad").meta() for one in (bare, MetaLearner(bare).network)]
    assert list(names[0]) == list(names[1])
    assert "shared.1.warp.weight" in names[0]
