"""Running the measurements: fresh processes, one at a time; in every round all sizes, and at a size
all implementations.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from experiments import provenance
from experiments.benchmarks import training
from experiments.benchmarks.case import Size, Work
from experiments.benchmarks.correctness import SMALL
from experiments.benchmarks.data_loading import data
from experiments.benchmarks.implementations import OURS, PLAIN, kind
from experiments.benchmarks.measurements import (
    BenchRecord,
    Evaluated,
    Feeding,
    Measured,
    Round,
    Settings,
    Shared,
    Start,
    Truth,
    rounded,
)
from experiments.benchmarks.progress import Count, Tell, of_evaluation, of_iteration, of_reference
from experiments.generated import ROOT

LONGEST = 7200  # seconds of one measurement
PROBE = 0.5  # seconds of one probed convolution
START = 10.0  # seconds that a start of training is expected to take
COMPARED = (PLAIN, OURS)  # evaluated, and measured without any task step


class Failed(RuntimeError):
    """A measurement ended without a result; the message is its last line."""


class Workers:
    """Starts one process for each job."""

    def __init__(self, settings: Settings):
        self.settings = settings

    def __call__(self, do: str, **job: Any) -> dict[str, Any]:
        """The job's result; :class:`Failed` with the reason where there is none."""
        own = self.settings
        plugins = [str(Path(file).absolute()) for file in own.plugins]
        whole = {
            "do": do,
            "threads": own.threads,
            "allocator": own.allocator,
            "plugins": plugins,
            **job,
        }
        try:
            done = subprocess.run(
                [sys.executable, "-m", "experiments.benchmarks.worker"],
                input=json.dumps(whole),
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": str(own.threads)},
                capture_output=True,
                text=True,
                timeout=LONGEST,
            )
        except subprocess.TimeoutExpired:
            raise Failed(f"more than {LONGEST} s") from None
        if done.returncode != 0:
            raise Failed(_reason(done.stderr, done.returncode))
        return json.loads(done.stdout)


def _reason(stderr: str, code: int) -> str:
    """Why a process ended, in one line."""
    last = next((line for line in reversed(stderr.splitlines()) if line.strip()), "")
    if "memory" in last or "bad_alloc" in last or code == -9:
        return "out of memory"
    return f"exit code {code}: {last[:200]}"


def works(settings: Settings, size: Size) -> list[Work]:
    """Everything at a size: the plain loop's MAML, the yardstick, then method by method; without
    steps the query pass alone.
    """
    if size.n_steps == 0:
        names, methods = [name for name in settings.implementations if name in COMPARED], ["maml"]
    else:
        names, methods = list(settings.implementations), list(settings.methods)
    found = [Work(implementation=PLAIN, size=size)] if PLAIN in names else []
    for method in methods:
        for name in names:
            if method in kind(name).methods:
                found += [
                    Work(
                        implementation=name,
                        method=method,
                        estimator=one.estimator,
                        precision=one.precision,
                        size=size,
                    )
                    for one in kind(name).variants
                ]
    return list(dict.fromkeys(found))


def sizes(settings: Settings) -> list[Size]:
    """Shots by steps; where several numbers of steps are compared, none as well."""
    steps = (0, *settings.steps) if len(settings.steps) > 1 else settings.steps
    return [
        settings.size.model_copy(update={"shot": s, "n_steps": k})
        for s in settings.shots
        for k in steps
    ]


def blank(settings: Settings) -> BenchRecord:
    """Nothing measured yet."""
    machine = provenance.machine("cpu").model_copy(update={"threads": settings.threads})
    return BenchRecord(settings=settings, code=provenance.code(), machine=machine)


