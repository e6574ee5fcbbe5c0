"""The ways to classify from a few features: simple ones, and meta-learned ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from mdtheory import EpisodeStream, MetaLearner
from mdtheory.core import seeding
from mdtheory.core.types import Episode
from mdtheory.models import LOW_RANK, with_low_rank

Solver = Callable[[Episode], Tensor]
"""From an episode to the scores of its queries. shape: (n_query_items, n_way)"""

WIDTH = 128
"""Numbers of the meta-learned embedding."""


def centroids(x: Tensor, y: Tensor) -> Tensor:
    """The mean item of every class. shapes: (n, D), (n,) -> (n_way, D)"""
    return torch.stack([x[y == c].mean(0) for c in range(int(y.max()) + 1)])


def nearest_centroid(task: Episode) -> Tensor:
    """Cosines to the mean of each class's unit features. shape: (n, n_way)"""
    support, query = (normalize(x, dim=-1) for x in (task.support_x, task.query_x))
    return query @ normalize(centroids(support, task.support_y), dim=-1).T


def linear_probe(task: Episode, *, decay: float = 0.01) -> Tensor:
    """Logistic regression on unit features times 10, started at zero, with squared weights times
    ``decay`` in the loss; L-BFGS. shape: (n, n_way)
    """
    support, query = (10 * normalize(x, dim=-1) for x in (task.support_x, task.query_x))
    n_way = int(task.support_y.max()) + 1
    weight = torch.zeros(n_way, support.shape[1], requires_grad=True)
    bias = torch.zeros(n_way, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        loss = cross_entropy(support @ weight.T + bias, task.support_y)
        loss = loss + decay * weight.square().sum()
        loss.backward()
        return loss

    solver.step(closure)
    with torch.no_grad():
        return query @ weight.T + bias


class Head(nn.Module):
    """Features -> a learned embedding of unit length, times 10 -> a linear head that starts at
    zero.

    At that start one step of gradient descent makes the head a classifier by (centred) class means;
    meta-learning says how far to go, in which directions, and in which embedding.
    """

    def __init__(self, n_features: int, n_way: int, *, seed: int = 0):
        super().__init__()
        self.embedding = nn.Linear(n_features, WIDTH, bias=False)
        self.head = nn.Linear(WIDTH, n_way)
        drawn = torch.randn(
            self.embedding.weight.shape, generator=seeding.generator("encoder head", seed)
        )
        with torch.no_grad():
            self.embedding.weight.copy_(drawn / n_features**0.5)
            self.head.weight.zero_()
            self.head.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Scores. shapes: (n, D) -> (n, n_way)"""
        return self.head(10 * normalize(self.embedding(x), dim=-1))


@dataclass(frozen=True)
class Row:
    """One meta-learned row: its geometry; ``low_rank``: the embedding moves, too."""

    geometry: str
    low_rank: int = 0


ROWS = {
    "maml, head": Row("maml"),
    "metasgd, head": Row("metasgd"),
    "metamida, head": Row("metamida"),
    "metasgd, head and rank 4": Row("metasgd", low_rank=4),
}


@dataclass(frozen=True)
class Chosen:
    """A solver with the ``value`` of its hyper-parameter."""

    value: float
    solver: Solver

    def __call__(self, task: Episode) -> Tensor:
        """As the solver. shape: (n, n_way)"""
        return self.solver(task)


def choose(
    make: Callable[[float], Solver], values: Sequence[float], tasks: EpisodeStream, n_tasks: int
) -> Chosen:
    """The one of ``make(value)`` that is right most often on the first ``n_tasks`` of ``tasks``."""
    made = [Chosen(value, make(value)) for value in values]
    episodes = [tasks(index) for index in range(n_tasks)]
    return max(made, key=lambda one: sum(right(one, task) for task in episodes))


def right(solve: Solver, task: Episode) -> int:
    """How many queries of a task are answered rightly."""
    return int((solve(task).argmax(-1) == task.query_y).sum())


def learner(
    row: Row, n_features: int, n_way: int, *, n_steps: int, task_lr: float, seed: int
) -> MetaLearner:
    """The learner of a row, untrained."""
    network: nn.Module = Head(n_features, n_way, seed=seed)
    adapt: Sequence[str] = ("head.*",)
    if row.low_rank:
        network = with_low_rank(network, "embedding.weight", rank=row.low_rank)
        adapt = ("head.*", LOW_RANK)
    return MetaLearner(network, row.geometry, n_steps=n_steps, task_lr=task_lr, adapt=adapt)


def meta_train(
    made: MetaLearner, tasks: EpisodeStream, *, iterations: int, n_tasks: int, rate: float
) -> Solver:
    """Train on ``tasks``; how the result solves one."""
    optimizer = torch.optim.Adam(made.parameters(), lr=rate)
    for iteration in range(iterations):
        optimizer.zero_grad()
        made.backward([tasks(n_tasks * iteration + j) for j in range(n_tasks)])
        optimizer.step()
    made.eval()

    def solve(task: Episode) -> Tensor:
        with torch.no_grad():
            return made.adapt(task.support_x, task.support_y)(task.query_x)

    return solve


def prototypes(embed: nn.Module, task: Episode) -> Tensor:
    """Minus squared distances to the mean embedding of each class (snell2017prototypical). shape:
    (n, n_way)
    """
    return -(
        torch.cdist(embed(task.query_x), centroids(embed(task.support_x), task.support_y)) ** 2
    )


def prototypical(
    embed: nn.Module, tasks: EpisodeStream, *, iterations: int, n_tasks: int, rate: float
) -> Solver:
    """A prototypical network: the embedding is trained so that queries lie near their prototype."""
    optimizer = torch.optim.Adam(embed.parameters(), lr=rate)
    for iteration in range(iterations):
        optimizer.zero_grad()
        for j in range(n_tasks):
            task = tasks(n_tasks * iteration + j)
            (cross_entropy(prototypes(embed, task), task.query_y) / n_tasks).backward()
        optimizer.step()
    embed.eval()

    def solve(task: Episode) -> Tensor:
        with torch.no_grad():
            return prototypes(embed, task)

    return solve


def fine_tune(encoder: nn.Module, task: Episode, *, n_steps: int, rate: float) -> Tensor:
    """All weights of a copy of the encoder and a head, which starts at the class means, by Adam;
    batch statistics stay those of the pretraining. shape: (n, n_way)
    """
    import copy

    own = copy.deepcopy(encoder).eval()
    with torch.no_grad():
        start = normalize(centroids(normalize(own(task.support_x), dim=-1), task.support_y), dim=-1)
    head = nn.Parameter(10 * start)
    optimizer = torch.optim.Adam([*own.parameters(), head], lr=rate)
    for _ in range(n_steps):
        optimizer.zero_grad()
        scores = normalize(own(task.support_x), dim=-1) @ head.T
        cross_entropy(scores, task.support_y).backward()
        optimizer.step()
    with torch.no_grad():
        return normalize(own(task.query_x), dim=-1) @ head.T
