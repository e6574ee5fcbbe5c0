"""The questions of QUESTIONS.md, answered from whatever records there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from experiments import contest, recorded_starts, slopes, tuned_page
from experiments.cells import cells, rows
from experiments.result_tables import Curve, Table
from experiments.start_or_geometry import lines as factorial_lines
from experiments.statistics import Difference, compare, counted_seeds, p_text
from experiments.step_curves import number

Results = dict[tuple[str, int], Table]
Question = Callable[[list[Table]], list[str]]
TIERS = ("paper", "cpu", "omniglot", "glyphs")
OWN = contest.OWN
WIN = f"(g) Does a geometry of our own, `{OWN}`, win on the same backbone, data and protocol?"
START = "(h) Start or geometry?"
CONTROL = "(i) Does the common start's gain, or its absence, come from a gauge?"
HAND = "(j) Which rows beat MAML at 20-way 1-shot on handwriting?"
ARTICLE = "(k) Is MAML's published accuracy on Omniglot reached?"
STEPS_TOO = "(l) Does a learned geometry need fewer steps, in loss and gradient as well?"
PROX = "(m) Is MetaProxNet's learned function a proximal operator?"
BEST = f"(n) Is `{OWN}` better than every other row?"
OWN_RATES = "(o) What is left of the differences to MAML where every row has its own rates?"
STEPS = (0, 1, 2, 5, 10)
ASKED = ("maml", "metamida", "metamida-published")
"""The rows that question (c) names; a row more would change the correction of these."""


def answers(results: Results) -> str:
    """One section for every question, one list for every tier that can say something."""
    parts = [
        "# Questions and answers\n",
        "The questions, their statistics and what was expected stand in "
        "[QUESTIONS.md](../QUESTIONS.md), with what was known when each was asked, and what was "
        "changed later. Differences are paired, in percentage points ± 95% interval; p is Holm's "
        "over the comparisons of a question in a tier, so a difference that two questions share "
        "may be answered in one and undecided in the other. With three seeds or more the interval "
        "is the wider of two, that of a mixed model with random seeds and tasks, and Student's "
        "over the seeds; with fewer it is over test tasks alone, and the answer is only "
        "*suggestive*.\n",
    ]
    for title, question in QUESTIONS.items():
        parts.append(f"## {title}\n")
        found = False
        for name in TIERS_OF.get(title, TIERS):
            lines = question([table for key, table in results.items() if key[0] == name])
            if lines:
                found = True
                parts += [f"Tier `{name}`:\n", "\n".join(lines) + "\n"]
        if title == BEST and (lines := contest.of_pilot()):
            parts += ["The pilot at the poster's size:\n", "\n".join(lines) + "\n"]
        if not found:
            parts.append("Not answered yet: the cells that it needs have no records.\n")
    return "\n".join(parts)


def versus(*pairs: tuple[str, str]) -> Question:
    """A question about the difference of pairs of rows, 15 queries a class; K queries beside it."""

    def question(results: list[Table]) -> list[str]:
        primary, beside = (
            differences(results, pairs, many=True),
            differences(results, pairs, many=False),
        )
        return [
            f"- {name}: {said(one)} ({shown(beside[name])} with K queries)"
            for name, one in primary.items()
        ]

    return question


def differences(
    results: list[Table], pairs: Sequence[tuple[str, str]], *, many: bool
) -> dict[str, Difference]:
    """All pairs on all tables as one family of comparisons."""
    gaps = {}
    for table in results:
        n_query = table.protocols[many]
        for first, second in pairs:
            if table.seeds([first, second]):
                gaps[compared(table, first, second)] = table.gaps(first, second, n_query)
    return compare(gaps)


def compared(table: Table, first: str, second: str) -> str:
    """``1-shot, `metamida` minus `metasgd` ``."""
    return f"{table.shot}-shot, `{first}` minus `{second}`"


def shown(one: Difference) -> str:
    """``+1.23 ± 0.45``."""
    return f"{100 * one.estimate.mean:+.2f} ± {100 * one.estimate.half_width:.2f}"


def said(one: Difference) -> str:
    """The difference with its verdict."""
    detectable = (
        ""
        if one.significant
        else f"; by itself {100 * one.detectable:.2f} would be seen with 80% power"
    )
    return f"{shown(one)}, {equals(one.corrected)}: {decided(one)}{detectable}"


def decided(one: Difference) -> str:
    """Whether the first of the two is better, and by how many seeds; with few of them, what they
    suggest.
    """
    counted = counted_seeds(one.seeds)
    if not one.significant:
        return f"undecided ({counted})"
    word = "yes" if one.estimate.mean > 0 else "no"
    return f"*suggestive: {word}* ({counted})" if one.suggestive else f"**{word}** ({counted})"


def equals(p: float) -> str:
    """``p = 0.123`` or ``p < 0.001``."""
    return f"p {p_text(p)}" if p_text(p).startswith("<") else f"p = {p_text(p)}"


def protocol(results: list[Table]) -> list[str]:
    """(c): the same weights and tasks, tested in other ways."""
    gaps = {}
    for table in results:
        few, many = table.protocols
        for row in (row for row in table.rows if row in ASKED):
            head = f"{table.shot}-shot, `{row}`"
            gaps[f"{head}: {few} minus {many} queries a class"] = table.by_seed_and_task(
                row, few
            ) - table.by_seed_and_task(row, many)
            if all("support" in record.scores for record in table.by_row[row].values()):
                for n_query in (many, few):
                    support = table.by_seed_and_task(row, n_query, norm="support")
                    name = (
                        f"{head}, {n_query} queries a class: transductive minus support "
                        "statistics at test"
                    )
                    gaps[name] = table.by_seed_and_task(row, n_query) - support
    return [
        f"- {name}: {shown(one)}, {equals(one.corrected)} ({counted_seeds(one.seeds)})"
        for name, one in compare(gaps).items()
    ]


def fewer_steps(results: list[Table]) -> list[str]:
    """(e): accuracy along the steps."""
    found = []
    for table in results:
        if "maml" not in table.by_row:
            continue
        last = table.first.adaptation.steps
        steps, trained = [k for k in STEPS if k <= last], min(last, table.first.config.task.n_steps)
        for kind, common in (("its own start", False), ("MAML's start", True)):
            heading = (
                f"| {table.shot}-shot, from {kind} | "
                + " | ".join(f"k = {k}" for k in steps)
                + " | reaches MAML's of the same seeds | seeds |"
            )
            found += [heading, "|---|" + "---:|" * (len(steps) + 2)]
            for row in table.rows:
                if not (seeds := table.seeds([row, "maml"])):
                    continue
                mine = table.correct(row, seeds=seeds, common=common)
                theirs = table.correct("maml", seeds=seeds)
                if mine is None or theirs is None:
                    continue
                means, goal = mine.mean(axis=0), theirs.mean(axis=0)[trained]
                cells = " | ".join(f"{100 * means[k]:.1f}" for k in steps)
                found.append(f"| `{row}` | {cells} | {first_step(means >= goal)} | {len(seeds)} |")
            found.append("")
    return found


def first_step(reached: np.ndarray) -> str:
    """When a mean accuracy reaches its goal, of the steps that were taken; ``reached`` (steps +
    1,).
    """
    return f"k = {reached.argmax()}" if reached.any() else f"not by k = {len(reached) - 1}"


def monotone(results: list[Table]) -> list[str]:
    """(f): the probes of the maps."""
    found = []
    for table in results:
        for row, by_seed in table.by_row.items():
            for seed, record in by_seed.items():
                probe = record.result.map
                if probe is None or probe.symmetric_smallest is None:
                    continue
                verdict = (
                    "no violation found" if probe.symmetric_smallest >= 0 else "**not monotone**"
                )
                found.append(
                    f"- {table.shot}-shot, `{row}`, seed {seed}: smallest curvature "
                    f"{probe.symmetric_smallest:.4g}, largest "
                    f"{probe.symmetric_largest:.4g}, along paths {probe.path_smallest:.4g} to "
                    f"{probe.path_largest:.4g}, "
                    f"asymmetry {probe.asymmetry:.2g}: {verdict}"
                )
    return found


def verdicts(results: Results, names: Sequence[str]) -> list[list[str]]:
    """Question, comparison, difference and answer, for all questions about pairs of rows, from
    these tiers.
    """
    found = []
    for title, pairs in PAIRS.items():
        for name in TIERS_OF.get(title, TIERS):
            if name in names:
                own = [table for key, table in results.items() if key[0] == name]
                for pair, one in differences(own, pairs, many=True).items():
                    found.append([title, pair, shown(one), decided(one)])
    return found


def start_or_geometry(tables: list[Table]) -> list[str]:
    """(h): the factorial of every row with kept weights, and what recorded paths say of all."""
    known = factorial_lines([table.tier.name for table in tables])
    return known + recorded_starts.lines(tables)


def published(tables: list[Table]) -> list[str]:
    """(k): beside what was published for the tier's own protocol."""
    found = []
    for table in tables:
        for row, by_seed in table.by_row.items():
            theirs = rows()[row].published.get(str(table.shot))
            if theirs:
                mine = table.mean(row, min(table.protocols), first=600)
                low, high = (theirs[0] + sign * theirs[1] for sign in (-1, 1))
                inside = low <= 100 * mine.mean <= high
                verdict = "**reached**" if inside else f"{100 * mine.mean - theirs[0]:+.2f}"
                measured = f"{100 * mine.mean:.2f} ± {100 * mine.half_width:.2f}"
                found.append(
                    f"- {table.shot}-shot, `{row}`, {len(by_seed)} seed(s): {measured}, published "
                    f"{theirs[0]} ± {theirs[1]}: {verdict}"
                )
    return found


