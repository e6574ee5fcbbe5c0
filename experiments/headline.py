"""The headline of all results: start or geometry."""

from __future__ import annotations

from collections.abc import Iterable

from experiments import recorded_starts
from experiments.answers import CONTROL, OWN, PAIRS, compared, differences
from experiments.cells import TIERS
from experiments.glance import listed
from experiments.pilot_page import subjects as pilot_subjects, training as pilot_training
from experiments.result_tables import Table
from experiments.start_or_geometry import Subject, at_the_edge, contrasts, known, shown
from experiments.statistics import Difference, counted_seeds

Results = dict[tuple[str, int], Table]

POSTERS = "metamida-published"
"""The poster's own method, in the form that was published."""
FAMILIES = {
    "the mirror maps": ("metamida-published", "metamida", "potential", "certified"),
    "the Kronecker preconditioners": ("metacurvature", "metakfo", "metacurvature-symmetric"),
}
HALVES = {
    "geometry at the common start": "the geometry under MAML's start",
    "start alone": "the start without the geometry",
    "geometry at the own start": "the geometry at its own start (against none there)",
    "both": "the pair of both",
}
LARGE = 10.0  # points; cases that lose more are named apart
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
DOUBLED = "metacurvature-doubled"
CONTROLS = (
    ("MAML at twice the meta-rate, minus MAML", TWICE, "maml"),
    ("MAML with a redundant shift, minus MAML", "maml-shift", "maml"),
    *((f"`{row}` minus MAML at twice the meta-rate", row, TWICE) for row in RIVALS),
    (
        f"`{OWN}` minus Meta-Curvature whose matrices learn as fast, but need not be symmetric",
        OWN,
        DOUBLED,
    ),
)
"""What is said, minuend, subtrahend."""


