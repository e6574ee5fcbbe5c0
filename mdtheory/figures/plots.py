"""The poster's two figures, training curves and contact sheets, as PNG and SVG with the same bytes
every time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

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
}


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
            axis.axvline(trained_steps, color="#888888", linestyle=":", linewidth=1)
            axis.set(title=title, xlabel="task step  $k$", yscale="log")
            axis.set_xticks(range(next(iter(by_method.values())).support_loss.shape[1]))
            axis.yaxis.set_major_formatter("{x:g}")
        axes[0].set_ylabel(LABELS[quantity])
        _legend(
            figure,
            axes[0],
            note="mean over tasks; band: first to third quartile; dotted: steps in meta-training",
        )
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


def save_figure(figure: Figure, path: str | Path) -> list[Path]:
    """Write ``path`` with .png and with .svg; neither holds a date or a program version."""
    written = []
    with _styled():
        for kind, metadata in (
            ("png", {"Software": None}),
            ("svg", {"Date": None, "Creator": None}),
        ):
            target = Path(path).with_suffix(f".{kind}")
            figure.savefig(target, format=kind, metadata=metadata)
            written.append(target)
    return written


@contextmanager
def _styled() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context({**dict(matplotlib.rcParamsDefault), **STYLE, "backend": "agg"}):
        yield


def _figure(n_panels: int, *, sharey: bool = False) -> tuple[Figure, list[Axes]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * n_panels, 3.9))
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, n_panels, squeeze=False, sharey=sharey)[0]
    figure.subplots_adjust(
        left=0.78 / (4.2 * n_panels),
        right=0.985,
        top=0.92,
        bottom=0.28,
        wspace=0.1 if sharey else 0.22,
    )
    return figure, list(axes)


def _banded(axis: Axes, values: np.ndarray, index: int, *, label: str) -> None:
    steps, colour = np.arange(values.shape[1]), COLOURS[index % len(COLOURS)]
    low, high = np.quantile(values, [0.25, 0.75], axis=0)
    axis.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
    look: Any = {
        "color": colour,
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": DASHES[index % len(DASHES)],
    }
    axis.plot(steps, values.mean(axis=0), markersize=6 - index, linewidth=1.6, label=label, **look)


def _legend(figure: Figure, axis: Axes, *, note: str) -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="lower center", ncols=max(1, len(labels)), bbox_to_anchor=(0.5, 0.055)
    )
    figure.text(0.5, 0.02, note, ha="center", va="bottom", fontsize=8, color="#555555")


def _column(
    rows: Sequence[Mapping[str, Any]], kind: str, key: str
) -> tuple[np.ndarray, np.ndarray]:
    pairs = [
        (row["iteration"], row[key]) for row in rows if row["kind"] == kind and row[key] is not None
    ]
    table = np.asarray(pairs, dtype=float).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _smooth(values: np.ndarray, window: int) -> np.ndarray:
    """The mean of the last ``window`` values (fewer at the start). shape: as values"""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)
