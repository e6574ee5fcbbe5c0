"""``higher``: the loop of its README."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import cross_entropy

from experiments.benchmarks.case import Work
from experiments.benchmarks.implementations import Variant, gradients, implementations
from experiments.benchmarks.network import Conv4
from mdtheory.core.types import Episode, Params


@implementations.register("higher")
class Higher:
    """``innerloop_ctx`` over torch's SGD."""

    methods = ("maml",)
    variants = (Variant(),)
    package = "higher"

    def __init__(self, work: Work, weights: Params):
        import higher

        self.higher = higher
        self.size = work.size
        self.network = Conv4(work.size, weights)
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=work.size.task_lr)

    def meta_gradient(self, episodes: Sequence[Episode]) -> Params:
        """By backward passes, task after task."""
        for episode in episodes:
            with self.higher.innerloop_ctx(
                self.network, self.optimizer, copy_initial_weights=False
            ) as (network, optimizer):
                for _ in range(self.size.n_steps):
                    optimizer.step(cross_entropy(network(episode.support_x), episode.support_y))
                (
                    cross_entropy(network(episode.query_x), episode.query_y) / len(episodes)
                ).backward()
        return gradients(dict(self.network.named_parameters()))
