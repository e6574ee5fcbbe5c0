"""What a record holds, and whether it may be believed.

A record is a folder ``<tier>-<row>-<shot>shot-seed<k>``:

    config.toml          the run's configuration, resolved to the last default
    result.json          which cell, digests of configuration and data, how far it was trained,
                         the means with their intervals
    scores.json          correct answers on every test task, by norm policy and protocol
    metrics.jsonl        training, averaged over up to 500 windows, and every validation
    paths.json           task loss, gradient norm and correct answers at every task step, on the
                         first test tasks
    weights.safetensors  of some rows; in pieces where it is large
    provenance.json      code, environment, hardware, times: what differs from run to run
    SHA256SUMS           of all the others, as `sha256sum -c` reads it

:data:`COMPARED` have the same bytes on every run on one machine. :func:`verify` recomputes what can
be recomputed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from experiments import shards
from experiments.cells import Cell, cells
from experiments.generated import ROOT
from mdtheory.config import RunConfig, load
from mdtheory.core.estimate import estimate

FOLDER = ROOT / "experiments" / "records"
SUMS = "SHA256SUMS"
COMPARED = ("config.toml", "result.json", "scores.json", "metrics.jsonl", "paths.json")
KEPT = (*COMPARED, "provenance.json")
WEIGHTS = "weights.safetensors"
POSTER_TASKS = 600
SLACK = 0.002  # of all answers may differ between two ways to batch the same computation
LARGEST_FILE, LARGEST_TOTAL = shards.LARGEST, 200 * 2**20  # bytes

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Section(BaseModel):
    """A part of a record: frozen, nothing unknown, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Mean(Section):
    """A mean accuracy with the half-width of its 95% interval over so many tasks."""

    accuracy: Share
    half_width: Share
    tasks: Annotated[int, Field(ge=2)]


class Protocol(Mean):
    """One way to test: where batch statistics come from, and how many queries a class are scored
    together.
    """

    norm: Literal["transductive", "support", "running"]
    n_query: Annotated[int, Field(ge=1)]
    first_600: Mean | None


class MapProbe(Section):
    """How monotone the trained point map g is where it is used; see
    :func:`experiments.probes.map_probe`.
    """

    tasks: Count
    path_smallest: float | None
    path_largest: float | None
    symmetric_smallest: float | None
    symmetric_largest: float | None
    asymmetry: float | None


class Result(Section):
    """``result.json``."""

    version: Literal[1]
    tier: str
    row: str
    shot: Annotated[int, Field(ge=1)]
    seed: Count
    config_digest: Digest
    data_digest: Digest
    iterations: Count
    target: Count
    tested_iteration: Count
    best_validation: Share
    parameters: Count
    geometry_parameters: Count
    protocols: list[Protocol]
    map: MapProbe | None


class Code(Section):
    """``changed``: whether the working tree differed from the commit; ``sources``: digest of all
    Python files that matter.
    """

    version: str
    commit: str | None
    changed: bool | None
    sources: Digest


class Machine(Section):
    """What it ran on. ``compiled``: with compiled CPU kernels, or on ordinary torch operations;
    ``None``: not noted.
    """

    system: str
    python: str
    torch: str
    numpy: str
    cpu: str
    cores: Annotated[int, Field(ge=1)]
    threads: Annotated[int, Field(ge=1)]
    gpu: str | None
    compiled: bool | None = None


class Provenance(Section):
    """``provenance.json``."""

    command: str
    finished: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
    sittings: Annotated[int, Field(ge=1)]
    train_seconds: Annotated[float, Field(ge=0)]
    test_seconds: Annotated[float, Field(ge=0)]
    peak_mebibytes: Annotated[float, Field(ge=0)]
    code: Code
    machine: Machine


class Paths(Section):
    """Adaptations to many tasks from one kind of start. Each table: tasks x (steps + 1); null where
    it has diverged.
    """

    support_loss: list[list[float | None]]
    grad_norm: list[list[float | None]]
    correct: list[list[Count]]


class Adaptation(Section):
    """``paths.json``; ``common``: from the point where the MAML cell of this tier, shot and seed
    starts, where that exists.
    """

    tasks: Count
    steps: Count
    queries: Count
    own: Paths
    common: Paths | None


Scores = dict[str, dict[str, list[int]]]
"""Norm policy -> queries per class -> correct answers by task."""


