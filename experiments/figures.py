"""The figures from the records, as SVG with the same bytes every time: ``python -m
experiments.figures --write | --check``.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import typer

from experiments import front
from experiments.cause_figure import start_and_geometry
from experiments.generated import ROOT, WriteOrCheck, report, settle
from experiments.headline import subjects
from experiments.intervals import KINDS, around
from experiments.records import FOLDER
from experiments.result_tables import Table, filled, read
from experiments.tables import OUT, POSTER_TIERS, poster
from experiments.tuned_figure import own_rates
from experiments.tuned_page import PICTURE, by_row
from mdtheory.figures import plots

STYLES = list(
    itertools.product(
        (("-", "full"), ((0, (4, 1.5)), "none"), ((0, (6, 1.5, 1, 1.5)), "left")),
        zip(plots.COLOURS, plots.MARKERS, strict=True),
    )
)
"""Line and marker filling, then colour and marker: twenty-one rows are told apart, by the marker
alone too.
"""
FRONT = ROOT / "docs" / "figures" / f"{front.PICTURE}.svg"
CAUSE = ROOT / front.CAUSE
WINDOWS = 50  # training points in a curve
FAR = 100.0


def adaptation(table: Table) -> Any:
    """Task loss, gradient norm (medians over tasks) and accuracy (mean) at every task step, from
    both kinds of start.
    """
    figure, axes = _grid(2, 3)
    titles = ("from each method's own start", "from MAML's trained start")
    for row_axes, title, common in zip(axes, titles, (False, True), strict=True):
        for name in table.rows:
            kinds = [table.paths(name, seed, common=common) for seed in table.by_row[name]]
            if any(kind is None for kind in kinds):
                continue
            tables = (
                np.median(np.concatenate([filled(kind.support_loss) for kind in kinds]), axis=0),
                np.median(np.concatenate([filled(kind.grad_norm) for kind in kinds]), axis=0),
                100
                * table.correct(name, seeds=list(table.by_row[name]), common=common).mean(axis=0),
            )
            for axis, values in zip(row_axes, tables, strict=True):
                _line(axis, table, name, range(len(values)), values)
        labels = ("task loss (median)", "gradient norm (median)", "query accuracy (%)")
        for axis, label in zip(row_axes, labels, strict=True):
            axis.set(title=title, xlabel="task step k", ylabel=label)
            axis.axvline(
                table.first.config.task.n_steps, color="#888888", linestyle=":", linewidth=1
            )
        for axis in row_axes[:2]:
            _logarithmic(axis)
    _legend(
        figure,
        axes[0][0],
        "dotted: the steps of meta-training; WarpGrad and MT-net have no start in common with MAML",
    )
    return figure


def _logarithmic(axis: Any) -> None:
    """A logarithmic y-axis with plain numbers, as many as can be read; a path that diverges leaves
    it at :data:`FAR` times the largest first value.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_yscale("log")
    far = FAR * max(line.get_ydata()[0] for line in axis.lines if len(line.get_ydata()) > 2)
    axis.set_ylim(top=min(far, axis.get_ylim()[1]))
    low, high = axis.get_ylim()
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter(NullFormatter())


def training(table: Table) -> Any:
    """Training accuracy and loss in windows, and validations, against the iteration; the mean over
    seeds.
    """
    figure, axes = _grid(1, 2)
    for axis, key, scale, label in zip(
        axes[0], ("loss", "accuracy"), (1, 100), ("query loss", "query accuracy (%)"), strict=True
    ):
        for name in table.rows:
            by_seed = [
                _curve(record.metrics, "train", key) for record in table.by_row[name].values()
            ]
            x, y = by_seed[0][0], np.mean([values for _, values in by_seed], axis=0)
            _line(axis, table, name, x, scale * y, marker="")
            by_seed = [
                _curve(record.metrics, "validation", key) for record in table.by_row[name].values()
            ]
            _line(
                axis,
                table,
                name,
                by_seed[0][0],
                scale * np.mean([v for _, v in by_seed], axis=0),
                linestyle="",
                markersize=4,
            )
        axis.set(xlabel="meta-iteration", ylabel=label)
    _legend(
        figure, axes[0][0], "lines: training tasks in windows; markers: validation; mean over seeds"
    )
    return figure


