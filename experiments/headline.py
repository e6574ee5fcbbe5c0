"""The headline of all results: start or geometry, in one paragraph and one table."""

from __future__ import annotations

from collections.abc import Iterable

from experiments import recorded_starts
from experiments.cells import TIERS
from experiments.pilot_page import subjects as pilot_subjects
from experiments.result_tables import Table
from experiments.start_or_geometry import Subject, contrasts, known, shown
from experiments.statistics import Difference

Results = dict[tuple[str, int], Table]

POSTERS = "metamida-published"
"""The poster's own method, in the form that was published."""
FAMILIES = {
    "the mirror maps": ("metamida-published", "metamida", "potential", "certified"),
    "the Kronecker preconditioners": ("metacurvature", "metakfo", "metacurvature-symmetric"),
}
COLUMNS = {
    ("geometry at the common start", "tuned"): "its geometry under MAML's start",
    ("start alone", "tuned"): "its start under plain descent",
    ("both", "tuned"): "both",
    ("both", "as trained"): "both, no rate tuned",
}
ORDER = ("pilot", *(name for name in reversed(TIERS) if name != "smoke"))
PILOT_NAME = "a pilot at the poster's size"
TWICE = "maml-twice"
RIVALS = (POSTERS, "metamida")
CONTROLS = {TWICE: "MAML at twice the meta-rate", "maml-shift": "with a redundant shift"}


def headline(results: Results) -> str:
    """The paragraph and its table; nothing where no row has been taken apart."""
    chosen = subjects()
    if not chosen:
        return ""
    sentences = [tally(known()), family_sentences(results), control_sentence(results)]
    sentences.append(start_sentence(results))
    return (
        "**Start or geometry?** The poster's claim is causal: \"superior performance due to "
        'improved loss geometry model". So every trained row with kept weights is taken apart: its '
        "learned geometry under MAML's start, its start under plain gradient descent, each with "
        "its task rate tuned on validation tasks. "
        + " ".join(sentence for sentence in sentences if sentence)
        + "\n\nMinus MAML, percentage points ± 95% interval (slanted: other than zero, but from "
        "fewer than three seeds, so only suggestive; bold: from three):\n\n"
        + "\n".join(table(chosen, results))
        + "\n"
    )


def subjects() -> list[Subject]:
    """What was taken apart, the largest tier first."""
    found = [one for one in (*pilot_subjects(), *known()) if one.tier in ORDER]
    return sorted(found, key=lambda one: ORDER.index(one.tier))


def table(chosen: Iterable[Subject], results: Results) -> list[str]:
    """A line for every row that was taken apart, and for the poster's own method, of which only
    the recorded paths are kept.
    """
    lines = ["| | " + " | ".join(COLUMNS.values()) + " | tasks | seeds |"]
    lines.append("|---|" + "---:|" * (len(COLUMNS) + 2))
    chosen = list(chosen)
    by_tier = {name: [one for one in chosen if one.tier == name] for name in ORDER}
    for name, own in by_tier.items():
        found = contrasts(own)
        for one in own:
            cells = [shown(found[one.name, head, rate]) for head, rate in COLUMNS]
            where = f"{PILOT_NAME if name == 'pilot' else f'tier `{name}`'}, {one.name}"
            lines.append(line(where, cells, one.tasks, len(one.by_seed)))
        if not any(one.row == POSTERS for one in own):
            lines += recorded_lines(name, results)
    return lines


def recorded_lines(name: str, results: Results) -> list[str]:
    """The poster's own method in one tier, by its recorded paths."""
    found = recorded_starts.contrasts(of_tier(name, results))
    lines = []
    for key, both in found["both"].items():
        _, shot, row = key
        if row == POSTERS:
            common = found["geometry at the common start"][key]
            where = f"tier `{name}`, {shot}-shot, `{row}`, recorded paths, no rate tuned"
            cells = [shown(common), "–", "–", shown(both)]
            lines.append(line(where, cells, both.estimate.n, both.seeds))
    return lines