def run(
    record: BenchRecord, *, tell: Tell, keep: Callable[[BenchRecord], None] = lambda record: None
) -> BenchRecord:
    """Measure whatever of the settings' parts the record does not hold yet; ``keep`` gets it after
    each part.
    """
    settings = record.settings
    work = Workers(settings)

    def add(**changes: Any) -> None:
        nonlocal record
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        changed = record.model_copy(update={"finished": now, **changes})
        record = BenchRecord.model_validate(rounded(changed.model_dump()))
        keep(record)

    if not record.truths:
        add(truths=tuple(truths(settings, work, tell)))
    if "iterations" in settings.parts:
        for number, size in itertools.product(range(settings.rounds), sizes(settings)):
            if number >= _rounds_done(record, size):
                add(**turn(record, size, number, work, tell))
    if "evaluation" in settings.parts and not record.evaluated:
        add(evaluated=tuple(evaluations(record, work, tell)))
    largest = settings.size.model_copy(update={"n_steps": _usual(settings.steps)})
    if "feeding" in settings.parts and not record.feeding:
        for shot in settings.shots:
            tell(f"feeding, {shot}-shot")
            size = largest.model_copy(update={"shot": shot})
            drawn = work("feeding", size=size.model_dump(), rounds=10)
            add(feeding=(*record.feeding, Feeding(size=size, **drawn)))
    if "start" in settings.parts and not record.start:
        tell("start of mdtheory train", START * (settings.rounds + 1))
        size = largest.model_copy(update={"shot": settings.shots[0]})
        found = [
            _trained(training.start, size, settings.threads) for _ in range(settings.rounds + 1)
        ][1:]  # fills the cache
        columns = {key: tuple(one[key] for one in found) for key in found[0]}
        add(start=(Start(size=size, source=data(size)["source"], **columns),))
    if "processes" in settings.parts and not record.shared:
        add(
            shared=tuple(
                shared(settings, largest.model_copy(update={"shot": settings.shots[0]}), tell)
            )
        )
    return record


def shared(settings: Settings, size: Size, tell: Tell) -> list[Shared]:
    """``mdtheory train`` in one process of one thread, in one of all threads, and in as many
    processes, in turn.
    """
    seconds: dict[tuple[int, int], list[float]] = {
        layout: [] for layout in layouts(settings.threads)
    }
    for number in range(settings.rounds):
        for (processes, threads), own in seconds.items():
            what = (
                f"{_named(size)}, round {number + 1}: mdtheory train, processes of threads: "
                f"{processes} of {threads}"
            )
            tell(what, START + (1 + training.ITERATIONS) * of_iteration(size, 0.0))
            own.append(_trained(training.iteration, size, threads, processes))
    source = data(size)["source"]
    return [
        Shared(size=size, source=source, processes=p, threads=t, seconds=tuple(own))
        for (p, t), own in seconds.items()
    ]


def layouts(threads: int) -> list[tuple[int, int]]:
    """Processes and the threads of each."""
    return list(dict.fromkeys([(1, 1), (1, threads), (threads, 1)]))


def _trained(measure: Callable[..., Any], *work: Any) -> Any:
    """A measurement of ``mdtheory train``; :class:`Failed` where that stops."""
    try:
        return measure(*work)
    except subprocess.SubprocessError as error:
        raise Failed(str(error)) from None


def _usual(steps: Sequence[int]) -> int:
    """5, where it is among them."""
    return 5 if 5 in steps else steps[-1]


def judged(settings: Settings) -> list[Work]:
    """Every implementation, method and estimator once, on the small problem in float64; none
    without iterations to measure.
    """
    if "iterations" not in settings.parts:
        return []
    found = [one.model_copy(update={"precision": "float64"}) for one in works(settings, SMALL)]
    return list(dict.fromkeys(found))


def truths(settings: Settings, work: Workers, tell: Tell) -> list[Truth]:
    """Finite differences for every implementation, method and estimator."""
    found = []
    for one in judged(settings):
        tell(f"finite differences: {one.name}")
        said = Truth(implementation=one.implementation, method=one.method, estimator=one.estimator)
        try:
            result = work("truth", work=one.model_dump())
        except Failed as failure:
            result = {"failed": str(failure)}
        if "unavailable" in result:
            result = {"failed": result["unavailable"], "unavailable": True}
        found.append(said.model_copy(update=result))
    return found


def turn(record: BenchRecord, size: Size, number: int, work: Workers, tell: Tell) -> dict[str, Any]:
    """All works of a size in one round, one after the other; what is known to be wrong runs in the
    first one alone.
    """
    settings = record.settings
    absent = {one.implementation for one in record.absent()}
    todo = [one for one in works(settings, size) if one.implementation not in absent]
    measured = {one.work: one for one in record.measured}
    flops, state = dict(record.flops), record.state_mib
    with tempfile.TemporaryDirectory() as folder:
        files: dict[str, str] = {}
        for method in dict.fromkeys(one.method for one in todo) if number == 0 else ():
            tell(f"{_named(size)}: exact gradient of {method}", of_reference(size))
            file = str(Path(folder) / method)
            try:
                state = work("reference", method=method, size=size.model_dump(), file=file)[
                    "state_mib"
                ]
            except Failed:
                continue  # finite differences still judge it
            files[method] = file
        for precision in dict.fromkeys(one.precision for one in todo):
            tell(f"{_named(size)}, round {number + 1}: convolutions in {precision}")
            best = work(
                "throughput",
                size=size.model_dump(),
                precision=precision,
                seconds=min(PROBE, settings.seconds),
            )
            flops[precision] = max(flops.get(precision, 0.0), best["flops"])
        for one in todo:
            truth, before = record.truth(one), measured.get(one, Measured(work=one))
            if before.failed or (number > 0 and truth is not None and not truth.right):
                continue
            tell(
                f"{_named(size)}, round {number + 1}: {one.name}",
                of_iteration(size, settings.seconds),
            )
            measured[one] = _measure(before, work, settings, files.get(one.method))
    return {"measured": tuple(measured.values()), "flops": flops, "state_mib": state}


