"""Objectives against a serial loop, and the controls of what the contract says about gradients."""

from __future__ import annotations

import pytest
import torch

from mdtheory.contract.gradients import ESTIMATORS, SCHEDULES, slope_errors
from mdtheory.core import tree
from mdtheory.core.objectives import Objective
from mdtheory.inner.estimators import estimators
from tests.contract.cases import distance, episodes_of, learner_of


def test_only_the_implicit_estimator_has_a_suite_of_its_own():
    assert set(estimators.names()) - set(ESTIMATORS) == {"implicit"}


def test_finite_differences_reject_the_first_order_gradient_as_exact(device):
    """Negative control: FOMAML's gradient is not the gradient of the unrolled surrogate."""
    learner, episode = (
        learner_of("maml", "mlp", "first_order").to(device),
        episodes_of("mlp", 1)[0].to(device),
    )
    grads = learner.meta_gradient([episode]).grads
    groups = [(name,) for name in grads]
    unrolled = learner_of("maml", "mlp", "unrolled").to(device)
    assert max(slope_errors(unrolled, episode, grads, groups).values()) > 1e-3
    assert max(slope_errors(learner, episode, grads, groups).values()) < 1e-8


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_objectives_against_a_serial_autograd_loop(schedule, device):
    """The three schedules written out with autograd.grad, detach and plain SGD on an mlp."""
    learner = learner_of("metasgd", "mlp", objective=Objective(schedule=schedule)).to(device)
    episode, meta, problem = episodes_of("mlp", 1)[0].to(device), learner.meta(), learner.problem()
    anchor, rates = tree.sub(meta, "anchor."), tree.sub(meta, "geometry.rule.scale.")

    def loss(weights, x, y):
        return learner.loss(torch.func.functional_call(learner.network, weights, (x,)), y)

    def roll(start, log_rates):
        points = [start]
        for _ in range(problem.n_steps):
            names, values = zip(*points[-1].items(), strict=True)
            grads = torch.autograd.grad(
                loss(points[-1], episode.support_x, episode.support_y), values, create_graph=True
            )
            points.append(
                {
                    n: p - 0.1 * log_rates[n].exp() * g
                    for n, p, g in zip(names, values, grads, strict=True)
                }
            )
        return points

    def query(point):
        return loss(point, episode.query_x, episode.query_y)

    if schedule == "last":
        total = query(roll(anchor, rates)[-1])
    elif schedule == "every":
        total = sum(query(point) for point in roll(anchor, rates)[1:]) / problem.n_steps
    else:
        points = roll(anchor, {n: r.detach() for n, r in rates.items()})
        total = query(points[-1])
        for point in points[:-1]:
            held = {n: p.detach().requires_grad_() for n, p in point.items()}
            grads = torch.autograd.grad(
                loss(held, episode.support_x, episode.support_y), list(held.values())
            )
            moved = {
                n: held[n].detach() - 0.1 * rates[n].exp() * g
                for n, g in zip(held, grads, strict=True)
            }
            total = total + query(moved)
    expected = torch.autograd.grad(total, list(meta.values()))
    assert (
        distance(learner.meta_gradient([episode]).grads, dict(zip(meta, expected, strict=True)))
        < 1e-11
    )


def test_no_episodes_is_refused():
    with pytest.raises(ValueError, match=r"episodes must hold at least one task, got none"):
        learner_of("maml", "mlp").meta_gradient([])
