"""A cell so small that a test can run it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from experiments import cells
from experiments.cells import Cell
from experiments.status import Run
from mdtheory.config import load

SMALLER = [
    "meta.iterations=4",
    "test.tasks=6",
    "validation.every=2",
    "validation.tasks=2",
    "task.n_query=1",
    "task.eval_n_query=[1, 2]",
    "model.options.channels=2",
]


def shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cell's frozen configuration, made smaller."""
    monkeypatch.setattr(
        cells.Cell, "config", lambda self, seed: load(self.file, [f"seed={seed}", *SMALLER])
    )


def tiny(folder: Path, row: str, *, until: float = math.inf, records: Path | None = None) -> Run:
    """The smoke cell of a row, in a folder of its own."""
    kept = folder / "records" if records is None else records
    return Run(Cell("smoke", row, 1), 0, kept, folder / "state", until)