def _rounds_done(record: BenchRecord, size: Size) -> int:
    """How many rounds of a size the record holds; all, where everything failed in the first."""
    own = record.of_size(size)
    if own and all(one.failed for one in own):
        return record.settings.rounds
    return max((len(one.rounds) for one in own), default=0)


def _measure(
    before: Measured, work: Workers, settings: Settings, reference: str | None
) -> Measured:
    """One round more, or the reason why there will be none."""
    try:
        found = work(
            "iteration",
            work=before.work.model_dump(),
            seconds=settings.seconds,
            reference=reference,
        )
    except Failed as failure:
        return before.model_copy(update={"failed": str(failure)})
    found.pop("version")
    return before.model_copy(update={"rounds": (*before.rounds, Round(**found))})


def evaluations(record: BenchRecord, work: Workers, tell: Tell) -> list[Evaluated]:
    """Test tasks by the plain loop and by ours, in slices that take turns; the sum over slices."""
    settings = record.settings
    found = []
    for shot in settings.shots:
        size = settings.size.model_copy(update={"shot": shot, "n_steps": _usual(settings.steps)})
        todo = [
            Work(implementation=name, estimator=kind(name).variants[0].estimator, size=size)
            for name in COMPARED
        ]
        todo = [one for one in todo if one.implementation in settings.implementations]
        slices = min(settings.rounds, settings.eval_tasks)
        edges = [settings.eval_tasks * number // slices for number in range(slices + 1)]
        parts: dict[Work, list[dict[str, Any]]] = {one: [] for one in todo}
        for first, last in itertools.pairwise(edges):
            for one in todo:
                what = f"evaluation, {shot}-shot, tasks {first + 1} to {last}: {one.name}"
                tell(what, of_evaluation(size, last - first))
                parts[one].append(
                    work("evaluation", work=one.model_dump(), first=first, n_tasks=last - first)
                )
        for one, own in parts.items():
            n_tasks = sum(part["n_tasks"] for part in own)
            accuracy = sum(part["accuracy"] * part["n_tasks"] for part in own) / n_tasks
            seconds = sum(part["seconds"] for part in own)
            found.append(Evaluated(work=one, n_tasks=n_tasks, seconds=seconds, accuracy=accuracy))
    return found


def expected(record: BenchRecord) -> Count:
    """What :func:`run` will tell of at most."""
    settings, count = record.settings, Count()
    if not record.truths:
        for one in judged(settings):
            count(one.name)
    if "iterations" in settings.parts:
        for size in sizes(settings):
            todo, done = works(settings, size), _rounds_done(record, size)
            for method in dict.fromkeys(one.method for one in todo) if done == 0 else ():
                count(method, of_reference(size))
            for one in (settings.rounds - done) * todo:
                count(one.name, of_iteration(size, settings.seconds))
            for precision in (settings.rounds - done) * list(
                dict.fromkeys(one.precision for one in todo)
            ):
                count(precision)
    if "evaluation" in settings.parts and not record.evaluated:
        for shot in settings.shots:
            size = settings.size.model_copy(
                update={"shot": shot, "n_steps": _usual(settings.steps)}
            )
            slices = min(settings.rounds, settings.eval_tasks)
            for name in slices * [name for name in COMPARED if name in settings.implementations]:
                count(name, of_evaluation(size, settings.eval_tasks // slices))
    if "feeding" in settings.parts and not record.feeding:
        for shot in settings.shots:
            count(f"{shot}-shot")
    if "start" in settings.parts and not record.start:
        count("start", START * (settings.rounds + 1))
    if "processes" in settings.parts and not record.shared:
        size = settings.size.model_copy(
            update={"shot": settings.shots[0], "n_steps": _usual(settings.steps)}
        )
        for _ in settings.rounds * layouts(settings.threads):
            count("processes", START + (1 + training.ITERATIONS) * of_iteration(size, 0.0))
    return count


def _named(size: Size) -> str:
    return f"{size.shot}-shot, {size.n_steps} steps"
