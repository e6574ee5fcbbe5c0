"""Measure every row on the same test tasks, and write the record and its page."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn

from experiments import provenance
from experiments.encoder import methods, page
from experiments.encoder.features import SIZE, Few, Lite0, features
from experiments.encoder.methods import ROWS, Solver
from experiments.generated import WriteOrCheck, report, settle
from experiments.records import seal
from mdtheory import EpisodeStream
from mdtheory.core.progress import say
from mdtheory.data.episodes import Source
from mdtheory.models import Conv4

WAY, QUERIES, STEPS = 5, 15, 3
CLASSES = {"train": 300, "validation": 60, "test": 200}
TASKS, TUNED = 400, {1: 30, 5: 12}
"""Test tasks of every row; of fine-tuning fewer, since each takes seconds."""
TRAINING = {"iterations": 250, "n_tasks": 4, "rate": 1e-3}
TRIED: dict[str, Any] = {"task_lr": (0.02, 0.1, 0.5), "decay": (0.001, 0.01, 0.1), "tasks": 100}
"""What is chosen among on validation tasks: the rate of learned rows, the decay of the probe."""


def embedding(n_features: int) -> nn.Module:
    """A linear embedding of the features, for the prototypical network."""
    return methods.Head(n_features, WAY).embedding


def small_network() -> nn.Module:
    """Conv4 on 28 x 28 pixels without its classifier: what one would train without an encoder."""
    network = Conv4(in_channels=1, image_size=28, n_way=WAY, channels=32, seed=0)
    network.classifier = nn.Flatten()
    return network


def solvers(
    table: Source, pixels: Source, small: Source, encoder: nn.Module, shot: int
) -> dict[str, tuple[Source, Callable[[], Solver], int]]:
    """Every row: what it sees, how its solver is made, and on how many test tasks it is tried."""
    n_features = table.image_shape[0]
    tasks, validation = (
        _stream(table, "train", shot, 5),
        _stream(table, "validation", shot, QUERIES),
    )
    made: dict[str, tuple[Source, Callable[[], Solver], int]] = {
        "nearest centroid": (table, lambda: methods.nearest_centroid, TASKS),
        "linear probe": (
            table,
            lambda: methods.choose(_probe, TRIED["decay"], validation, TRIED["tasks"]),
            TASKS,
        ),
        "prototypical network on features": (
            table,
            lambda: methods.prototypical(embedding(n_features), tasks, **TRAINING),
            TASKS,
        ),
    }
    for name, row in ROWS.items():
        made[name] = (table, partial(_trained, row, n_features, tasks, validation), TASKS)
    small_tasks = _stream(small, "train", shot, 5)
    made["no encoder: prototypical Conv4"] = (
        small,
        lambda: methods.prototypical(small_network(), small_tasks, **TRAINING),
        TASKS,
    )
    made["fine-tuning, all weights"] = (
        pixels,
        lambda: lambda task: methods.fine_tune(encoder, task, n_steps=10, rate=1e-4),
        TUNED[shot],
    )
    return made


def _probe(decay: float) -> Solver:
    return partial(methods.linear_probe, decay=decay)


def _trained(
    row: methods.Row, n_features: int, tasks: EpisodeStream, validation: EpisodeStream
) -> Solver:
    def at(rate: float) -> Solver:
        start = methods.learner(row, n_features, WAY, n_steps=STEPS, task_lr=rate, seed=0)
        return methods.meta_train(start, tasks, **TRAINING)

    return methods.choose(at, TRIED["task_lr"], validation, TRIED["tasks"])


def _stream(source: Source, split: str, shot: int, n_query: int) -> EpisodeStream:
    return EpisodeStream(source, split=split, seed=0, n_way=WAY, n_shot=shot, n_query=n_query)


def measure(source: Source, make: Callable[[], Solver], n_tasks: int, shot: int) -> dict[str, Any]:
    """Correct answers on every test task, and what it took."""
    began = time.process_time()
    solve = make()
    trained = time.process_time()
    tasks, correct = _stream(source, "test", shot, QUERIES), []
    for index in range(n_tasks):
        correct.append(methods.right(solve, tasks(index)))
    chosen = {"chosen": solve.value} if isinstance(solve, methods.Chosen) else {}
    return chosen | {
        "correct": correct,
        "train_seconds": round(trained - began, 1),
        "task_seconds": round((time.process_time() - trained) / n_tasks, 4),
    }


def main(
    write: WriteOrCheck,
    measured: Annotated[
        bool, typer.Option("--measure", help="Measure again (a quarter of an hour of one core).")
    ] = False,
) -> None:
    """The page from the record; with --measure the record first."""
    if measured:
        _measure(page.RECORD)
    stale = settle({page.PAGE: page.made().encode()}, write=write)
    raise typer.Exit(report(stale, write=write, command="python -m experiments.encoder"))


def _measure(path: Path) -> None:
    from mdtheory.data.sources import data_sources

    torch.set_num_threads(1)
    omniglot = data_sources.get("omniglot")()
    pixels, small = (Few(omniglot.open(None, image_size=size), CLASSES) for size in (105, 28))
    encoder = Lite0()
    table = features(pixels, encoder, encoder.digest)
    small.digest = pixels.digest  # the same tasks at another size
    rows: dict[str, dict[str, Any]] = {}
    for shot in (1, 5):
        for name, (source, make, n_tasks) in solvers(table, pixels, small, encoder, shot).items():
            torch.manual_seed(0)
            rows.setdefault(name, {})[str(shot)] = measure(source, make, n_tasks, shot)
            found = rows[name][str(shot)]
            share = sum(found["correct"]) / (n_tasks * WAY * QUERIES)
            say(f"{shot}-shot, {name}: {100 * share:.1f}%, {found['task_seconds']} s a task")
    record = {
        "encoder": {"weights": encoder.digest, "pixels": SIZE},
        "data": {"digest": pixels.digest, "classes": CLASSES, "way": WAY, "queries": QUERIES},
        "training": TRAINING | {"steps": STEPS, "tried": TRIED},
        "provenance": {"finished": datetime.now(UTC).isoformat(timespec="seconds")}
        | {
            "code": provenance.code().model_dump(),
            "machine": provenance.machine("cpu").model_dump(),
        },
        "rows": rows,
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(record) + "\n")
    seal(path.parent)


if __name__ == "__main__":
    typer.run(main)