def line(where: str, cells: list[str], tasks: int, seeds: int) -> str:
    """One line of the table."""
    return f"| {where} | {' | '.join(cells)} | {tasks} | {seeds} |"


def of_tier(name: str, results: Results) -> list[Table]:
    """The tables of one tier."""
    return [one for (tier, _), one in results.items() if tier == name]


def tally(chosen: Iterable[Subject]) -> str:
    """In how many of the cases each half gains anything by itself; controls are no cases."""
    chosen = [one for one in chosen if one.tier != "controls"]
    by_tier = [
        contrasts([one for one in chosen if one.tier == tier])
        for tier in sorted({one.tier for one in chosen})
    ]
    gains = {
        head: [
            f"{' '.join(reversed(name.split(', ')))} {shown(one)}"
            for found in by_tier
            for (name, its, rate), one in found.items()
            if (its, rate) == (head, "tuned") and one.significant and one.estimate.mean > 0
        ]
        for head in ("geometry at the common start", "start alone")
    }
    counts = [
        f"{len(found)}" + (f" ({', '.join(found)})" if found else "") for found in gains.values()
    ]
    return (
        f"Of {len(chosen)} trained rows the geometry gains under MAML's start in {counts[0]}; the "
        f"start gains without the geometry in {counts[1]}. Points, slanted where fewer than three "
        "seeds were trained."
    )


def family_sentences(results: Results) -> str:
    """How far each family's geometry alone moves accuracy, over all rows with recorded paths."""
    tiers = [name for name in ORDER if of_tier(name, results)]
    found: dict[recorded_starts.Key, Difference] = {}
    for name in tiers:
        found |= recorded_starts.contrasts(of_tier(name, results))["geometry at the common start"]
    parts = []
    for family, rows in FAMILIES.items():
        means = [100 * one.estimate.mean for (_, _, row), one in found.items() if row in rows]
        if means:
            low, high = min(means), max(means)
            parts.append(f"{low:+.2f} to {high:+.2f} points for {family} ({len(means)} cases)")
    if not parts:
        return ""
    return (
        "By the recorded paths of every row, at the task rate of training, the geometry under "
        f"MAML's start changes accuracy by {', and by '.join(parts)}."
    )


def start_sentence(results: Results) -> str:
    """How good the poster's method is before any task step, on the poster's data."""
    parts = []
    for table in of_tier("paper", results) or of_tier("cpu", results):
        seeds = table.seeds([POSTERS, "maml"])
        curves = [table.curve(row, seeds=seeds) for row in (POSTERS, "maml")] if seeds else []
        losses = [curve.loss[0] for curve in curves if curve is not None]
        if len(losses) == 2:
            parts.append(f"{losses[0]:.3f} against {losses[1]:.3f} ({table.shot}-shot)")
    if not parts:
        return ""
    return (
        'The poster says "better initialization"; on miniImageNet, before any task step, '
        f"`{POSTERS}` has a median task loss of {' and '.join(parts)}, the second MAML's."
    )


def control_sentence(results: Results) -> str:
    """What a gauge and a doubled meta-rate gain without any geometry."""
    parts = []
    for one in of_tier("controls", results):
        found = one.differences("maml", one.protocols[1], list(CONTROLS))
        for row, difference in found.items():
            counted = "1 seed" if difference.seeds == 1 else f"{difference.seeds} seeds"
            parts.append(f"{CONTROLS[row]} {shown(difference)} ({one.shot}-shot, {counted})")
        if TWICE in one.by_row:
            rivals = one.differences(TWICE, one.protocols[1], RIVALS)
            said = [f"`{row}` {shown(difference)}" for row, difference in rivals.items()]
            minus = f"minus {CONTROLS[TWICE]}, {one.shot}-shot"
            parts.append(f"{minus}: {', '.join(said)}")
    if not parts:
        return ""
    return "Controls without any geometry, minus MAML: " + "; ".join(parts) + "."