@dataclass(frozen=True)
class Record:
    """A finished run, read lazily."""

    folder: Path

    @cached_property
    def result(self) -> Result:
        """``result.json``."""
        return Result.model_validate_json(self._text("result.json"))

    @cached_property
    def config(self) -> RunConfig:
        """``config.toml``."""
        return load(self.folder / "config.toml")

    @cached_property
    def scores(self) -> Scores:
        """``scores.json``."""
        return json.loads(self._text("scores.json"))

    @cached_property
    def adaptation(self) -> Adaptation:
        """``paths.json``."""
        return Adaptation.model_validate_json(self._text("paths.json"))

    @cached_property
    def provenance(self) -> Provenance:
        """``provenance.json``."""
        return Provenance.model_validate_json(self._text("provenance.json"))

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """``metrics.jsonl``."""
        return [json.loads(line) for line in self._text("metrics.jsonl").splitlines()]

    @property
    def cell(self) -> Cell:
        """Which cell it fills."""
        return Cell(self.result.tier, self.result.row, self.result.shot)

    def accuracies(self, n_query: int, norm: str | None = None) -> np.ndarray:
        """By task, under the norm policy of training where none is given. shape: (n_tasks,)"""
        return np.asarray(self.scores[norm or self.config.norm][str(n_query)]) / (
            n_query * self.config.task.n_way
        )

    def _text(self, name: str) -> str:
        return (self.folder / name).read_text(encoding="utf-8")


def everything(folder: Path = FOLDER) -> list[Record]:
    """All records below a folder, by name."""
    return [Record(path.parent) for path in sorted(folder.glob("*/result.json"))]


def protocols_of(scores: Scores, n_way: int) -> list[Protocol]:
    """The means that belong to these scores."""
    found = []
    for norm, by_query in scores.items():
        for n_query, correct in by_query.items():
            accuracies = np.asarray(correct) / (int(n_query) * n_way)
            first = mean(accuracies[:POSTER_TASKS]) if len(accuracies) > POSTER_TASKS else None
            found.append(
                Protocol(
                    **mean(accuracies).model_dump(),
                    norm=norm,
                    n_query=int(n_query),
                    first_600=first,
                )
            )
    return found


def mean(accuracies: np.ndarray) -> Mean:
    """Mean and interval, rounded to 12 digits, which every machine agrees on."""
    found = estimate(accuracies)
    return Mean(
        accuracy=round(found.mean, 12), half_width=round(found.half_width, 12), tasks=found.n
    )


def thinned(events: Iterable[dict[str, Any]], *, windows: int = 500) -> list[dict[str, Any]]:
    """Training events averaged over at most so many windows of equal length (the last may be
    shorter), and all validations.
    """
    events = list(events)
    training = [event for event in events if event["kind"] == "train"]
    length = max(1, math.ceil(len(training) / windows))
    rows = [event for event in events if event["kind"] != "train"]
    for start in range(0, len(training), length):
        part = training[start : start + length]
        keys = ("loss", "accuracy", "grad_norm", "objective")
        means = {key: float(f"{np.mean([event[key] for event in part]):.6g}") for key in keys}
        rows.append(
            {
                "kind": "train",
                "iteration": part[-1]["iteration"],
                "meta_lr": part[-1]["meta_lr"],
                **means,
            }
        )
    return sorted(rows, key=lambda row: (row["iteration"], row["kind"]))


