"""The page of the pilot, from ``experiments/pilot``: beside the tables of tier paper, never
in them.
"""

from __future__ import annotations

import json

from experiments import factorial, pilot
from experiments.factorial import label
from experiments.start_or_geometry import READING, Subject, table
from mdtheory.core.estimate import estimate

HEAD = """# A pilot at the poster's size

Rows of tier `paper`, 5-way 1-shot, trained together on the same episodes on one GPU by a prototype
of this project's GPU path (TF32, one seed, Adam at 0.001 as in the frozen configurations), and
stopped early. **It is no cell of the table**: fewer iterations than the tier asks for, another
program, one seed. Its weights were tested here, by this project's own evaluation on a CPU, on the
first test tasks of the tier. They are not in the repository; `python -m experiments.pilot FOLDER`
tests them again.
"""


def text() -> str:
    """The page; what has not been tested yet is said."""
    about = training()
    if not about:
        return HEAD + "\nNothing of it has been tested yet.\n"
    seconds = about["maml"].seconds
    per_row = seconds / about["maml"].iterations * 60_000 / len(about) / 60
    parts = [
        HEAD,
        f"{about['maml'].iterations:,} iterations of {len(about)} rows together took "
        f"{seconds:,.0f} seconds: at that speed the 60,000 iterations of one row take about "
        f"{per_row:.0f} minutes.\n",
        trained_table(about),
    ]
    found = subjects()
    if found:
        parts += ["## Accuracy\n", accuracy_table(found), "## Start or geometry?\n", READING]
        parts += ["\n".join(table(found)) + "\n"]
    missing = [row for row in pilot.ROWS if row not in {one.row for one in found}]
    if missing:
        parts.append(f"Not tested yet: {', '.join(f'`{row}`' for row in missing)}.\n")
    if (pilot.OUT / "paths.json").exists():
        parts += ["## Along the task steps\n", curves_table()]
    return "\n".join(parts)


def training() -> dict[str, pilot.Training]:
    """What the files of weights say of their training."""
    path = pilot.OUT / "training.json"
    if not path.exists():
        return {}
    loaded = json.loads(path.read_text())
    return {row: pilot.Training.model_validate(one) for row, one in loaded.items()}


def subjects() -> list[Subject]:
    """The tested rows."""
    found = []
    for row in pilot.ROWS:
        path = pilot.FACTORIAL / f"{row}.json"
        if path.exists():
            one = factorial.Factorial.model_validate_json(path.read_text())
            task = pilot.config(row).task
            n_query = max(task.eval_n_query)
            found.append(Subject("pilot", pilot.SHOT, row, task.n_way, n_query, {0: one}))
    return found


def trained_table(about: dict[str, pilot.Training]) -> str:
    """How far each row came."""
    lines = [
        "| row | iterations | best validation, 15 queries | at iteration |",
        "|---|---:|---:|---:|",
    ]
    for row, one in about.items():
        best = f"{100 * one.best_validation:.2f}"
        lines.append(
            f"| `{row}` | {one.iterations:,} of 60,000 | {best} | {one.tested_iteration:,} |"
        )
    return "\n".join(lines) + "\n"


def accuracy_table(found: list[Subject]) -> str:
    """Every cell at the rate of training, both protocols."""
    lines = ["| cell | K queries a class | 15 queries a class | tasks |", "|---|---:|---:|---:|"]
    seen = set()
    for one in found:
        data = one.by_seed[0]
        for name, cell in data.cells.items():
            maml = name == label(*factorial.PLAIN)
            title = "`maml`" if maml else f"`{one.row}`: {name}"
            if title in seen:
                continue
            seen.add(title)
            shown = []
            for n_query, right in sorted(cell.correct["1"].items(), key=lambda item: int(item[0])):
                mean = estimate([correct / (int(n_query) * one.n_way) for correct in right])
                shown.append(f"{100 * mean.mean:.2f} ± {100 * mean.half_width:.2f}")
            lines.append(f"| {title} | {' | '.join(shown)} | {data.tasks} |")
    return "\n".join(lines) + "\n"


def curves_table() -> str:
    """Accuracy, task loss and gradient norm at every step."""
    import numpy as np

    from experiments.result_tables import filled

    found = pilot.Curves.model_validate_json((pilot.OUT / "paths.json").read_text())
    steps = range(found.steps + 1)
    lines = []
    for what in ("accuracy (%)", "task loss (median)", "gradient norm (median)"):
        lines += [
            f"| {what}, {found.tasks} tasks | " + " | ".join(f"k = {k}" for k in steps) + " |"
        ]
        lines += ["|---|" + "---:|" * len(steps)]
        for name, paths in found.cells.items():
            if what.startswith("accuracy"):
                values = 100 * np.asarray(paths.correct).mean(axis=0) / found.queries
                cells = [f"{value:.1f}" for value in values]
            else:
                kept = paths.support_loss if what.startswith("task") else paths.grad_norm
                cells = [f"{value:.3g}" for value in np.median(filled(kept), axis=0)]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
    left = [row for row in pilot.ROWS if not any(name.startswith(row) for name in found.cells)]
    lines += [f"Not followed yet: {', '.join(f'`{row}`' for row in left)}.\n"] if left else []
    return "\n".join(lines)
