"""What is left of the differences to MAML where every row has its own rates (question (o))."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from experiments import tuned
from experiments.result_tables import Table
from experiments.start_or_geometry import shown
from experiments.statistics import compare, estimate
from experiments.tuned import Tuned

HEAD = (
    "meta-rate, task rate",
    "accuracy",
    "minus the same row at the tier's rates",
    "minus MAML, both at the tier's rates",
    "minus MAML, both tuned",
    "seeds",
)


@cache
def known() -> tuple[Tuned, ...]:
    """Those in git."""
    return tuple(tuned.read())


def accuracies(one: Tuned, n_query: int, n_way: int) -> np.ndarray:
    """At its own rates. shape: (n_seeds, n_tasks)"""
    by_seed = sorted(one.correct.items(), key=lambda item: int(item[0]))
    return np.asarray([right[str(n_query)] for _, right in by_seed]) / (n_query * n_way)


def lines(tables: Sequence[Table], found: Sequence[Tuned] | None = None) -> list[str]:
    """The table of every tier and number of shots of which MAML and another row are tuned."""
    every, text = known() if found is None else found, []
    for table in tables:
        here = {
            one.row: one
            for one in every
            if (one.tier, one.shot) == (table.tier.name, table.shot) and one.row in table.by_row
        }
        if len(here) > 1 and "maml" in here:
            text += of_table(table, here)
    return text


def of_table(table: Table, here: dict[str, Tuned]) -> list[str]:
    """One line for every tuned row, in the table's order."""
    many, n_way = table.protocols[1], table.first.config.task.n_way
    rows = [row for row in table.rows if row in here]
    at_own = {row: accuracies(here[row], many, n_way) for row in rows}
    rivals = [row for row in rows if row != "maml"]
    after = compare({row: at_own[row] - at_own["maml"] for row in rivals})
    before = table.differences("maml", many, rivals)
    gained = compare({row: at_own[row] - table.by_seed_and_task(row, many) for row in rows})
    text = [f"| {table.shot}-shot | " + " | ".join(HEAD) + " |", "|---|" + "---:|" * len(HEAD)]
    for row in rows:
        mean = estimate(at_own[row].mean(axis=0))
        rates = ", ".join(f"{rate:g}" for rate in here[row].best)
        cells = [rates, f"{100 * mean.mean:.2f} ± {100 * mean.half_width:.2f}", shown(gained[row])]
        cells += [shown(part[row]) if row in part else "–" for part in (before, after)]
        text.append(f"| `{row}` | {' | '.join(cells)} | {len(at_own[row])} |")
    first = here["maml"]
    left = [row for row in table.own_rows if row not in here]
    grid = ", ".join(f"{rate:g}" for rate in first.grid)
    text += [
        "",
        f"Multiples of the tier's rates out of {grid} each, every pair trained with seed 0 and "
        f"judged on {first.validation_tasks} validation tasks.",
    ]
    text += [f"Not tuned yet: {', '.join(f'`{row}`' for row in left)}."] if left else []
    return text
