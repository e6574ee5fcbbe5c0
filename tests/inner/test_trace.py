"""The trace of an adaptation and its first-order gradient, against gradient descent written out."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mdtheory.core.types import Episode
from mdtheory.geometry import geometries
from mdtheory.inner.estimators import estimators
from mdtheory.inner.problem import Problem
from mdtheory.inner.solver import solve
from mdtheory.meta import MetaLearner

pytestmark = pytest.mark.usefixtures("float64")


def regression() -> tuple[MetaLearner, Episode]:
    draw = torch.Generator().manual_seed(0)
    support_x, support_y, query_x, query_y = (
        torch.randn(4, n, generator=draw) for n in (3, 1, 3, 1)
    )
    learner = MetaLearner(
        nn.Linear(3, 1),
        geometries.get("maml")(),
        n_steps=3,
        task_lr=0.2,
        loss=nn.functional.mse_loss,
    )
    return learner, Episode(support_x, support_y, query_x, query_y, 0)


@pytest.mark.parametrize("asked", [None, 0, 2, 5])
def test_every_row_is_that_of_gradient_descent(asked, monkeypatch):
    learner, task = regression()
    moves, move = [], Problem.move
    monkeypatch.setattr(
        Problem,
        "move",
        lambda self, meta, state, grad, k: moves.append(k) or move(self, meta, state, grad, k),
    )
    found = learner.trace(task, n_steps=asked)
    steps = 3 if asked is None else asked
    assert moves == list(range(steps))  # nothing is computed after the last row

    weight, bias = (
        learner.meta()[f"anchor.{name}"].detach().clone().requires_grad_()
        for name in ("weight", "bias")
    )
    for k in range(steps + 1):
        loss = nn.functional.mse_loss(task.support_x @ weight.T + bias, task.support_y)
        slopes = torch.autograd.grad(loss, [weight, bias])
        query = nn.functional.mse_loss(task.query_x @ weight.T + bias, task.query_y)
        expected = torch.stack(
            [loss, torch.cat([s.reshape(-1) for s in slopes]).norm(), query]
        ).detach()
        assert torch.allclose(
            torch.stack([found.support_loss[k], found.grad_norm[k], found.query_loss[k]]), expected
        )
        weight, bias = (
            (p - 0.2 * s).detach().requires_grad_()
            for p, s in zip((weight, bias), slopes, strict=True)
        )
    assert len(found.support_loss) == steps + 1 and found.query_accuracy.isnan().all()


def test_solving_ends_where_the_trace_does():
    learner, task = regression()
    problem, meta = learner.problem(), learner.meta()
    for asked in (None, 0, 4):
        state = solve(problem, meta, learner.task(task), n_steps=asked)
        loss = learner.task(task).task_loss(meta, problem.point(meta, state))
        assert torch.allclose(loss, learner.trace(task, n_steps=asked).support_loss[-1])


def test_the_first_order_gradient_is_the_query_gradient_at_the_end():
    """Finn et al. 2017, sec. 5.2: with the identity for a map, all of the path is forgotten; the
    exact gradient is another.
    """
    learner, task = regression()
    problem, meta = learner.problem(), learner.meta()
    state = solve(problem, meta, learner.task(task))
    weight, bias = (state[f"z.{name}"].requires_grad_() for name in ("weight", "bias"))
    value = nn.functional.mse_loss(task.query_x @ weight.T + bias, task.query_y)
    expected = torch.cat(
        [slope.reshape(-1) for slope in torch.autograd.grad(value, [weight, bias])]
    )
    found = {
        name: estimators.get(name)()(problem, meta, [learner.task(task)])
        for name in ("first_order", "unrolled")
    }
    flat = {
        name: torch.cat([g.grads[f"anchor.{n}"].reshape(-1) for n in ("weight", "bias")])
        for name, g in found.items()
    }
    assert torch.allclose(found["first_order"].value, value) and torch.allclose(
        flat["first_order"], expected
    )
    assert (flat["unrolled"] - expected).norm() > 0.1 * expected.norm()


def test_accuracy_is_the_share_of_right_classes():
    network = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.eye(2))
    x = torch.tensor([[2.0, 0.0], [0.0, 2.0], [3.0, 0.0], [0.0, 1.0]])
    task = Episode(x, torch.tensor([0, 1, 0, 1]), x, torch.tensor([0, 0, 0, 1]), 0)
    learner = MetaLearner(network, geometries.get("maml")(), n_steps=0)
    assert learner.trace(task).query_accuracy.tolist() == [0.75]
