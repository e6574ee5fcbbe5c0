"""Adapting to many tasks and scoring them, nothing kept for differentiation."""

from __future__ import annotations

import time
from typing import Any

from experiments.benchmarks.case import Work, episode
from experiments.benchmarks.implementations import OURS
from mdtheory.core.types import Episode
from mdtheory.meta.evaluate import evaluate

WARM_UP = 2  # tasks


class Stream:
    """Tasks from ``first`` on; ``seconds`` is what drawing them took."""

    def __init__(self, work: Work, first: int):
        self.work = work
        self.first = first
        self.seconds = 0.0

    def __call__(self, index: int) -> Episode:
        clock = time.perf_counter()
        drawn = episode(self.work.size, self.first + index, self.work.dtype)
        self.seconds += time.perf_counter() - clock
        return drawn


def accuracies(implementation: Any, work: Work, stream: Stream, n_tasks: int) -> list[float]:
    """By task: ours by the library's own ``evaluate``, any other by its ``accuracy``."""
    if work.implementation == OURS:
        scores = evaluate(implementation.learner, stream, n_tasks=n_tasks)
        if scores is None:
            raise RuntimeError("the evaluation must run to its end; nothing asked it to stop")
        return scores[0].accuracy.tolist()
    return [implementation.accuracy(stream(index)) for index in range(n_tasks)]


def run(work: Work, implementation: Any, *, first: int, n_tasks: int) -> dict[str, Any]:
    """Seconds for tasks ``first`` .. ``first + n_tasks - 1`` without the drawing, and their mean
    accuracy.
    """
    accuracies(implementation, work, Stream(work, 0), min(WARM_UP, n_tasks))
    stream = Stream(work, first)
    clock = time.perf_counter()
    found = accuracies(implementation, work, stream, n_tasks)
    return {
        "seconds": time.perf_counter() - clock - stream.seconds,
        "accuracy": sum(found) / n_tasks,
        "n_tasks": n_tasks,
    }
