"""Start or geometry? Every record with kept weights, tested from two starts under two geometries:
``python -m experiments.factorial --tier cpu --row metamida``.

``own start``: the point phi_0 = g(z_0) that the row has learned to start at; ``common start``:
MAML's of the same tier, shots and seed. ``learned``: the row's own geometry; ``identity``: plain
gradient descent, phi <- phi - task_lr grad. Start and geometry are fitted to each other, so every
cell is tested at the rate of training and at the multiple of it that is best on validation tasks:
out of :data:`RATES`, and on by doubling while the largest is the best (up to :data:`LARGEST`) or
by halving while the smallest is (down to :data:`SMALLEST`).
One file for every record, ``factorial/<record>.json``, holds the correct answers on every test
task; it can be stopped at any moment, and the next call goes on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import Field

from experiments import shards
from experiments.generated import ROOT
from experiments.records import (
    FOLDER,
    SUMS,
    WEIGHTS,
    Count,
    Digest,
    Record,
    Section,
    everything,
    seal,
)

if TYPE_CHECKING:
    from mdtheory.config import RunConfig
    from mdtheory.data.episodes import EpisodeStream, Source
    from mdtheory.meta.learner import MetaLearner

OUT = ROOT / "experiments" / "factorial"
RATES = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
SMALLEST, LARGEST = RATES[0] / 64, 64.0
VALIDATION_TASKS = 50
OWN, PLAIN = ("own start", "learned"), ("common start", "identity")
REPEATED = 40  # tasks of a recorded score that are tested again
SLACK = 0.005  # of these answers may differ on another machine
PIECE = 100  # tasks between two savings


class Tested(Section):
    """One cell: ``validation``, correct answers at every rate of :func:`tried`; ``best``, the rate
    with the most; ``correct``, multiple of the rate -> queries a class -> correct answers by test
    task.
    """

    validation: Annotated[list[Count], Field(min_length=len(RATES))]
    best: float
    correct: dict[str, dict[str, list[Count]]]


class Factorial(Section):
    """``factorial/<record>.json``: ``cells``, "start, geometry" -> :class:`Tested`. ``weights`` and
    ``maml_weights``: sha256 of the two files of weights (of the first piece, where they are in
    pieces).
    """

    record: str
    maml: str
    weights: Digest
    maml_weights: Digest
    rates: list[float]
    tasks: Count
    validation_tasks: Count
    seconds: Annotated[float, Field(ge=0)]
    cells: dict[str, Tested]


def label(start: str, geometry: str) -> str:
    """A cell's name, ``own start, identity``."""
    return f"{start}, {geometry}"


def tried(validation: list[int]) -> tuple[float, ...]:
    """The multiples of the rate with these correct answers, in the order in which they were tried:
    :data:`RATES`, then beyond the end at which the best of those before lies.
    """
    rates = RATES[: len(validation)]
    while len(rates) < len(validation):
        best = best_of(rates, validation)
        rates += (2 * best,) if best == max(rates) else (best / 2,)
    return rates


def next_rate(validation: list[int]) -> float | None:
    """The multiple to try next; ``None`` where the best is neither the largest nor the smallest,
    or is at the limit.
    """
    if len(validation) < len(RATES):
        return RATES[len(validation)]
    rates, best = tried(validation), best_rate(validation)
    if best == max(rates) < LARGEST:
        return 2 * best
    return best / 2 if best == min(rates) > SMALLEST else None


def best_rate(validation: list[int]) -> float:
    """The multiple with the most correct answers; of equals, the one nearest to 1 (in logarithm),
    then the smaller.
    """
    return best_of(tried(validation), validation)


