"""The benchmarks' page and figures, from the records: ``python -m experiments.benchmarks.pages
--write | --check``.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

from experiments.benchmarks.case import Size, Work
from experiments.benchmarks.gpu import pages as gpu
from experiments.benchmarks.implementations import OURS
from experiments.benchmarks.measurements import RECORDS, BenchRecord, Measured, everything
from experiments.benchmarks.summary import tables, title, verdict
from experiments.figures import STYLES
from experiments.generated import ROOT, report, settle, with_block
from experiments.tables import markdown
from mdtheory.figures import plots

PAGE = ROOT / "docs" / "benchmarks.md"
FIGURES = ROOT / "docs" / "figures"
README = ROOT / "README.md"
HEADLINE = "maml-1shot"
"""The record of which the README shows what computes in float32."""
COMMAND = "python -m experiments.benchmarks.pages"
NOTE = f"<!-- made by `{COMMAND} --write` from experiments/benchmarks/records; do not edit -->\n"
INTRODUCTION = """# Benchmarks

How long a second-order meta-iteration takes, how much memory, and *whether each implementation's
meta-gradient is right*:

```console
$ python -m experiments.benchmarks --grid full
$ python -m experiments.benchmarks --method maml --shot 1 --n-steps 5 --json
```

Every number comes from processes of its own; sizes and implementations take turns, round after
round. *Seconds* are the median over rounds of a meta-iteration after a first one, with the least of
all and the spread of the rounds. *Memory* is the peak of the resident set less what is resident
after imports (a tiny meta-iteration included, since some libraries import the most when first
used), model and data. All start from the same weights and see the same tasks; the other libraries
get the network as anybody writes it in torch, with `nn.BatchNorm2d`. A meta-gradient is *right* if
it agrees in float64 with finite differences of the meta-objective, and on the timed problem with an
exact float64 gradient: to 1e-3 (bf16: 1e-2), or to thrice the rounding of the plain loop (of its
MAML, for methods that it does not know) where that is more. `plain-bf16` is the plain loop under
autocast; `plain-bf16-factors` rounds to bf16 only the images and weights that convolutions multiply
and computes in float32, which shows what that rounding alone costs.
"""
EMPTY = "No record is here yet.\n"


def page(records: dict[str, BenchRecord], cards: dict[str, gpu.Found]) -> str:
    """All records, one after the other, those of GPUs last."""
    parts = [NOTE, INTRODUCTION]
    for name, record in sorted(records.items(), key=lambda item: item[0] != HEADLINE):
        parts += [f"## {title(record)}\n", f"Record `{name}`: {_where(record)}"]
        if drawable(record):
            parts.append(
                "![Time and memory against the number of task steps, and "
                f"ratios]({_picture(name)})\n"
            )
        for table in (one.narrow() for one in tables(record)):
            parts += [f"### {table.title}\n", markdown(table.columns, table.rows)]
            parts += [f"{table.note}\n"] if table.note else []
    parts += [] if records else [EMPTY]
    return "\n".join([*parts, gpu.section(cards)])


def headline(records: dict[str, BenchRecord], cards: dict[str, gpu.Found]) -> str:
    """MAML as the README shows it: seconds and memory of every implementation in float32, the
    fastest of each; then the GPU's.
    """
    rest = f"\n{gpu.headline(cards).strip()}\n"
    record = records.get(HEADLINE)
    if record is None:
        return EMPTY + rest
    (size,) = record.sizes()
    columns = ["implementation", "seconds", "to ours", "MiB", "meta-gradient"]
    measured = [
        one
        for one in sorted(record.of_size(size), key=lambda one: one.seconds or math.inf)
        if one.seconds and one.peak_mib and _in_float32(one.work)
    ]
    fastest = {one.work.implementation: one for one in reversed(measured)}
    rows = [
        [
            _label(one.work),
            f"{one.seconds:.2f}",
            f"{record.ratio(one) or math.nan:.2f}",
            f"{one.peak_mib:,.0f}",
            verdict(record, one),
        ]
        for one in measured
        if one is fastest[one.work.implementation]
    ]
    link = f"[{PAGE.relative_to(ROOT)}]({PAGE.relative_to(ROOT)})"
    said = (
        f"One second-order meta-iteration of MAML on a CPU: {size.n_tasks} tasks, "
        f"{size.n_way}-way {size.shot}-shot, {size.n_steps} steps, {size.n_queries} queries, "
        f"Conv4-{size.channels}, {size.image_size} x {size.image_size} pixels, "
        f"{record.settings.threads} threads of an "
        f"{record.machine.cpu.partition(',')[0]}. *Right*: as finite differences in float64 "
        f"(in brackets: rounding). Other sizes, methods and machines: {link}.\n\n"
    )
    return said + markdown(columns, rows) + rest


def _in_float32(work: Work) -> bool:
    return work.precision == "float32" and "bf16" not in work.implementation


def _where(record: BenchRecord) -> str:
    """Machine, versions and settings."""
    at, own = record.machine, record.settings
    commit = record.code.commit[:12] if record.code.commit else "no commit"
    return (
        f"{at.cpu}; {own.threads} of {at.cores} cores, {at.system}, Python {at.python}, torch "
        f"{at.torch}; "
        f"{own.rounds} rounds, allocator: {own.allocator}; mdtheory {record.code.version} "
        f"({commit}), {record.finished}.\n"
    )


def _picture(name: str) -> str:
    return f"figures/benchmarks-{name}.svg"


def drawable(record: BenchRecord) -> bool:
    """Whether there is anything to draw."""
    return any(one.seconds is not None and one.work.size.n_steps > 0 for one in record.measured)


def draw(record: BenchRecord) -> Any:
    """One row for each number of shots: MAML against K where there are several, then everything at
    one K as bars.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shots = [shot for shot in record.settings.shots if _points(record, shot)]
    lines = len(record.settings.steps) > 1
    height = 3.4 * len(shots) + (1.2 if lines else 0.6)
    figure = Figure(figsize=(13.0, height))
    FigureCanvasAgg(figure)
    # the empty columns are room for the names of the bars
    widths = (1, 0.08, 1, 0.6, 1) if lines else (0.6, 1, 0.1, 1)
    rows = figure.subplots(len(shots), len(widths), squeeze=False, width_ratios=widths)
    bottom = 1.2 if lines else 0.6
    figure.subplots_adjust(
        left=0.06,
        right=0.985,
        wspace=0.2,
        top=1 - 0.4 / height,
        bottom=bottom / height,
        hspace=0.45,
    )
    names = list(
        dict.fromkeys(_label(one.work) for one in record.measured if one.work.method == "maml")
    )
    for axes, shot in zip(rows, shots, strict=True):
        for axis in axes[1::2] if lines else axes[0::2]:
            axis.set_axis_off()
        if lines:
            _lines(axes[0], axes[2], record, shot, names)
            _bars(axes[4], record, shot, "seconds")
        else:
            _bars(axes[1], record, shot, "seconds")
            _bars(axes[3], record, shot, "peak memory").set_yticklabels([])
    if lines:
        figure.legend(
            *rows[0][0].get_legend_handles_labels(), loc="lower center", ncols=5, fontsize=8
        )
    return figure


