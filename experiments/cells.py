"""The cells of the tables: a tier, a row and a number of shots; each has one frozen configuration.

``python -m experiments.cells --write`` makes ``configs/<tier>/<row>-<shot>shot.toml``, resolved to
the last default, from ``configs/tiers/<tier>.toml`` and ``configs/rows.toml``; ``--check``
compares. Every run reads the frozen file alone, and `mdtheory train --config` takes it as well.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import typer

from experiments.generated import ROOT, WriteOrCheck, report, settle
from mdtheory.config import RunConfig, load, parse

CONFIGS = ROOT / "experiments" / "configs"
TIERS = ("smoke", "glyphs", "cpu", "own", "controls", "omniglot", "omniglot-b", "paper")
ABOUT = ("by_shot", "poster", "published", "behind", "differs", "note", "ours")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method of the table. ``poster``: shots -> its accuracy in % and, where given, the
    half-width of its interval; ``published``: the same from another source, for the tier's own
    protocol; ``differs``: what a literal row still does otherwise than its source; ``note``: what
    the row is, where its name does not say it.
    """

    name: str
    group: str
    changes: Mapping[str, Any]
    by_shot: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    poster: Mapping[str, list[float]] = field(default_factory=dict)
    published: Mapping[str, list[float]] = field(default_factory=dict)
    behind: str = ""
    differs: str = ""
    note: str = ""
    ours: bool = False


@dataclass(frozen=True, kw_only=True)
class Tier:
    """One size of the whole table.

    ``weights``: rows whose weights a record keeps; ``path_tasks``, ``path_steps``: the test tasks
    and steps behind the figures of adaptation; ``other_norm``: rows that are also tested with
    statistics of the support set alone; ``by_shot``: shots -> changes of ``run``; ``more``: shots
    -> rows that are run with ``more_seeds``, too; ``like``: the tier whose ``run`` this one takes
    and whose rows stand beside its own in its tables; ``beside``: others of the same ``run`` whose
    rows do, too; ``about``: what the tier can and cannot show.
    """

    name: str
    title: str
    about: str
    shots: list[int]
    seeds: list[int]
    groups: list[str]
    run: Mapping[str, Any]
    weights: list[str]
    path_tasks: int
    path_steps: int
    other_norm: list[str]
    order: list[str] = field(default_factory=list)
    by_shot: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    like: str = ""
    beside: list[str] = field(default_factory=list)
    more: Mapping[str, list[str]] = field(default_factory=dict)
    more_seeds: list[int] = field(default_factory=list)

    def seeds_of(self, cell: Cell) -> list[int]:
        """The seeds that a cell of this tier is run with."""
        return self.seeds + (
            self.more_seeds if cell.row in self.more.get(str(cell.shot), []) else []
        )


@dataclass(frozen=True, order=True)
class Cell:
    """One number of shots of one row in one tier."""

    tier: str
    row: str
    shot: int

    @property
    def file(self) -> Path:
        """The frozen configuration."""
        return CONFIGS / self.tier / f"{self.row}-{self.shot}shot.toml"

    def record(self, seed: int) -> str:
        """The name of a record's folder."""
        return f"{self.tier}-{self.row}-{self.shot}shot-seed{seed}"

    @property
    def start(self) -> Cell:
        """The MAML cell whose weights are the common start of this one: of its own tier or of the
        one that that is like.
        """
        return Cell(tier(self.tier).like or self.tier, "maml", self.shot)

    def config(self, seed: int) -> RunConfig:
        """The frozen configuration with this seed."""
        return load(self.file, [f"seed={seed}"])


@cache
def rows() -> dict[str, Row]:
    """Every row of ``rows.toml`` in its order."""
    found = {}
    for group, members in _read(CONFIGS / "rows.toml").items():
        for name, table in members.items():
            about = {key: table[key] for key in ABOUT if key in table}
            changes = {key: value for key, value in table.items() if key not in about}
            found[name] = Row(
                name=name, group=group, changes={"geometry": {"name": name}, **changes}, **about
            )
    return found


@cache
def tier(name: str) -> Tier:
    """One tier by its name."""
    if name not in TIERS:
        raise ValueError(f"tier must be one of {', '.join(TIERS)}, got {name!r}; choose one")
    data = _read(CONFIGS / "tiers" / f"{name}.toml")
    if like := data["tier"].get("like"):
        return Tier(name=name, run=tier(like).run, by_shot=tier(like).by_shot, **data["tier"])
    return Tier(name=name, run=data["run"], by_shot=data.get("by_shot", {}), **data["tier"])


@cache
def cells(name: str) -> list[Cell]:
    """The cells of a tier, in the order in which they are worked on: by shots, the tier's leading
    rows first.
    """
    own = tier(name)
    names = [row.name for row in rows().values() if row.group in own.groups]
    names.sort(key=lambda row: own.order.index(row) if row in own.order else len(own.order))
    leading = [Cell(name, row, shot) for shot in own.shots for row in names if row in own.order]
    return leading + [
        Cell(name, row, shot) for shot in own.shots for row in names if row not in own.order
    ]


def resolved(cell: Cell) -> RunConfig:
    """The configuration that the tier and the row make."""
    own, row = tier(cell.tier), rows()[cell.row]
    data = merged({"task": {"n_shot": cell.shot}}, own.run)
    for changes in (
        own.by_shot.get(str(cell.shot), {}),
        row.changes,
        row.by_shot.get(str(cell.shot), {}),
    ):
        data = merged(data, changes)
    return parse(data, origin=f"{cell.tier}/{cell.row}-{cell.shot}shot")


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the values of ``changes``, table by table; a table with a ``name`` replaces the
    whole of another.
    """
    both = {**base, **changes}
    return {
        key: merged(base[key], value)
        if isinstance(base.get(key), Mapping) and isinstance(value, Mapping) and "name" not in value
        else value
        for key, value in both.items()
    }


def frozen() -> dict[Path, bytes]:
    """Every cell's file and what must be in it; ``ValueError`` for a row whose learner cannot be
    built, with the name of its cell.
    """
    from experiments import controls

    controls.register()
    made, built = {}, set()
    for cell in (cell for name in TIERS for cell in cells(name)):
        config = resolved(cell)
        parts = repr((config.geometry, config.model, config.meta.estimator, config.objective))
        if parts not in built:
            _demand_learner(cell, config)
            built.add(parts)
        made_by = "made by `python -m experiments.cells --write` from tiers/ and rows.toml"
        head = f"# {cell.row}, {cell.shot}-shot, tier {cell.tier}: {made_by}\n"
        made[cell.file] = (head + config.to_toml()).encode()
    return made


def _demand_learner(cell: Cell, config: RunConfig) -> None:
    from mdtheory.run.build import build_learner, image_shape_of

    try:
        build_learner(config.model_copy(update={"device": "cpu"}), image_shape_of(config))
    except ValueError as error:
        raise ValueError(f"{cell.tier}/{cell.row}-{cell.shot}shot: {error}") from error


def main(write: WriteOrCheck) -> None:
    """Write or check the frozen configurations."""
    owned = [path for name in TIERS for path in (CONFIGS / name).glob("*.toml")]
    stale = settle(frozen(), write=write, owned=owned)
    raise typer.Exit(report(stale, write=write, command="python -m experiments.cells"))


def _read(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    typer.run(main)
