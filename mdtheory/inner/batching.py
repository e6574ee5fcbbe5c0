"""Several tasks at once or one after the other: the policy, and the vmap, stand here alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import TypeVar

import torch
from torch.func import vmap

from mdtheory.core.inputs import leaves, map_inputs
from mdtheory.core.types import Params
from mdtheory.inner.problem import Problem
from mdtheory.inner.task import Task

T = TypeVar("T")

_vmapping: ContextVar[bool] = ContextVar("vmapping", default=False)


def vmapping() -> bool:
    """Whether this runs inside :func:`over_tasks`, where only functional gradients can be taken."""
    return _vmapping.get()


def at_once(problem: Problem, tasks: Sequence[Task] = (), *, asked: bool) -> bool:
    """Whether tasks are solved by one vmap: where this is asked for, the geometry allows it and
    their tensors have equal shapes.
    """
    return asked and problem.geometry.vmappable and len({_shapes(task) for task in tasks}) < 2


def over_tasks(
    function: Callable[[Sequence[Task], Params], T],
    problem: Problem,
    meta: Params,
    rows: Sequence[Sequence[Task]],
) -> T:
    """``vmap`` of function(row, noise) over rows, each one task or several views of it with the
    same support set; results stacked first.

    Errors: ``ValueError`` for tasks that hold no tensors to stack, or tensors of different shapes.
    """
    views = rows[0]
    stacked = [_stacked([row[i] for row in rows]) for i in range(len(views))]
    drawn = [problem.noise(meta, row[0]) for row in rows]
    noise = {name: torch.stack([own[name] for own in drawn]) for name in drawn[0]}

    def one(tensors: list[Params], own_noise: Params) -> T:
        pairs = zip(views, tensors, strict=True)
        return function([task.with_tensors(own) for task, own in pairs], own_noise)

    token = _vmapping.set(True)
    try:
        return vmap(one)(stacked, noise)
    finally:
        _vmapping.reset(token)


def _stacked(tasks: Sequence[Task]) -> Params:
    """The tensors of tasks of one kind and shape. shapes: (n_tasks, ...)"""
    held = [own for task in tasks if (own := task.tensors()) is not None]
    if len(held) < len(tasks):
        raise ValueError(
            f"tasks solved at once must hold tensors, got {type(tasks[0]).__name__}; use an "
            "estimator with batched=False"
        )
    shapes = {_shapes(task) for task in tasks}
    if len(shapes) > 1:
        raise ValueError(
            "tasks solved at once must have the same numbers of items, got tensors of shapes "
            f"{' and '.join(map(str, sorted(shapes)))}; use an estimator with batched=False"
        )
    return {
        name: map_inputs(lambda *own: torch.stack(own), *(one[name] for one in held))
        for name in held[0]
    }


def _shapes(task: Task) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(part.shape) for part in leaves(task.tensors() or {}))
