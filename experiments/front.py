"""What the README shows of the results, and its picture: from the records, on one screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.cells import cells, rows
from experiments.headline import POSTERS, controls, pilot_sentence, tally, verdict as counted
from experiments.result_tables import Table
from experiments.start_or_geometry import known, shown
from experiments.statistics import counted_seeds
from mdtheory.core.estimate import Estimate
from mdtheory.data import EpisodeStream, GlyphSet
from mdtheory.figures import plots

Results = dict[tuple[str, int], Table]
PICTURE = "readme"
CAUSE = "docs/figures/start-or-geometry.svg"
REAL = ("pilot", "own", "cpu", "omniglot", "paper")
"""The tiers of real images that the figure of the README shows."""
HAND = "omniglot"
ROWS = (
    "maml",
    "metasgd",
    "metacurvature",
    "metakfo",
    "metamida-published",
    "metacurvature-symmetric",
)
"""The baseline, three rivals of the poster, the poster's method, and this project's own."""
ON_PICTURE = ("maml", "metasgd", "warpgrad", "metamida-published")
NEITHER = ", so its accuracies are neither confirmed nor refuted here"
LABELS = 11  # points
SIDE = 5  # classes of a task, and query images of each


def plain(mean: Estimate) -> str:
    """``48.70 ± 1.84``."""
    return f"{100 * mean.mean:.2f} ± {100 * mean.half_width:.2f}"


def settled(results: Results) -> list[Table]:
    """The tables on real images at a small size, 1-shot then 5-shot: the geometry of our own beside
    the poster's rows where it has been trained.
    """
    name = "own" if ("own", 1) in results else "cpu"
    return [results[name, shot] for shot in (1, 5) if (name, shot) in results]


def block(results: Results, base: str) -> str:
    """The README's results. ``base``: the way from there to the results."""
    tables = settled(results)
    if not tables:
        return f"No record on real images is here yet: [results]({base}index.md).\n"
    every = cells("paper")
    done = sum(
        cell.row in results[cell.tier, cell.shot].by_row
        for cell in every
        if (cell.tier, cell.shot) in results
    )
    config = tables[0].first.config
    links = {"all results": "index.md", "the questions, answered": "answers.md"}
    linked = ", ".join(f"[{words}]({base}{page})" for words, page in links.items())
    listed = [
        f"More: {linked}. At the poster's own size {done} of {len(every)} cells are finished"
        f"{'' if done else NEITHER}.",
        pilot_sentence(),
        handwriting(results),
        f"{config.data.kind.title} at {config.data.image_size} x {config.data.image_size} pixels, "
        f"Conv4 with {config.model.options['channels']} channels, "
        f"{config.meta.iterations:,} meta-iterations: a small copy of the poster's comparison, "
        "which ranks how fast methods learn. "
        f"Below, {sum(row in tables[0].by_row for row in ROWS)} of {len(tables[0].rows)} rows: "
        "accuracy in %, difference to MAML on the same tasks and seeds in points, ± 95% interval "
        "(bold: other than zero after Holm's correction over all rows of a column, not over both "
        "columns, from three seeds; slanted: the same from fewer, which only suggests).",
    ]
    said = "\n".join(f"- {one}" for one in listed if one)
    parts = [f"{said}\n", "\n".join(small_table(tables)) + "\n"]
    return "\n".join([*answer(results), *parts])


def handwriting(results: Results) -> str:
    """On the second data set, minus MAML: the poster's method, and the rows of three seeds."""
    table = results.get((HAND, 1))
    if table is None or "maml" not in table.by_row:
        return ""
    config, gaps = table.first.config, table.differences("maml", table.protocols[1])
    ranked = sorted(gaps.items(), key=lambda item: -item[1].estimate.mean)
    said = [
        f"`{row}` {shown(gap)} ({counted_seeds(gap.seeds)})"
        for row, gap in ranked
        if row == POSTERS or not gap.suggestive
    ]
    rest = len(ranked) - len(said)
    return (
        f"On {config.data.kind.title}, {config.task.n_way}-way 1-shot, "
        f"{config.meta.iterations:,} iterations, minus MAML: {', '.join(said)}"
        f"{f'; {rest} other rows, of fewer than three seeds, on the page' if rest else ''}."
    )


