"""The page of the task steps: accuracy, task loss and gradient norm at every k, for every record,
from a row's own start and from MAML's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from experiments.cells import TIERS
from experiments.result_tables import Curve, Table
from experiments.statistics import counted_seeds

PAGE = "steps.md"
HEAD = """# Along the task steps

Does a learned geometry need fewer steps? (Question (l); the answer is in [answers.md](answers.md).)
Accuracy is a mean over the first test tasks of each tier, 15 queries a class; task loss and
gradient norm are medians over them, with all seeds of a row together. *MAML's start*: of the same
tier, shots and seed. Rows with layers of their own have no start in common with MAML.
"""
WHAT = {
    "accuracy (%)": ("{:.1f}", 100.0, lambda curve: curve.accuracy),
    "task loss": ("{:.3g}", 1.0, lambda curve: curve.loss),
    "gradient norm": ("{:.3g}", 1.0, lambda curve: curve.gradient),
}


def text(tables: Iterable[Table]) -> str:
    """The page, the largest tier first."""
    ordered = sorted(tables, key=lambda table: -TIERS.index(table.tier.name))
    return "\n".join([HEAD, *(section(table) for table in ordered)])


def section(table: Table) -> str:
    """One tier and number of shots."""
    steps, tasks = table.first.adaptation.steps, table.first.adaptation.tasks
    every = [next(iter(table.by_row[row].values())).config.task for row in table.own_rows]
    trained = " or ".join(str(number) for number in sorted({task.n_steps for task in every}))
    rates = " or ".join(f"{rate:g}" for rate in sorted({task.task_lr for task in every}))
    title = f"## Tier `{table.tier.name}`, {table.shot}-shot"
    said = f"{tasks} test tasks; {trained} steps in training, at rate {rates}."
    parts = [f"{title}\n", f"{said}\n"]
    for start, common in (("its own start", False), ("MAML's start", True)):
        found = {row: table.curve(row, common=common) for row in table.own_rows}
        curves = {row: curve for row, curve in found.items() if curve is not None}
        for what in WHAT if curves else ():
            parts += lines(f"{what}, from {start}", what, curves, steps)
    return "\n".join(parts)


def number(form: str, value: float) -> str:
    """A number, or the word for a path that left every number behind."""
    return form.format(value) if math.isfinite(value) else "diverged"


def lines(title: str, what: str, curves: dict[str, Curve], steps: int) -> list[str]:
    """One table: a line a row, a column a step."""
    form, scale, values = WHAT[what]
    head = f"| {title} | " + " | ".join(f"k = {k}" for k in range(steps + 1)) + " |"
    found = [head, "|---|" + "---:|" * (steps + 1)]
    for row, curve in curves.items():
        counted = counted_seeds(curve.seeds)
        cells = " | ".join(number(form, scale * float(value)) for value in values(curve))
        found.append(f"| `{row}` ({counted}) | {cells} |")
    return [*found, ""]
