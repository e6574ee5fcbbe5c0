"""Tiny Conv4 learners in float64 with live meta-parameters, and one way to compare a gradient with
a reference.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mdtheory.core import tree
from mdtheory.core.seeding import generator
from mdtheory.core.types import Episode, Params
from mdtheory.geometry import Geometry, geometries
from mdtheory.meta import MetaLearner
from mdtheory.models import models

N_WAY, CHANNELS, IMAGE = 3, 4, 16
STEPS, RATE = 3, 0.2
PRECISION = 1e-11  # of the largest entry; measured: 2e-13 and below


def conv4(**options) -> torch.nn.Module:
    return models.get("conv4")(
        **{
            "in_channels": 1,
            "image_size": IMAGE,
            "n_way": N_WAY,
            "channels": CHANNELS,
            "seed": 3,
            **options,
        }
    )


def learner_of(geometry: str | Geometry, *, perturbed: bool = True, **options) -> MetaLearner:
    """Away from the neutral start unless ``perturbed=False``, so that no part hides behind an
    identity.
    """
    made = geometries.get(geometry)() if isinstance(geometry, str) else geometry
    learner = MetaLearner(conv4().double(), made, **{"n_steps": STEPS, "task_lr": RATE, **options})
    if perturbed:
        rng = generator("rivals", "stir")
        with torch.no_grad():
            for parameter in learner.meta().values():
                parameter += 0.1 * torch.randn(parameter.shape, generator=rng, dtype=torch.float64)
    return learner


def episode_of(seed: int = 5, n_shot: int = 2, n_query: int = 2) -> Episode:
    rng = generator("rivals", "episode", seed)

    def images(n: int) -> Tensor:
        return torch.randn(n, 1, IMAGE, IMAGE, generator=rng, dtype=torch.float64)

    labels = torch.arange(N_WAY)
    return Episode(
        images(N_WAY * n_shot),
        labels.repeat_interleave(n_shot),
        images(N_WAY * n_query),
        labels.repeat_interleave(n_query),
        seed,
    )


def noise(learner: MetaLearner, episode: Episode) -> Params:
    return learner.problem().noise(learner.meta(), learner.task(episode))


def leaves(learner: MetaLearner) -> Params:
    """The meta-parameters as fresh leaves for a reference."""
    return {name: value.requires_grad_() for name, value in tree.detach(learner.meta()).items()}


def derivative(total: Tensor, meta: Params, names: Sequence[str] | None = None) -> Params:
    wanted = list(meta) if names is None else list(names)
    return dict(
        zip(
            wanted,
            torch.autograd.grad(total, [meta[name] for name in wanted], retain_graph=True),
            strict=True,
        )
    )


def distance(a: Params, b: Params) -> float:
    """The largest difference, relative to the largest entry of b; the names must be the same."""
    if a.keys() != b.keys():
        raise AssertionError(f"different names: {sorted(a.keys() ^ b.keys())}")
    return max(float((a[name] - b[name]).abs().max()) for name in b) / max(
        float(value.abs().max()) for value in b.values()
    )


def worst_slope(learner: MetaLearner, episode: Episode, *, step: float = 1e-6) -> float:
    """The largest error of a directional derivative against central differences of the declared
    surrogate, relative to the gradient's norm. One random unit direction for each kind of
    meta-parameter; stops are frozen at their values.

    The step is small because a larger one crosses kinks of ReLU and max-pool (seen at 1e-5).
    """
    problem, meta, grads = (
        learner.problem(),
        tree.detach(learner.meta()),
        learner.meta_gradient([episode]).grads,
    )
    task, drawn = learner.task(episode), noise(learner, episode)
    tape = learner.estimator.record_tape(problem, meta, task, drawn)
    rng, errors = generator("rivals", "direction"), []
    for kind in sorted({_kind(name) for name in meta}):
        along = {
            n: torch.randn(v.shape, generator=rng, dtype=torch.float64)
            for n, v in meta.items()
            if _kind(n) == kind
        }
        length = tree.norm(along)
        along = {name: value / length for name, value in along.items()}

        def value(sign: int, along: Params = along) -> Tensor:
            moved = {**meta, **tree.axpy(sign * step, along, {name: meta[name] for name in along})}
            return learner.estimator.value(problem, moved, task, drawn, tape=tape)

        predicted = tree.dot({n: grads[n] for n in along}, along)
        errors.append(abs(float(predicted - (value(1) - value(-1)) / (2 * step))))
    return max(errors) / float(tree.norm(grads))


def _kind(name: str) -> str:
    """What the tensor is, without the layer that it belongs to."""
    return name.split(".blocks")[0].split(".classifier")[0]
