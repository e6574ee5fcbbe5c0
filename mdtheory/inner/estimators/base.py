"""What an estimator of the meta-gradient is, and how it runs over several tasks."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from mdtheory.core import tree
from mdtheory.core.registry import Registry
from mdtheory.core.stop_gradient import Tape, recording, replaying
from mdtheory.core.types import MetaGradient, Params
from mdtheory.inner.batching import at_once, over_tasks
from mdtheory.inner.problem import Problem
from mdtheory.inner.task import Task
from mdtheory.kernels.many import means

log = logging.getLogger(__name__)

estimators: Registry[Estimator] = Registry("estimator", "mdtheory.inner.estimators")
"""Every known estimator, by slug."""

build = estimators.build


class TaskGradient(NamedTuple):
    """One task's share: the surrogate's value, its gradient by meta-parameter, and scalar
    statistics.
    """

    value: Tensor
    grads: Params
    stats: Params


class Estimator(ABC):
    """``estimator(problem, meta, tasks)``: the mean over tasks of the gradient of the surrogate
    that it declares.

    ``batched``: compute tasks at once by vmap over *whole task gradients* (never differentiate
    through a vmap), ``chunk`` at a time, and add the chunks up; otherwise one task after the other.
    The numbers are the same up to rounding. Where torch cannot (recurrent layers, branches on
    values), and for tasks of unequal sizes, it loops. Without a ``chunk`` all tasks are tried, and
    half as many whenever the accelerator's memory does not suffice; what was found stays.

    A subclass defines :meth:`surrogate` and :meth:`task_gradient`; the contract differentiates the
    first numerically and compares it with the second.

    shapes: a gradient has the meta-parameter's.

    >>> import torch, mdtheory
    >>> x, y = torch.eye(2), torch.tensor([0, 1])
    >>> both = []
    >>> for estimator in (mdtheory.estimators.Unrolled(), mdtheory.estimators.Stepwise()):
    ...     network = mdtheory.models.MLP(in_features=2, n_way=2, hidden=(4,), activation="tanh")
    ...     learner = mdtheory.MetaLearner(network, n_steps=2, estimator=estimator)
    ...     both.append(learner.meta_gradient([mdtheory.Episode(x, y, x, y)]).grads)
    >>> all(torch.allclose(both[0][name], both[1][name], atol=1e-6) for name in both[0])
    True
    """

    needs_penalty = False  # True: only for geometries with a task penalty R(phi; theta)
    first_order = False  # True: takes no second derivative of the task loss
    unbatchable = False  # found on the way: these tasks cannot be vmapped, and are looped over
    can_batch = True  # False: tasks are always looped over, since a step reads values on the host

    def __init__(self, *, batched: bool = False, chunk: int | None = None):
        if chunk is not None and chunk < 1:
            raise ValueError(
                f"chunk must be at least 1 task, got {chunk}; leave it out to have it found"
            )
        if batched and not self.can_batch:
            raise ValueError(
                f"batched must be False for {type(self).__name__}, which loops over tasks, got "
                "True; leave it out"
            )
        self.batched = batched
        self.chunk = chunk

    @abstractmethod
    def surrogate(
        self, problem: Problem, meta: Params, task: Task, noise: Params
    ) -> tuple[Tensor, Params]:
        """The scalar whose gradient by ``meta`` this estimator returns for one task, and
        statistics. shape: ()

        Whatever it holds constant goes through :func:`mdtheory.core.stop_gradient.stop_gradient`.
        """

    @abstractmethod
    def task_gradient(
        self, problem: Problem, meta: Params, task: Task, noise: Params
    ) -> TaskGradient:
        """The gradient of :meth:`surrogate` for one task; pure, so that it can be vmapped."""

    def record_tape(self, problem: Problem, meta: Params, task: Task, noise: Params) -> Tape:
        """The values at ``meta`` of everything that :meth:`surrogate` stops there."""
        with recording() as tape:
            self.surrogate(problem, tree.detach(meta), task, noise)
        return tape

    def value(
        self,
        problem: Problem,
        meta: Params,
        task: Task,
        noise: Params,
        *,
        tape: Tape | None = None,
    ) -> Tensor:
        """The surrogate alone. shape: ()

        With a ``tape``, everything stopped keeps its recorded value: the derivative at the recorded
        ``meta`` is then a plain one, which finite differences can check.
        """
        with nullcontext() if tape is None else replaying(tape):
            return self.surrogate(problem, meta, task, noise)[0]

    def __call__(self, problem: Problem, meta: Params, tasks: Sequence[Task]) -> MetaGradient:
        """Value, gradient and per-task statistics over the tasks. shapes of the statistics:
        (n_tasks,)
        """
        if not tasks:
            raise ValueError(
                "tasks must hold at least one task, got none; draw n_tasks >= 1 from a stream"
            )
        meta = tree.detach(meta)
        if not at_once(problem, tasks, asked=self.batched and not self.unbatchable):
            return self._looped(problem, meta, tasks)
        while True:
            size = min(self.chunk or len(tasks), len(tasks))
            try:
                return self._chunked(problem, meta, tasks, size)
            except torch.OutOfMemoryError:
                if size == 1 or _recording():
                    raise
            except (RuntimeError, ValueError) as error:
                if _recording():
                    raise
                # what torch cannot vmap: recurrent layers, branches on values, writing into zeros
                result = self._looped(problem, meta, tasks)
                self.unbatchable = True
                said = (str(error).splitlines() or [""])[0]
                log.warning("the model cannot be batched, tasks are solved one by one: %s", said)
                return result
            # after the except clause, which would keep the failed attempt's tensors alive
            self.chunk = size // 2
            log.warning(
                "not enough memory for %d tasks at once: going on with %d", size, self.chunk
            )
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _looped(self, problem: Problem, meta: Params, tasks: Sequence[Task]) -> MetaGradient:
        values, rows = [], []
        total = {name: torch.zeros_like(value) for name, value in meta.items()}
        for task in tasks:
            value, grads, stats = self.task_gradient(problem, meta, task, problem.noise(meta, task))
            for name, gradient in grads.items():
                total[name] += gradient.detach() / len(tasks)
            values.append(value.detach())
            rows.append(tree.detach(stats))
        return MetaGradient(
            torch.stack(values).mean(),
            total,
            {key: torch.stack([row[key] for row in rows]) for key in rows[0]},
        )

    def _chunked(
        self, problem: Problem, meta: Params, tasks: Sequence[Task], size: int
    ) -> MetaGradient:
        """The mean over tasks, ``size`` of them at a time; one chunk's gradients are in memory at
        once.
        """
        parts = [tasks[start : start + size] for start in range(0, len(tasks), size)]
        first = self._vmapped(problem, meta, parts[0])
        if len(parts) == 1:
            return first
        total = {name: len(parts[0]) * g for name, g in first.grads.items()}
        values = [first.value]
        rows = [first.stats]
        for part in parts[1:]:
            found = self._vmapped(problem, meta, part)
            for name, g in found.grads.items():
                total[name] += len(part) * g
            values.append(found.value)
            rows.append(found.stats)
        weighted = [
            len(part) / len(tasks) * value for part, value in zip(parts, values, strict=True)
        ]
        return MetaGradient(
            torch.stack(weighted).sum(),
            {name: g / len(tasks) for name, g in total.items()},
            {key: torch.cat([row[key] for row in rows]) for key in first.stats},
        )

    def _vmapped(self, problem: Problem, meta: Params, tasks: Sequence[Task]) -> MetaGradient:
        def one(row: Sequence[Task], noise: Params) -> TaskGradient:
            return self.task_gradient(problem, meta, row[0], noise)

        value, grads, stats = over_tasks(one, problem, meta, [[task] for task in tasks])
        return MetaGradient(value.mean(), means(grads), stats)


def _recording() -> bool:
    """Whether operations go into a CUDA graph now, where nothing may be tried twice."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
