"""What is done and what is missing, without loading anything heavy."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.cells import TIERS, Cell, cells, tier
from experiments.generated import ROOT
from experiments.records import FOLDER, Record
from mdtheory.config import RunConfig

STATES = ROOT / "experiments" / "state"
UNFINISHED = ROOT / "experiments" / "unfinished"


class OutOfTimeError(Exception):
    """The deadline has come; everything is saved."""


@dataclass(frozen=True)
class Run:
    """A cell with a seed, where its record and its unfinished state live, the moment
    (``time.time()``) at which it must stop, and a device other than its configuration's.
    """

    cell: Cell
    seed: int
    records: Path = FOLDER
    states: Path = STATES
    until: float = math.inf
    device: str | None = None

    @property
    def config(self) -> RunConfig:
        """The frozen configuration with this seed, on this device."""
        own = self.cell.config(self.seed)
        return own if self.device is None else own.model_copy(update={"device": self.device})

    @property
    def name(self) -> str:
        """As the record is called."""
        return self.cell.record(self.seed)

    @property
    def state(self) -> Path:
        """The folder of what is unfinished."""
        return self.states / self.name

    @property
    def record(self) -> Path:
        """The folder of the finished record."""
        return self.records / self.name

    def check_time(self) -> None:
        """:class:`OutOfTimeError` after the deadline."""
        if time.time() >= self.until:
            raise OutOfTimeError


def wanted(
    names: Iterable[str] = TIERS,
    *,
    row: str | None = None,
    shot: int | None = None,
    seed: int | None = None,
    records: Path = FOLDER,
    states: Path = STATES,
) -> list[Run]:
    """The cells of these tiers that fit, each with the tier's seeds or with the one given.
    ``ValueError`` where none fits.
    """
    names = list(names)
    every = [cell for name in names for cell in cells(name)]
    chosen = [cell for cell in every if row in (None, cell.row) and shot in (None, cell.shot)]
    if not chosen:
        known, shots = (
            list(dict.fromkeys(cell.row for cell in every)),
            sorted({cell.shot for cell in every}),
        )
        raise ValueError(
            f"row and shot must name a cell of {', '.join(names)}, got {row} and {shot}; rows: "
            f"{known}, shots: {shots}"
        )
    by_seed = [
        (cell, own)
        for cell in chosen
        for own in ([seed] if seed is not None else tier(cell.tier).seeds_of(cell))
    ]
    return [
        Run(cell, own, records, states)
        for cell, own in sorted(
            by_seed, key=lambda pair: names.index(pair[0].tier) * 10**6 + pair[1]
        )
    ]


def describe(run: Run) -> list[dict[str, Any]]:
    """One object for every test protocol of a cell: row, shot, tier, iterations, target, protocol,
    accuracy, interval, record.

    ``accuracy`` is a share of 1 and ``interval`` the half-width of its 95% interval, both null
    until the cell is finished; ``record`` is the record's folder. ``state``: finished, unfinished,
    diverged or missing.
    """
    config = run.config
    base = {"row": run.cell.row, "shot": run.cell.shot, "tier": run.cell.tier, "seed": run.seed}
    folder = run.record
    if (folder / "result.json").is_file():
        result = Record(folder).result
        return [
            {
                **base,
                "iterations": result.iterations,
                "target": result.target,
                "protocol": protocol(one.n_query, one.norm),
                "accuracy": one.accuracy,
                "interval": one.half_width,
                "record": _shown(folder),
                "state": "finished",
            }
            for one in result.protocols
            if one.norm == config.norm
        ]
    state, packed = run.state, UNFINISHED / run.name
    done = iterations(state / "metrics.jsonl") or iterations(packed / "metrics.jsonl")
    how = "unfinished" if done else "missing"
    if (state / "diverged.txt").is_file():
        how = "diverged"
    empty = {"accuracy": None, "interval": None, "record": None, "state": how}
    return [
        {
            **base,
            "iterations": done,
            "target": config.meta.iterations,
            "protocol": protocol(n_query, config.norm),
            **empty,
        }
        for n_query in config.task.eval_n_query
    ]


def protocol(n_query: int, norm: str) -> str:
    """How a test protocol is called."""
    return f"{n_query} {'query' if n_query == 1 else 'queries'} per class, {norm}"


def iterations(metrics: Path) -> int:
    """The last iteration in a run's metrics; 0 without any."""
    if not metrics.is_file():
        return 0
    lines = metrics.read_text(encoding="utf-8").splitlines()
    for line in reversed(lines):
        if line.endswith("}"):
            return int(json.loads(line)["iteration"])
    return 0


def lines(objects: Iterable[dict[str, Any]]) -> list[str]:
    """The same as text, one line for every protocol."""
    shown = []
    for one in objects:
        head = f"{one['tier']:6} {one['row']:22} {one['shot']}-shot seed {one['seed']}"
        score = (
            ""
            if one["accuracy"] is None
            else f"  {100 * one['accuracy']:.2f} ± {100 * one['interval']:.2f}% ({one['protocol']})"
        )
        shown.append(f"{head}  {one['state']:10} {one['iterations']:>6} / {one['target']}{score}")
    return list(dict.fromkeys(shown))


def _shown(folder: Path) -> str:
    return folder.relative_to(ROOT).as_posix() if folder.is_relative_to(ROOT) else str(folder)