def headline(results: Results) -> str:
    """The answer and its tables; nothing where no row has been taken apart."""
    chosen = subjects()
    if not chosen:
        return ""
    sentences = [pair_sentence(known()), family_sentences(results), start_sentence(results)]
    parts = [
        "**Start or geometry?** The poster's claim is causal: \"superior performance due to "
        'improved loss geometry model". So every trained row with kept weights, and with a start '
        "in common with MAML, is taken apart: its learned geometry under MAML's start, and its "
        "start under plain gradient descent: " + tally(known()),
        " ".join(sentence for sentence in sentences if sentence),
        controls(results),
    ]
    return (
        "\n\n".join(part for part in parts if part)
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


def halves(chosen: Iterable[Subject]) -> dict[str, list[tuple[Subject, Difference]]]:
    """Every case with what each half, and both together, change; controls are no cases."""
    chosen = methods(chosen)
    found: dict[str, list[tuple[Subject, Difference]]] = {head: [] for head in HALVES}
    for tier in sorted({one.tier for one in chosen}):
        own = [one for one in chosen if one.tier == tier]
        by_key = contrasts(own)
        for head, cases in found.items():
            cases += [(one, by_key[one.name, head, "tuned"]) for one in own]
    return found


def methods(chosen: Iterable[Subject]) -> list[Subject]:
    """Without the controls."""
    return [one for one in chosen if one.tier != "controls"]


def tally(chosen: Iterable[Subject]) -> str:
    """In how many of the cases each half gains or loses anything by itself, and what three seeds
    settle: a sentence, a table, and what it may hide.
    """
    chosen = methods(chosen)
    found = halves(chosen)
    lines = [
        "| | gains | loses | undecided | settled by three seeds or more |",
        "|---|---:|---:|---:|---|",
    ]
    for head, words in HALVES.items():
        up, down = counts(found[head])
        settled = [
            f"`{one.row}` {one.shot}-shot in tier `{one.tier}` {shown(gap)} "
            f"({counted_seeds(gap.seeds)}, {one.tasks:,} tasks)"
            for one, gap in found[head]
            if gap.significant and not gap.suggestive
        ]
        named = listed(settled) if settled else "none"
        rest = len(chosen) - up - down
        lines.append(f"| {words} | {up} | {down} | {rest} | {named} |")
    tasks, seeds = [one.tasks for one in chosen], [len(one.by_seed) for one in chosen]
    edge = f"{edge} " if (edge := at_the_edge(chosen)) else ""
    return (
        f"{len(chosen)} cases (a row, number of shots and tier; {span(seeds)} seeds, "
        f"{span(tasks)} test tasks, every task rate tuned on validation tasks). How many of "
        "them gain or lose accuracy by each half, and by both:\n\n" + "\n".join(lines) + "\n\n"
        f"{edge}The pair gains where neither half is shown to, under MAML's start or without the "
        f"geometry, in {len(pairs(found))}."
    )


def counts(cases: list[tuple[Subject, Difference]]) -> tuple[int, int]:
    """In how many something is surely gained, and in how many lost."""
    up = sum(gains(gap) for _, gap in cases)
    return up, sum(gap.significant for _, gap in cases) - up


def verdict(chosen: Iterable[Subject]) -> str:
    """The table of :func:`tally` in one sentence."""
    chosen = methods(chosen)
    found = halves(chosen)
    said = []
    for head, words in HALVES.items():
        up, down = counts(found[head])
        said.append(f"{words} gains in {up} and loses in {down}")
    full = sum(one.tier == "paper" for one in chosen)
    return (
        f"Of {len(chosen)} cases taken apart and compared with MAML ({full or 'none'} at the "
        f"poster's size), {'; '.join(said)}; the rest is undecided"
    )


def pairs(found: dict[str, list[tuple[Subject, Difference]]]) -> list[str]:
    """The cases that gain by start and geometry together, where no half alone is shown to: it may
    gain all the same, unseen.
    """
    gained = {
        head: {one.tier + one.name for one, gap in cases if gains(gap)}
        for head, cases in found.items()
    }
    alone = gained["geometry at the common start"] | gained["start alone"]
    return [
        f"`{one.row}` {one.shot}-shot in tier `{one.tier}` {shown(gap)}"
        for one, gap in found["both"]
        if one.tier + one.name in gained["both"] - alone
    ]


def pair_sentence(chosen: Iterable[Subject]) -> str:
    """Which cases they are; nothing where there are none."""
    named = pairs(halves(chosen))
    return f"These gains of the pair: {listed(named)}." if named else ""


def gains(gap: Difference) -> bool:
    """Whether it is surely above zero, for these networks at least."""
    return gap.significant and gap.estimate.mean > 0


def span(numbers: list[int]) -> str:
    """``1 to 3``, or the one number."""
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def family_sentences(results: Results) -> str:
    """How far each family's geometry alone moves accuracy, over all rows with recorded paths."""
    tiers = [name for name in ORDER if of_tier(name, results)]
    found: dict[recorded_starts.Key, Difference] = {}
    for name in tiers:
        found |= recorded_starts.contrasts(of_tier(name, results))["geometry at the common start"]
    parts = []
    for family, rows in FAMILIES.items():
        means = {key: 100 * gap.estimate.mean for key, gap in found.items() if key[2] in rows}
        near = [mean for mean in means.values() if mean >= -LARGE]
        widths = [100 * found[key].estimate.half_width for key in means if means[key] >= -LARGE]
        far = [
            f"{mean:+.2f} with `{row}` {shot}-shot in tier `{tier}`"
            for (tier, shot, row), mean in means.items()
            if mean < -LARGE
        ]
        if near:
            text = f"{min(near):+.2f} to {max(near):+.2f} points for {family} ({len(near)} cases"
            text += f", intervals up to ± {max(widths):.2f}"
            parts.append(text + (f"; apart from {', '.join(far)})" if far else ")"))
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
            counted = f"{table.shot}-shot, {counted_seeds(len(seeds))}"
            parts.append(f"{losses[0]:.3f} against {losses[1]:.3f} ({counted})")
    if not parts:
        return ""
    return (
        'The poster says "better initialization"; on miniImageNet, before any task step, '
        f"`{POSTERS}` has a median task loss of {' and '.join(parts)}, the second MAML's."
    )


def controls(results: Results) -> str:
    """What a gauge and a doubled meta-rate gain without any geometry, the poster's rows beside
    that rate, and a form of our own beside one that learns as fast: a sentence and a table.
    """
    tables = of_tier("controls", results)
    found = differences(tables, PAIRS[CONTROL], many=True)
    found |= differences(tables, [(row, TWICE) for row in RIVALS], many=True)
    lines = []
    for words, row, reference in CONTROLS:
        gaps = [found.get(compared(one, row, reference)) for one in tables]
        told = [f"{shown(gap)} ({counted_seeds(gap.seeds)})" if gap else "–" for gap in gaps]
        if any(gaps):
            lines.append(f"| {words} | {' | '.join(told)} |")
    if not lines:
        return ""
    head = ["| difference in points |", "|---|"]
    for one in tables:
        head = [f"{head[0]} {one.shot}-shot |", f"{head[1]}---:|"]
    return (
        "Controls: MAML's start learned faster or shifted redundantly, a rival's matrices learned "
        "faster (slanted: other than zero, but from fewer than three seeds):\n\n"
        + "\n".join([*head, *lines])
    )


def pilot_sentence() -> str:
    """What the pilot says of the poster's method."""
    every = pilot_subjects()
    for one in every:
        if one.row == POSTERS:
            both = contrasts(every)[one.name, "both", "as trained"]
            iterations = pilot_training()["maml"].iterations
            return (
                f"A pilot at the poster's size, one seed, {iterations:,} of its 60,000 iterations: "
                f"`{POSTERS}` minus MAML {shown(both)} ({one.shot}-shot, {one.tasks:,} tasks)."
            )
    return ""