def curves(tables: list[Table]) -> list[str]:
    """(l): when MAML's largest accuracy over k is reached, and loss and gradient along the way."""
    found = []
    for table in tables:
        if "maml" not in table.by_row:
            continue
        trained = min(table.first.config.task.n_steps, table.first.adaptation.steps)
        for kind, common in (("its own start", False), ("MAML's start", True)):
            lines = []
            for row in table.rows:
                curve = table.curve(row, common=common)
                goal = table.curve("maml", seeds=table.seeds([row, "maml"]))
                if curve is not None and goal is not None:
                    lines.append(f"| `{row}` | {curve_cells(curve, goal, trained)} |")
            head = (
                f"| {table.shot}-shot, from {kind} | best accuracy | at k "
                "| reaches MAML's best of the same seeds |"
            )
            head += f" task loss at k = 0 | gradient norm at k = {trained} over k = 0 | seeds |"
            found += [head, "|---|" + "---:|" * 6, *lines, ""]
    return found


def curve_cells(mine: Curve, theirs: Curve, trained: int) -> str:
    """The columns of :func:`curves`."""
    best = int(mine.accuracy.argmax())
    cells = [f"{100 * mine.accuracy[best]:.1f}", str(best)]
    cells += [first_step(mine.accuracy >= theirs.accuracy.max())]
    cells += [f"{mine.loss[0]:.3f}", number("{:.2f}", mine.gradient[trained] / mine.gradient[0])]
    return " | ".join([*cells, str(mine.seeds)])


