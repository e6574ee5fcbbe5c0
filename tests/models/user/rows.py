"""The small task, network and learner of the tests of rows."""

from __future__ import annotations

import torch
from torch import nn

from mdtheory.core.types import Episode
from mdtheory.meta import MetaLearner
from tests.models.user import zoo

N, WAYS = 6, 3


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def task(seed=0, n_query=N, dtype=torch.float64):
    labels = torch.arange(N) % WAYS
    return Episode(
        draw(N, zoo.W, seed=seed, dtype=dtype),
        labels,
        draw(n_query, zoo.W, seed=seed + 100, dtype=dtype),
        torch.arange(n_query) % WAYS,
        seed,
    )


def network(**kwargs):
    torch.manual_seed(3)
    return zoo.Net(nn.Linear(zoo.W, zoo.W), **kwargs).double()


def learner_of(model, geometry="maml", **options):
    return MetaLearner(model, geometry, **{"n_steps": 2, "task_lr": 0.1, **options})


def flat(grads):
    return torch.cat([g.reshape(-1) for _, g in sorted(grads.items())])
