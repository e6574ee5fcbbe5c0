"""From a record to tables: who is how fast, whose gradient is right, and what the time and the
memory consist of.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import NamedTuple

import numpy as np

from experiments.benchmarks.case import Size, Work
from experiments.benchmarks.implementations import OURS, PLAIN
from experiments.benchmarks.lower_bound import convolution_flops
from experiments.benchmarks.measurements import BenchRecord, Measured

NONE = "–"


class Table(NamedTuple):
    """A title, the columns' heads, the rows as text, and a line below."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def narrow(self) -> Table:
        """A column of the ``SHARED`` that says the same in every row goes into the title."""
        said = {name: {row[at] for row in self.rows} for at, name in enumerate(self.columns)}
        shared = [name for name in SHARED if len(said.get(name, ())) == 1]
        kept = [at for at, name in enumerate(self.columns) if name not in shared]
        same = [min(said[name]).replace("maml", "MAML") for name in shared]
        title = ", ".join([self.title, *filter(None, same)])
        rows = [[row[at] for at in kept] for row in self.rows]
        return Table(title, [self.columns[at] for at in kept], rows, self.note)


SHARED = ("method", "precision", "estimator", "reason")


class Line(NamedTuple):
    """seconds = a + b K by least squares, ``r2`` of the fit; memory growth a step in units of the
    state.
    """

    a: float
    b: float
    r2: float


def tables(record: BenchRecord) -> list[Table]:
    """Everything that the record can say."""
    found = [_iterations(record, size) for size in record.sizes()]
    found += [
        _verdicts(record),
        _lines(record),
        _additions(record),
        _others(record),
        _truths(record),
    ]
    return [table for table in found if table.rows]


def title(record: BenchRecord) -> str:
    """What was measured, as a heading: methods, shots, steps, and how many implementations."""
    timed = [one.work for one in record.measured if one.work.size.n_steps > 0]
    if not timed:
        return "Evaluation" if record.evaluated else "Around the step"
    methods = sorted({work.method for work in timed})
    steps = sorted({work.size.n_steps for work in timed})
    shots = " and ".join(f"{shot}-shot" for shot in sorted({work.size.shot for work in timed}))
    span = f"{steps[0]}" if len(steps) == 1 else f"{steps[0]} to {steps[-1]}"
    what = methods[0].upper() if len(methods) == 1 else f"{len(methods)} methods"
    peers = len({work.implementation for work in timed} - {OURS})
    beside = "ours alone" if not peers else f"ours and {_count(peers, 'other')}"
    return f"{what}, {shots}, {span} steps: {beside}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _number(value: float | None, form: str) -> str:
    return NONE if value is None else format(value, form)


def _iterations(record: BenchRecord, size: Size) -> Table:
    """A size: methods in order, the fastest first."""
    ranked = sorted(
        record.of_size(size),
        key=lambda one: (one.work.method != "maml", one.work.method, one.seconds or np.inf),
    )
    plain = record.find(PLAIN, "maml", size)
    rows = []
    for one in ranked:
        work, floor = one.work, record.flops.get(one.work.precision)
        share = convolution_flops(size) / floor / one.seconds if floor and one.seconds else None
        to_plain = (
            one.seconds / plain.seconds
            if one.seconds and plain is not None and plain.seconds
            else None
        )
        spread = (
            f" ({one.least:.3g}, {100 * one.spread:.0f}%)"
            if one.least is not None and one.spread is not None
            else ""
        )
        rows.append(
            [
                _name(work),
                work.method,
                work.precision,
                one.failed or _number(one.seconds, ".3g") + spread,
                _number(record.ratio(one), ".2f"),
                _number(to_plain, ".2f"),
                _number(one.peak_mib, ",.0f"),
                NONE if share is None else f"{100 * share:.0f}%",
                verdict(record, one),
            ]
        )
    rows += [
        [one.implementation, one.method, "", "unavailable", *5 * [NONE]] for one in record.absent()
    ]
    columns = ["implementation", "method", "precision", "seconds (least, spread)"]
    columns += ["to ours", "to plain MAML", "peak MiB", "share of floor", "meta-gradient"]
    title = (
        f"{size.n_way}-way {size.shot}-shot, {_count(size.n_steps, 'step')}, {size.n_tasks} tasks, "
        f"Conv4-{size.channels}, "
        f"{size.image_size} x {size.image_size}, {record.settings.threads} threads"
    )
    return Table(title, columns, rows, _floor_note(record, size))


