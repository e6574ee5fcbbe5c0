"""How long measurements will take, roughly, and a bar on stderr that says so."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from experiments.benchmarks.case import Size
from experiments.benchmarks.lower_bound import convolution_flops

PROCESS = 5.0  # seconds to start one and to import torch
USUAL = 5e10  # operations a second of an unfused meta-iteration


class Tell(Protocol):
    """Hears what is measured next, and how many seconds that is expected to take."""

    def __call__(self, what: str, expected: float = PROCESS) -> None: ...


def of_iteration(size: Size, seconds: float) -> float:
    """One process with a first iteration and as many as fit into ``seconds``."""
    once = convolution_flops(size) / USUAL
    return PROCESS + once + max(once, seconds)


def of_reference(size: Size) -> float:
    """The exact gradient in float64."""
    return PROCESS + 3 * convolution_flops(size) / USUAL


def of_evaluation(size: Size, n_tasks: int) -> float:
    """Adaptation without its derivative."""
    return PROCESS + n_tasks / size.n_tasks * convolution_flops(size) / USUAL / 2


class Count:
    """Adds up what would be done, without doing it."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.things = 0

    def __call__(self, what: str, expected: float = PROCESS) -> None:
        """One thing more."""
        self.seconds = self.seconds + expected
        self.things = self.things + 1


@contextmanager
def bar(whole: Count) -> Iterator[Tell]:
    """Count, rate and time left, the time by what the things done were expected to take; lines
    where stderr is no terminal.
    """
    from rich import progress as rich
    from rich.console import Console

    console = Console(stderr=True)
    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(bar_width=20),
        rich.TextColumn("{task.fields[said]}"),
    )
    done, begun = Count(), time.monotonic()
    with rich.Progress(*columns, console=console, disable=not console.is_terminal) as shown:
        task = shown.add_task("", total=whole.seconds, said="")

        def tell(what: str, expected: float = PROCESS) -> None:
            passed = time.monotonic() - begun
            said = f"{done.things + 1}/{whole.things}"
            if done.seconds:
                left = (whole.seconds - done.seconds) * passed / done.seconds
                said += f", {60 * done.things / passed:.1f}/min, {_time(left)} left"
            shown.update(task, completed=done.seconds, description=what, said=said)
            if not console.is_terminal:
                sys.stderr.write(f"[{said}] {what}\n")
            done(what, expected)

        yield tell
        shown.update(task, completed=whole.seconds)


def _time(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
