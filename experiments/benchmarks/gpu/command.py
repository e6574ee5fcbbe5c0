"""Meta-iterations on a GPU: first whether they are right, then a table of what they cost.

Runs unattended and without a network; what fails is a row that says so. Every number is of this
card and this process: the record carries the card's name, and is written after every setting.
"""

from __future__ import annotations

import gc
import json
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from experiments import provenance
from experiments.benchmarks.case import Size
from experiments.benchmarks.gpu.ceilings import convolution_rate, copy_rate, wait
from experiments.benchmarks.gpu.checks import correctness, drawn, learner, relative
from experiments.benchmarks.gpu.ways import RECORDED, Setting, Way, ways
from experiments.benchmarks.lower_bound import convolution_bytes, convolution_flops
from experiments.benchmarks.summary import Table
from experiments.records import seal
from mdtheory.core.types import Params
from mdtheory.kernels import have_triton, plain
from mdtheory.kernels.precision import PRECISIONS, precision
from mdtheory.meta.captured import CudaRecorder, Recorder
from mdtheory.meta.restore import short

NO_CARD = "there must be an NVIDIA GPU that torch can use, got none: run this on a machine with one"
WRONG = 1e-9
"""Relative error in float64 from which a meta-gradient is wrong."""

ROUNDING = 1e-3
"""In float32 and TF32, up to which nobody asks."""

