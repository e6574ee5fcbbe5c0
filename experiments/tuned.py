"""Every row at its own rates: ``python -m experiments.tuned --tier glyphs --row maml``.

A tier trains all rows at one meta-rate and one task rate, which may suit one of them better. Here a
row is trained, with seed 0, at every pair of multiples of the two out of :data:`GRID`; the pair
with the most correct answers on validation tasks is trained with the tier's seeds and tested on all
test tasks. One file a row, ``tuned/<tier>-<row>-<shot>shot.json``, with digests in SHA256SUMS; it
can be stopped at any moment, and the next call goes on.
"""

from __future__ import annotations

import json
import shutil
import time
from math import log
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import Field

from experiments.cells import Cell, cells, tier as tier_of
from experiments.factorial import source_of
from experiments.generated import ROOT
from experiments.records import Count, Digest, Section, seal
from mdtheory.config import RunConfig

OUT = ROOT / "experiments" / "tuned"
TIER = "glyphs"
"""Whose rows are to be tuned: minutes a row."""
GRID = (0.5, 1.0, 2.0)
VALIDATION_TASKS = 100

Pair = tuple[float, float]
"""Multiples of the tier's meta-rate and task rate."""


class Tuned(Section):
    """One row. ``validation``: meta-rate x task rate -> correct answers, -1 where it diverged
    with any seed; ``correct``: seed -> queries a class -> correct answers by test task, at
    ``best``.
    """

    tier: str
    row: str
    shot: Count
    config_digest: Digest
    grid: list[float]
    validation_tasks: Count
    validation: list[list[int]]
    best: list[float]
    correct: dict[str, dict[str, list[Count]]]
    seconds: Annotated[float, Field(ge=0)]


def pairs() -> list[Pair]:
    """All of the grid, the meta-rate outermost."""
    return [(meta, task) for meta in GRID for task in GRID]


def best_pair(validation: list[list[int]]) -> Pair:
    """The pair with the most correct answers; of equals the one nearest to (1, 1) in logarithms,
    then the smaller.
    """
    counted = dict(zip(pairs(), [count for line in validation for count in line], strict=True))
    most = max(counted.values())
    return min(
        (pair for pair, count in counted.items() if count == most),
        key=lambda pair: (round(sum(abs(log(rate)) for rate in pair), 9), pair),
    )


def at(config: RunConfig, pair: Pair) -> RunConfig:
    """The configuration at multiples of its rates."""
    optimizer = config.meta.optimizer
    optimizer = optimizer.model_copy(update={"meta_lr": pair[0] * optimizer.meta_lr})
    return config.model_copy(
        update={
            "task": config.task.model_copy(update={"task_lr": pair[1] * config.task.task_lr}),
            "meta": config.meta.model_copy(update={"optimizer": optimizer}),
        }
    )


