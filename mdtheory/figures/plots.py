"""The poster's two figures, training curves and comparisons, as PNG and SVG with the same bytes
every time.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mdtheory.core.atomic import write_atomically
from mdtheory.core.estimate import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Distinguishable with every kind of colour blindness (okabe2008color); markers differ as well."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: Any = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 2, 1, 2)))
"""So that lines which coincide can still be told apart."""
STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "legend.frameon": False,
    "figure.dpi": 160,
    "savefig.dpi": 160,
    "svg.hashsalt": "mdtheory",
    "svg.fonttype": "path",
}

Quantity = Literal["support_loss", "grad_norm"]
LABELS: dict[str, str] = {
    "support_loss": r"task loss  $\mathcal{L}_t^{\mathrm{trn}}(\phi_t^k)$",
    "grad_norm": r"gradient norm  $\|\nabla\mathcal{L}_t^{\mathrm{trn}}(\phi_t^k)\|_2$",
    "query_accuracy": "query accuracy (%)",
}
OVER_TASKS = "mean over tasks; band: first to third quartile; dotted: steps in meta-training"


@dataclass(frozen=True)
class Paths:
    """One method's adaptations to many tasks. shapes: (n_tasks, K + 1)"""

    support_loss: np.ndarray
    grad_norm: np.ndarray


def adaptation_figure(
    panels: Mapping[str, Mapping[str, Paths]], quantity: Quantity, *, trained_steps: int
) -> Figure:
    """A quantity against the task step k: one panel per kind of start, one line per method.

    ``panels``: title -> method -> :class:`Paths`. Lines are means over tasks on a logarithmic axis,
    bands run from the first to the third quartile. The dotted line marks the number of steps of
    meta-training.
    """
    with _styled():
        figure, axes = _figure(len(panels), sharey=True)
        methods = list(dict.fromkeys(name for methods in panels.values() for name in methods))
        for axis, (title, by_method) in zip(axes, panels.items(), strict=True):
            for name, paths in by_method.items():
                _banded(axis, np.asarray(getattr(paths, quantity)), methods.index(name), label=name)
            _along_steps(axis, trained_steps, yscale="log", title=title)
        axes[0].set_ylabel(LABELS[quantity])
        _legend(figure, axes[0], note=OVER_TASKS)
        return figure


def steps_figure(
    curves: Mapping[str, Mapping[str, np.ndarray]], *, trained_steps: int, title: str
) -> Figure:
    """Task loss, gradient norm and query accuracy of runs against the task step k, a panel each.

    ``curves``: run -> the keys of :data:`LABELS` -> values on the same tasks, shape (n_tasks,
    K + 1). Means, quartiles and the dotted line as in :func:`adaptation_figure`.
    """
    with _styled():
        figure, axes = _figure(len(LABELS))
        for axis, (quantity, label) in zip(axes, LABELS.items(), strict=True):
            share = quantity == "query_accuracy"
            for index, (name, own) in enumerate(curves.items()):
                _banded(axis, (100 if share else 1) * own[quantity], index, label=name)
            _along_steps(axis, trained_steps, yscale="linear" if share else "log", ylabel=label)
        axes[1].set_title(title)
        _legend(figure, axes[0], note=OVER_TASKS)
        return figure


def training_figure(
    curves: Mapping[str, Sequence[Mapping[str, Any]]], *, window: int = 50
) -> Figure:
    """Meta-training: query loss and accuracy against the iteration, averaged over up to ``window``
    iterations.

    ``curves``: method -> the events of its run (``metrics.jsonl``); validations are drawn as
    markers.
    """
    with _styled():
        figure, axes = _figure(2)
        for axis, key, scale, label in zip(
            axes, ("loss", "accuracy"), (1, 100), ("query loss", "query accuracy (%)"), strict=True
        ):
            for index, (name, rows) in enumerate(curves.items()):
                x, y = _column(rows, "train", key)
                axis.plot(
                    x,
                    scale * _smooth(y, window),
                    color=COLOURS[index % len(COLOURS)],
                    label=name,
                    linewidth=1.5,
                )
                x, y = _column(rows, "validation", key)
                axis.plot(
                    x,
                    scale * y,
                    MARKERS[index % len(MARKERS)],
                    color=COLOURS[index % len(COLOURS)],
                    markersize=5,
                )
            axis.set(xlabel="meta-iteration", ylabel=label)
        validated = any(row["kind"] == "validation" for rows in curves.values() for row in rows)
        note = f"training tasks, mean of the last {window} iterations" + (
            "; markers: validation" if validated else ""
        )
        _legend(figure, axes[0], note=note)
        return figure


