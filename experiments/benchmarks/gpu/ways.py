"""The ways to do a meta-iteration on a GPU: ours, and everybody else's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from experiments.benchmarks.case import Size, Work, first_weights
from experiments.benchmarks.gpu import compiled
from experiments.benchmarks.gpu.checks import learner, stepping
from experiments.benchmarks.gpu.compiled import Compiled
from experiments.benchmarks.gpu.jax_peer import Jax
from experiments.benchmarks.implementations import kind
from mdtheory.core.types import Episode, Params
from mdtheory.meta.captured import Recorder

RECORDED = "ours, recorded"
"""The way that the others are compared with."""

LIBRARIES = (
    "plain",
    "higher",
    "torchopt",
    "learn2learn",
    "parallel-metalearn",
    "parallel-metalearn-sequential",
)
"""Of ``implementations/``. All of them know MAML."""


@dataclass(frozen=True)
class Ready:
    """A way that is set up: its meta-gradient by the names of the network, and step(n), which does
    so many meta-iterations or fewer and gives their number. Ours end with Adam's step, which the
    others are spared.
    """

    gradient: Callable[[], Params]
    step: Callable[[int], int]


@dataclass(frozen=True)
class Way:
    """``ready`` sets it up; ``minutes``: what that takes where it takes long."""

    name: str
    ready: Callable[[], Ready]
    minutes: float = 0.0


@dataclass(frozen=True)
class Setting:
    """What is measured: a geometry at a size with products of one precision, on one device."""

    geometry: str
    size: Size
    precision: str
    device: torch.device

    @property
    def work(self) -> Work:
        """The setting as the peers know it."""
        return Work(implementation="plain", size=self.size)

    def weights(self) -> Params:
        """Everybody's first weights."""
        drawn = first_weights(self.size, torch.float32)
        return {name: value.to(self.device) for name, value in drawn.items()}


def ways(setting: Setting, tasks: list[Episode], recorder: Recorder) -> Iterator[Way]:
    """All of them, ours first; where the geometry is not MAML, ours alone."""
    for name, batched, recorded in (
        ("ours, loop", False, False),
        ("ours, vmap", True, False),
        (RECORDED, True, True),
    ):
        given = recorder if recorded else None
        yield Way(name, lambda b=batched, r=given: _ours(setting, tasks, batched=b, recorder=r))
    if setting.geometry != "maml":
        return
    for name in LIBRARIES:
        yield Way(name, lambda n=name: _theirs(kind(n)(setting.work, setting.weights()), tasks))
    yield Way(
        "jax",
        lambda: _theirs(Jax(setting.work, setting.weights(), setting.precision), tasks),
    )
    yield Way(
        "torch.compile",
        lambda: _theirs(Compiled(setting.work, setting.weights()), tasks),
        minutes=compiled.MINUTES,
    )


def _ours(
    setting: Setting, tasks: list[Episode], *, batched: bool, recorder: Recorder | None
) -> Ready:
    own = learner(setting.geometry, setting.size, setting.device, torch.float32)
    own.estimator.batched = batched and own.geometry.vmappable
    found = own.meta_gradient(tasks).grads
    optimizer = torch.optim.Adam(own.meta().values())
    return Ready(lambda: found, stepping(own, tasks, optimizer, recorder))


def _theirs(peer: Any, tasks: list[Episode]) -> Ready:
    run = getattr(peer, "run", peer.meta_gradient)

    def step(_: int) -> int:
        run(tasks)
        return 1

    return Ready(
        lambda: {f"anchor.{name}": value for name, value in peer.meta_gradient(tasks).items()},
        step,
    )
