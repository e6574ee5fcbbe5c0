"""A tiny learner and a stream of Gaussian blobs: meta-training in milliseconds."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mdtheory.core import seeding
from mdtheory.core.types import Episode
from mdtheory.meta import checkpoint
from mdtheory.meta.events import JsonLines
from mdtheory.meta.learner import MetaLearner
from mdtheory.meta.trainer import MetaTrainer, RunInfo, TrainerOptions, Validation
from mdtheory.models import models

N_WAY, FEATURES = 3, 5


def blobs(index: int, *, n_query: int = 6, scale: float = 1.0) -> Episode:
    """Three Gaussian blobs at random places, one support item and ``n_query`` queries of each;
    class-major.
    """
    rng = seeding.generator("blobs", index)
    centres = 2 * torch.randn(N_WAY, 1, FEATURES, generator=rng)
    x = scale * (centres + 0.5 * torch.randn(N_WAY, 1 + n_query, FEATURES, generator=rng))
    labels = torch.arange(N_WAY)
    return Episode(
        x[:, :1].flatten(0, 1),
        labels,
        x[:, 1:].flatten(0, 1),
        labels.repeat_interleave(n_query),
        seeding.seed("noise", index),
    )


class Switch(nn.Module):
    """A user's network with batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = (
            nn.Linear(FEATURES, 8),
            nn.BatchNorm1d(8),
            nn.Linear(8, N_WAY),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.norm(self.first(x)).tanh())


def learner(geometry: str = "maml", **options: Any) -> MetaLearner:
    """The same first weights every time."""
    network = options.pop("network", None)
    if network is None:
        network = models.get("mlp")(in_features=FEATURES, n_way=N_WAY, hidden=(8,), seed=1)
    return MetaLearner(network, geometry, **{"n_steps": 2, "task_lr": 0.1, **options})


def trainer(
    out: Path | None = None,
    *,
    optimizer: Any = None,
    own: MetaLearner | None = None,
    **options: Any,
) -> MetaTrainer:
    """A trainer of six iterations; ``optimizer`` makes one from the meta-parameters."""
    own = learner() if own is None else own
    make = optimizer or (lambda values: torch.optim.Adam(values, lr=0.01))
    parts = make(list(own.meta().values()))
    made, scheduler = parts if isinstance(parts, tuple) else (parts, None)
    chosen = {
        "iterations": 6,
        "n_tasks": 2,
        "checkpoint_every": 2,
        "info": RunInfo(config_digest="d"),
    }
    names = [field.name for field in fields(TrainerOptions)]
    chosen |= {name: options.pop(name) for name in names if name in options}
    validation = Validation(stream=lambda index: blobs(10_000 + index), every=3, tasks=4)
    return MetaTrainer(
        own,
        options.pop("stream", blobs),
        TrainerOptions(**chosen),
        optimizer=made,
        scheduler=scheduler,
        out=out,
        **{"validation": validation, **options},
    )


def logged(out: Path, *listeners: Any, **options: Any) -> MetaTrainer:
    """The same, writing metrics.jsonl."""
    return trainer(out, listeners=[JsonLines(out / "metrics.jsonl"), *listeners], **options)


class Stop:
    """A listener that raises a signal of its own after some training iterations, as a kill between
    two steps would.
    """

    class Killed(BaseException):
        """Nothing catches it."""

    def __init__(self, after: int):
        self.after = after

    def start(self, *, done: int, validated: int, total: int) -> None:
        pass

    def record(self, row: Any) -> None:
        if row["kind"] == "train" and row["iteration"] == self.after:
            raise self.Killed

    def close(self) -> None:
        pass


def sgd(values: Any, **options: Any) -> Any:
    return torch.optim.SGD(values, **{"lr": 0.5, **options})


def last(folder: Path) -> dict[str, Any]:
    return checkpoint.load(folder / "last.pt")


def broken_off(folder: Path, after: int, **options: Any) -> None:
    """Train until just after iteration ``after``, and vanish as a killed process would."""
    folder.mkdir(exist_ok=True)
    one = logged(folder, Stop(after), **options)
    with pytest.raises(Stop.Killed):
        one.fit()


def resumed(folder: Path, **options: Any) -> dict[str, Any]:
    """Resume in a fresh trainer, to the end."""
    one = logged(folder, **options)
    one.resume(last(folder))
    one.fit()
    return last(folder)


def unbroken(folder: Path, **options: Any) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    logged(folder, **options).fit()
    return last(folder)