def comparison_figure(
    accuracies: Mapping[str, Estimate], differences: Mapping[str, Estimate], *, tasks: int
) -> Figure:
    """Accuracies with their 95% intervals, and the paired differences to the first with theirs.

    ``accuracies``: run -> mean over ``tasks`` tasks; ``differences``: the same runs without the
    first. A difference whose interval does not hold zero is drawn filled.
    """
    with _styled():
        names, height = list(accuracies), 0.42 * len(accuracies) + 1.5
        figure, axes = _figure(2, sharey=True, height=height, bottom=0.95 / height)
        figure.subplots_adjust(left=min(0.4, 0.03 + 0.0095 * max(map(len, names))))
        for row, name in enumerate(names):
            colour = COLOURS[row % len(COLOURS)]
            for axis, found in zip(axes, (accuracies, differences), strict=True):
                if name in found:
                    one = found[name]
                    clear = axis is axes[0] or abs(one.mean) > one.half_width
                    axis.errorbar(
                        100 * one.mean,
                        row,
                        xerr=100 * one.half_width,
                        fmt=MARKERS[row % len(MARKERS)],
                        color=colour,
                        markerfacecolor=colour if clear else "white",
                        capsize=3,
                    )
        axes[1].axvline(0, color="black", linewidth=0.8)
        axes[0].set_yticks(range(len(names)), names)
        axes[0].set(ylim=(len(names) - 0.5, -0.5), xlabel="accuracy (%)")
        first = names[0] if len(names[0]) < 20 else "the first"
        axes[1].set(xlabel=f"minus {first}, percentage points")
        note = f"95% intervals over {tasks} tasks, the differences paired; filled: not zero"
        figure.text(0.5, 0.1 / height, note, ha="center", va="bottom", fontsize=8, color="#555555")
        return figure


def save_figure(figure: Figure, path: str | Path) -> list[Path]:
    """Write ``path`` with .png and with .svg, whole or not at all; neither holds a date or a
    program version.
    """
    written = []
    with _styled():
        for kind, metadata in (
            ("png", {"Software": None}),
            ("svg", {"Date": None, "Creator": None}),
        ):
            target = Path(path).with_suffix(f".{kind}")
            drawn = io.BytesIO()
            figure.savefig(drawn, format=kind, metadata=metadata)
            write_atomically(target, drawn.getbuffer())
            written.append(target)
    return written


@contextmanager
def _styled() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context({**dict(matplotlib.rcParamsDefault), **STYLE, "backend": "agg"}):
        yield


def _figure(
    n_panels: int, *, sharey: bool = False, height: float = 3.9, bottom: float = 0.28
) -> tuple[Figure, list[Axes]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * n_panels, height))
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, n_panels, squeeze=False, sharey=sharey)[0]
    figure.subplots_adjust(
        left=0.78 / (4.2 * n_panels),
        right=0.985,
        top=1 - 0.312 / height,
        bottom=bottom,
        wspace=0.1 if sharey else 0.22,
    )
    return figure, list(axes)


def _along_steps(axis: Axes, trained_steps: int, *, yscale: str, **labels: Any) -> None:
    """The axis of task steps, and plain numbers on a logarithmic one."""
    from matplotlib.ticker import MaxNLocator

    axis.axvline(trained_steps, color="#888888", linestyle=":", linewidth=1)
    axis.set(xlabel="task step  $k$", yscale=yscale, **labels)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    if yscale == "log":
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter(lambda x, _: f"{x:g}" if f"{x:e}"[0] in "25" else "")


def _banded(axis: Axes, values: np.ndarray, index: int, *, label: str) -> None:
    steps, colour = np.arange(values.shape[1]), COLOURS[index % len(COLOURS)]
    low, high = np.quantile(values, [0.25, 0.75], axis=0)
    axis.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
    look: Any = {
        "color": colour,
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": DASHES[index % len(DASHES)],
    }
    axis.plot(
        steps, values.mean(axis=0), markersize=max(3, 6 - index), linewidth=1.6, label=label, **look
    )


def _legend(figure: Figure, axis: Axes, *, note: str) -> None:
    """Below the panels, in as many rows as the names take; the figure grows by what they need."""
    handles, labels = axis.get_legend_handles_labels()
    width, height = figure.get_size_inches()
    columns = max(1, min(len(labels), int(width / (0.75 + 0.085 * max(map(len, labels))))))
    extra = 0.21 * (-(-len(labels) // columns) - 1)
    if extra:
        figure.set_size_inches(width, height + extra)
        figure.subplots_adjust(
            top=1 - 0.312 / (height + extra), bottom=(0.28 * height + extra) / (height + extra)
        )
    at, under = (inches / (height + extra) for inches in (0.2145, 0.078))
    figure.legend(handles, labels, loc="lower center", ncols=columns, bbox_to_anchor=(0.5, at))
    figure.text(0.5, under, note, ha="center", va="bottom", fontsize=8, color="#555555")


def _column(
    rows: Sequence[Mapping[str, Any]], kind: str, key: str
) -> tuple[np.ndarray, np.ndarray]:
    pairs = [
        (row["iteration"], row[key])
        for row in rows
        if row["kind"] == kind and row.get(key) is not None
    ]
    table = np.asarray(pairs, dtype=float).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _smooth(values: np.ndarray, window: int) -> np.ndarray:
    """The mean of the last ``window`` values (fewer at the start). shape: as values"""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)