def best_of(rates: tuple[float, ...], validation: list[int]) -> float:
    """Of these multiples alone, which come first in ``validation``."""
    from math import log

    counts = validation[: len(rates)]
    return min(
        (rate for rate, right in zip(rates, counts, strict=True) if right == max(counts)),
        key=lambda rate: (abs(log(rate)), rate),
    )


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A trained row and the MAML whose start is the common one. ``weights``: names as in
    ``state_dict`` -> tensors, read on call. ``scores``: what is recorded already, or nothing.
    """

    name: str
    maml: str
    config: RunConfig
    maml_config: RunConfig
    weights: Callable[[], dict[str, Any]]
    maml_weights: Callable[[], dict[str, Any]]
    digest: str
    maml_digest: str
    scores: dict[str, list[int]] | None = None
    maml_scores: dict[str, list[int]] | None = None

    def learners(self, source: Source) -> dict[tuple[str, str], MetaLearner]:
        """The learners of the cells, in evaluation mode; without the mixed ones of a row that has
        layers of its own, which computes another function from MAML's weights.
        """
        import torch

        from experiments import probes
        from experiments.run import learner_with
        from mdtheory.core import tree

        def own() -> MetaLearner:
            return learner_with(self.config, source, {"weights": self.weights()})

        def plain() -> MetaLearner:
            return learner_with(self.maml_config, source, {"weights": self.maml_weights()})

        found = {OWN: own(), PLAIN: plain()}
        with torch.no_grad():
            meta = tree.detach(found[OWN].meta())
            maml = tree.sub(tree.detach(found[PLAIN].meta()), "anchor.")
            common = probes.started_at(found[OWN], maml)
            if common is not None:
                anchor, of_map = tree.sub(meta, "anchor."), tree.sub(meta, "geometry.map.")
                first = found[OWN].geometry.map.point(of_map, anchor)
                found["own start", "identity"] = _started(plain(), first)
                found["common start", "learned"] = _started(own(), tree.sub(common, "anchor."))
        return found


def subjects(records: Path = FOLDER) -> list[tuple[Record, Subject]]:
    """The records with kept weights and a geometry to learn, whose MAML has kept its own; without
    the rows that have layers of their own, and so no start in common with MAML.
    """
    return [
        (record, of_record(record))
        for record in everything(records)
        if record.config.geometry.name != "maml"
        and record.adaptation.common is not None
        and shards.pieces(record.folder / WEIGHTS)
        and shards.pieces(partner(record).folder / WEIGHTS)
    ]


def missing(records: Path = FOLDER, folder: Path = OUT) -> list[str]:
    """The records that can be taken apart and have not been."""
    known = {path.stem for path in folder.glob("*.json")}
    return [own.folder.name for own, _ in subjects(records) if own.folder.name not in known]


def without_weights(records: Path = FOLDER) -> list[Record]:
    """The records with a geometry to learn that cannot be taken apart, for want of weights."""
    return [
        record
        for record in everything(records)
        if record.config.geometry.name != "maml" and not shards.pieces(record.folder / WEIGHTS)
    ]


def of_record(record: Record) -> Subject:
    """A record as the subject of the test."""
    maml = partner(record)
    return Subject(
        name=record.folder.name,
        maml=maml.folder.name,
        config=record.config,
        maml_config=maml.config,
        weights=lambda: _kept(record),
        maml_weights=lambda: _kept(maml),
        digest=weights_digest(record.folder),
        maml_digest=weights_digest(maml.folder),
        scores=record.scores[record.config.norm],
        maml_scores=maml.scores[maml.config.norm],
    )


def _kept(record: Record) -> dict[str, Any]:
    from safetensors.torch import load

    return load(shards.read(record.folder / WEIGHTS))


def partner(record: Record) -> Record:
    """MAML's record of the same tier, shots and seed."""
    return Record(record.folder.parent / record.cell.start.record(record.result.seed))


def weights_digest(folder: Path) -> str:
    """What SHA256SUMS says of a record's weights (of their first piece)."""
    lines = (line.split("  ", 1) for line in (folder / SUMS).read_text().splitlines())
    return next(digest for digest, name in lines if name.startswith(WEIGHTS))


def _started(learner: MetaLearner, anchor: dict[str, Any]) -> MetaLearner:
    """The learner with another anchor."""
    live = learner.meta()
    for name, value in anchor.items():
        live[f"anchor.{name}"].copy_(value)
    return learner


def count(
    learner: MetaLearner, stream: EpisodeStream, rate: float, start: int, stop: int, protocols: Any
) -> dict[str, list[int]]:
    """Queries a class -> correct answers on tasks start..stop - 1, at ``rate`` times the task
    rate.
    """
    from mdtheory.meta.evaluate import evaluate

    before = learner.task_lr
    learner.task_lr = rate * before
    try:
        scores = evaluate(
            learner, lambda index: stream(start + index), n_tasks=stop - start, protocols=protocols
        )
    finally:
        learner.task_lr = before
    return {
        str(n): [round(float(share) * n * stream.n_way) for share in one.accuracy]
        for n, one in zip(protocols, scores or [], strict=True)
    }


@lru_cache(maxsize=1)
def source_of(data: str) -> Source:
    """The images of a configuration's data section, given as JSON: read once for all rows."""
    from mdtheory.config import open_data
    from mdtheory.config.schema import DataConfig

    return open_data(DataConfig.model_validate_json(data))


