"""A benchmark so small that a test can run it, in this process."""

from __future__ import annotations

import json
from typing import Any

import pytest

from experiments.benchmarks import bench, worker
from experiments.benchmarks.case import Size
from experiments.benchmarks.implementations import implementations
from experiments.benchmarks.measurements import BenchRecord, Settings, Truth

SIZE = Size(n_steps=1, channels=2, image_size=16, n_way=2, n_query=2, n_tasks=2)
WRONG = '''
"""The plain loop without its second derivatives."""
from experiments.benchmarks.implementations import Variant, implementations
from experiments.benchmarks.implementations.plain import Plain

@implementations.register("planted-wrong")
class Wrong(Plain):
    methods, variants, package = ("maml",), (Variant(),), None

    def adapted(self, episode, *, differentiable):
        found = super().adapted(episode, differentiable=False)
        pairs = zip(self.weights.items(), found.values())
        return {n: w + (value - value.detach()) for (n, value), w in pairs}
'''
ABSENT = '''
"""Needs a library that nobody has."""
from experiments.benchmarks.implementations import Variant, implementations

@implementations.register("planted-absent")
class Absent:
    methods, variants, package = ("maml",), (Variant(),), "no-such-library"

    def __init__(self, work, weights):
        import no_such_library
'''


def settings(*implementation: str, **changes: Any) -> Settings:
    """One size, one round, the plain loop and ours besides what is named."""
    chosen = {
        "methods": ("maml",),
        "shots": (1,),
        "steps": (1,),
        "rounds": 1,
        "seconds": 0.0,
        "threads": 1,
        "size": SIZE,
    }
    return Settings(implementations=("plain", *implementation, "ours"), **{**chosen, **changes})


def isolated(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Jobs run here instead of in processes; the list of them, as they come. What a test registers
    is forgotten.
    """
    implementations.names()
    monkeypatch.setattr(implementations, "_factories", dict(implementations._factories))
    monkeypatch.setattr(worker, "limit_memory", lambda: None)
    monkeypatch.setattr(worker, "import_all", lambda work: None)
    monkeypatch.setattr(worker, "memory_so_far", lambda: 0)
    jobs: list[dict[str, Any]] = []

    def here(self: bench.Workers, do: str, **job: Any) -> dict[str, Any]:
        jobs.append({"do": do, **job})
        try:
            return json.loads(json.dumps(worker.JOBS[do](json.loads(json.dumps(job)))))
        except ImportError as error:
            return {"unavailable": str(error)}
        except RuntimeError as error:
            raise bench.Failed(str(error)) from None

    monkeypatch.setattr(bench.Workers, "__call__", here)
    return jobs


def believed(own: Settings) -> BenchRecord:
    """A record in which finite differences have found every implementation right: they need not be
    taken again.
    """
    found = [
        Truth(implementation=w.implementation, method=w.method, estimator=w.estimator, error=0.0)
        for w in bench.judged(own)
    ]
    return bench.blank(own).model_copy(update={"truths": tuple(found)})


def run(record: BenchRecord) -> BenchRecord:
    """Whatever is missing in it."""
    return bench.run(record, tell=lambda what, expected=0.0: None)
