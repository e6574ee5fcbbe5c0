"""The figure of the factorial: start and geometry, each without the other, minus MAML."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from experiments import front
from experiments.start_or_geometry import HEADS, RATES, Subject, contrasts
from mdtheory.figures import plots

TURN = 2.0  # points, from which the axis is logarithmic
TICKS = (-50, -20, -5, -2, -1, 0, 1, 2, 5, 20, 50)
SMALL = front.LABELS - 1
NAMES = {
    "geometry at the common start": "geometry, MAML's start",
    "geometry at the own start": "geometry, own start",
}
FILLED = {"tuned": "task rates tuned", "as trained": "as trained"}


def start_and_geometry(chosen: Sequence[Subject], rates: Sequence[str] = RATES) -> Any:
    """The contrasts of every subject, tuned (filled) and as trained (open); as narrow as a
    telephone.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    each = [contrasts([one]) for one in chosen]  # apart: two tiers may share a name
    figure = Figure(figsize=(5.4, 0.62 * len(chosen) + 1.3))
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for y, (one, found) in enumerate(zip(chosen, each, strict=True)):
        subject(axis, y, one, found, rates)
    means = [one.estimate for found in each for key, one in found.items() if key[2] in rates]
    limit = 130 * max(abs(one.mean) + one.half_width for one in means)
    scale(axis, limit, len(chosen))
    height = figure.get_size_inches()[1]
    figure.subplots_adjust(left=0.03, right=0.97, top=1 - 0.1 / height, bottom=1.1 / height)
    handles = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    shown = {NAMES.get(head, head): handles[head] for head in HEADS}
    place = {"loc": "lower center", "bbox_to_anchor": (0.5, 0.28 / height), "columnspacing": 1}
    place |= {"handletextpad": 0.3, "frameon": False, "handlelength": 1.2}
    figure.legend(shown.values(), shown.keys(), ncols=len(shown), fontsize=SMALL, **place)
    fillings = [FILLED[rate] for rate in FILLED if rate in rates]
    said = f"filled: {fillings[0]}; open: {fillings[1]}" if len(fillings) == 2 else fillings[0]
    note = {"ha": "center", "va": "bottom", "fontsize": SMALL, "color": "#555555"}
    figure.text(0.5, 0.08 / height, f"{said}; linear to ±{TURN:g}, then logarithmic", **note)
    return figure


def subject(axis: Any, y: int, one: Subject, found: Any, rates: Sequence[str]) -> None:
    """A name and, below it, the intervals of its contrasts."""
    seeds = f"{len(one.by_seed)} seed{'s' * (len(one.by_seed) != 1)}"
    name = f"{one.tier} {one.shot}-shot {one.row} ({seeds}, {one.tasks:,} tasks)"
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    corner = {"transform": axis.get_yaxis_transform(), "va": "center", "fontsize": SMALL}
    axis.text(0.01, y - 0.42, name, bbox=paper, **corner)
    for offset, (head, colour) in enumerate(zip(HEADS, plots.COLOURS, strict=False)):
        for rate in rates:
            mean, tuned = found[one.name, head, rate].estimate, rate == "tuned"
            place = y - 0.2 + 0.22 * offset + (0 if tuned else 0.09)
            look = {"fmt": "o", "capsize": 2, "color": colour, "markersize": 4}
            half, text = 100 * mean.half_width, head if tuned else f"{head}, {rate}"
            bar = axis.errorbar(100 * mean.mean, place, xerr=half, label=text, **look)
            bar.lines[0].set_markerfacecolor(colour if tuned else "white")


def scale(axis: Any, limit: float, subjects: int) -> None:
    """Points on an axis that is linear near zero, and a line between two subjects."""
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_xscale("symlog", linthresh=TURN)
    ticks = [tick for tick in TICKS if abs(tick) < limit]
    axis.set_xticks(ticks, [f"{tick:+g}" if tick else "0" for tick in ticks])
    axis.set_yticks([y + 0.4 for y in range(subjects)], [""] * subjects)
    axis.tick_params(axis="y", length=0)
    axis.minorticks_off()
    axis.set(xlim=(-limit, limit), ylim=(subjects - 0.5, -0.65))
    axis.set_xlabel("difference of accuracies, percentage points", fontsize=front.LABELS - 1)
