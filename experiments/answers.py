"""The questions of QUESTIONS.md, answered from whatever records there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from experiments.result_tables import Page
from experiments.statistics import Difference, compare, p_text

Pages = dict[tuple[str, int], Page]
Question = Callable[[list[Page]], list[str]]
TIERS = ("paper", "cpu", "glyphs")
OWN = "metacurvature-symmetric"
WIN = f"(g) Does a geometry of our own, `{OWN}`, win on the same backbone, data and protocol?"
STEPS = (0, 1, 2, 5, 10)


def answers(pages: Pages) -> str:
    """One section for every question, one list for every tier that can say something."""
    parts = [
        "# Questions and answers\n",
        "The questions, their statistics and what was expected stand in "
        "[QUESTIONS.md](../QUESTIONS.md), written before the runs. Differences are paired, in "
        "percentage points "
        "± 95% interval over test tasks; p is Holm's over the comparisons of a question in a "
        "tier.\n",
    ]
    for title, question in QUESTIONS.items():
        parts.append(f"## {title}\n")
        found = False
        for name in TIERS_OF.get(title, TIERS):
            lines = question([page for key, page in pages.items() if key[0] == name])
            if lines:
                found = True
                parts += [f"Tier `{name}`:\n", "\n".join(lines) + "\n"]
        if not found:
            parts.append("Not answered yet: the cells that it needs have no records.\n")
    return "\n".join(parts)


def versus(*pairs: tuple[str, str]) -> Question:
    """A question about the difference of pairs of rows, 15 queries a class; K queries beside it."""

    def question(pages: list[Page]) -> list[str]:
        primary, beside = (
            differences(pages, pairs, many=True),
            differences(pages, pairs, many=False),
        )
        return [
            f"- {name}: {said(one)} ({shown(beside[name])} with K queries)"
            for name, one in primary.items()
        ]

    return question


def differences(
    pages: list[Page], pairs: Sequence[tuple[str, str]], *, many: bool
) -> dict[str, Difference]:
    """All pairs on all pages as one family of comparisons."""
    gaps = {}
    for page in pages:
        n_query = page.protocols[many]
        for first, second in pairs:
            if seeds := page.seeds([first, second]):
                mine, theirs = (
                    page.accuracies(row, n_query, seeds=seeds) for row in (first, second)
                )
                counted = "1 seed" if len(seeds) == 1 else f"{len(seeds)} seeds"
                gaps[f"{page.shot}-shot, {counted}, `{first}` minus `{second}`"] = mine - theirs
    return compare(gaps)


def shown(one: Difference) -> str:
    """``+1.23 ± 0.45``."""
    return f"{100 * one.estimate.mean:+.2f} ± {100 * one.estimate.half_width:.2f}"


def said(one: Difference) -> str:
    """The difference with its verdict."""
    detectable = (
        ""
        if one.significant
        else f"; {100 * one.detectable:.2f} would have been seen with 80% power"
    )
    return f"{shown(one)}, {equals(one.corrected)}: {decided(one)}{detectable}"


def decided(one: Difference) -> str:
    """Whether the first of the two is better."""
    return ("**yes**" if one.estimate.mean > 0 else "**no**") if one.significant else "undecided"


def equals(p: float) -> str:
    """``p = 0.123`` or ``p < 0.001``."""
    return f"p {p_text(p)}" if p_text(p).startswith("<") else f"p = {p_text(p)}"


def protocol(pages: list[Page]) -> list[str]:
    """(c): the same weights and tasks, tested in other ways."""
    gaps = {}
    for page in pages:
        few, many = page.protocols
        for row in page.rows:
            head = f"{page.shot}-shot, `{row}`"
            if page.tier.name != "glyphs" or row in page.tier.other_norm:
                gaps[f"{head}: {few} minus {many} queries a class"] = page.accuracies(
                    row, few
                ) - page.accuracies(row, many)
            if all("support" in record.scores for record in page.by_row[row].values()):
                for n_query in (many, few):
                    support = page.accuracies(row, n_query, norm="support")
                    name = (
                        f"{head}, {n_query} queries a class: transductive minus support "
                        "statistics at test"
                    )
                    gaps[name] = page.accuracies(row, n_query) - support
    return [
        f"- {name}: {shown(one)}, {equals(one.corrected)}" for name, one in compare(gaps).items()
    ]


def fewer_steps(pages: list[Page]) -> list[str]:
    """(e): accuracy along the steps."""
    found = []
    for page in pages:
        if "maml" not in page.by_row:
            continue
        last = page.first.adaptation.steps
        steps, trained = [k for k in STEPS if k <= last], min(last, page.first.config.task.n_steps)
        for kind, common in (("its own start", False), ("MAML's start", True)):
            heading = (
                f"| {page.shot}-shot, from {kind} | "
                + " | ".join(f"k = {k}" for k in steps)
                + " | reaches MAML's |"
            )
            found += [heading, "|---|" + "---:|" * (len(steps) + 1)]
            for row in page.rows:
                if not (seeds := page.seeds([row, "maml"])):
                    continue
                mine = page.correct(row, seeds=seeds, common=common)
                theirs = page.correct("maml", seeds=seeds)
                if mine is None or theirs is None:
                    continue
                means, goal = mine.mean(axis=0), theirs.mean(axis=0)[trained]
                reached = np.flatnonzero(means >= goal)
                cells = " | ".join(f"{100 * means[k]:.1f}" for k in steps)
                found.append(
                    f"| `{row}` | {cells} | {f'k = {reached[0]}' if len(reached) else 'never'} |"
                )
            found.append("")
    return found


def monotone(pages: list[Page]) -> list[str]:
    """(f): the probes of the maps."""
    found = []
    for page in pages:
        for row, by_seed in page.by_row.items():
            for seed, record in by_seed.items():
                probe = record.result.map
                if probe is None or probe.symmetric_smallest is None:
                    continue
                verdict = (
                    "no violation found" if probe.symmetric_smallest >= 0 else "**not monotone**"
                )
                found.append(
                    f"- {page.shot}-shot, `{row}`, seed {seed}: smallest curvature "
                    f"{probe.symmetric_smallest:.4g}, largest "
                    f"{probe.symmetric_largest:.4g}, along paths {probe.path_smallest:.4g} to "
                    f"{probe.path_largest:.4g}, "
                    f"asymmetry {probe.asymmetry:.2g}: {verdict}"
                )
    return found


def verdicts(pages: Pages, names: Sequence[str]) -> list[list[str]]:
    """Question, comparison, difference and answer, for all questions about pairs of rows, from
    these tiers.
    """
    found = []
    for title, pairs in PAIRS.items():
        for name in TIERS_OF.get(title, TIERS):
            if name in names:
                own = [page for key, page in pages.items() if key[0] == name]
                for compared, one in differences(own, pairs, many=True).items():
                    found.append([title, compared, shown(one), decided(one)])
    return found


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
}
"""The questions whose answer is the difference of two rows."""
OTHERS: dict[str, Question] = {
    "(c) How much comes from K-query evaluation and from transductive normalisation?": protocol,
    "(e) Do learned geometries need fewer steps?": fewer_steps,
    "(f) Is the trained map monotone where it is used?": monotone,
}
QUESTIONS: dict[str, Question] = dict(
    sorted({**{title: versus(*pairs) for title, pairs in PAIRS.items()}, **OTHERS}.items())
)
TIERS_OF = {WIN: ("paper", "own", "glyphs")}
"""Questions that are not for all of :data:`TIERS`."""
