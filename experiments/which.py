"""Which geometry to choose, as far as the records say it: the block of docs/which-geometry.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.benchmarks.implementations import OURS
from experiments.benchmarks.measurements import everything
from experiments.cells import rows
from experiments.glance import listed
from experiments.headline import controls, tally
from experiments.result_tables import Table
from experiments.start_or_geometry import known, shown
from experiments.statistics import Difference

Results = dict[tuple[str, int], Table]
SETTINGS = (("own", "cpu"), ("omniglot",), ("glyphs",))
"""The tiers that rank geometries; the first of each that has a record stands for its data."""
TIMED = "methods"
"""The benchmarks' record of several methods at one size."""


@dataclass(frozen=True)
class Setting:
    """One number of shots on one data set, and every row's difference to MAML there."""

    table: Table
    gaps: dict[str, Difference]

    @property
    def title(self) -> str:
        """``miniImageNet, 1-shot``."""
        return f"{self.table.first.config.data.kind.title}, {self.table.shot}-shot"

    def settled(self, *, better: bool) -> list[str]:
        """The rows that differ from MAML from three seeds on, the largest difference first."""
        sign = 1 if better else -1
        found = {row: sign * gap.estimate.mean for row, gap in self.gaps.items() if sure(gap)}
        return sorted((row for row in found if found[row] > 0), key=found.__getitem__, reverse=True)


def sure(gap: Difference) -> bool:
    """Whether it is other than zero, corrected, from enough seeds."""
    return gap.significant and not gap.suggestive


def settings(results: Results) -> list[Setting]:
    """Those that have a record of MAML and of another row."""
    found = []
    for names in SETTINGS:
        name = next((one for one in names if any(key[0] == one for key in results)), None)
        for table in (table for (tier, _), table in results.items() if tier == name):
            gaps = table.differences("maml", table.protocols[1]) if "maml" in table.by_row else {}
            found += [Setting(table, gaps)] if gaps else []
    return found


def block(results: Results) -> str:
    """What holds, what only may hold, and the numbers."""
    every = settings(results)
    if not every:
        return "No record is here yet.\n"
    parts = ["\n".join(sentences(every)) + "\n", "\n".join(table(every)) + "\n", READING]
    return "\n".join([*parts, apart(results)] if known() else parts)


def sentences(every: Sequence[Setting]) -> list[str]:
    """One for each setting, and what to try first."""
    found = []
    for one in every:
        better, worse = one.settled(better=True), one.settled(better=False)
        text = f"- **{one.title}**: "
        if all(gap.suggestive for gap in one.gaps.values()):
            found.append(f"{text}no row has three seeds yet, so none is settled.")
            continue
        text += f"better than MAML from three seeds on: {named(better)}"
        found.append(text + (f"; worse: {named(worse)}." if worse else "."))
    first = leading(every)
    if first:
        told = [
            f"{row} ({count} of {sum(row.strip('`') in one.gaps for one in every)})"
            for row, count in first.items()
        ]
        found.append(
            "- So try these first beside MAML (in brackets: in how many of the settings with a "
            "record of the row it is better; in none is it worse, not even from fewer seeds): "
            f"{', '.join(told)}."
        )
    return found


def named(found: Sequence[str]) -> str:
    """Rows in a sentence."""
    return listed([f"`{row}`" for row in found]) if found else "none"


def leading(every: Sequence[Setting]) -> dict[str, int]:
    """Row -> in how many settings it is surely better, of those that are worse in none by however
    many seeds; the most settings first, then the larger mean difference.
    """
    worse = {
        row
        for one in every
        for row, gap in one.gaps.items()
        if gap.significant and gap.estimate.mean < 0
    }
    counts: dict[str, int] = {}
    for one in every:
        for row in one.settled(better=True):
            counts[row] = counts.get(row, 0) + (row not in worse)
    kept = {row: count for row, count in counts.items() if count}

    def order(row: str) -> tuple[int, float]:
        means = [one.gaps[row].estimate.mean for one in every if row in one.gaps]
        return kept[row], sum(means) / len(means)

    return {f"`{row}`": kept[row] for row in sorted(kept, key=order, reverse=True)}


def table(every: Sequence[Setting]) -> list[str]:
    """A line for every row of any setting."""
    head = ["geometry", *(one.title for one in every), "numbers learned", "time"]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    chosen = [row for row in rows() if any(row in one.table.by_row for one in every)]
    times = relative_times()
    for row in chosen:
        line = [f"`{row}`", *(gap_text(one, row) for one in every)]
        line += [numbers(every, row), f"{times[row]:.1f}" if row in times else "–"]
        lines.append("| " + " | ".join(line) + " |")
    return lines


def gap_text(one: Setting, row: str) -> str:
    """The difference and the seeds behind it."""
    if row == "maml":
        return "0"
    return f"{shown(one.gaps[row])} ({one.gaps[row].seeds})" if row in one.gaps else "–"


def numbers(every: Sequence[Setting], row: str) -> str:
    """Meta-parameters of the geometry over those of the start, in the first setting that has the
    row.
    """
    table = next(one.table for one in every if row in one.table.by_row)
    result = next(iter(table.by_row[row].values())).result
    own = result.geometry_parameters
    return f"{own / (result.parameters - own):.1f}"


def relative_times() -> dict[str, float]:
    """Seconds of our meta-iteration over those of our MAML, by method."""
    record = everything().get(TIMED)
    if record is None:
        return {}
    (size,) = record.sizes()
    found = {
        one.work.method: one.seconds
        for one in record.of_size(size)
        if one.work.implementation == OURS and one.work.estimator == "unrolled" and one.seconds
    }
    return {name: seconds / found["maml"] for name, seconds in found.items()}


READING = (
    "Accuracy minus MAML's on the same tasks and seeds, percentage points ± 95% interval, in "
    "brackets the number of seeds. Bold, and *better* above: other than zero after Holm's "
    "correction over all rows of a column, not over several columns, from three seeds; slanted: "
    "from fewer, which only suggests. *Numbers learned*: by the geometry, for each number of the "
    "start. *Time*: of a meta-iteration, to MAML's, where it was measured "
    "([benchmarks](benchmarks.md)).\n"
)


def apart(results: Results) -> str:
    """That a better row need not owe it to its geometry."""
    return (
        "A row differs from MAML in two things that are learned together: the geometry, and the "
        f"start. Taken apart: {tally(known())}\n\n{controls(results)}\n\nSo a gain in this "
        "table may be faster meta-training of the start; most of these runs were still learning "
        "when they were stopped.\n"
    )