FEWEST, LONGEST = 3, 2.0
"""Iterations that are timed at least, and seconds for a way at most."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """One way on one setting. ``seconds`` a meta-iteration, ``ratio`` to ours recorded;
    ``gibibytes`` held at most; shares of the measured ceilings that its necessary convolutions and
    their images alone would take; ``gradient_error`` against float64 on ordinary operations;
    ``problem`` in place of numbers.
    """

    way: str
    geometry: str
    precision: str
    shot: int
    seconds: float | None = None
    ratio: float | None = None
    gibibytes: float | None = None
    convolution_share: float | None = None
    copy_share: float | None = None
    gradient_error: float | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Ceilings:
    """Bytes copied, and operations of a convolution by precision, a second."""

    copy: float
    convolution: dict[str, float]


@dataclass
class Budget:
    """Until when to measure, and how long each way."""

    end: float
    seconds: float

    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()


def ceilings(device: torch.device, size: Size, seconds: float) -> Ceilings:
    """As this card has them now."""
    rates = {kind: convolution_rate(device, size, kind, seconds) for kind in PRECISIONS}
    return Ceilings(copy_rate(device, seconds), rates)


def exact(setting: Setting) -> Params:
    """The meta-gradient in float64 on ordinary operations: the same for both precisions."""
    return _exact(setting.geometry, setting.size, setting.device)


@lru_cache(maxsize=32)
def _exact(geometry: str, size: Size, device: torch.device) -> Params:
    tasks = [one.to(dtype=torch.float64) for one in drawn(size, device, torch.float32)]
    own = learner(geometry, size, device, torch.float64)
    with plain():
        return own.meta_gradient(tasks).grads


def measured(setting: Setting, recorder: Recorder, budget: Budget, most: Ceilings) -> Iterator[Row]:
    """Every way, one after the other."""
    blank = Row("", setting.geometry, setting.precision, setting.size.shot)
    try:
        expected, tasks = exact(setting), drawn(setting.size, setting.device, torch.float32)
    except Exception as problem:  # noqa: BLE001 - the other settings may still be measured
        yield replace(blank, way="float64", problem=short(problem))
        return
    for way in ways(setting, tasks, recorder):
        row = replace(blank, way=way.name)
        if way.minutes and budget.left() < 60 * way.minutes:
            said = f"left out: it takes about {way.minutes:.0f} minutes to set up"
            yield replace(row, problem=said)
            continue
        try:
            with precision(setting.precision):
                yield _measure(row, way, setting, expected, budget.seconds, most)
        except ImportError as missing:
            yield replace(row, problem=f"not installed ({missing.name})")
        except Exception as problem:  # noqa: BLE001 - a foreign library raises what it likes
            yield replace(row, problem=short(problem) or type(problem).__name__)


def _measure(
    row: Row, way: Way, setting: Setting, expected: Params, seconds: float, most: Ceilings
) -> Row:
    device = setting.device
    _fresh(device)
    ready = way.ready()
    error = relative(ready.gradient(), expected)
    spent = timed(ready.step, device, seconds)
    flops, moved = convolution_flops(setting.size), convolution_bytes(setting.size)
    return replace(
        row,
        seconds=spent,
        gibibytes=_held(device) if way.name != "jax" else None,
        convolution_share=flops / most.convolution[setting.precision] / spent,
        copy_share=moved / most.copy / spent,
        gradient_error=error,
    )


def timed(step: Callable[[int], int], device: torch.device, seconds: float) -> float:
    """Seconds of one iteration: those of all over their number, after some that do not count."""
    step(1)
    wait(device)
    since, done = time.perf_counter(), 0
    while done < FEWEST or time.perf_counter() - since < seconds:
        done += step(20)
        wait(device)
    return (time.perf_counter() - since) / done


def _fresh(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _held(device: torch.device) -> float | None:
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None


def settings(
    device: torch.device, size: Size, names: Sequence[str], shots: Sequence[int]
) -> Iterator[Setting]:
    """Every geometry, number of shots and precision, what matters most first: time may run out."""
    first, others = names[:1], names[1:]
    for group, kinds in ((first, PRECISIONS), (others, PRECISIONS)):
        for shot in shots:
            for kind in kinds:
                for name in group:
                    own = size.model_copy(update={"shot": shot})
                    yield Setting(name, own, kind, device)


def ratios(rows: list[Row]) -> list[Row]:
    """The rows of one setting, with their ratios to ours recorded."""
    ours = next((row.seconds for row in rows if row.way == RECORDED), None)
    return [replace(row, ratio=row.seconds / ours) if row.seconds and ours else row for row in rows]


def report(
    device: torch.device,
    *,
    minutes: float,
    size: Size,
    recorder: Recorder,
    say: Say,
    names: Sequence[str],
    shots: Sequence[int] = (1, 5),
    keep: Callable[[dict[str, Any]], None] = lambda found: None,
) -> dict[str, Any]:
    """Check, measure as far as the time goes, and give all of it as plain data; ``keep`` gets what
    is there after every setting.
    """
    todo = list(settings(device, size, names, shots))
    unfit = have_triton.why_not(device)
    budget = Budget(time.monotonic() + 60 * minutes, min(LONGEST, 60 * minutes / (12 * len(todo))))
    found: dict[str, Any] = {
        "code": provenance.code().model_dump(),
        "finished": "",
        "card": torch.cuda.get_device_name(device) if device.type == "cuda" else "no card",
        "torch": str(torch.__version__),
        "triton": None if have_triton.triton is None else have_triton.triton.__version__,
        "kernels": "Triton's" if unfit is None else f"torch's own: {unfit}",
        "size": size.model_dump(),
        "checks": {},
        "right": True,
        "rows": [],
    }
    small = size.model_copy(update={"image_size": 16, "channels": 8, "n_steps": 2, "n_query": 2})
    whole = size.model_copy(update={"n_steps": min(2, size.n_steps)})
    both = [(small, list(names)), (whole, list(names[:1]))]
    for what, error in chain(*(correctness(device, one, own, recorder) for one, own in both)):
        found["checks"][what] = error
        found["right"] = found["right"] and error < WRONG
        say(f"{what}: relative error {error:.1e} in float64{'' if error < WRONG else '  WRONG'}")
    most = ceilings(device, size, budget.seconds)
    found["ceilings"] = asdict(most)
    keep(found)
    for setting in todo:
        if budget.left() < 0:
            say("the time is over: the rest is left out")
            break
        rows = ratios(list(measured(setting, recorder, budget, most)))
        found["rows"] += [asdict(row) for row in rows]
        wrong = [row for row in rows if row.way.startswith("ours") and not fair(row, found)]
        found["right"] = found["right"] and not wrong
        for row in rows:
            say(sentence(row) + ("  WRONG" if row in wrong else ""))
        keep(found)
    return found


def fair(row: Row, found: dict[str, Any]) -> bool:
    """Whether a row's error is one of rounding: below 1e-3, or below thrice the plain loop's at the
    same shot and precision, which knows MAML. True where there is nothing to judge.
    """
    if row.gradient_error is None or row.gradient_error < ROUNDING:
        return True
    plain_ones = [
        one["gradient_error"]
        for one in found["rows"]
        if (one["way"], one["shot"], one["precision"]) == ("plain", row.shot, row.precision)
    ]
    return not plain_ones or row.gradient_error < 3 * (plain_ones[0] or math.inf)


def sentence(row: Row) -> str:
    """A row for people."""
    head = f"{row.geometry} {row.shot}-shot {row.precision} {row.way}: "
    return head + ", ".join(filter(None, cells(row)))


def cells(row: Row) -> list[str]:
    """Its numbers: milliseconds, iterations a second, ratio, GiB, shares of the ceilings, error."""
    if row.seconds is None or row.gradient_error is None:
        return [str(row.problem), *[""] * 6]
    return [
        f"{1e3 * row.seconds:.1f} ms",
        f"{1 / row.seconds:.1f} it/s",
        "" if row.ratio is None else f"{row.ratio:.2f} x",
        "" if row.gibibytes is None else f"{row.gibibytes:.2f} GiB",
        f"{row.convolution_share:.0%} of the convolution's rate",
        f"{row.copy_share:.0%} of the copy's",
        f"gradient error {row.gradient_error:.1e}",
    ]


def table(found: dict[str, Any]) -> Table:
    """A record as a table."""
    columns = ["way", "geometry", "shot", "precision", "time", "rate", "to ours", "memory"]
    columns += ["of convolution", "of copy", "meta-gradient"]
    rows = [Row(**row) for row in found["rows"]]
    short = [
        [row.way, row.geometry, str(row.shot), row.precision]
        + [re.sub(r" of the .*|gradient error ", "", cell) for cell in cells(row)]
        for row in rows
    ]
    right = "all checks right" if found["right"] else "a check is WRONG"
    note = (
        f"{right}; ceilings: copy {found['ceilings']['copy'] / 1e9:.0f} GB/s, convolution "
        + ", ".join(
            f"{r / 1e12:.1f} TFLOP/s {k}" for k, r in found["ceilings"]["convolution"].items()
        )
    )
    return Table(f"{found['card']}, torch {found['torch']}", columns, short, note)


def main(
    *,
    minutes: float,
    size: Size,
    names: Sequence[str],
    shots: Sequence[int],
    records: Path,
    say: Say,
    show: Callable[[Table], None],
) -> int:
    """All of it on the first card; the exit code: 2 without one, 1 where something is wrong."""
    device = card()
    if device is None:
        say(NO_CARD)
        return 2
    folder = records / "gpu"

    def keep(found: dict[str, Any]) -> None:
        found["finished"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        folder.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"[^a-z0-9]+", "-", found["card"].lower()).strip("-")
        (folder / f"{name}.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        seal(folder)

    found = report(
        device, minutes=minutes, size=size, recorder=recorder_for(device), say=say, names=names,
        shots=shots, keep=keep,
    )  # fmt: skip
    keep(found)
    show(table(found))
    return 0 if found["right"] else 1


def card() -> torch.device | None:
    """The first card, if any."""
    if not torch.cuda.is_available():
        return None
    return torch.device("cuda", torch.cuda.current_device())


def recorder_for(device: torch.device) -> Recorder:
    """What turns an iteration into a graph there."""
    return CudaRecorder(device)