def _floor_note(record: BenchRecord, size: Size) -> str:
    flops = convolution_flops(size)
    said = [
        f"{flops / rate:.2f} s in {name} at {rate / 1e9:.0f} GFLOP/s"
        for name, rate in record.flops.items()
    ]
    return (
        f"The floor: {flops / 1e9:.0f} GFLOP of 3x3 convolutions, " + "; ".join(said)
        if said
        else ""
    )


def _name(work: Work) -> str:
    return work.implementation + (f" ({work.estimator})" if work.estimator else "")


def verdict(record: BenchRecord, one: Measured) -> str:
    """In words, with the error of the timed problem."""
    truth, error = record.truth(one.work), one.gradient_error
    if truth is None or truth.error is None:
        return "not checked"
    if not truth.right:
        return f"WRONG ({truth.error:.1e} in float64)"
    if error is None:
        return "right in float64"
    return f"{'right' if record.right(one) else 'WRONG'} ({error:.1e})"


def fastest_right_peer(record: BenchRecord, size: Size, method: str = "maml") -> Measured | None:
    """The quickest implementation of another whose gradient is right."""
    peers = [
        one
        for one in record.of_size(size)
        if one.work.method == method and one.work.implementation != OURS
    ]
    timed = [one for one in peers if one.seconds is not None and record.right(one)]
    return min(timed, key=lambda one: one.seconds or np.inf, default=None)


def _verdicts(record: BenchRecord) -> Table:
    """Ours beside the fastest right peer."""
    rows = []
    for size in record.sizes():
        peer = fastest_right_peer(record, size)
        ours = [
            one
            for one in record.of_size(size)
            if (one.work.implementation, one.work.method) == (OURS, "maml")
        ]
        for one in ours:
            if peer is not None and peer.seconds and peer.peak_mib and one.seconds and one.peak_mib:
                rows.append(
                    [
                        f"{size.shot}-shot, {_count(size.n_steps, 'step')}",
                        _name(one.work) + f", {one.work.precision}",
                        peer.work.implementation,
                        f"{peer.seconds / one.seconds:.2f} x",
                        f"{one.peak_mib / peer.peak_mib:.2f}",
                        verdict(record, one),
                    ]
                )
    columns = [
        "MAML",
        "ours",
        "fastest right peer",
        "speed of ours",
        "memory of ours over its",
        "meta-gradient of ours",
    ]
    return Table("Ours and the fastest right peer of the same run", columns, rows)


def fit(points: Iterable[tuple[float, float]]) -> Line:
    """Least squares through (K, value)."""
    x, y = np.asarray(sorted(points), dtype=float).T
    b, a = np.polyfit(x, y, 1)
    rest, whole = float(np.square(y - a - b * x).sum()), float(np.square(y - y.mean()).sum())
    return Line(float(a), float(b), 1.0 - rest / whole if whole else 1.0)


def _lines(record: BenchRecord) -> Table:
    """Time and memory against the number of steps, for who has at least three of them."""
    rows = []
    for shot in record.settings.shots:
        by_work: dict[Work, list[Measured]] = {}
        for one in record.measured:
            if one.work.size.shot == shot and one.work.size.n_steps > 0 and one.seconds is not None:
                by_work.setdefault(one.work.model_copy(update={"size": Size()}), []).append(one)
        for work, points in by_work.items():
            if len(points) >= 3:
                rows.append(_line(record, shot, work, points))
    columns = ["implementation", "method", "shot", "a (s)", "b (s a step)", "R²"]
    columns += ["a / query pass, plain", "a / own query pass", "MiB a step", "in states"]
    note = (
        "seconds = a + b K; the query pass is the measured forward and backward over the query "
        "images (K = 0). "
    )
    if record.state_mib is not None:
        note += f"A state of the task solver takes {record.state_mib:.2f} MiB."
    return Table("Cost of the task's steps", columns, rows, note)


