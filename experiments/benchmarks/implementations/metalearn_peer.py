"""parallel-metalearn (imported as ``metalearn``): tasks at once by ``vmap``, its default, and its
sequential backend.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from experiments.benchmarks.case import Work
from experiments.benchmarks.implementations import Variant, gradients, implementations
from experiments.benchmarks.network import Conv4
from mdtheory.core.types import Episode, Params

BACKBONE, HEAD = "backbone.inside.", "head.inside."


class Deaf(nn.Module):
    """A module that ignores the keywords which the library hands to every part of a network."""

    def __init__(self, inside: nn.Module):
        super().__init__()
        self.inside = inside

    def forward(self, x: Tensor, **_: Any) -> Tensor:
        """The module's own outputs. shape: as the module's"""
        return self.inside(x)


class ParallelMetaLearn:
    """Its ``MAML`` with a fixed ``InnerSGD``; ``step`` ends with an optimizer's step, here of
    length 0.
    """

    methods = ("maml",)
    variants = (Variant(),)
    package = "parallel-metalearn"
    backend = "vmap"

    def __init__(self, work: Work, weights: Params):
        from metalearn.inner_optimizers import InnerSGD
        from metalearn.loss import CategoricalAccuracy, CrossEntropy
        from metalearn.model_wrappers import MAML_Model

        algorithm = importlib.import_module("metalearn.algorithms.MAML").MAML
        self.size = work.size
        network = self.network(work, weights)
        model = MAML_Model(backbone=Deaf(network.blocks), head=Deaf(network.classifier))
        self.named = dict(model.named_parameters())
        self.learner = algorithm(
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.0),
            inner_optimizer=InnerSGD(
                initial_fast_weights=model.get_fast_weights(),
                inner_lr=work.size.task_lr,
                max_inner_steps=max(1, work.size.n_steps),
                learn_lr=False,
            ).to(next(iter(weights.values()))),
            support_loss_fn=CrossEntropy(metric_fn=CategoricalAccuracy()),
            inner_steps=work.size.n_steps,
            device=next(iter(weights.values())).device,
            backend=self.backend,
        )

    def network(self, work: Work, weights: Params) -> Conv4:
        """Torch's own layers."""
        return Conv4(work.size, weights)

    def meta_gradient(self, episodes: Sequence[Episode]) -> Params:
        """By its ``step``, all tasks handed over at once."""
        batch = (
            torch.stack([episode.support_x for episode in episodes]),
            {"labels": torch.stack([episode.support_y for episode in episodes])},
            torch.stack([episode.query_x for episode in episodes]),
            {"labels": torch.stack([episode.query_y for episode in episodes])},
        )
        self.learner.step(iter([batch]), training=True)
        return gradients({_plain_name(name): value for name, value in self.named.items()})


@implementations.register("parallel-metalearn")
class Parallel(ParallelMetaLearn):
    """Tasks at once, with the batch norm that the library brings for it: torch's own has wrong
    gradients under ``vmap``.
    """

    def network(self, work: Work, weights: Params) -> Conv4:
        """Its own normalisation in the place of torch's."""
        from metalearn.nn_models.basic_layers.BatchNormalization import BatchNorm

        network = Conv4(work.size, weights)
        for block in network.blocks:
            own = BatchNorm(work.size.channels, track_running_stats=False)
            own.to(block.norm.weight)
            own.load_state_dict(cast(nn.Module, block.norm).state_dict())
            block.norm = own
        return network


@implementations.register("parallel-metalearn-native-norm")
class ParallelNative(ParallelMetaLearn):
    """Tasks at once, with ``nn.BatchNorm2d`` as in everybody's networks."""


@implementations.register("parallel-metalearn-sequential")
class Sequential(ParallelMetaLearn):
    """One task after the other."""

    backend = "sequential"


def _plain_name(name: str) -> str:
    if name.startswith(BACKBONE):
        return "blocks." + name.removeprefix(BACKBONE)
    return "classifier." + name.removeprefix(HEAD)