def seal(folder: Path) -> None:
    """Write SHA256SUMS over every other file; what lies in folders below is not listed."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name != SUMS)
    (folder / SUMS).write_text("".join(f"{_sha256(folder / name)}  {name}\n" for name in names))


def unsealed(folder: Path) -> list[str]:
    """What differs from SHA256SUMS, in sentences."""
    listed = {
        name: digest
        for digest, name in (
            line.split("  ", 1) for line in (folder / SUMS).read_text().splitlines()
        )
    }
    present = {path.name for path in folder.iterdir() if path.is_file()} - {SUMS}
    problems = [f"{folder.name}/{name} must exist" for name in sorted(set(listed) - present)]
    problems += [
        f"{folder.name}/{name} must be listed in {SUMS}" for name in sorted(present - set(listed))
    ]
    problems += [
        f"{folder.name}/{name} must have the sha256 that {SUMS} says"
        for name in sorted(present & set(listed))
        if _sha256(folder / name) != listed[name]
    ]
    return problems


def verify(folder: Path) -> list[str]:
    """Everything that is wrong with a record, in sentences; nothing for a sound one."""
    try:
        problems = _verify_files(folder)
        return problems or _verify_content(Record(folder))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
        return [f"{folder.name}: cannot be read: {' '.join(str(error).split())[:300]}"]


def verify_total(folder: Path = FOLDER) -> list[str]:
    """Whether all records together are small enough."""
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return (
        [f"records take {total} bytes, at most {LARGEST_TOTAL} are allowed"]
        if total > LARGEST_TOTAL
        else []
    )


def _verify_files(folder: Path) -> list[str]:
    present = {path.name for path in folder.iterdir()} - {SUMS}
    absent = [f"{folder.name}/{name} must exist" for name in KEPT if name not in present]
    problems = list(dict.fromkeys(absent + unsealed(folder)))
    for name in sorted(present):
        if (folder / name).stat().st_size > LARGEST_FILE:
            problems.append(f"{folder.name}/{name} must be at most {LARGEST_FILE} bytes")
        if name not in KEPT and not name.startswith(WEIGHTS):
            problems.append(f"{folder.name}/{name} is not part of a record")
    return problems


def _verify_content(record: Record) -> list[str]:
    result, config, found, where = record.result, record.config, [], record.folder.name

    def demand(holds: bool, sentence: str) -> None:
        if not holds:
            found.append(f"{where}: {sentence}")

    demand(record.cell in cells(result.tier), "must belong to a cell of its tier")
    demand(where == record.cell.record(result.seed), "its folder must be named after its cell")
    demand(result.config_digest == config.digest, "result.json must hold the digest of config.toml")
    demand(
        config.digest == record.cell.config(result.seed).digest,
        "config.toml must be the frozen configuration of its cell",
    )
    demand(
        result.iterations == result.target == config.meta.iterations, "the target must be reached"
    )
    demand(
        0 < result.tested_iteration <= result.iterations,
        "the tested iteration must be one of training",
    )
    demand(
        record.metrics[-1]["iteration"] == result.iterations,
        "metrics.jsonl must end with the last iteration",
    )
    best = {
        row["iteration"]: row["accuracy"] for row in record.metrics if row["kind"] == "validation"
    }
    demand(
        best.get(result.tested_iteration) == result.best_validation == max(best.values()),
        "the best validation must be tested",
    )
    wanted = {str(n_query) for n_query in config.task.eval_n_query}
    demand(config.norm in record.scores, "scores.json must hold the norm policy of training")
    for norm, by_query in record.scores.items():
        demand(
            set(by_query) == wanted,
            f"scores.json must hold the protocols {sorted(wanted)} under {norm}",
        )
        for n_query, correct in by_query.items():
            full = int(n_query) * config.task.n_way
            demand(
                len(correct) == config.test.tasks,
                f"scores.json must hold {config.test.tasks} tasks",
            )
            demand(
                all(type(c) is int and 0 <= c <= full for c in correct),
                f"scores must be whole numbers from 0 to {full}",
            )
    if found:
        return found
    demand(
        protocols_of(record.scores, config.task.n_way) == result.protocols,
        "result.json must hold the means of scores.json",
    )
    found += [f"{where}: {problem}" for problem in _verify_paths(record)]
    demand(record.provenance.sittings >= 1, "provenance.json must say how many sittings it took")
    return found


def _verify_paths(record: Record) -> list[str]:
    paths, size = record.adaptation, (record.adaptation.tasks, record.adaptation.steps + 1)
    problems = []
    for kind in [paths.own, *([paths.common] if paths.common else [])]:
        tables = (kind.support_loss, kind.grad_norm, kind.correct)
        if any(np.shape(table) != size for table in tables) or np.max(kind.correct) > paths.queries:
            problems.append(
                f"paths.json must hold tables of {size[0]} tasks and {size[1]} steps, at most "
                f"{paths.queries} correct"
            )
    largest = max(record.config.task.eval_n_query)
    steps, scores = record.config.task.eval_steps, record.scores[record.config.norm][str(largest)]
    if steps <= paths.steps:
        gaps = sum(
            abs(row[steps] - score) for row, score in zip(paths.own.correct, scores, strict=False)
        )
        if (
            gaps > SLACK * paths.tasks * paths.queries
        ):  # an accelerator tests many tasks at once, and rounds otherwise
            problems.append(f"paths.json must give the scores of the test after {steps} steps")
    return problems


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
