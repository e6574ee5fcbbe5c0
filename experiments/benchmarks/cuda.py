"""Meta-iterations on a GPU: first whether they are right, then a table of what they cost.

Runs unattended and without a network; what fails is a row that says so. Every number is of this
card and this process: the record carries the card's name.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from experiments.benchmarks.case import Size, episodes
from mdtheory.core.types import Episode, Params
from mdtheory.geometry import geometries
from mdtheory.kernels import plain
from mdtheory.kernels.precision import precision
from mdtheory.meta import MetaLearner
from mdtheory.meta.captured import CapturedIterations, CudaRecorder, Recorder
from mdtheory.meta.clip import Clipping
from mdtheory.models import models

NO_CARD = "there must be an NVIDIA GPU that torch can use, got none: run this on a machine with one"
WRONG = 1e-9
"""Relative error in float64 from which a meta-gradient is wrong."""


@dataclass(frozen=True)
class Row:
    """One way on one setting. ``seconds`` a meta-iteration; ``gibibytes`` at most held;
    ``gradient_error`` against float64 on ordinary operations; ``problem`` in place of numbers.
    """

    way: str
    geometry: str
    precision: str
    shot: int
    seconds: float | None = None
    gibibytes: float | None = None
    gradient_error: float | None = None
    problem: str | None = None


def correctness(device: torch.device, size: Size, names: list[str]) -> Iterator[tuple[str, float]]:
    """Relative errors in float64 of the meta-gradient with the kernels against ordinary operations,
    in a loop and under vmap.
    """
    drawn = [one.to(device=device) for one in episodes(size, torch.float64)]
    for name in names:
        own = learner(name, size, device, torch.float64)
        with plain():
            expected = own.meta_gradient(drawn).grads
        for way, batched in (("loop", False), ("vmap", True)):
            own.estimator.batched = batched and own.geometry.vmappable
            yield f"{name}, {way}", relative(own.meta_gradient(drawn).grads, expected)


def learner(name: str, size: Size, device: torch.device, dtype: torch.dtype) -> MetaLearner:
    network = models.get("conv4")(
        image_size=size.image_size, n_way=size.n_way, channels=size.channels, seed=size.seed
    )
    network = network.to(device=device, dtype=dtype)
    return MetaLearner(network, name, n_steps=size.n_steps, task_lr=size.task_lr, probe="off")


def relative(found: Params, expected: Params) -> float:
    """|found - expected| / |expected| over all meta-parameters."""
    gaps = sum(float((found[n].double() - g).square().sum()) for n, g in expected.items())
    whole = sum(float(g.square().sum()) for g in expected.values())
    return (gaps / max(whole, 1e-300)) ** 0.5


def measured(
    device: torch.device, size: Size, name: str, kind: str, recorder: Recorder, seconds: float
) -> Iterator[Row]:
    """Loop, vmap, and a recorded graph of the whole iteration."""
    drawn = [one.to(device=device) for one in episodes(size, torch.float32)]
    own = learner(name, size, device, torch.float64)
    doubled = [one.to(dtype=torch.float64) for one in drawn]
    with plain():
        exact = own.meta_gradient(doubled).grads
    for way in ("loop", "vmap", "recorded"):
        row = {"way": way, "geometry": name, "precision": kind, "shot": size.shot}
        _fresh(device)
        try:
            with precision(kind):
                own = learner(name, size, device, torch.float32)
                own.estimator.batched = way != "loop" and own.geometry.vmappable
                error = relative(own.meta_gradient(drawn).grads, exact)
                step = _step(own, drawn, way, recorder)
                spent = _time(step, device, seconds)
            yield Row(**row, seconds=spent, gibibytes=_held(device), gradient_error=error)
        except (RuntimeError, ValueError) as problem:
            yield Row(**row, problem=" ".join(str(problem).split())[:200])


def _step(
    own: MetaLearner, drawn: list[Episode], way: str, recorder: Recorder
) -> Callable[[], Any]:
    optimizer = torch.optim.Adam(own.meta().values())

    def eager() -> None:
        optimizer.zero_grad()
        own.accumulate(own.meta_gradient(drawn))
        optimizer.step()

    eager()
    if way != "recorded":
        return eager
    graph = CapturedIterations(
        own,
        lambda index: drawn[index % len(drawn)],
        n_tasks=len(drawn),
        clipping=Clipping(),
        optimizer=optimizer,
        scheduler=None,
        recorder=recorder,
    )
    return lambda: graph.run(0, 20)


def _time(step: Callable[[], Any], device: torch.device, seconds: float) -> float:
    """Seconds of one iteration: those of all over their number, after one that does not count."""
    step()
    _wait(device)
    since, done = time.perf_counter(), 0
    while done < 3 or time.perf_counter() - since < seconds:
        found = step()
        done += len(found) if isinstance(found, list) else 1
        _wait(device)
    return (time.perf_counter() - since) / done


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _fresh(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _held(device: torch.device) -> float | None:
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None


def settings(names: list[str]) -> Iterator[tuple[str, int, str]]:
    """Geometry, shot and precision, what matters most first: time may run out."""
    yield from (("maml", shot, kind) for shot in (1, 5) for kind in ("float32", "tf32"))
    for kind in ("float32", "tf32"):
        yield from ((name, 1, kind) for name in names if name != "maml")
    yield from ((name, 5, "float32") for name in names if name != "maml")


def report(
    device: torch.device,
    *,
    minutes: float,
    size: Size,
    recorder: Recorder,
    say: Callable[[str], None],
    names: list[str] | None = None,
) -> dict[str, Any]:
    """Check, measure as far as the time goes, and give all of it as plain data."""
    names = geometries.names() if names is None else names
    end = time.monotonic() + 60 * minutes
    small = size.model_copy(update={"image_size": 16, "channels": 8, "n_steps": 2, "n_query": 2})
    checks = {}
    for what, error in correctness(device, small, names):
        checks[what] = error
        say(f"{what}: relative error {error:.1e} in float64{'' if error < WRONG else '  WRONG'}")
    rows: list[Row] = []
    for name, shot, kind in settings(names):
        if time.monotonic() > end:
            say("the time is over: the rest is left out")
            break
        own = size.model_copy(update={"shot": shot})
        for row in measured(device, own, name, kind, recorder, seconds=min(2.0, minutes)):
            rows.append(row)
            say(sentence(row))
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "no card"
    return {
        "card": card,
        "torch": str(torch.__version__),
        "size": size.model_dump(),
        "checks": checks,
        "right": all(error < WRONG for error in checks.values()),
        "rows": [asdict(row) for row in rows],
    }


def sentence(row: Row) -> str:
    """A row for people."""
    head = f"{row.geometry} {row.shot}-shot {row.precision} {row.way}: "
    if row.seconds is None or row.gradient_error is None:
        return head + str(row.problem)
    room = "" if row.gibibytes is None else f", {row.gibibytes:.2f} GiB"
    return (
        f"{head}{1e3 * row.seconds:.1f} ms ({1 / row.seconds:.1f} it/s){room}, "
        f"gradient error {row.gradient_error:.1e}"
    )


def main(*, minutes: float, size: Size, records: Path, say: Callable[[str], None]) -> int:
    """All of it on the first card; the exit code: 2 without one, 1 where something is wrong."""
    if not torch.cuda.is_available():
        say(NO_CARD)
        return 2
    device = torch.device("cuda", torch.cuda.current_device())
    found = report(device, minutes=minutes, size=size, recorder=CudaRecorder(device), say=say)
    name = re.sub(r"[^a-z0-9]+", "-", found["card"].lower()).strip("-")
    records.mkdir(parents=True, exist_ok=True)
    file = records / f"cuda-{name}.json"
    file.write_text(json.dumps(found, indent=2) + "\n")
    say(f"recorded in {file.name}")
    return 0 if found["right"] else 1