def _lines(seconds: Any, memory: Any, record: BenchRecord, shot: int, names: list[str]) -> None:
    """Both of MAML against K."""
    for label, points in _by_label(_points(record, shot)).items():
        (linestyle, filling), (colour, marker) = STYLES[names.index(label) % len(STYLES)]
        look = {
            "linestyle": linestyle,
            "fillstyle": filling,
            "color": colour,
            "marker": marker,
            "label": label,
        }
        own = [one.work.size.n_steps for one in points]
        seconds.plot(own, [one.seconds for one in points], **look)
        memory.plot(own, [one.peak_mib for one in points], **look)
    steps = sorted({one.work.size.n_steps for one in _points(record, shot)})
    for axis, what in ((seconds, "seconds a meta-iteration"), (memory, "peak memory (MiB)")):
        axis.set(
            title=f"{shot}-shot MAML",
            xlabel="task steps K",
            ylabel=what,
            xticks=steps,
            ylim=(0, None),
        )


def _points(record: BenchRecord, shot: int) -> list[Measured]:
    """What was timed of MAML with so many shots, by K."""
    found = [
        one for one in record.measured if one.work.method == "maml" and one.work.size.shot == shot
    ]
    found = [one for one in found if one.work.size.n_steps > 0 and one.seconds is not None]
    return sorted(found, key=lambda one: one.work.size.n_steps)


