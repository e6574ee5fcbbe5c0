"""Adapting a part of a transformer with native LayerNorm: its head, its norms, or low-rank updates
of its projections.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
import torch
from torch import nn

from mdtheory.core import tree
from mdtheory.core.seeding import generator
from mdtheory.core.types import Episode
from mdtheory.inner.surrogate import surrogate
from mdtheory.meta import MetaLearner
from mdtheory.models import models
from mdtheory.models.user.lora import LOW_RANK, with_low_rank

PROJECTIONS = ("*.qkv.weight", "*.projection.weight")


def vit():
    return models.get("vit")(
        in_channels=1, image_size=8, n_way=2, patch=4, width=6, depth=1, heads=2, seed=1
    ).double()


def episode():
    draw = generator("beyond", "images")
    images = [torch.rand(n, 1, 8, 8, generator=draw, dtype=torch.float64) for n in (4, 6)]
    return Episode(
        images[0],
        torch.arange(2).repeat_interleave(2),
        images[1],
        torch.arange(2).repeat_interleave(3),
        5,
    )


def low_rank():
    model = with_low_rank(vit(), PROJECTIONS, rank=2)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith(".up"):  # off its special start, so that both factors have a gradient
                value.copy_(
                    0.3
                    * torch.randn(
                        value.shape, generator=generator("beyond", name), dtype=value.dtype
                    )
                )
    return model


PARTS = {"head": (vit, "classifier.*"), "norms": (vit, "*norm*"), "low rank": (low_rank, LOW_RANK)}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("slug", ["maml", "potential", "certified"])
def test_meta_gradients_are_finite_differences(slug, part):
    make, pattern = PARTS[part]
    learner = MetaLearner(make(), slug, n_steps=2, task_lr=0.2, adapt=pattern)
    own = learner.meta()
    of_network = [name for name in own if not name.startswith("geometry.")]
    assert all(
        fnmatchcase(name.removeprefix("anchor."), pattern) == name.startswith("anchor.")
        for name in of_network
    )
    with torch.no_grad():
        for name, value in own.items():
            if name.startswith("geometry."):
                value.add_(
                    0.1
                    * torch.randn(
                        value.shape, generator=generator("beyond", name), dtype=value.dtype
                    )
                )
    task, problem, meta = learner.task(episode()), learner.problem(), tree.detach(own)
    grads = learner.meta_gradient([task.episode]).grads
    scale = max(float(g.norm()) for g in grads.values())
    for name in [n for n in grads if n.startswith(("anchor.", "shared."))][::4] + [
        "geometry.map.offset"
    ] * (slug == "potential"):
        v = torch.randn(
            meta[name].shape, generator=generator("beyond", "v", name), dtype=torch.float64
        )
        values = [
            surrogate(problem, {**meta, name: meta[name] + h * v}, task, problem.noise(meta, task))[
                0
            ]
            for h in (1e-5, -1e-5)
        ]
        assert (
            abs(float((values[0] - values[1]) / 2e-5 - (grads[name] * v).sum())) < 1e-6 * scale
        ), name


@pytest.mark.parametrize("part", PARTS)
def test_batched_equals_loop_and_only_the_part_moves(part):
    make, pattern = PARTS[part]
    learner = MetaLearner(make(), n_steps=2, task_lr=0.5, adapt=pattern)
    loop = learner.meta_gradient([episode(), episode()]).grads
    learner.estimator.batched = True
    batched = learner.meta_gradient([episode(), episode()]).grads
    assert max(float((batched[n] - loop[n]).abs().max()) for n in loop) < 1e-11
    adapted = learner.adapt(episode().support_x, episode().support_y)
    before, after = learner.meta(), adapted.network.state_dict()
    moved = {
        name
        for name in after
        if f"anchor.{name}" in before and not torch.equal(after[name], before[f"anchor.{name}"])
    }
    assert moved and all(fnmatchcase(name, pattern) for name in moved)


def test_the_function_is_unchanged_and_the_base_is_frozen():
    plain, x = vit(), episode().support_x
    updated = with_low_rank(plain, PROJECTIONS, rank=2)
    assert torch.allclose(updated(x), plain(x), rtol=1e-14)
    frozen = {name for name, value in updated.named_parameters() if not value.requires_grad}
    assert frozen == {
        f"blocks.0.attention.{m}.parametrizations.weight.original" for m in ("qkv", "projection")
    }
    assert not any(hasattr(module, "parametrizations") for module in plain.modules())
    assert not torch.allclose(low_rank()(x), plain(x), rtol=1e-3)


def test_the_update_has_the_rank():
    weight = low_rank().blocks[0].attention.qkv.weight - vit().blocks[0].attention.qkv.weight
    assert torch.linalg.matrix_rank(weight.detach()) == 2


def test_refusals():
    with pytest.raises(ValueError, match="matches none"):
        with_low_rank(vit(), "nothing.*", rank=1)
    with pytest.raises(ValueError, match="rank must be from 1 to 6"):
        with_low_rank(vit(), "*.qkv.weight", rank=7)
    with pytest.raises(ValueError, match="rank must be from 1 to 0"):
        with_low_rank(vit(), "*.qkv.bias", rank=1)
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    with pytest.raises(ValueError, match="shared by 2 modules"):
        with_low_rank(tied, "0.weight", rank=1)