def cost(table: Table) -> Any:
    """Test accuracy, 15 queries a class, against training time and peak memory: one point a
    record.
    """
    figure, axes = _grid(1, 2)
    for name in table.rows:
        for record in table.by_row[name].values():
            accuracy, how = 100 * record.accuracies(table.protocols[1]).mean(), record.provenance
            _line(
                axes[0][0],
                table,
                name,
                [how.train_seconds / 60],
                [accuracy],
                linestyle="",
                markersize=6,
            )
            _line(
                axes[0][1],
                table,
                name,
                [how.peak_mebibytes],
                [accuracy],
                linestyle="",
                markersize=6,
            )
    axes[0][0].set(xlabel="training, minutes of wall time", ylabel="test accuracy (%)")
    axes[0][1].set(xlabel="peak memory (MiB)", ylabel="test accuracy (%)")
    _legend(
        figure,
        axes[0][0],
        "one point for every seed; times depend on what else the machine was doing",
    )
    return figure


def differences(table: Table) -> Any:
    """Every row minus MAML on the same tasks, 15 queries a class, 95% intervals over tasks; single
    seeds; the poster's own.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = table.differences("maml", table.protocols[1])
    figure = Figure(figsize=(8, 0.3 * len(found) + 1.4))
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for y, (name, one) in enumerate(found.items()):
        mean, half_width = 100 * one.estimate.mean, 100 * one.estimate.half_width
        look = {
            "color": plots.COLOURS[0],
            "markerfacecolor": plots.COLOURS[0] if one.significant else "white",
        }
        axis.errorbar(mean, y, xerr=half_width, fmt="o", capsize=3, **look)
        if len(gaps := table.by_seed(name, "maml", table.protocols[1])) > 1:
            axis.plot(
                [100 * gap for gap in gaps],
                [y + 0.25] * len(gaps),
                "|",
                color=plots.COLOURS[0],
                markersize=6,
            )
        theirs = (
            [poster(row, table.shot) for row in (name, "maml")]
            if table.tier.name in POSTER_TIERS
            else [[]]
        )
        if all(theirs):
            axis.plot(theirs[0][0] - theirs[1][0], y, "x", color=plots.COLOURS[1])
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(found)), list(found))
    axis.set(ylim=(len(found) - 0.4, -0.6), xlabel="accuracy minus MAML's, percentage points")
    note = (
        "filled: other than zero at 5% after Holm's correction over the rows; ticks: single seeds"
    )
    note += (
        "; crosses: the poster's differences, in its own protocols"
        if table.tier.name in POSTER_TIERS
        else ""
    )
    height = figure.get_size_inches()[1]
    figure.subplots_adjust(left=0.25, right=0.985, top=1 - 0.15 / height, bottom=0.85 / height)
    figure.text(0.5, 0.12 / height, note, ha="center", va="bottom", fontsize=8, color="#555555")
    return figure


def intervals(table: Table) -> Any:
    """Every row minus MAML with each kind of interval."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [row for row in table.rows if row != "maml" and table.seeds([row, "maml"])]
    figure = Figure(figsize=(8, 0.42 * len(names) + 1.6))
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for y, name in enumerate(names):
        found = around(table, name)
        for offset, (kind, colour) in enumerate(zip(KINDS, plots.COLOURS, strict=False)):
            one = found[kind]
            if one is not None:
                place, half = y - 0.27 + 0.18 * offset, 100 * one.half_width
                look = {"fmt": "o", "capsize": 2, "color": colour, "markersize": 3}
                axis.errorbar(100 * one.mean, place, xerr=half, label=kind, **look)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(names)), names)
    axis.set(ylim=(len(names) - 0.4, -0.6), xlabel="accuracy minus MAML's, percentage points")
    height = figure.get_size_inches()[1]
    figure.subplots_adjust(left=0.25, right=0.985, top=1 - 0.15 / height, bottom=1.05 / height)
    handles = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    place = {"loc": "lower center", "bbox_to_anchor": (0.5, 0.3 / height)}
    figure.legend(handles.values(), handles.keys(), ncols=len(KINDS), fontsize=8, **place)
    note = "each interval licenses another claim: see the page"
    figure.text(0.5, 0.12 / height, note, ha="center", va="bottom", fontsize=8, color="#555555")
    return figure