class Sitting:
    """The work on one row, saved below ``parts/`` after every training and test. ``until``: when to
    stop (``time.time()``).
    """

    def __init__(self, cell: Cell, *, out: Path = OUT, until: float = float("inf")):
        self.cell = cell
        self.until = until
        self.out = out / f"{cell.tier}-{cell.row}-{cell.shot}shot.json"
        self.part = out / "parts" / self.out.stem
        self.source = source_of(cell.config(0).data.model_dump_json())

    def run(self) -> bool:
        """Whether everything is done."""
        kept = self.part / "found.json"
        self.part.mkdir(parents=True, exist_ok=True)
        empty = {"seconds": 0.0, "validation": [], "correct": {}}
        found = json.loads(kept.read_text()) if kept.exists() else empty
        began = time.monotonic()
        while not self.step(found):
            found["seconds"] += time.monotonic() - began
            began = time.monotonic()
            kept.write_text(json.dumps(found))
            if time.time() >= self.until:
                return False
        self.write(found)
        shutil.rmtree(self.part)
        return True

    def step(self, found: dict[str, Any]) -> bool:
        """One training with what follows it; ``True`` where nothing is left."""
        from mdtheory.meta.trainer import DivergedError

        done: list[int] = found["validation"]
        if len(done) < len(pairs()):
            done.append(self.validated(pairs()[len(done)]))
            return False
        best = best_pair(table_of(done))
        for seed in tier_of(self.cell.tier).seeds:
            if str(seed) not in found["correct"]:
                try:
                    found["correct"][str(seed)] = self.tested(seed, best)
                except DivergedError:  # with a seed of the tier: not the best after all
                    done[pairs().index(best)], found["correct"] = -1, {}
                return False
        return True

    def folder(self, seed: int, pair: Pair) -> Path:
        """Where one training is kept until the row is done."""
        return self.part / f"{pair[0]:g}-{pair[1]:g}-seed{seed}"

    def learner(self, seed: int, pair: Pair) -> tuple[RunConfig, Any]:
        """Trained as a cell is, in evaluation mode at its best validation."""
        from experiments.run import learner_with
        from mdtheory.meta import checkpoint
        from mdtheory.run.folder import RunFolder

        config, path = at(self.cell.config(seed), pair), self.folder(seed, pair)
        with RunFolder(path, resume=True) as folder:
            folder.trainer(config, self.source).fit()
        return config, learner_with(config, self.source, checkpoint.load(path / "best.pt"))

    def validated(self, pair: Pair) -> int:
        """Correct answers on validation tasks; -1 where training diverged."""
        from experiments.factorial import count
        from mdtheory.meta.trainer import DivergedError
        from mdtheory.run.build import build_stream

        try:
            config, learner = self.learner(0, pair)
        except DivergedError:
            return -1
        n_query = config.task.n_query
        stream = build_stream(config, self.source, split="validation", n_query=n_query)
        return sum(count(learner, stream, 1.0, 0, VALIDATION_TASKS, (n_query,))[str(n_query)])

    def tested(self, seed: int, pair: Pair) -> dict[str, list[int]]:
        """Queries a class -> correct answers on all test tasks."""
        from experiments.run import correct_answers

        config, learner = self.learner(seed, pair)
        return correct_answers(learner, config, self.source, start=0, stop=config.test.tasks)

    def write(self, found: dict[str, Any]) -> None:
        """The finished file, one list a line."""
        from experiments.run import rows_of_numbers

        table = table_of(found["validation"])
        whole = Tuned(
            tier=self.cell.tier,
            row=self.cell.row,
            shot=self.cell.shot,
            config_digest=self.cell.config(0).digest,
            grid=list(GRID),
            validation_tasks=VALIDATION_TASKS,
            validation=table,
            best=list(best_pair(table)),
            correct=found["correct"],
            seconds=round(found["seconds"], 1),
        )
        self.out.write_text(rows_of_numbers(whole.model_dump()))
        seal(self.out.parent)


def table_of(counts: list[int]) -> list[list[int]]:
    """Meta-rate x task rate."""
    return [counts[i : i + len(GRID)] for i in range(0, len(counts), len(GRID))]


def read(folder: Path = OUT) -> list[Tuned]:
    """All finished ones, by name."""
    return [Tuned.model_validate_json(path.read_text()) for path in sorted(folder.glob("*.json"))]


def missing(folder: Path = OUT) -> list[Cell]:
    """The cells that are to be tuned and are not."""
    known = {(one.row, one.shot) for one in read(folder) if one.tier == TIER}
    return [cell for cell in cells(TIER) if (cell.row, cell.shot) not in known]


def verify(one: Tuned) -> list[str]:
    """What is wrong with a file, in sentences: configuration, choice of the rates, sizes."""
    cell = Cell(one.tier, one.row, one.shot)
    config, found = cell.config(0), []
    if one.config_digest != config.digest:
        found.append("must come from the frozen configuration")
    if tuple(one.best) != best_pair(one.validation):
        found.append("must be tested at the rates that validation prefers")
    if set(one.correct) != {str(seed) for seed in tier_of(one.tier).seeds}:
        found.append("must hold the seeds of its tier")
    for by_query in one.correct.values():
        if set(by_query) != {str(n) for n in config.task.eval_n_query} or any(
            len(right) != config.test.tasks or max(right) > int(n) * config.task.n_way
            for n, right in by_query.items()
        ):
            found.append(f"must hold {config.test.tasks} tasks of every protocol")
    return [f"{one.tier}-{one.row}: {sentence}" for sentence in found]


def main(
    tier: Annotated[str, typer.Option(help="The tier whose rows are tuned.")] = TIER,
    row: Annotated[list[str] | None, typer.Option(help="Only these rows.")] = None,
    minutes: Annotated[float, typer.Option(min=0, help="Stop; the next call goes on.")] = 1e9,
) -> None:
    """Tune, train and test whatever has no file yet."""
    import torch

    from experiments import controls

    controls.register()
    torch.set_num_threads(1)
    until = time.time() + 60 * minutes
    OUT.mkdir(exist_ok=True)
    order = {name: i for i, name in enumerate(row or [])}
    chosen = [cell for cell in cells(tier) if row is None or cell.row in order]
    for cell in sorted(chosen, key=lambda cell: order.get(cell.row, 0)):
        sitting = Sitting(cell, until=until)
        if sitting.out.exists():
            continue
        done = sitting.run()
        typer.echo(f"{sitting.out.stem}: {'done' if done else 'to be continued'}")
        if not done:
            raise typer.Exit(75)


if __name__ == "__main__":
    typer.run(main)
