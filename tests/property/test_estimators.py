"""Every registered estimator returns the gradient of the surrogate that it declares, for any
geometry, options, objective, budget and tasks. Mutants do not.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings, strategies as st

from mdtheory import FunctionTask, MetaGradient, MetaLearner, Objective, Problem
from mdtheory.contract.setting import distance
from mdtheory.contract.strategies import episodes, makers, randn_like, seeds
from mdtheory.core import tree
from mdtheory.core.seeding import generator
from mdtheory.geometry import MAML
from mdtheory.inner.estimators import (
    FirstOrder,
    Implicit,
    Stepwise,
    TaskGradient,
    Unrolled,
    estimators,
)
from mdtheory.models import MLP
from tests.property.mutants import assert_rejects

N_FEATURES, N_WAY = 3, 3


@st.composite
def cases(draw, estimator=Unrolled):
    """(estimator, problem, meta, tasks): any geometry on a small smooth network, any objective."""
    network = MLP(in_features=N_FEATURES, n_way=N_WAY, hidden=(4,), activation="tanh").double()
    made = draw(makers())()
    schedule = draw(st.sampled_from(["last", "every", "warp"]))
    learner = MetaLearner(
        network,
        made,
        n_steps=draw(st.integers(0, 3)),
        task_lr=draw(st.floats(0.01, 0.3)),
        objective=Objective(schedule=schedule, penalty=made.objective.penalty),
    )
    start = tree.detach(learner.meta())
    meta = tree.axpy(0.1, randn_like(start, draw(seeds())), start)
    first = draw(episodes(N_FEATURES, n_way=N_WAY))
    others = [
        replace(first, support_x=first.support_x.flip(1), query_x=first.query_x + k, seed=k)
        for k in range(draw(st.integers(0, 2)))
    ]
    return estimator(), learner.problem(), meta, [learner.task(e) for e in (first, *others)]


@st.composite
def bowls(draw, estimator=Implicit):
    """(estimator, problem, meta, tasks): a strongly convex f(phi, theta), solved to the bottom."""
    d, rng = draw(st.integers(1, 4)), generator("bowl", draw(seeds()))
    root, mix, goal = (torch.randn(d, n, generator=rng, dtype=torch.float64) for n in (d, d, 1))
    metric = root @ root.T / d + torch.eye(d, dtype=torch.float64)

    def f(phi, theta):
        return 0.5 * phi @ metric @ phi - phi @ (mix @ theta) + torch.cosh(phi).log().sum()

    def query(phi, theta):
        return (phi - goal[:, 0]).square().sum() + theta.sin().sum()

    rate = 1 / float(torch.linalg.eigvalsh(metric).max() + 1)
    problem = Problem(geometry=MAML(), n_steps=500, task_lr=rate)
    meta = {
        name: torch.randn(d, generator=rng, dtype=torch.float64)
        for name in ("anchor.phi", "shared.theta")
    }
    return estimator(), problem, meta, [FunctionTask(f, query, strongly_convex=True)]


def slope(case) -> None:
    """the gradient is the central difference of the declared surrogate, stops held"""
    estimator, problem, meta, (task, *_) = case
    grads = estimator(problem, meta, [task]).grads
    noise = problem.noise(meta, task)
    tape = estimator.record_tape(problem, meta, task, noise)
    v, h = randn_like(meta, 1), 1e-6

    def value(step):
        return estimator.value(problem, tree.axpy(step, v, meta), task, noise, tape=tape)

    found = float((value(h) - value(-h)) / (2 * h))
    size = float(tree.norm(grads) * tree.norm(v))
    assert abs(found - float(tree.dot(grads, v))) < 1e-6 * size + 1e-8


def mean_over_tasks(case) -> None:
    """the gradient of several tasks is the mean of theirs, and so is the value"""
    estimator, problem, meta, tasks = case
    alone = [estimator(problem, meta, [task]) for task in tasks]
    whole = estimator(problem, meta, tasks)
    for name, gradient in whole.grads.items():
        mean = torch.stack([one.grads[name] for one in alone]).mean(0)
        torch.testing.assert_close(gradient, mean, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(whole.value, torch.stack([one.value for one in alone]).mean())


def batched_is_the_loop(case) -> None:
    """tasks at once, whole or in chunks, give what a loop gives"""
    estimator, problem, meta, tasks = case
    if not (estimator.can_batch and problem.geometry.vmappable):
        return
    loop = estimator(problem, meta, tasks)
    for chunk in (None, 1, 2):
        together = type(estimator)(batched=True, chunk=chunk)(problem, meta, tasks)
        close(together, loop)


def is_the_unrolled_gradient(case) -> None:
    """an exact estimator gives the gradient of reverse mode through all steps"""
    estimator, problem, meta, tasks = case
    close(estimator(problem, meta, tasks), Unrolled()(problem, meta, tasks))


def close(one: MetaGradient, other: MetaGradient) -> None:
    torch.testing.assert_close(one.value, other.value, rtol=1e-10, atol=1e-12)
    assert set(one.grads) == set(other.grads)
    gap = distance(one.grads, other.grads) if tree.norm(other.grads) > 1e-12 else 0.0
    assert gap < 1e-8


@pytest.mark.parametrize("check", [slope, mean_over_tasks, batched_is_the_loop])
@pytest.mark.parametrize("slug", estimators.names())
def test_every_estimator_keeps_its_word(slug, check):
    factory = estimators.get(slug)
    drawn = bowls(factory) if factory.needs_penalty else cases(factory)

    @settings(max_examples=max(5, settings().max_examples // 3))
    @given(drawn)
    def holds(case):
        check(case)

    holds()


@settings(max_examples=max(5, settings().max_examples // 2))
@given(cases(Stepwise))
def test_stepwise_is_unrolled(case):
    is_the_unrolled_gradient(case)


# -- mutants


class Doubled(Unrolled):
    def task_gradient(self, *arguments):
        value, grads, stats = super().task_gradient(*arguments)
        return TaskGradient(value, {name: 2 * g for name, g in grads.items()}, stats)


class ForgetsTheLast(Stepwise):
    """As if the last step were not there."""

    def task_gradient(self, problem, *rest):
        return super().task_gradient(replace(problem, n_steps=max(problem.n_steps - 1, 0)), *rest)


class SaysExact(FirstOrder):
    """Declares the whole surrogate, and differentiates the truncated one."""

    def surrogate(self, problem, meta, task, noise):
        return Unrolled().surrogate(problem, meta, task, noise)

    def task_gradient(self, *arguments):
        return FirstOrder().task_gradient(*arguments)


class HalfImplicit(Implicit):
    """Half of the gradient."""

    def task_gradient(self, problem, meta, task, noise):
        value, grads, stats = super().task_gradient(problem, meta, task, noise)
        return TaskGradient(value, {n: 0.5 * g for n, g in grads.items()}, stats)


class Sum(Unrolled):
    def __call__(self, problem, meta, tasks):
        mean = super().__call__(problem, meta, tasks)
        return replace(mean, grads={name: len(tasks) * g for name, g in mean.grads.items()})


class FirstTask(Unrolled):
    """At once, it computes the first task alone."""

    def __call__(self, problem, meta, tasks):
        return super().__call__(problem, meta, tasks[:1] if self.batched else tasks)


@pytest.mark.parametrize(
    ("mutant", "check"),
    [
        (Doubled, slope),
        (SaysExact, slope),
        (HalfImplicit, slope),
        (ForgetsTheLast, slope),
        (ForgetsTheLast, is_the_unrolled_gradient),
        (FirstOrder, is_the_unrolled_gradient),
        (Sum, mean_over_tasks),
        (FirstTask, batched_is_the_loop),
    ],
    ids=lambda one: one.__name__,
)
def test_mutants_are_rejected(mutant, check):
    assert_rejects(check, bowls(mutant) if mutant.needs_penalty else cases(mutant))