def verdict() -> str:
    """The README's one sentence on the question of cause; nothing where no row was taken apart."""
    if not known():
        return ""
    return f"Does a gain come from the geometry? {counted(known())}: [results](#results).\n"


def answer(results: Results) -> list[str]:
    """The question of cause, its answer and its figure; nothing where no row was taken apart."""
    if not known():
        return []
    question = "**Does the gain come from the geometry, or from the start learned with it?**"
    figure = f"![Start and geometry on real images, each without the other]({CAUSE})"
    parts = [f"{question} Rows taken apart: {tally(known())}", figure, controls(results)]
    return [f"{part}\n" for part in parts if part]


def small_table(tables: Sequence[Table]) -> list[str]:
    """A line for every row of :data:`ROWS` that has a record."""
    head = ["geometry"]
    for table in tables:
        head += [f"poster, {table.shot}-shot", "here", "minus MAML", "seeds"]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for row in ROWS:
        if not any(row in table.by_row for table in tables):
            continue
        line = [f"`{row}`"]
        for table in tables:
            line += of_row(table, row)
        lines.append("| " + " | ".join(line) + " |")
    return lines


def of_row(table: Table, row: str) -> list[str]:
    """The poster's accuracy, ours, the difference to MAML and the seeds."""
    poster = " ± ".join(f"{x:.2f}" for x in rows()[row].poster.get(str(table.shot), [])) or "–"
    if row not in table.by_row:
        return [poster, "–", "–", "–"]
    many = table.protocols[1]
    gap = table.differences("maml", many).get(row) if "maml" in table.by_row else None
    accuracy = plain(table.mean(row, many))
    return [poster, accuracy, shown(gap) if gap else "–", str(len(table.by_row[row]))]


def picture(table: Table) -> Any:
    """Left: one task of the built-in letters. Right: accuracy on unseen letters at every task step,
    mean over tasks and seeds; dotted: the steps of training; grey: chance.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4, 3.2))  # so narrow that a telephone shows its labels
    FigureCanvasAgg(figure)
    task, curves = figure.subplots(1, 2, width_ratios=(1, 1.45))
    figure.subplots_adjust(left=0.015, right=0.975, top=0.87, bottom=0.19, wspace=0.2)
    draw_task(task)
    for number, row in enumerate(row for row in ON_PICTURE if row in table.by_row):
        correct = table.correct(row, seeds=list(table.by_row[row]))
        if correct is not None:
            look = {"color": plots.COLOURS[number], "marker": plots.MARKERS[number]}
            look["linestyle"] = plots.DASHES[number]
            curves.plot(100 * correct.mean(axis=0), label=row, markersize=4, **look)
    steps = table.first.config.task.n_steps
    curves.axvline(steps, color="#888888", linestyle=":", linewidth=1)
    curves.axhline(100 / table.first.config.task.n_way, color="#888888", linewidth=1)
    curves.set_ylim(bottom=8)
    curves.set_xlabel("gradient steps", fontsize=LABELS)
    curves.set_title("accuracy on such tasks (%)", fontsize=LABELS)
    curves.tick_params(labelsize=LABELS)
    curves.legend(fontsize=LABELS, loc="lower right", bbox_to_anchor=(1.02, 0.18), frameon=False)
    return figure


def draw_task(axis: Any) -> None:
    """One labelled image of each class over a line, and the images to classify below it."""
    stream = EpisodeStream(GlyphSet(), split="test", seed=0, n_way=SIDE, n_shot=1, n_query=3)
    episode = stream(0)
    columns = []
    for label in range(SIDE):
        own = [episode.support_x[episode.support_y == label]]
        own.append(episode.query_x[episode.query_y == label])
        images = np.concatenate([part.numpy()[:, 0] for part in own])
        gap = np.zeros((8, images.shape[-1]), dtype=images.dtype)
        columns.append(np.concatenate([images[0], gap, *images[1:]]))
    paper = np.concatenate(columns, axis=1)
    axis.imshow(paper, cmap="gray_r", interpolation="nearest", aspect="equal")
    axis.axhline(episode.support_x.shape[-1] + 3.5, color=plots.COLOURS[1], linewidth=1.5)
    axis.set_axis_off()
    axis.set_title("one example each,\nand what to tell apart", fontsize=LABELS)