class Sitting:
    """The work on one subject, saved after every piece. ``until``: when to stop
    (``time.time()``).
    """

    def __init__(self, subject: Subject, *, tasks: int, validation: int, out: Path, until: float):
        from mdtheory.run.build import build_stream

        self.subject = subject
        config = subject.config
        self.tasks = wanted_tasks(tasks, config)
        self.until = until
        self.validated = validation
        self.out = out / f"{subject.name}.json"
        self.part = out / "parts"
        self.source = source_of(config.data.model_dump_json())
        self.protocols = tuple(config.task.eval_n_query)
        self.test = build_stream(config, self.source, split="test", n_query=max(self.protocols))
        self.validation = build_stream(
            config, self.source, split="validation", n_query=config.task.n_query
        )
        self.begun: dict[str, Any] = {"seconds": 0.0, "cells": {}}
        if self.out.exists():
            before = Factorial.model_validate_json(self.out.read_text())
            self.tasks, self.validated = max(self.tasks, before.tasks), before.validation_tasks
            self.begun = before.model_dump(include={"seconds", "cells"})

    def run(self) -> bool:
        """Whether everything is done; what is done is kept below ``parts/`` until then."""
        kept = self.part / self.out.name
        found = json.loads(kept.read_text()) if kept.exists() else self.begun
        began = time.monotonic()
        for place, learner in self.subject.learners(self.source).items():
            cell = found["cells"].setdefault(label(*place), {"validation": []})
            short = next_rate(cell["validation"]) is not None or self.short(cell)
            if place == PLAIN and short and (made := self.shared()):
                cell = found["cells"][label(*place)] = made
            known = {OWN: self.subject.scores, PLAIN: self.subject.maml_scores}.get(place)
            for _ in self.pieces(cell, learner, known):
                found["seconds"] += time.monotonic() - began
                began = time.monotonic()
                self.part.mkdir(parents=True, exist_ok=True)
                kept.write_text(json.dumps(found))
                if time.time() >= self.until:
                    return False
        self.write(found)
        kept.unlink(missing_ok=True)
        return True

    def pieces(
        self, cell: dict[str, Any], learner: MetaLearner, known: dict[str, list[int]] | None
    ) -> Iterator[None]:
        """Rates on validation tasks, then the test at 1 and at the best. ``known``: the scores at
        1 that a record has already.
        """
        n_query = self.subject.config.task.n_query
        done = cell["validation"]
        while (rate := next_rate(done)) is not None:
            right = count(learner, self.validation, rate, 0, self.validated, (n_query,))
            done.append(sum(right[str(n_query)]))
            yield
        cell["best"] = best_rate(done)
        wanted = {f"{rate:g}": rate for rate in (1.0, cell["best"])}
        before = cell.get("correct", {})
        found = cell["correct"] = {name: before[name] for name in wanted if name in before}
        for name, rate in wanted.items():
            if rate == 1.0 and known is not None and self.short(cell):
                found["1"] = self.recorded(known, learner)
            by_query = found.setdefault(name, {str(n): [] for n in self.protocols})
            while (start := len(next(iter(by_query.values())))) < self.tasks:
                stop = min(start + PIECE, self.tasks)
                part = count(learner, self.test, rate, start, stop, self.protocols)
                for n, right in part.items():
                    by_query[n] += right
                yield

    def short(self, cell: dict[str, Any]) -> bool:
        """Whether the test at the rate of training has fewer tasks than are asked for."""
        by_query = cell.get("correct", {}).get("1", {})
        return any(len(by_query.get(str(n), [])) < self.tasks for n in self.protocols)

    def recorded(self, known: dict[str, list[int]], learner: MetaLearner) -> dict[str, list[int]]:
        """The scores of a record, after the learner has repeated the first of them."""
        for n, right in count(learner, self.test, 1.0, 0, REPEATED, self.protocols).items():
            gaps = sum(abs(a - b) for a, b in zip(known[n], right, strict=False))
            if gaps > SLACK * REPEATED * int(n) * self.test.n_way:
                raise ValueError(
                    f"{self.subject.name} must repeat its scores, got {gaps} other answers on "
                    f"{REPEATED} tasks; its weights are not those that were tested"
                )
        return {n: right[: self.tasks] for n, right in known.items()}

    def shared(self) -> dict[str, Any] | None:
        """MAML's cell, where the file of another row with the same MAML has it."""
        mine = (self.subject.maml, self.tasks, self.validated)
        for other in read(self.out.parent):
            cell = other.cells[label(*PLAIN)]
            its = (other.maml, other.tasks, other.validation_tasks)
            if its == mine and next_rate(cell.validation) is None:
                return cell.model_dump()
        return None

    def write(self, found: dict[str, Any]) -> None:
        """The finished file, one list a line."""
        from experiments.run import rows_of_numbers

        whole = Factorial(
            record=self.subject.name,
            maml=self.subject.maml,
            weights=self.subject.digest,
            maml_weights=self.subject.maml_digest,
            rates=list(RATES),
            tasks=self.tasks,
            validation_tasks=self.validated,
            seconds=round(found["seconds"], 1),
            cells=found["cells"],
        )
        self.out.write_text(rows_of_numbers(whole.model_dump()))
        seal(self.out.parent)