def _by_label(points: list[Measured]) -> dict[str, list[Measured]]:
    found: dict[str, list[Measured]] = {}
    for one in points:
        found.setdefault(_label(one.work), []).append(one)
    return found


def _label(work: Work) -> str:
    precision = (
        ""
        if work.precision == "float32" or work.precision in work.implementation
        else work.precision
    )
    return " ".join(filter(None, [work.implementation, work.estimator, precision]))


def _bars(axis: Any, record: BenchRecord, shot: int, what: str) -> Any:
    """Everything at K = 5, or the largest K, over our first variant of MAML; hatched where the
    gradient is wrong.
    """
    sizes: list[Size] = [size for size in record.sizes() if size.shot == shot]
    size = next((size for size in sizes if size.n_steps == 5), sizes[-1])
    found = [one for one in record.of_size(size) if one.seconds is not None]
    ground = record.find(OURS, "maml", size)

    def value(one: Measured) -> float:
        return (one.seconds if what == "seconds" else one.peak_mib) or 0.0

    unit = value(ground) if ground is not None and value(ground) else 1.0
    labels = [f"{_label(one.work)}, {one.work.method}" for one in found]
    colours = [plots.COLOURS[0 if one.work.implementation == OURS else 4] for one in found]
    hatches = ["" if record.right(one) else "//" for one in found]
    drawn = axis.barh(labels, [value(one) / unit for one in found], color=colours, hatch=hatches)
    axis.bar_label(drawn, fmt="%.2f", fontsize=7, padding=2)
    axis.margins(x=0.08)
    axis.invert_yaxis()
    axis.tick_params(axis="y", labelsize=7)
    title = f"{shot}-shot, K = {size.n_steps} (hatched: wrong)"
    axis.set(title=title, xlabel=f"{what} (1: our MAML)" if ground else what)
    return axis


def made(
    folder: Path = RECORDS,
    target: Path = PAGE,
    figures: Path = FIGURES,
    readme: Path | None = README,
) -> dict[Path, bytes]:
    """The page, its figures, and the README with its block ``speed`` replaced."""
    import matplotlib

    records, cards = everything(folder), gpu.everything(folder)
    found = {target: page(records, cards).encode()}
    if readme is not None:
        found[readme] = with_block(
            readme.read_text(encoding="utf-8"), "speed", headline(records, cards)
        ).encode()
    with tempfile.TemporaryDirectory() as drawn:
        for name, record in records.items():
            if drawable(record):
                stem = Path(_picture(name)).stem
                with matplotlib.rc_context(
                    {**dict(matplotlib.rcParamsDefault), **plots.STYLE, "backend": "agg"}
                ):
                    plots.save_figure(draw(record), Path(drawn) / stem)
                found[figures / f"{stem}.svg"] = (Path(drawn) / f"{stem}.svg").read_bytes()
    return found


def owned(figures: Path = FIGURES) -> list[Path]:
    """The figures in git that this module makes."""
    return list(figures.glob("benchmarks-*.svg"))


def main(arguments: list[str] | None = None) -> int:
    """Write or check the page and the figures."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("--write", action="store_true", help="write what differs")
    choice.add_argument("--check", action="store_true", help="exit 1 where something differs")
    write = parser.parse_args(arguments).write
    return report(settle(made(), write=write, owned=owned()), write=write, command=COMMAND)


if __name__ == "__main__":
    sys.exit(main())
