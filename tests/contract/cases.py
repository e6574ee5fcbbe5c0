"""The grid of the contract suite: every registered geometry on models that differ in what usually goes wrong."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mdtheory.geometry import Geometry, geometries
from mdtheory.inner.estimators import estimators
from mdtheory.meta import MetaLearner
from mdtheory.models import models
from mdtheory.seeding import generator
from mdtheory.typing import Episode, Params

N_WAY, N_TASKS = 2, 3
VARIANTS = {"metasgd-free": ("metasgd", {"form": "free"}), "metamida-bounded": ("metamida", {"scale": "bounded"})}
SLUGS = [*geometries.names(), *VARIANTS]
ESTIMATORS = [name for name in estimators.names() if name != "implicit"]  # has its own suite: it needs a convex penalty


class UserNet(nn.Module):
    """What users bring: native norms, tied weights, a frozen part, a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(6, 5)
        self.frozen.requires_grad_(False)
        self.norm = nn.BatchNorm1d(5)
        self.layer = nn.Linear(5, 5)
        self.tied = nn.Linear(5, 5, bias=False)
        self.tied.weight = self.layer.weight
        self.after = nn.LayerNorm(5)
        self.head = nn.Linear(5, N_WAY)
        self.register_buffer("offset", torch.linspace(-0.5, 0.5, 5))

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.layer(self.norm(self.frozen(x.flatten(1)))))
        return self.head(self.after(self.tied(hidden) + self.offset))


def _conv4() -> nn.Module:
    return models.get("conv4")(in_channels=1, image_size=16, n_way=N_WAY, channels=8, seed=1)


def _mlp() -> nn.Module:
    return models.get("mlp")(in_features=6, n_way=N_WAY, hidden=(5,), activation="tanh", seed=1)


def _user() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return UserNet()


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (_mlp, (6,)),
    "conv4": (_conv4, (1, 16, 16)),
    "user": (_user, (6,)),
}


def build(slug: str) -> Geometry:
    name, options = VARIANTS.get(slug, (slug, {}))
    geometry = geometries.get(name)(**options)
    return geometry


def learner_of(slug: str, model: str, estimator: str = "unrolled", **options: object) -> MetaLearner:
    """A float64 learner with live (not neutral) meta-parameters, always the same."""
    network, _ = MODELS[model]
    learner = MetaLearner(network().double(), build(slug), estimator=estimator, **{"n_steps": 2, "task_lr": 0.1, **options})
    stir(learner)
    return learner


def stir(learner: MetaLearner, scale: float = 0.05) -> None:
    """Move every meta-parameter a little, so that no part is at the special point where it starts."""
    noise = generator("contract", "stir")
    with torch.no_grad():
        for parameter in learner.meta().values():
            draw = torch.randn(parameter.shape, generator=noise, dtype=torch.float64)
            parameter.add_(scale * draw.to(parameter.device, parameter.dtype))


def episodes_of(model: str, n_tasks: int = N_TASKS) -> list[Episode]:
    """Random tasks of the model's input shape."""
    _, shape = MODELS[model]
    drawn = []
    for index in range(n_tasks):
        rng = generator("contract", "episode", index)

        def inputs(n: int, rng: torch.Generator = rng) -> Tensor:
            return torch.randn(n, *shape, generator=rng, dtype=torch.float64)

        labels = torch.arange(N_WAY)
        support_y, query_y = labels.repeat_interleave(2), labels.repeat_interleave(3)
        drawn.append(Episode(inputs(2 * N_WAY), support_y, inputs(3 * N_WAY), query_y, 1000 + index))
    return drawn


def largest(tree: Params) -> float:
    return max(float(value.abs().max()) for value in tree.values())


def distance(a: Params, b: Params) -> float:
    """The largest difference, relative to the largest entry of b."""
    return max(float((a[name] - b[name]).abs().max()) for name in b) / max(largest(b), 1e-300)
