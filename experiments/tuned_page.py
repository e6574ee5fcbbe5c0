"""What is left of the differences to MAML where every row has its own rates (question (o))."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from experiments import tuned
from experiments.result_tables import Table
from experiments.start_or_geometry import shown
from experiments.statistics import compare
from experiments.tuned import Tuned
from mdtheory.core.estimate import estimate

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
    correct = [one.correct[str(seed)][str(n_query)] for seed in seeds(one)]
    return np.asarray(correct) / (n_query * n_way)


def seeds(one: Tuned) -> list[int]:
    """Those that it was tested with."""
    return sorted(int(seed) for seed in one.correct)


def at_tier_s(table: Table, row: str, chosen: list[int], n_query: int) -> np.ndarray:
    """At the tier's rates, the same seeds. shape: (n_seeds, n_tasks)"""
    return np.stack([table.by_row[row][seed].accuracies(n_query) for seed in chosen])


def lines(tables: Sequence[Table], found: Sequence[Tuned] | None = None) -> list[str]:
    """The table of every tier and number of shots of which MAML and another row are tuned."""
    every, text = known() if found is None else found, []
    for table in tables:
        here = {
            one.row: one
            for one in every
            if (one.tier, one.shot) == (table.tier.name, table.shot)
            and set(seeds(one)) <= set(table.by_row.get(one.row, {}))
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
    gaps = {row: at_own[row] - at_tier_s(table, row, seeds(here[row]), many) for row in rows}
    gained = compare(gaps)
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
