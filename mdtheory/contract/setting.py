"""Where a geometry is examined: small float64 models that differ in what usually goes wrong, and
random tasks for them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mdtheory.core.seeding import generator
from mdtheory.core.types import Episode, Params
from mdtheory.geometry.base import Geometry
from mdtheory.inner.estimators.base import Estimator
from mdtheory.meta.learner import MetaLearner
from mdtheory.models import models

N_WAY, N_TASKS = 2, 3
TASK_LR = 0.1


CPU = torch.device("cpu")


class ContractViolation(ValueError):
    """A property that does not hold: what was owed, what was found, and what to do."""


class NotApplicable(Exception):
    """A property that the geometry declares it does not have."""


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
        """Logits. shapes: (n_items, 6) -> (n_items, 2)"""
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
"""Every model by name, with the shape of one input: smooth and without norms; convolutions; and
:class:`UserNet`.
"""


@dataclass(frozen=True)
class Setting:
    """One geometry on one of :data:`MODELS`: fresh learners and tasks, always the same. ``make``
    builds the geometry anew; ``network``: a model that is not among them.
    """

    make: Callable[[], Geometry]
    model: str
    device: torch.device = CPU
    network: tuple[Callable[[], nn.Module], tuple[int, ...]] | None = None

    @property
    def _model(self) -> tuple[Callable[[], nn.Module], tuple[int, ...]]:
        return MODELS[self.model] if self.network is None else self.network

    @property
    def exact(self) -> float:
        """What counts as bit for bit: batch sums on a GPU have no fixed order."""
        return 0.0 if self.device.type == "cpu" else 1e-10

    def learner(
        self, estimator: str | Estimator = "unrolled", *, perturbed: bool = True, **options: Any
    ) -> MetaLearner:
        """A float64 learner; ``perturbed``: with every meta-parameter moved away from its start."""
        network, _ = self._model
        settings = {"n_steps": 2, "task_lr": TASK_LR, **options}
        learner = MetaLearner(network().double(), self.make(), estimator=estimator, **settings)
        if perturbed:
            perturb(learner)
        return learner.to(self.device)

    def episodes(self, n_tasks: int = N_TASKS) -> list[Episode]:
        """Random tasks of the model's input shape, each with an address of its own."""
        return [self._episode(index).to(self.device) for index in range(n_tasks)]

    def _episode(self, index: int) -> Episode:
        _, shape = self._model
        rng = generator("contract", "episode", index)
        support, query = (
            torch.randn(n * N_WAY, *shape, generator=rng, dtype=torch.float64) for n in (2, 3)
        )
        labels = torch.arange(N_WAY)
        return Episode(
            support, labels.repeat_interleave(2), query, labels.repeat_interleave(3), 1000 + index
        )


def perturb(learner: MetaLearner, scale: float = 0.05) -> None:
    """Move every meta-parameter a little, so that no part is at the special point where it
    starts.
    """
    noise = generator("contract", "stir")
    with torch.no_grad():
        for parameter in learner.meta().values():
            draw = torch.randn(parameter.shape, generator=noise, dtype=torch.float64)
            parameter.add_(scale * draw.to(parameter.device, parameter.dtype))


def largest(tree: Params) -> float:
    """The largest magnitude of any entry."""
    return max(float(value.abs().max()) for value in tree.values())


def distance(a: Params, b: Params) -> float:
    """The largest difference of any entry, relative to the largest entry of b."""
    return max(float((a[name] - b[name]).abs().max()) for name in b) / max(largest(b), 1e-300)
