"""All records, ordered for tables: tier -> shots -> row -> seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.cells import Tier, cells, tier
from experiments.records import FOLDER, Paths, Record, everything
from experiments.statistics import Difference, compare
from mdtheory.core.estimate import Estimate, estimate


@dataclass(frozen=True)
class Curve:
    """Along the task steps: mean accuracy, and the medians over tasks of task loss and gradient
    norm. shapes: (K + 1,)
    """

    accuracy: np.ndarray
    loss: np.ndarray
    gradient: np.ndarray
    seeds: int


@dataclass(frozen=True)
class Table:
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
    def own_rows(self) -> list[str]:
        """The rows whose records are this tier's, and not of one beside it."""
        return [row for row in self.rows if self._any(row).result.tier == self.tier.name]

    @property
    def several_seeds(self) -> bool:
        """Whether any row has more than one."""
        return any(len(by_seed) > 1 for by_seed in self.by_row.values())

    @property
    def first(self) -> Record:
        """Any record: what all of them share can be read from it."""
        return self._any(self.rows[0])

    def _any(self, row: str) -> Record:
        return next(iter(self.by_row[row].values()))

    def seeds(self, rows: Sequence[str]) -> list[int]:
        """The seeds for which all of these rows have records."""
        return sorted(set.intersection(*(set(self.by_row.get(row, {})) for row in rows)))

    def by_seed_and_task(self, row: str, n_query: int, *, norm: str | None = None) -> np.ndarray:
        """Every seed of a row. shape: (n_seeds, n_tasks)"""
        return np.stack([one.accuracies(n_query, norm) for one in self.by_row[row].values()])

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
            paths = self.paths(row, seed, common=common)
            if paths is None:
                return None
            found.append(np.asarray(paths.correct) / self.by_row[row][seed].adaptation.queries)
        return np.mean(found, axis=0)

    def curve(
        self, row: str, *, seeds: Iterable[int] | None = None, common: bool = False
    ) -> Curve | None:
        """Over all test tasks whose paths are recorded, and these seeds; ``None`` where there are
        none.
        """
        chosen = list(self.by_row[row] if seeds is None else seeds)
        found = [self.paths(row, seed, common=common) for seed in chosen]
        paths = [path for path in found if path is not None]
        if not paths or len(paths) < len(found):
            return None
        correct = self.correct(row, seeds=chosen, common=common)
        loss = np.concatenate([filled(path.support_loss) for path in paths])
        gradient = np.concatenate([filled(path.grad_norm) for path in paths])
        medians = (np.median(loss, axis=0), np.median(gradient, axis=0))
        return Curve(np.mean(correct, axis=0), *medians, seeds=len(chosen))

    def paths(self, row: str, seed: int, *, common: bool = False) -> Paths | None:
        """From a row's own start, or from MAML's, which is MAML's own."""
        adaptation = self.by_row[row][seed].adaptation
        return adaptation.common if common and row != "maml" else adaptation.own

    def mean(self, row: str, n_query: int, *, first: int | None = None) -> Estimate:
        """The mean accuracy over all test tasks, or the first ones."""
        return estimate(self.accuracies(row, n_query)[:first])

    def differences(self, reference: str, n_query: int) -> dict[str, Difference]:
        """Every other row minus ``reference`` on the same tasks and the seeds that both have."""
        gaps = {}
        for row in self.rows:
            if row != reference and self.seeds([reference, row]):
                gaps[row] = self.gaps(row, reference, n_query)
        return compare(gaps)

    def gaps(self, row: str, reference: str, n_query: int) -> np.ndarray:
        """Accuracy minus ``reference``'s for the seeds that both have. shape: (n_seeds, n_tasks)"""
        return np.stack(
            [
                self.by_row[row][seed].accuracies(n_query)
                - self.by_row[reference][seed].accuracies(n_query)
                for seed in self.seeds([row, reference])
            ]
        )

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


def filled(table: list[list[float | None]]) -> np.ndarray:
    """Infinite where it has diverged. shape: (n_tasks, K + 1)"""
    return np.asarray([[np.inf if value is None else value for value in row] for row in table])


def read(folder: Path = FOLDER) -> dict[tuple[str, int], Table]:
    """Every table with at least one record, by tier and shots."""
    found: dict[tuple[str, int], dict[str, dict[int, Record]]] = {}
    for record in everything(folder):
        result = record.result
        table = found.setdefault((result.tier, result.shot), {})
        table.setdefault(result.row, {})[result.seed] = record
    results: dict[tuple[str, int], Table] = {}
    for (name, shot), own in sorted(found.items()):
        by_row = {}
        for other in (tier(name).like, *tier(name).beside):
            by_row |= found.get((other, shot), {})
        by_row |= own
        order = [cell.row for cell in table_order(name) if cell.shot == shot]
        kept = {row: dict(sorted(by_row[row].items())) for row in order if row in by_row}
        results[name, shot] = Table(tier(name), shot, kept)
    return results


def table_order(name: str) -> list:
    """The cells of a tier, and of those beside it, in the order of ``rows.toml``."""
    from experiments.cells import rows

    others = [other for other in (tier(name).like, *tier(name).beside) if other]
    return sorted(
        [cell for other in (*others, name) for cell in cells(other)],
        key=lambda cell: (cell.shot, list(rows()).index(cell.row)),
    )