def _line(record: BenchRecord, shot: int, work: Work, points: Sequence[Measured]) -> list[str]:
    time = fit((one.work.size.n_steps, one.seconds or 0.0) for one in points)
    memory = fit((one.work.size.n_steps, one.peak_mib or 0.0) for one in points)
    bare = points[0].work.size.model_copy(update={"n_steps": 0})
    own = next(
        (
            one
            for one in record.of_size(bare)
            if one.work.model_copy(update={"size": Size()}) == work
        ),
        None,
    )
    passes = [record.find(PLAIN, "maml", bare), own]
    shares = [None if one is None or not one.seconds else time.a / one.seconds for one in passes]
    states = memory.b / record.state_mib if record.state_mib else None
    head = [_name(work), work.method, str(shot), f"{time.a:.3g}", f"{time.b:.3g}", f"{time.r2:.4f}"]
    return [
        *head,
        *(_number(share, ".2f") for share in shares),
        f"{memory.b:.3g}",
        _number(states, ".2f"),
    ]


def _additions(record: BenchRecord) -> Table:
    """What a geometry adds to MAML, both ours with the same estimator, as a share of the plain
    loop's MAML.
    """
    rows = []
    for size in record.sizes():
        plain = record.find(PLAIN, "maml", size)
        found = [
            one
            for one in record.of_size(size)
            if one.work.implementation == OURS and one.seconds is not None
        ]
        base = {
            (one.work.estimator, one.work.precision): one.seconds
            for one in found
            if one.work.method == "maml"
        }
        for one in found:
            ground = base.get((one.work.estimator, one.work.precision))
            if (
                one.work.method != "maml"
                and ground
                and one.seconds
                and plain is not None
                and plain.seconds
            ):
                head = [
                    f"{size.shot}-shot, {_count(size.n_steps, 'step')}",
                    one.work.method,
                    _name(one.work),
                ]
                added = one.seconds - ground
                rows.append([*head, f"{added:+.3g}", f"{100 * added / plain.seconds:+.0f}%"])
    columns = ["size", "method", "ours", "seconds over our MAML", "share of the plain loop's MAML"]
    return Table("What a geometry adds", columns, rows)


def _others(record: BenchRecord) -> Table:
    """Feeding, the start, and evaluation."""
    rows = []
    for fed in record.feeding:
        step = record.find(OURS, "maml", fed.size)
        share = (
            f", {100 * median(fed.seconds) / step.seconds:.2f}% of our step"
            if step is not None and step.seconds
            else ""
        )
        what = f"drawing the tasks of a step ({fed.source}, {fed.size.shot}-shot)"
        rows.append([what, f"{1000 * median(fed.seconds):.1f} ms{share}"])
    for begun in record.start:
        what = f"from the start of `mdtheory train` to its first step ({begun.source}, cache warm)"
        rows.append(
            [
                what,
                (
                    f"{median(begun.seconds):.2f} s; the first step "
                    f"{median(begun.first_iteration):.2f} "
                    "s"
                ),
            ]
        )
    for one in record.shared:
        alone = next(
            other
            for other in record.shared
            if (other.processes, other.threads) == (1, 1) and other.size == one.size
        )
        what = (
            f"a meta-iteration of `mdtheory train` ({one.source}), processes of threads: "
            f"{one.processes} of {one.threads}"
        )
        speed = median(alone.seconds) / median(one.seconds)
        rows.append([what, f"{median(one.seconds):.2f} s, {speed:.2f} x the speed of one of one"])
    for one in record.evaluated:
        size = one.work.size
        what = (
            f"evaluation of {one.n_tasks} tasks, {size.shot}-shot, {_count(size.n_steps, 'step')}: "
            f"{_name(one.work)}"
        )
        rows.append(
            [what, f"{one.seconds:.1f} s ({1000 * one.seconds / one.n_tasks:.0f} ms a task)"]
        )
    return Table("Around the step", ["what", "measured"], rows)


def _truths(record: BenchRecord) -> Table:
    """The comparison with finite differences."""
    rows = []
    for one in record.truths:
        said = "unavailable" if one.unavailable else ("right" if one.right else "WRONG")
        error = _number(one.error, ".1e")
        rows.append(
            [
                one.implementation,
                one.method,
                one.estimator or "",
                one.version or "",
                said,
                error,
                one.failed or "",
            ]
        )
    columns = [
        "implementation",
        "method",
        "estimator",
        "version",
        "verdict",
        "relative error",
        "reason",
    ]
    note = (
        "On a small problem in float64, along random directions, relative to the slopes of the "
        "meta-objective."
    )
    return Table("Meta-gradients beside finite differences", columns, rows, note)
