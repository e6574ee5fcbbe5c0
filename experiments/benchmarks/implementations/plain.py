"""The loop that a textbook shows: ``functional_call``, ``autograd.grad`` with ``create_graph``, one
task after the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import grad
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from experiments.benchmarks.case import Work
from experiments.benchmarks.implementations import PLAIN, Variant, gradients, implementations
from experiments.benchmarks.network import Conv4
from mdtheory.core.types import Episode, Params


@implementations.register(PLAIN)
class Plain:
    """MAML, and MetaSGD with one free rate for every coordinate."""

    methods = ("maml", "metasgd")
    variants = (Variant(),)
    package = "torch"

    def __init__(self, work: Work, weights: Params):
        self.size = work.size
        self.network = Conv4(work.size, weights)
        self.weights: Params = dict(self.network.named_parameters())
        self.rates: Params = {}
        if work.method == "metasgd":
            rates = {
                name: torch.full_like(value, work.size.task_lr) for name, value in weights.items()
            }
            self.rates = {name: value.requires_grad_() for name, value in rates.items()}

    def loss(self, weights: Params, x: Tensor, y: Tensor) -> Tensor:
        """The mean cross-entropy. shape: ()"""
        return cross_entropy(functional_call(self.network, weights, (x,)), y)

    def adapted(self, episode: Episode, *, differentiable: bool) -> Params:
        """The weights after the task's steps."""
        weights = self.weights
        for _ in range(self.size.n_steps):
            loss = self.loss(weights, episode.support_x, episode.support_y)
            steps = grad(loss, list(weights.values()), create_graph=differentiable)
            rates = [self.rates.get(name, self.size.task_lr) for name in weights]
            weights = {
                n: w - r * g for (n, w), r, g in zip(weights.items(), rates, steps, strict=True)
            }
            if not differentiable:
                weights = {name: value.detach().requires_grad_() for name, value in weights.items()}
        return weights

    def meta_gradient(self, episodes: Sequence[Episode]) -> Params:
        """By backward passes, task after task."""
        for episode in episodes:
            weights = self.adapted(episode, differentiable=True)
            (self.loss(weights, episode.query_x, episode.query_y) / len(episodes)).backward()
        return gradients(
            {**self.weights, **{f"rate.{name}": rate for name, rate in self.rates.items()}}
        )

    def query_loss(self, episodes: Sequence[Episode]) -> float:
        """The meta-objective without any derivative of it: what finite differences are taken of."""
        total = 0.0
        for episode in episodes:
            weights = self.adapted(episode, differentiable=False)
            with torch.no_grad():
                total += float(self.loss(weights, episode.query_x, episode.query_y))
        return total / len(episodes)

    def accuracy(self, episode: Episode) -> float:
        """The share of right answers after adaptation."""
        weights = self.adapted(episode, differentiable=False)
        with torch.no_grad():
            outputs = functional_call(self.network, weights, (episode.query_x,))
        return float((outputs.argmax(-1) == episode.query_y).float().mean())