def proximal(tables: list[Table]) -> list[str]:
    """(m): the slopes in the kept weights, and the row minus MAML."""
    found = slopes.lines(tables)
    return [*found, "", *versus((slopes.ROW, "maml"))(tables)] if found else []


PAIRS = {
    "(a) Does MetaMiDA beat MetaSGD with the same optimizer, schedule and episodes?": (
        ("metamida", "metasgd"),
        ("metamida-published", "metasgd"),
    ),
    "(b) Is the live start better than the published one?": (("metamida", "metamida-published"),),
    "(d) Does a true mirror map beat a BlockIAF?": (
        ("potential", "metamida"),
        ("certified", "metamida"),
    ),
    WIN: tuple(
        (OWN, rival)
        for rival in ("maml", "metasgd", "metacurvature", "metakfo", "metamida", "warpgrad")
    ),
    CONTROL: (
        ("maml-twice", "maml"),
        ("maml-shift", "maml"),
        (OWN, "metacurvature-doubled"),
    ),
    HAND: tuple((cell.row, "maml") for cell in cells("omniglot") if cell.row != "maml"),
}
"""The questions whose answer is the difference of two rows."""
OTHERS: dict[str, Question] = {
    "(c) How much comes from K-query evaluation and from transductive normalisation?": protocol,
    "(e) Do learned geometries need fewer steps?": fewer_steps,
    "(f) Is the trained map monotone where it is used?": monotone,
    START: start_or_geometry,
    ARTICLE: published,
    STEPS_TOO: curves,
    PROX: proximal,
    BEST: contest.lines,
    OWN_RATES: tuned_page.lines,
}
QUESTIONS: dict[str, Question] = dict(
    sorted({**{title: versus(*pairs) for title, pairs in PAIRS.items()}, **OTHERS}.items())
)
TIERS_OF = {
    WIN: ("paper", "own", "glyphs"),
    START: ("paper", "own", "cpu", "controls", "omniglot", "glyphs"),
    CONTROL: ("controls",),
    HAND: ("omniglot",),
    ARTICLE: ("omniglot-b",),
    PROX: ("paper", "omniglot", "glyphs"),
    BEST: ("paper", "own", "omniglot", "glyphs"),
    OWN_RATES: ("paper", "cpu", "omniglot", "glyphs"),
    STEPS_TOO: ("paper", "cpu", "own", "controls", "omniglot", "glyphs"),
}
"""Questions that are not for all of :data:`TIERS`."""
