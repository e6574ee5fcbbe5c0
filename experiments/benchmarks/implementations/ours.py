"""This library: :class:`mdtheory.meta.MetaLearner`, as its users call it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from experiments.benchmarks.case import METHODS, Work
from experiments.benchmarks.implementations import OURS, Variant, implementations
from experiments.benchmarks.network import Conv4
from mdtheory.core.types import Episode, Params
from mdtheory.meta import MetaLearner
from mdtheory.models import models

DEFAULT = "unrolled"

VARIANTS = (Variant(DEFAULT), Variant("stepwise"))
"""What is measured of ours, the first as the yardstick. One entry more for another estimator, or
for another precision (which :class:`Ours` must then hand to the learner); the judgement, the floor
and all tables follow."""


@implementations.register(OURS)
class Ours:
    """Any geometry with its defaults."""

    methods = METHODS
    variants = VARIANTS
    package = "mdtheory"

    def __init__(self, work: Work, weights: Params):
        size = work.size
        self.learner = MetaLearner(
            self.network(work, weights),
            work.method,
            n_steps=size.n_steps,
            task_lr=size.task_lr,
            estimator=work.estimator or DEFAULT,
        )
        self.method = work.method
        self.task_lr = size.task_lr

    def network(self, work: Work, weights: Params) -> nn.Module:
        """The library's own ``conv4``."""
        size = work.size
        network = models.get("conv4")(
            in_channels=3, image_size=size.image_size, n_way=size.n_way, channels=size.channels
        )
        network.to(work.dtype).load_state_dict({**network.state_dict(), **weights})
        return network

    def meta_gradient(self, episodes: Sequence[Episode]) -> Params:
        """MetaSGD's rate is task_lr exp(a), so that at a = 0 its gradient is that of ``a`` over
        task_lr.
        """
        found = {}
        for name, value in self.learner.meta_gradient(episodes).grads.items():
            if self.method == "metasgd" and ".scale." in name:
                found["rate." + name.partition(".scale.")[2]] = value / self.task_lr
            else:
                found[name.removeprefix("anchor.")] = value
        return found

    def query_loss(self, episodes: Sequence[Episode]) -> float:
        """The meta-objective: what finite differences are taken of."""
        return float(self.learner.meta_gradient(episodes).value)

    def live(self) -> Params:
        """The meta-parameters by the names of :meth:`meta_gradient` (not for MetaSGD): values to
        move in place.
        """
        return {name.removeprefix("anchor."): value for name, value in self.learner.meta().items()}


class OursInPlainTorch(Ours):
    """The same with the network that the others get: what judges the geometries that no other
    library has.
    """

    def network(self, work: Work, weights: Params) -> nn.Module:
        """Torch's own layers, none of the library's kernels."""
        return Conv4(work.size, weights)
