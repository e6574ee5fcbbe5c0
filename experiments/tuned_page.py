"""What is left of the differences to MAML where every row has its own rates (question (o))."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from experiments import tuned
from experiments.result_tables import Table
from experiments.start_or_geometry import shown
from experiments.statistics import Difference, compare
from experiments.tuned import Tuned
from mdtheory.core.estimate import estimate

PICTURE = "own-rates"
HEAD = (
    "meta-rate, task rate",
    "accuracy",
    "minus the same row at the tier's rates",
    "minus MAML, both at the tier's rates",
    "minus MAML, each at its own rates",
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


def by_row(table: Table, found: Sequence[Tuned] | None = None) -> dict[str, Tuned]:
    """The tuned rows of a table, in its order; nothing without MAML and another one."""
    every = known() if found is None else found
    here = {
        one.row: one
        for one in every
        if (one.tier, one.shot) == (table.tier.name, table.shot)
        and set(seeds(one)) <= set(table.by_row.get(one.row, {}))
    }
    if len(here) < 2 or "maml" not in here:
        return {}
    return {row: here[row] for row in table.rows if row in here}


@dataclass(frozen=True)
class Compared:
    """Differences by row: ``before``, minus MAML, both at the tier's rates, and ``after``, both at
    their own, are one family of comparisons, as QUESTIONS.md says; ``gained``, at its own rates
    minus at the tier's, is another.
    """

    before: dict[str, Difference]
    after: dict[str, Difference]
    gained: dict[str, Difference]


def compared(table: Table, here: dict[str, Tuned]) -> Compared:
    """All differences of a table's tuned rows, in the protocol with many queries."""
    many, n_way = table.protocols[1], table.first.config.task.n_way
    at_own = {row: accuracies(one, many, n_way) for row, one in here.items()}
    rivals = [row for row in here if row != "maml"]
    gaps = {f"before {row}": table.gaps(row, "maml", many) for row in rivals}
    gaps |= {f"after {row}": at_own[row] - at_own["maml"] for row in rivals}
    found = compare(gaps)
    return Compared(
        before={row: found[f"before {row}"] for row in rivals},
        after={row: found[f"after {row}"] for row in rivals},
        gained=compare(
            {row: at_own[row] - at_tier_s(table, row, seeds(here[row]), many) for row in here}
        ),
    )


def lines(tables: Sequence[Table], found: Sequence[Tuned] | None = None) -> list[str]:
    """What is left of the differences, for every tier and number of shots with tuned rows."""
    text = []
    for table in tables:
        if here := by_row(table, found):
            text += of_table(table, here)
    return text


def of_table(table: Table, here: dict[str, Tuned]) -> list[str]:
    """What is left in a sentence, and one line for every tuned row."""
    many, n_way = table.protocols[1], table.first.config.task.n_way
    gaps = compared(table, here)
    text = [left(gaps), "", f"| {table.shot}-shot | " + " | ".join(HEAD) + " |"]
    text.append("|---|" + "---:|" * len(HEAD))
    for row, one in here.items():
        right = accuracies(one, many, n_way)
        mean = estimate(right.mean(axis=0))
        rates = ", ".join(f"{rate:g}" for rate in one.best)
        cells = [rates, f"{100 * mean.mean:.2f} ± {100 * mean.half_width:.2f}"]
        cells += [shown(gaps.gained[row])]
        cells += [shown(part[row]) if row in part else "–" for part in (gaps.before, gaps.after)]
        text.append(f"| `{row}` | {' | '.join(cells)} | {len(right)} |")
    text += ["", reading(here["maml"]), at_the_edge(here)]
    picture = f"{table.tier.name}-{table.shot}shot-{PICTURE}.svg"
    text += ["", f"![Minus MAML, at the tier's rates and at own ones]({picture})", ""]
    waiting = [f"`{row}`" for row in table.own_rows if row not in here]
    return text + ([f"Not tuned yet: {', '.join(waiting)}."] if waiting else [])


def left(gaps: Compared) -> str:
    """How many rows differ from MAML before and after, above and below."""
    counted = []
    for part in (gaps.before, gaps.after):
        sure = [one.estimate.mean > 0 for one in part.values() if one.significant]
        counted.append(f"{sum(sure)} above MAML and {len(sure) - sum(sure)} below")
    return (
        f"Of {len(gaps.after)} beside MAML, {counted[0]} at the tier's rates; {counted[1]} where "
        "each, MAML too, has its own; the rest is undecided."
    )


def reading(one: Tuned) -> str:
    """How to read the table."""
    grid = ", ".join(f"{rate:g}" for rate in one.grid)
    return (
        f"Rates: multiples of the tier's, out of {grid} each; every pair was trained with seed 0 "
        f"and judged on {one.validation_tasks} validation tasks, the best one was trained with "
        "every seed. Slanted and bold: other than zero after Holm's correction, over both columns "
        "minus MAML and over the one before them, bold from three seeds or more."
    )


def at_the_edge(here: dict[str, Tuned]) -> str:
    """Which rows might like rates outside the grid."""
    edge = [row for row, one in here.items() if {*one.best} & {one.grid[0], one.grid[-1]}]
    if len(edge) == len(here):
        named = "every row"
    else:
        named = ", ".join(f"`{row}`" for row in edge) or "no row"
    return f"At an edge of the grid, so that a better rate may lie outside: {named}."
