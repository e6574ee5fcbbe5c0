"""What the page and the README say of GPUs: the tables of the records, or that there is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from experiments.benchmarks.case import Size
from experiments.benchmarks.gpu.command import Row, fair, table
from experiments.benchmarks.gpu.ways import RECORDED
from experiments.tables import markdown

COMMAND = "python -m experiments.benchmarks --device cuda --minutes 4"
NO_RECORD = f"No GPU has been measured yet: `{COMMAND}` does it on a machine with one.\n"

Found = dict[str, Any]


def everything(folder: Path) -> dict[str, Found]:
    """All records of GPUs below the folder of records, by name."""
    files = sorted((folder / "gpu").glob("*.json"))
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}


def section(records: dict[str, Found]) -> str:
    """The page's part."""
    parts = ["## On a GPU\n"]
    for name, found in records.items():
        made = table(found)
        parts += [f"### Record `{name}`\n", f"{made.title}; {_where(found)}.\n"]
        parts += [markdown(made.columns, made.rows), f"{made.note}.\n"]
        wrong = [what for what, error in found["checks"].items() if not error < 1e-9]
        if wrong:
            parts.append(f"Wrong: {'; '.join(wrong)}.\n")
    return "\n".join(parts if records else [*parts, NO_RECORD])


def headline(records: dict[str, Found]) -> str:
    """The README's part: MAML and the map at one shot, of the record that was finished last."""
    if not records:
        return NO_RECORD
    found = max(records.values(), key=lambda one: str(one["finished"]))
    rows = [Row(**row) for row in found["rows"]]
    shown = [
        row
        for row in rows
        if row.shot == 1
        and row.seconds is not None
        and (row.geometry == "maml" or (row.geometry == "metamida" and row.way == RECORDED))
    ]
    size = Size(**found["size"])
    columns = ["way", "products", "it/s", "to ours", "GiB", "meta-gradient"]
    body = [
        [
            row.way if row.geometry == "maml" else f"{row.way}, {row.geometry}",
            row.precision,
            f"{1 / (row.seconds or 1):.1f}",
            "" if row.ratio is None else f"{row.ratio:.2f}",
            "" if row.gibibytes is None else f"{row.gibibytes:.1f}",
            verdict(row, found),
        ]
        for row in sorted(shown, key=lambda row: (row.geometry, row.precision, row.seconds or 0))
    ]
    checks = "all checks in float64 passed" if found["right"] else "A CHECK FAILED"
    said = (
        f"The same on one {found['card']} ({_where(found)}), 1-shot: {size.n_tasks} tasks, "
        f"{size.n_steps} steps; {checks}. *Meta-gradient*: its error against float64.\n\n"
    )
    return said + markdown(columns, body)


def verdict(row: Row, found: Found) -> str:
    """Right or wrong, and the error; what TF32 costs is for the reader to judge."""
    if row.gradient_error is None:
        return ""
    error = f"{row.gradient_error:.1e}"
    if not fair(row, found):
        return f"WRONG ({error})"
    return f"right ({error})" if row.precision == "float32" else error


def _where(found: Found) -> str:
    code = found["code"]
    commit = code["commit"][:12] if code["commit"] else "no commit"
    kernels = f"Triton {found['triton']}" if found["kernels"] == "Triton's" else found["kernels"]
    return (
        f"torch {found['torch']}, {kernels}; mdtheory {code['version']} ({commit}), "
        f"{found['finished']}"
    )
