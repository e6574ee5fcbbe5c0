"""What an estimator of the meta-gradient is, and how it runs over several tasks."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import vmap

from mdtheory.core import tree
from mdtheory.core.registry import Registry
from mdtheory.core.types import Episode, MetaGradient, Params
from mdtheory.inner.problem import Problem
from mdtheory.inner.solver import noise_of

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
    """``estimator(problem, meta, episodes)``: the mean over tasks of the gradient of the surrogate
    that it declares.

    ``batched``: compute tasks at once by vmap over *whole task gradients* (never differentiate
    through a vmap), ``chunk`` at a time, and add the chunks up; otherwise one task after the other.
    The numbers are the same up to rounding. Without a ``chunk`` all tasks are tried, and half as
    many whenever the accelerator's memory does not suffice; what was found stays.

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

    def __init__(self, *, batched: bool = False, chunk: int | None = None):
        if chunk is not None and chunk < 1:
            raise ValueError(
                f"chunk must be at least 1 task, got {chunk}; leave it out to have it found"
            )
        self.batched, self.chunk = batched, chunk

    @abstractmethod
    def task_gradient(
        self, problem: Problem, meta: Params, episode: Episode, noise: Params
    ) -> TaskGradient:
        """The gradient for one task; pure, so that it can be vmapped."""

    def __call__(self, problem: Problem, meta: Params, episodes: Sequence[Episode]) -> MetaGradient:
        """Value, gradient and per-task statistics over the episodes. shapes of the statistics:
        (n_tasks,)
        """
        if not episodes:
            raise ValueError(
                "episodes must hold at least one task, got none; draw n_tasks >= 1 from a stream"
            )
        meta = tree.detach(meta)
        if not (self.batched and problem.geometry.vmappable):
            return self._looped(problem, meta, episodes)
        while True:
            size = min(self.chunk or len(episodes), len(episodes))
            try:
                return self._chunked(problem, meta, episodes, size)
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
            self.chunk = (
                size // 2
            )  # after the except clause, which would keep the failed attempt's tensors alive
            log.warning(
                "not enough memory for %d tasks at once: going on with %d", size, self.chunk
            )
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _looped(self, problem: Problem, meta: Params, episodes: Sequence[Episode]) -> MetaGradient:
        values, rows, total = (
            [],
            [],
            {name: torch.zeros_like(value) for name, value in meta.items()},
        )
        for episode in episodes:
            value, grads, stats = self.task_gradient(
                problem, meta, episode, noise_of(problem, episode)
            )
            for name, gradient in grads.items():
                total[name] += gradient.detach() / len(episodes)
            values.append(value.detach())
            rows.append(tree.detach(stats))
        return MetaGradient(
            torch.stack(values).mean(),
            total,
            {key: torch.stack([row[key] for row in rows]) for key in rows[0]},
        )

    def _chunked(
        self, problem: Problem, meta: Params, episodes: Sequence[Episode], size: int
    ) -> MetaGradient:
        """The mean over tasks, ``size`` of them at a time; one chunk's gradients are in memory at
        once.
        """
        parts = [episodes[start : start + size] for start in range(0, len(episodes), size)]
        first = self._vmapped(problem, meta, parts[0])
        if len(parts) == 1:
            return first
        total, values, rows = (
            {name: len(parts[0]) * g for name, g in first.grads.items()},
            [first.value],
            [first.stats],
        )
        for part in parts[1:]:
            found = self._vmapped(problem, meta, part)
            for name, g in found.grads.items():
                total[name] += len(part) * g
            values.append(found.value)
            rows.append(found.stats)
        weighted = [
            len(part) / len(episodes) * value for part, value in zip(parts, values, strict=True)
        ]
        return MetaGradient(
            torch.stack(weighted).sum(),
            {name: g / len(episodes) for name, g in total.items()},
            {key: torch.cat([row[key] for row in rows]) for key in first.stats},
        )

    def _vmapped(self, problem: Problem, meta: Params, episodes: Sequence[Episode]) -> MetaGradient:
        fields = ("support_x", "support_y", "query_x", "query_y")
        data = tuple(
            torch.stack([getattr(episode, name) for episode in episodes]) for name in fields
        )
        drawn = [noise_of(problem, episode) for episode in episodes]
        noise = {name: torch.stack([row[name] for row in drawn]) for name in drawn[0]}

        def one(tensors: tuple[Tensor, ...], own_noise: Params) -> TaskGradient:
            return self.task_gradient(
                problem, meta, Episode(tensors[0], tensors[1], tensors[2], tensors[3]), own_noise
            )

        value, grads, stats = vmap(one)(data, noise)
        return MetaGradient(value.mean(), {name: g.mean(0) for name, g in grads.items()}, stats)
