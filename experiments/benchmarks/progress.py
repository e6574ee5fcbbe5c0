"""How long measurements will take, roughly, and a bar on stderr that says so."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol

from experiments.benchmarks.case import Size
from experiments.benchmarks.lower_bound import convolution_flops
from mdtheory.core.progress import ProgressBar, say

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
    """A bar over the seconds that all of it is expected to take; lines where stderr is no
    terminal.
    """
    done, total = Count(), round(whole.seconds)
    shown = ProgressBar("seconds", total=total) if sys.stderr.isatty() else None

    def tell(what: str, expected: float = PROCESS) -> None:
        said = f"{done.things + 1}/{whole.things} {what}"
        if shown is None:
            say(f"{said}, {timedelta(seconds=total - round(done.seconds))} left")
        else:
            shown.update(round(done.seconds), note=said)
        done(what, expected)

    try:
        yield tell
    finally:
        if shown is not None:
            shown.close()
