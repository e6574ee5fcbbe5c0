"""The figure of the tuned rates: every row minus MAML, before and after."""

from __future__ import annotations

from typing import Any

from experiments.result_tables import Table
from experiments.tuned import Tuned
from experiments.tuned_page import compared
from mdtheory.figures import plots

NOTE = "filled: other than zero at 5% after Holm's correction over both kinds of all rows"


def own_rates(table: Table, here: dict[str, Tuned]) -> Any:
    """One line for every row: both at the tier's rates, and each at its own."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = compared(table, here)
    kinds = {"both at the tier's rates": found.before, "each at its own rates": found.after}
    figure = Figure(figsize=(8, 0.36 * len(found.after) + 1.6))
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for (kind, part), colour, lift in zip(
        kinds.items(), plots.COLOURS, (-0.14, 0.14), strict=False
    ):
        for y, one in enumerate(part.values()):
            look = {"fmt": "o", "capsize": 3, "color": colour, "markersize": 5}
            look["markerfacecolor"] = colour if one.significant else "white"
            half = 100 * one.estimate.half_width
            axis.errorbar(100 * one.estimate.mean, y + lift, xerr=half, **look)
        axis.plot([], [], "o", color=colour, label=kind)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(found.after)), list(found.after))
    axis.set(ylim=(len(found.after) - 0.4, -0.6), xlabel="accuracy minus MAML's, percentage points")
    height = figure.get_size_inches()[1]
    figure.subplots_adjust(left=0.25, right=0.985, top=1 - 0.15 / height, bottom=1.1 / height)
    place = {"loc": "lower center", "bbox_to_anchor": (0.5, 0.3 / height), "frameon": False}
    figure.legend(*axis.get_legend_handles_labels(), ncols=2, fontsize=8, **place)
    look = {"ha": "center", "va": "bottom", "fontsize": 8, "color": "#555555"}
    figure.text(0.5, 0.12 / height, NOTE, **look)
    return figure
