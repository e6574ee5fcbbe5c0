"""TorchOpt: the loop of its MAML example, with ``MetaSGD`` (its name for a differentiable SGD)."""

from __future__ import annotations

from collections.abc import Sequence

from torch.nn.functional import cross_entropy

from experiments.benchmarks.case import Work
from experiments.benchmarks.implementations import Variant, gradients, implementations
from experiments.benchmarks.network import Conv4
from mdtheory.core.types import Episode, Params


@implementations.register("torchopt")
class TorchOpt:
    """The state of network and optimizer is taken before, and put back after, every task."""

    methods = ("maml",)
    variants = (Variant(),)
    package = "torchopt"

    def __init__(self, work: Work, weights: Params):
        import torchopt

        self.torchopt = torchopt
        self.size = work.size
        self.network = Conv4(work.size, weights)
        self.weights: Params = dict(self.network.named_parameters())
        self.optimizer = torchopt.MetaSGD(self.network, lr=work.size.task_lr)

    def meta_gradient(self, episodes: Sequence[Episode]) -> Params:
        """By backward passes, task after task."""
        network = self.torchopt.extract_state_dict(
            self.network, by="reference", detach_buffers=True
        )
        optimizer = self.torchopt.extract_state_dict(self.optimizer, by="reference")
        for episode in episodes:
            for _ in range(self.size.n_steps):
                self.optimizer.step(
                    cross_entropy(self.network(episode.support_x), episode.support_y)
                )
            (
                cross_entropy(self.network(episode.query_x), episode.query_y) / len(episodes)
            ).backward()
            self.torchopt.recover_state_dict(self.network, network)
            self.torchopt.recover_state_dict(self.optimizer, optimizer)
        return gradients(self.weights)
