"""Start or geometry for every row, with kept weights or without: the learned geometry from both
starts, by the recorded paths on the first test tasks, at the task rate of training.

Two of the contrasts of :mod:`experiments.start_or_geometry` need no weights: *geometry at the
common start* and *both*.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from experiments.result_tables import Table
from experiments.start_or_geometry import shown
from experiments.statistics import Difference, compare

CONTRASTS = {"geometry at the common start": True, "both": False}
"""Whether the row starts where MAML does; MAML itself is subtracted."""

Key = tuple[str, int, str]
"""Tier, shots, row."""

READING = (
    "Every row with a start in common with MAML, by its recorded paths: accuracy after the steps "
    "of training minus MAML's on the same first test tasks, percentage points, 15 queries a class, "
    "at the task rate of training. Holm's correction is over this table.\n"
)


def gap(table: Table, row: str, *, common: bool) -> np.ndarray | None:
    """Accuracy after the steps of a test minus MAML's, for the seeds that both have; ``None`` for
    a row without a start in common with MAML. shape: (n_seeds, n_tasks)
    """
    steps = min(table.first.config.task.eval_steps, table.first.adaptation.steps)
    found = []
    for seed in table.seeds([row, "maml"]):
        if table.paths(row, seed, common=True) is None:
            return None
        mine = table.correct(row, seeds=[seed], common=common)
        theirs = table.correct("maml", seeds=[seed])
        if mine is None or theirs is None:
            return None
        found.append(mine[:, steps] - theirs[:, steps])
    return np.stack(found) if found else None


def contrasts(tables: Iterable[Table]) -> dict[str, dict[Key, Difference]]:
    """Contrast -> row -> difference, all of them one family of comparisons; a row stands in its
    own tier only.
    """
    own: dict[tuple[str, Key], np.ndarray] = {}
    for table in tables:
        for row in table.own_rows:
            if row == "maml" or "maml" not in table.by_row:
                continue
            for head, common in CONTRASTS.items():
                made = gap(table, row, common=common)
                if made is not None:
                    own[head, (table.tier.name, table.shot, row)] = made
    by_text = compare({str(key): one for key, one in own.items()})
    found: dict[str, dict[Key, Difference]] = {head: {} for head in CONTRASTS}
    for (head, key), difference in zip(own, by_text.values(), strict=True):
        found[head][key] = difference
    return found


def lines(tables: Iterable[Table]) -> list[str]:
    """The table of one tier."""
    found = contrasts(tables)
    keys = found["both"]
    if not keys:
        return []
    head = "| by recorded paths | " + " | ".join(CONTRASTS) + " | tasks | seeds |"
    body = []
    for tier, shot, row in keys:
        cells = [found[head][tier, shot, row] for head in CONTRASTS]
        counts = [str(cells[0].estimate.n), str(cells[0].seeds)]
        text = " | ".join([*map(shown, cells), *counts])
        body.append(f"| {shot}-shot, `{row}` | {text} |")
    return ["", READING, head, "|---|" + "---:|" * (len(CONTRASTS) + 2), *body]