def wanted_tasks(tasks: int, config: RunConfig) -> int:
    """As many test tasks as are asked for, of those that the tier tests."""
    return min(tasks, config.test.tasks)


def finished(path: Path, tasks: int) -> bool:
    """Whether a file is there with as many tasks, and no cell's best rate is at an end of those
    that were tried.
    """
    if not path.exists():
        return False
    one = Factorial.model_validate_json(path.read_text())
    settled = all(next_rate(cell.validation) is None for cell in one.cells.values())
    return settled and one.tasks >= tasks


def read(folder: Path = OUT) -> list[Factorial]:
    """All finished ones, by name."""
    found = sorted(folder.glob("*.json"))
    return [Factorial.model_validate_json(path.read_text()) for path in found]


def verify(one: Factorial, records: Path = FOLDER) -> list[str]:
    """What is wrong with a file, in sentences: digests, sizes, the choice of the rate, and the
    recorded scores of the same cells.
    """
    record, maml = Record(records / one.record), Record(records / one.maml)
    found = []
    if (one.weights, one.maml_weights) != tuple(weights_digest(r.folder) for r in (record, maml)):
        found.append("must come from the kept weights")
    if maml.folder.name != partner(record).folder.name:
        found.append(f"must set out from {partner(record).folder.name}")
    if tuple(one.rates) != RATES:
        found.append(f"must be tried at {', '.join(f'{rate:g}' for rate in RATES)}")
    n_way, wanted = record.config.task.n_way, {str(n) for n in record.config.task.eval_n_query}
    for name, cell in one.cells.items():
        if next_rate(cell.validation) is not None:
            found.append(f"{name} must be tried at further rates while the best is at an end")
        if cell.best != best_rate(cell.validation):
            found.append(f"{name} must be tested at the rate that validation prefers")
        if set(cell.correct) != {"1", f"{cell.best:g}"}:
            found.append(f"{name} must be tested at rate 1 and at the best")
        for by_query in cell.correct.values():
            if set(by_query) != wanted or any(
                len(right) != one.tasks or max(right) > int(n) * n_way
                for n, right in by_query.items()
            ):
                found.append(f"{name} must hold {one.tasks} tasks of every protocol")
    for cell, its in ((OWN, record), (PLAIN, maml)):
        scores = its.scores[its.config.norm]
        kept = {n: right[: one.tasks] for n, right in scores.items()}
        if one.cells[label(*cell)].correct["1"] != kept:
            found.append(f"{label(*cell)} must hold the scores of {its.folder.name}")
    return [f"{one.record}: {sentence}" for sentence in found]


def main(
    tier: Annotated[str | None, typer.Option(help="Only this tier.")] = None,
    row: Annotated[str | None, typer.Option(help="Only this row.")] = None,
    shot: Annotated[int | None, typer.Option(help="Only this number of shots.")] = None,
    seed: Annotated[int | None, typer.Option(help="Only this seed.")] = None,
    tasks: Annotated[int, typer.Option(min=100, help="Test tasks.")] = 1000,
    minutes: Annotated[float, typer.Option(min=0, help="Stop; the next call goes on.")] = 1e9,
) -> None:
    """Test whatever has kept weights and no finished file with so many tasks yet."""
    import torch

    from experiments import controls

    controls.register()
    torch.set_num_threads(1)
    until, wanted = time.time() + 60 * minutes, (tier, row, shot, seed)
    for record, subject in subjects():
        its = (record.result.tier, record.result.row, record.result.shot, record.result.seed)
        other = any(one not in (None, mine) for one, mine in zip(wanted, its, strict=True))
        enough = wanted_tasks(tasks, subject.config)
        if other or finished(OUT / f"{subject.name}.json", enough):
            continue
        sitting = Sitting(subject, tasks=tasks, validation=VALIDATION_TASKS, out=OUT, until=until)
        done = sitting.run()
        typer.echo(f"{subject.name}: {'done' if done else 'to be continued'}")
        if not done:
            raise typer.Exit(75)


if __name__ == "__main__":
    typer.run(main)