FIGURES: dict[str, Callable[[Table], Any]] = {
    "differences": differences,
    "intervals": intervals,
    "adaptation": adaptation,
    "training": training,
    "cost": cost,
}


def made(records: Path = FOLDER, out: Path = OUT) -> dict[Path, bytes]:
    """Every figure of every table, and the one of everything taken apart."""
    drawings = {
        f"{name}-{shot}shot-{kind}": partial(draw, table)
        for (name, shot), table in read(records).items()
        for kind, draw in FIGURES.items()
        if kind != "intervals" or "maml" in table.by_row
    }
    if records == FOLDER and (chosen := subjects()):
        drawings["start-or-geometry"] = partial(start_and_geometry, chosen)
    if records == FOLDER:
        drawings |= {
            f"{name}-{shot}shot-{PICTURE}": partial(own_rates, table, here)
            for (name, shot), table in read(records).items()
            if (here := by_row(table))
        }
    found = {out / f"{stem}.svg": drawn(draw) for stem, draw in drawings.items()}
    if records == FOLDER and (real := [one for one in subjects() if one.tier in front.REAL]):
        found[CAUSE] = drawn(partial(start_and_geometry, real, rates=("tuned",)))
    if records == FOLDER:
        found[FRONT] = drawn(partial(front.picture, read(records)["glyphs", 1]))
    return found


def drawn(draw: Callable[[], Any]) -> bytes:
    """A figure as SVG, with the same bytes every time."""
    import matplotlib

    style = {**dict(matplotlib.rcParamsDefault), **plots.STYLE, "backend": "agg"}
    with tempfile.TemporaryDirectory() as folder:
        with matplotlib.rc_context(style):
            figure = draw()
        plots.save_figure(figure, Path(folder) / "figure")
        return (Path(folder) / "figure.svg").read_bytes()


def _curve(rows: list[dict[str, Any]], kind: str, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Iterations and values, averaged over at most so many windows (validations as they are)."""
    x, y = np.asarray(
        [(row["iteration"], row[key]) for row in rows if row["kind"] == kind], dtype=float
    ).T
    if kind != "train" or len(x) <= WINDOWS:
        return x, y
    parts = np.array_split(np.arange(len(x)), WINDOWS)
    return np.asarray([x[part[-1]] for part in parts]), np.asarray(
        [y[part].mean() for part in parts]
    )


def _grid(n_rows: int, n_columns: int) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height = 3.1 * n_rows + 1.3
    figure = Figure(figsize=(4.0 * n_columns, height))
    FigureCanvasAgg(figure)
    axes = figure.subplots(n_rows, n_columns, squeeze=False)
    sides = {"left": 0.25 / n_columns, "right": 0.985, "wspace": 0.28}
    figure.subplots_adjust(**sides, top=1 - 0.35 / height, bottom=1.65 / height, hspace=0.42)
    return figure, axes


def _line(axis: Any, table: Table, name: str, x: Any, y: Any, **changes: Any) -> None:
    (linestyle, filling), (colour, marker) = STYLES[table.rows.index(name) % len(STYLES)]
    look = {
        "linestyle": linestyle,
        "fillstyle": filling,
        "color": colour,
        "marker": marker,
        "markersize": 4,
        "linewidth": 1.3,
    }
    axis.plot(x, y, **{**look, "label": name, **changes})


def _legend(figure: Any, axis: Any, note: str) -> None:
    handles = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    width, height = figure.get_size_inches()
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="lower center",
        ncols=round(width / 2),
        bbox_to_anchor=(0.5, 0.35 / height),
        fontsize=8,
    )
    figure.text(0.5, 0.15 / height, note, ha="center", va="bottom", fontsize=8, color="#555555")


def main(write: WriteOrCheck) -> None:
    """Write or check every figure."""
    stale = settle(made(), write=write, owned=OUT.glob("*.svg"))
    raise typer.Exit(report(stale, write=write, command="python -m experiments.figures"))


if __name__ == "__main__":
    typer.run(main)
