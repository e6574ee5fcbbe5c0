"""A geometry's own terms: where they are evaluated, how they are weighted, and with which k."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mdtheory.core.objectives import Objective
from mdtheory.core.types import Episode
from mdtheory.geometry import Geometry
from mdtheory.inner.estimators import estimators
from mdtheory.meta import MetaLearner

pytestmark = pytest.mark.usefixtures("float64")


class Growing(Geometry):
    """(k + 1) times the mean squared output on the support set minus the labels: everything that
    the hook is given.
    """

    def meta_penalty(self, meta, point, outputs, targets, k):
        return (k + 1) * (outputs(point) - targets).square().mean()


class Pulling(Geometry):
    """R(phi; theta) = 3 ||phi - theta - 1||^2 / 2, which does not vanish at the start."""

    def task_penalty(self, meta, anchor, point):
        return sum(1.5 * (value - anchor[name] - 1).square().sum() for name, value in point.items())


def regression(geometry: Geometry, **options: object) -> tuple[MetaLearner, Episode]:
    draw = torch.Generator().manual_seed(1)
    model = nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.randn(1, 3, generator=draw))
    learner = MetaLearner(model, geometry, task_lr=0.1, loss=nn.functional.mse_loss, **options)
    return learner, Episode(*(torch.randn(4, n, generator=draw) for n in (3, 1, 3, 1)), 0)


@pytest.mark.parametrize("estimator", ["unrolled", "stepwise"])
def test_a_meta_penalty_is_the_mean_over_the_steps(estimator):
    learner, task = regression(Growing(), n_steps=3, objective=Objective(penalty=0.5))
    found = estimators.get(estimator)()(learner.problem(), learner.meta(), [learner.task(task)])
    start = learner.meta()["anchor.weight"]

    def loss(phi, x, y):
        return (x @ phi.T - y).square().mean()

    phi, terms = start, []
    for k in range(3):
        terms.append((k + 1) * loss(phi, task.support_x, task.support_y))
        (slope,) = torch.autograd.grad(
            loss(phi, task.support_x, task.support_y), phi, create_graph=True
        )
        phi = phi - 0.1 * slope
    value = loss(phi, task.query_x, task.query_y) + 0.5 * sum(terms) / 3
    (expected,) = torch.autograd.grad(value, start)
    assert torch.allclose(found.value, value)
    assert torch.allclose(found.grads["anchor.weight"], expected)


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_a_task_penalty_is_added_to_the_scaled_loss(scale):
    learner, task = regression(Pulling(), n_steps=1, inner_loss_scale=scale)
    problem, meta = learner.problem(), learner.meta()
    phi = {"weight": meta["anchor.weight"].detach() + torch.tensor([[0.5, 0.0, -1.0]])}
    total, bare = problem.task_objective(meta, phi, learner.task(task))
    loss = (task.support_x @ phi["weight"].T - task.support_y).square().mean()
    assert torch.allclose(bare, loss)
    assert torch.allclose(total, scale * loss + 1.5 * (0.25 + 1 + 4))
