"""Maps, anchors and toy trainings that the tests of certified geometries share."""

from __future__ import annotations

import torch

from mdtheory.core.seeding import generator
from mdtheory.core.types import Episode
from mdtheory.geometry import geometries
from mdtheory.meta import MetaLearner
from mdtheory.models import models


def small_anchor():
    """One tensor of every kind, some equal in shape, one of zeros: 37 coordinates."""
    shapes = {
        "a.w": (3, 2, 1, 2),
        "a.b": (3,),
        "b.w": (2, 3),
        "b.b": (3,),
        "c.w": (2, 3),
        "c.s": (),
        "d.b": (3,),
        "e": (3, 1),
    }
    draw = generator("beyond", "anchor")
    anchor = {
        name: torch.randn(shape, generator=draw, dtype=torch.float64)
        for name, shape in shapes.items()
    }
    return {**anchor, "d.b": torch.zeros(3, dtype=torch.float64)}


def tiny_anchor():
    """14 coordinates in three tensors, for searches with many dense Jacobians."""
    shapes = {"a.w": (2, 2, 1, 2), "a.b": (2,), "b.w": (2, 2)}
    draw = generator("beyond", "tiny")
    return {
        name: torch.randn(shape, generator=draw, dtype=torch.float64)
        for name, shape in shapes.items()
    }


def random_point(anchor, *address, scale=1.0):
    draw = generator("beyond", "point", *address)
    return {
        name: scale * torch.randn(v.shape, generator=draw, dtype=v.dtype)
        for name, v in anchor.items()
    }


def built(map, anchor=None):
    map.build(small_anchor() if anchor is None else anchor)
    return map.double()


def perturbed(map, scale=1.0, seed=0):
    """Every parameter moved by N(0, scale^2): far from where it starts."""
    draw = generator("beyond", "stir", seed)
    with torch.no_grad():
        for parameter in map.parameters():
            parameter.add_(
                scale * torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
            )
    return map


def meta_of(map):
    return {name: value.detach() for name, value in map.own().items()}


def distance(a, b):
    return max(float((a[n] - b[n]).detach().abs().max()) for n in b) / max(
        float(v.detach().abs().max()) for v in b.values()
    )


def toy_episode(index):
    """Two classes on either side of a random direction that depends on the task, with very
    different input scales.
    """
    draw = generator("beyond", "episode", index)
    direction = torch.randn(6, generator=draw, dtype=torch.float64)
    spread = torch.tensor([4.0, 2.0, 1.0, 0.5, 0.3, 0.2], dtype=torch.float64)

    def items(n):
        x = spread * torch.randn(2 * n, 6, generator=draw, dtype=torch.float64)
        y = torch.arange(2).repeat_interleave(n)
        along = (x @ direction).abs() * (2 * y - 1)
        return x + ((along - x @ direction) / direction.square().sum())[:, None] * direction, y

    return Episode(*items(4), *items(6), index)


def trained(slug, *, n_iterations=30, meta_lr=0.02, dtype=torch.float64, **options):
    """A learner after ``n_iterations`` of Adam on toy tasks; returns it with the query losses
    before and after.
    """
    network = models.get("mlp")(in_features=6, n_way=2, hidden=(4,), activation="tanh", seed=1).to(
        dtype
    )
    learner = MetaLearner(
        network, geometries.get(slug)(**options), n_steps=3, task_lr=0.1, estimator="stepwise"
    )
    optimizer = torch.optim.Adam(learner.parameters(), lr=meta_lr)
    values = []
    for iteration in range(n_iterations):
        optimizer.zero_grad()
        episodes = [toy_episode(2 * iteration + i).to(dtype) for i in (0, 1)]
        values.append(float(learner.backward(episodes).value))
        optimizer.step()
    return learner, sum(values[:10]) / 10, sum(values[-10:]) / 10
