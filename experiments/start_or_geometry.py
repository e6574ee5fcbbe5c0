"""What the factorial of :mod:`experiments.factorial` says: contrasts and their table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from experiments import factorial
from experiments.factorial import Factorial, label
from experiments.records import FOLDER, Record
from experiments.statistics import Difference, compare
from mdtheory.core.estimate import Estimate

OWN, COMMON = factorial.OWN[0], factorial.PLAIN[0]
CONTRASTS = {
    "geometry at the common start": ((COMMON, "learned"), (COMMON, "identity")),
    "geometry at the own start": ((OWN, "learned"), (OWN, "identity")),
    "start alone": ((OWN, "identity"), (COMMON, "identity")),
    "both": ((OWN, "learned"), (COMMON, "identity")),
}
"""Each the accuracy in the first cell minus that in the second, on the same tasks."""
HEADS = ("geometry at the common start", "geometry at the own start", "start alone")
RATES = ("as trained", "tuned")
ENDS = (factorial.SMALLEST, factorial.LARGEST)
PLACES = {
    (COMMON, "learned"): "the geometry under MAML's start",
    (OWN, "learned"): "the geometry at its own start",
    (COMMON, "identity"): "plain descent from MAML's start",
    (OWN, "identity"): "plain descent from the own start",
}


@dataclass(frozen=True)
class Subject:
    """The factorials of one row, tier and number of shots, by seed."""

    tier: str
    shot: int
    row: str
    n_way: int
    n_query: int
    by_seed: dict[int, Factorial]

    @property
    def name(self) -> str:
        """``cpu, 1-shot, `metamida` ``."""
        return f"{self.shot}-shot, `{self.row}`"

    @property
    def tasks(self) -> int:
        """Test tasks that every seed has."""
        return min(one.tasks for one in self.by_seed.values())

    def accuracies(self, cell: tuple[str, str], rate: str) -> np.ndarray:
        """Of one cell, many queries a class. shape: (n_seeds, n_tasks)"""
        found = []
        for one in self.by_seed.values():
            its = one.cells[label(*cell)]
            multiple = "1" if rate == "as trained" else f"{its.best:g}"
            found.append(its.correct[multiple][str(self.n_query)][: self.tasks])
        return np.asarray(found) / (self.n_query * self.n_way)

    def gap(self, contrast: str, rate: str) -> np.ndarray:
        """One contrast, by seed and task. shape: (n_seeds, n_tasks)"""
        first, second = CONTRASTS[contrast]
        return self.accuracies(first, rate) - self.accuracies(second, rate)

    def rates(self) -> str:
        """The tuned multiples of the task rate: own learned, own identity, common learned, common
        identity.
        """
        cells = [(start, how) for start in (OWN, COMMON) for how in ("learned", "identity")]
        by_seed = [
            [f"{one.cells[label(*cell)].best:g}" for cell in cells] for one in self.by_seed.values()
        ]
        return "; ".join("/".join(own) for own in by_seed)


def at_the_edge(chosen: Iterable[Subject]) -> str:
    """Where the smallest or the largest rate that may be tried is the best with any seed. A
    sentence; nothing where there is no such cell.
    """
    found = [
        f"{words} with `{one.row}` {one.shot}-shot in tier `{one.tier}`"
        for one in chosen
        for cell, words in PLACES.items()
        if any(its.cells[label(*cell)].best in ENDS for its in one.by_seed.values())
    ]
    if not found:
        return ""
    return (
        "Best at the smallest or the largest task rate that may be tried, so that one beyond it "
        f"may do better: {', '.join(found)}."
    )


def subjects(folder: Path = factorial.OUT, records: Path = FOLDER) -> list[Subject]:
    """Everything that has been tested, in the order of names."""
    grouped: dict[tuple[str, int, str], dict[int, Factorial]] = {}
    tasks = {}
    for one in factorial.read(folder):
        record = Record(records / one.record)
        result, task = record.result, record.config.task
        key = (result.tier, result.shot, result.row)
        grouped.setdefault(key, {})[result.seed] = one
        tasks[key] = (task.n_way, max(task.eval_n_query))
    return [Subject(*key, *tasks[key], by_seed) for key, by_seed in sorted(grouped.items())]


@cache
def known() -> tuple[Subject, ...]:
    """Those in git."""
    return tuple(subjects())


def contrasts(chosen: Iterable[Subject]) -> dict[tuple[str, str, str], Difference]:
    """(subject, contrast, rate) -> difference; one family, with both rates, as QUESTIONS.md says:
    all comparisons of a question in a tier.
    """
    gaps = {
        (one.name, head, rate): one.gap(head, rate)
        for one in chosen
        for rate in RATES
        for head in CONTRASTS
    }
    by_text = compare({"|".join(key): gap for key, gap in gaps.items()})
    return dict(zip(gaps, by_text.values(), strict=True))


def shown(one: Difference | Estimate) -> str:
    """``+1.23 ± 0.45``, in points; bold where it holds up over seeds, slanted where it only
    suggests.
    """
    mean = one.estimate if isinstance(one, Difference) else one
    text = f"{100 * mean.mean:+.2f} ± {100 * mean.half_width:.2f}"
    if not isinstance(one, Difference) or not one.significant:
        return text
    return f"*{text}*" if one.suggestive else f"**{text}**"


def table(chosen: Sequence[Subject]) -> list[str]:
    """One line for every subject: three contrasts, as trained and tuned; below them, which rates
    are the smallest or the largest that may be tried.
    """
    found = contrasts(chosen)
    heads = [f"{head}, {rate}" for head in HEADS for rate in RATES]
    lines = ["| | " + " | ".join([*heads, "tuned rates", "tasks", "seeds"]) + " |"]
    lines.append("|---|" + "---:|" * (len(heads) + 3))
    for one in chosen:
        cells = [shown(found[one.name, head, rate]) for head in HEADS for rate in RATES]
        behind = min(its.validation_tasks for its in one.by_seed.values())
        cells += [one.rates(), f"{one.tasks} ({behind})", str(len(one.by_seed))]
        lines.append(f"| {one.name} | " + " | ".join(cells) + " |")
    return [*lines, "", edge] if (edge := at_the_edge(chosen)) else lines


READING = (
    "Percentage points, 15 queries a class. *Common start*: MAML's of the same tier, shots and "
    "seed; *identity*: plain gradient descent. *As trained*: at the task rate of training; "
    "*tuned*: at the multiple of it, out of {rates} and on by doubling while the largest is the "
    "best, by halving while the smallest is, that is best on validation tasks, chosen for "
    "every cell by itself (the column gives them: own start learned / identity, common start "
    "learned / identity). *Tasks*: of the test, in brackets of the validation behind a rate. "
    "Slanted: other than zero after Holm's correction over all rows, contrasts (own start and "
    "geometry together is one more) and both kinds of rate, but from fewer than "
    "three seeds, so only suggestive; bold: from three or more.\n"
).format(rates=", ".join(f"{rate:g}" for rate in factorial.RATES))


def lines(tiers: Sequence[str]) -> list[str]:
    """The answer to (h) for one tier: the factorial where weights are kept."""
    chosen = [one for one in known() if one.tier in set(tiers)]
    left = [f"`{name}`" for name in factorial.missing() if Record(FOLDER / name).cell.tier in tiers]
    waiting = ["", f"Kept weights, not tested yet: {', '.join(left)}."] if left else []
    return [READING, *table(chosen), *waiting] if chosen else waiting
