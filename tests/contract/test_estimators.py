"""Every model x geometry x estimator: batched = loop = central differences of the surrogate that is declared."""

from __future__ import annotations

import pytest
import torch

from mdtheory import tree
from mdtheory.inner.solver import noise_of
from mdtheory.inner.surrogate import record_tape, surrogate
from mdtheory.objectives import Objective
from mdtheory.seeding import generator
from tests.contract.cases import ESTIMATORS, MODELS, SLUGS, distance, episodes_of, learner_of

SCHEDULES = ["last", "every", "warp"]


def on(device, learner, episodes):
    return learner.to(device), [episode.to(device) for episode in episodes]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("slug", SLUGS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_batched_equals_loop(slug, model, estimator, device):
    learner, episodes = on(device, learner_of(slug, model, estimator), episodes_of(model))
    loop = learner.meta_gradient(episodes)
    if not learner.geometry.vmappable:
        pytest.skip(f"{slug} declares vmappable = False")
    learner.estimator.batched = True
    batched = learner.meta_gradient(episodes)
    assert torch.allclose(loop.value, batched.value, rtol=1e-11)
    assert distance(batched.grads, loop.grads) < 1e-10
    assert all(torch.allclose(batched.stats[name], loop.stats[name], rtol=1e-10) for name in loop.stats)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("slug", SLUGS)
def test_stepwise_equals_unrolled(slug, model, schedule, device):
    objective = Objective(schedule=schedule, penalty=learner_of(slug, model).objective.penalty)
    results = []
    for estimator in ("unrolled", "stepwise"):
        learner, episodes = on(
            device, learner_of(slug, model, estimator, objective=objective, n_steps=3), episodes_of(model, 1)
        )
        results.append(learner.meta_gradient(episodes))
    assert torch.allclose(results[1].value, results[0].value, rtol=1e-12)
    assert distance(results[1].grads, results[0].grads) < 1e-12


def directional(learner, episode, *, first_order, step=1e-6):
    """<gradient of the declared surrogate, v> by central differences along one random direction per meta-parameter."""
    problem, meta = learner.problem(), tree.detach(learner.meta())
    noise = noise_of(problem, episode)
    tape = record_tape(problem, meta, episode, noise, first_order=first_order)
    rng, slopes, directions = generator("contract", "direction"), {}, {}
    for name, value in meta.items():
        v = torch.randn(value.shape, generator=rng, dtype=torch.float64).to(value.device)
        directions[name] = v / v.norm()

        def at(shift, name=name, value=value):
            moved = {**meta, name: value + shift * directions[name]}
            return surrogate(problem, moved, episode, noise, first_order=first_order, tape=tape)[0]

        slopes[name] = (at(step) - at(-step)) / (2 * step)
    return slopes, directions


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("slug", SLUGS)
@pytest.mark.parametrize("estimator", ["unrolled", "first_order"])
def test_gradient_is_that_of_the_declared_surrogate(slug, model, estimator, device):
    learner, episodes = on(device, learner_of(slug, model, estimator), episodes_of(model, 1))
    grads = learner.meta_gradient(episodes).grads
    slopes, directions = directional(learner, episodes[0], first_order=estimator == "first_order")
    scale = max(float(g.norm()) for g in grads.values())
    for name, slope in slopes.items():
        assert abs(float((grads[name] * directions[name]).sum() - slope)) < 1e-6 * scale, name


def test_finite_differences_reject_the_first_order_gradient_as_exact(device):
    """Negative control: FOMAML's gradient is not the gradient of the unrolled surrogate."""
    learner, episodes = on(device, learner_of("maml", "mlp", "first_order"), episodes_of("mlp", 1))
    grads = learner.meta_gradient(episodes).grads
    slopes, directions = directional(learner, episodes[0], first_order=False)
    scale = max(float(g.norm()) for g in grads.values())
    assert max(abs(float((grads[n] * directions[n]).sum() - slopes[n])) for n in slopes) > 1e-3 * scale


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_objectives_against_a_serial_autograd_loop(schedule, device):
    """The three schedules written out with autograd.grad, detach and plain SGD on an mlp."""
    learner, episodes = on(device, learner_of("metasgd", "mlp", objective=Objective(schedule=schedule)), episodes_of("mlp", 1))
    episode, meta, problem = episodes[0], learner.meta(), learner.problem()
    anchor, rates = tree.sub(meta, "anchor."), tree.sub(meta, "geometry.rule.scale.")

    def loss(weights, x, y):
        return problem.loss(torch.func.functional_call(learner.network, weights, (x,)), y)

    def roll(start, log_rates):
        points = [start]
        for _ in range(problem.n_steps):
            names, values = zip(*points[-1].items(), strict=True)
            grads = torch.autograd.grad(loss(points[-1], episode.support_x, episode.support_y), values, create_graph=True)
            points.append({n: p - 0.1 * log_rates[n].exp() * g for n, p, g in zip(names, values, grads, strict=True)})
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
            grads = torch.autograd.grad(loss(held, episode.support_x, episode.support_y), list(held.values()))
            moved = {n: held[n].detach() - 0.1 * rates[n].exp() * g for n, g in zip(held, grads, strict=True)}
            total = total + query(moved)
    expected = torch.autograd.grad(total, list(meta.values()))
    assert distance(learner.meta_gradient(episodes).grads, dict(zip(meta, expected, strict=True))) < 1e-11


def test_no_episodes_is_refused():
    with pytest.raises(ValueError, match=r"episodes must hold at least one task, got none"):
        learner_of("maml", "mlp").meta_gradient([])
