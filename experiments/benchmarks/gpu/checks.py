"""Whether meta-iterations on this card are right: in float64, before anything is timed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import count
from typing import Any

import torch
from torch.optim import Optimizer

from experiments.benchmarks.case import Size, episodes
from mdtheory.core.types import Episode, Params
from mdtheory.kernels import plain
from mdtheory.meta import MetaLearner
from mdtheory.meta.captured import CapturedIterations, Recorder
from mdtheory.meta.clip import Clipping
from mdtheory.meta.restore import short
from mdtheory.models import models

ITERATIONS = 3
"""Recorded and eager ones that are compared."""


def learner(name: str, size: Size, device: torch.device, dtype: torch.dtype) -> MetaLearner:
    """A geometry on the benchmark's Conv4, with the first weights of everybody."""
    network = models.get("conv4")(
        image_size=size.image_size, n_way=size.n_way, channels=size.channels, seed=size.seed
    )
    network = network.to(device=device, dtype=dtype)
    return MetaLearner(network, name, n_steps=size.n_steps, task_lr=size.task_lr, probe="off")


def drawn(size: Size, device: torch.device, dtype: torch.dtype) -> list[Episode]:
    """The tasks of a meta-iteration, on the device."""
    return [one.to(device=device) for one in episodes(size, dtype)]


def relative(found: Params, expected: Params) -> float:
    """|found - expected| / |expected| over everything expected; what is missing counts as 0."""
    gaps = [
        (found[n].double() if n in found else torch.zeros_like(g)).sub(g).square().sum()
        for n, g in expected.items()
    ]
    whole = [g.square().sum() for g in expected.values()]
    return float(torch.stack(gaps).sum() / torch.stack(whole).sum().clamp(min=1e-300)) ** 0.5


def correctness(
    device: torch.device, size: Size, names: list[str], recorder: Recorder
) -> Iterator[tuple[str, float]]:
    """Relative errors in float64: the meta-gradient with the kernels, in a loop and under vmap,
    against ordinary operations; and what a few recorded iterations make of the parameters, against
    eager ones.
    """
    tasks = drawn(size, device, torch.float64)
    for name in names:
        try:
            yield from _of(name, size, tasks, recorder)
        except Exception as problem:  # noqa: BLE001 - it counts as wrong, and the others go on
            yield f"{name}: {short(problem)}", math.inf


def _of(
    name: str, size: Size, tasks: list[Episode], recorder: Recorder
) -> Iterator[tuple[str, float]]:
    """Of one geometry."""
    own = learner(name, size, tasks[0].support_x.device, torch.float64)
    with plain():
        expected = own.meta_gradient(tasks).grads
    what = f"{name} of {size.image_size} pixels"
    for way, batched in (("loop", False), ("vmap", True)):
        own.estimator.batched = batched and own.geometry.vmappable
        yield f"{what}, {way}", relative(own.meta_gradient(tasks).grads, expected)
    if own.geometry.capturable:
        yield f"{what}, recorded", _recorded(name, size, tasks, recorder)


def _recorded(name: str, size: Size, tasks: list[Episode], recorder: Recorder) -> float:
    device, results = tasks[0].support_x.device, []
    for recorded in (False, True):
        own = learner(name, size, device, torch.float64)
        own.estimator.batched = own.geometry.vmappable
        # not Adam, which on a graph raises its powers in float32
        optimizer = torch.optim.SGD(own.meta().values(), lr=0.01)
        step = stepping(own, tasks, optimizer, recorder if recorded else None)
        done = 0
        while done < ITERATIONS:
            done += step(ITERATIONS - done)
        results.append({key: value.detach().clone() for key, value in own.meta().items()})
    return relative(results[1], results[0])


def stepping(
    own: MetaLearner, tasks: list[Episode], optimizer: Optimizer, recorder: Recorder | None
) -> Any:
    """step(n) -> how many meta-iterations it has done, n at most: one at a time, or with a
    ``recorder`` as many as are between two readings. One has been done before.
    """

    def eager(_: int = 1) -> int:
        optimizer.zero_grad()
        own.accumulate(own.meta_gradient(tasks))
        optimizer.step()
        return 1

    eager()
    if recorder is None:
        return eager
    graph = CapturedIterations(
        own,
        lambda index: tasks[index % len(tasks)],
        n_tasks=len(tasks),
        clipping=Clipping(),
        optimizer=optimizer,
        scheduler=None,
        recorder=recorder,
    )
    first = count()
    return lambda n: len(graph.run(next(first), n))
