"""All records, ordered for tables: tier -> shots -> row -> seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.cells import Tier, cells, tier
from experiments.records import FOLDER, Record, everything
from experiments.statistics import Difference, Estimate, compare, estimate


@dataclass(frozen=True)
class Page:
    """The records of one tier and number of shots. ``by_row``: row -> its records by seed; rows in
    the table's order.
    """

    tier: Tier
    shot: int
    by_row: dict[str, dict[int, Record]]

    @property
    def rows(self) -> list[str]:
        """The rows with at least one record."""
        return list(self.by_row)

    @property
    def several_seeds(self) -> bool:
        """Whether any row has more than one."""
        return any(len(by_seed) > 1 for by_seed in self.by_row.values())

    @property
    def first(self) -> Record:
        """Any record: what all of the page share can be read from it."""
        return next(iter(next(iter(self.by_row.values())).values()))

    def seeds(self, rows: Sequence[str]) -> list[int]:
        """The seeds for which all of these rows have records."""
        return sorted(set.intersection(*(set(self.by_row.get(row, {})) for row in rows)))

    def accuracies(
        self, row: str, n_query: int, *, seeds: Iterable[int] | None = None, norm: str | None = None
    ) -> np.ndarray:
        """By task, averaged over seeds (all that the row has). shape: (n_tasks,)"""
        chosen = (
            self.by_row[row] if seeds is None else {seed: self.by_row[row][seed] for seed in seeds}
        )
        return np.mean([record.accuracies(n_query, norm) for record in chosen.values()], axis=0)

    def correct(self, row: str, *, seeds: Iterable[int], common: bool = False) -> np.ndarray | None:
        """Accuracy at every task step, averaged over seeds; ``None`` where it was not measured.
        shape: (n_tasks, K + 1)
        """
        found = []
        for seed in seeds:
            adaptation = self.by_row[row][seed].adaptation
            paths = adaptation.common if common and row != "maml" else adaptation.own
            if paths is None:
                return None
            found.append(np.asarray(paths.correct) / adaptation.queries)
        return np.mean(found, axis=0)

    def mean(self, row: str, n_query: int, *, first: int | None = None) -> Estimate:
        """The mean accuracy over all test tasks, or the first ones."""
        return estimate(self.accuracies(row, n_query)[:first])

    def differences(
        self, reference: str, n_query: int, rows: Sequence[str] | None = None
    ) -> dict[str, Difference]:
        """Every other row, or these, minus ``reference`` on the same tasks and the seeds that both
        have.
        """
        gaps = {}
        for row in self.rows if rows is None else rows:
            if row != reference and (seeds := self.seeds([reference, row])):
                mine, theirs = (
                    self.accuracies(one, n_query, seeds=seeds) for one in (row, reference)
                )
                gaps[row] = mine - theirs
        return compare(gaps)

    def by_seed(self, row: str, reference: str, n_query: int) -> list[float]:
        """The mean difference to ``reference``, seed by seed, for the seeds that both have."""
        pairs = [
            [self.by_row[one][seed] for one in (row, reference)]
            for seed in self.seeds([row, reference])
        ]
        return [
            float((mine.accuracies(n_query) - theirs.accuracies(n_query)).mean())
            for mine, theirs in pairs
        ]

    def seed_spread(self, reference: str, n_query: int) -> float | None:
        """The standard deviation of :meth:`by_seed`, pooled over rows with several: sqrt(sum of
        squares / sum of (n - 1)).
        """
        several = [
            gaps
            for row in self.rows
            if row != reference and len(gaps := self.by_seed(row, reference, n_query)) > 1
        ]
        if not several:
            return None
        return float(
            np.sqrt(
                sum(np.var(gaps) * len(gaps) for gaps in several)
                / sum(len(gaps) - 1 for gaps in several)
            )
        )

    @property
    def protocols(self) -> tuple[int, int]:
        """K and 15 queries per class."""
        small, large = (
            min(self.first.config.task.eval_n_query),
            max(self.first.config.task.eval_n_query),
        )
        return small, large


def read(folder: Path = FOLDER) -> dict[tuple[str, int], Page]:
    """Every page with at least one record."""
    found: dict[tuple[str, int], dict[str, dict[int, Record]]] = {}
    for record in everything(folder):
        result = record.result
        page = found.setdefault((result.tier, result.shot), {})
        page.setdefault(result.row, {})[result.seed] = record
    pages = {}
    for (name, shot), own in sorted(found.items()):
        by_row = {**found.get((tier(name).like, shot), {}), **own}
        order = [cell.row for cell in table_order(name) if cell.shot == shot]
        kept = {row: dict(sorted(by_row[row].items())) for row in order if row in by_row}
        pages[name, shot] = Page(tier(name), shot, kept)
    return pages


def table_order(name: str) -> list:
    """The cells of a tier, and of the one that it is like, in the order of ``rows.toml``."""
    from experiments.cells import rows

    like = tier(name).like
    return sorted(
        [*(cells(like) if like else []), *cells(name)],
        key=lambda cell: (cell.shot, list(rows()).index(cell.row)),
    )
