"""A linear classifier, and the small multilayer perceptron that contains it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from mdtheory.core.registry import unknown
from mdtheory.models.base import at_least, models, seeded

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "softplus": nn.Softplus}


@models.register("mlp")
class MLP(nn.Module):
    """Flatten, hidden ``layers`` of linear and activation, a linear ``classifier``. shapes: (N,
    ...) -> (N, n_way)

    ``in_features``: the numbers in one item; ``hidden``: the width of each hidden layer
    (finn2017maml, sec. 5.1, uses 40, 40 for the sinusoids); ``activation``: "relu", or the smooth
    "tanh" and "softplus" where finite differences or a geometry need continuous second derivatives.
    First values are torch's own initialisers, drawn from ``seed``.
    """

    def __init__(
        self,
        *,
        in_features: int,
        n_way: int = 5,
        hidden: Sequence[int] = (40, 40),
        activation: str = "relu",
        seed: int = 0,
    ):
        super().__init__()
        if activation not in ACTIVATIONS:
            raise unknown("activation", activation, list(ACTIVATIONS))
        for name, value in [
            ("in_features", in_features),
            ("n_way", n_way),
            *(("hidden", width) for width in hidden),
        ]:
            at_least(name, value, 1)
        widths = [in_features, *hidden]
        with seeded(seed):
            pairs = [
                [nn.Linear(before, after), ACTIVATIONS[activation]()]
                for before, after in pairwise(widths)
            ]
            self.layers = nn.Sequential(*(layer for pair in pairs for layer in pair))
            self.classifier = nn.Linear(widths[-1], n_way)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores, or regression outputs. shape: (N, n_way)"""
        return self.classifier(self.layers(x.flatten(1)))


@models.register("linear")
def linear(*, in_features: int, n_way: int = 5, seed: int = 0) -> MLP:
    """Flatten and one linear layer, ``classifier``: the network whose task loss is convex. shapes:
    (N, ...) -> (N, n_way)
    """
    return MLP(in_features=in_features, n_way=n_way, hidden=(), seed=seed)
