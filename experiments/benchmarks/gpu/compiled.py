"""``torch.compile`` of one task's whole meta-gradient: what torch alone makes of the plain loop."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import functional_call, grad
from torch.nn.functional import cross_entropy

from experiments.benchmarks.case import Work
from experiments.benchmarks.network import Conv4
from mdtheory.core.types import Episode, Params

BACKEND = "inductor"
MINUTES = 3.0
"""What a compilation takes, about."""


class Compiled:
    """Inner and outer ``torch.func.grad`` in one closure, task after task."""

    def __init__(self, work: Work, weights: Params):
        network = Conv4(work.size, weights)
        self.weights = {name: value.detach() for name, value in weights.items()}

        def loss(own: Params, x: Tensor, y: Tensor) -> Tensor:
            return cross_entropy(functional_call(network, own, (x,)), y)

        def objective(
            own: Params, x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor
        ) -> Tensor:
            for _ in range(work.size.n_steps):
                slopes = grad(loss)(own, x, y)
                own = {
                    name: value - work.size.task_lr * slopes[name] for name, value in own.items()
                }
            return loss(own, query_x, query_y)

        self.one = torch.compile(grad(objective), backend=BACKEND)

    def meta_gradient(self, episodes: Sequence[Episode]) -> Params:
        """The mean over tasks."""
        total = {name: torch.zeros_like(value) for name, value in self.weights.items()}
        for task in episodes:
            found = self.one(
                self.weights, task.support_x, task.support_y, task.query_x, task.query_y
            )
            for name, value in found.items():
                total[name] += value / len(episodes)
        return total
