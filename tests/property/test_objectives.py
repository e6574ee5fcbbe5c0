"""What an objective says of its terms, and that their gradients add up as it says, for any geometry
and budget. Mutants do not.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings, strategies as st

from mdtheory import Objective, states
from mdtheory.contract.setting import distance
from mdtheory.core import Term, tree
from mdtheory.inner.estimators import Unrolled
from tests.property.mutants import assert_rejects
from tests.property.test_estimators import cases


def kinds(kind=Objective):
    """(objective, K) of any schedule."""
    return st.tuples(
        st.builds(kind, schedule=st.sampled_from(["last", "every", "warp"])), st.integers(0, 6)
    )


def terms_are_complete(case) -> None:
    """every meta-parameter is trained, by losses of weight 1 together where they share a start"""
    objective, n_steps = case
    terms = objective.terms(n_steps)
    assert all(0 <= term.step <= n_steps for term in terms)
    assert any(term.step == n_steps for term in terms)
    for name in ("anchor.w", "shared.w", "geometry.map.w"):
        own = [term for term in terms if term.includes(name)]
        one_step = [term for term in own if term.backprop == "one_step"]
        assert own or n_steps == 0
        assert sum(term.weight for term in own) == pytest.approx(len(one_step) or len(own[:1]))
        assert [term.step for term in one_step] in ([], list(range(1, n_steps + 1)))


def solved(case, objective, **changes):
    """The meta-gradient of a case's tasks with another objective or budget."""
    estimator, problem, meta, tasks = case
    return estimator(replace(problem, objective=objective, **changes), meta, tasks)


def near(a, b) -> None:
    """Gradients that agree, or are both nothing."""
    assert max(float(tree.norm(tree.axpy(-1.0, a, b))), 0.0) < 1e-10 or distance(a, b) < 1e-8


def every_is_the_mean_of_last(objective):
    """the loss at z_1..z_K weighs 1/K each: the mean of the objectives of K = 1..K"""

    def check(case):
        n_steps = case[1].n_steps
        whole = solved(case, objective("every"))
        parts = [
            solved(case, Objective(), n_steps=k)
            for k in (range(1, n_steps + 1) if n_steps else [0])
        ]
        mean = {n: torch.stack([one.grads[n] for one in parts]).mean(0) for n in whole.grads}
        near(whole.grads, mean)
        torch.testing.assert_close(whole.value, torch.stack([one.value for one in parts]).mean())

    return check


def warp_splits_the_work(objective):
    """the anchor learns from z_K, everything else from single steps that start at constants"""

    def check(case):
        estimator, problem, meta, tasks = case
        case = (estimator, problem, meta, tasks[:1])
        whole = solved(case, objective("warp")).grads
        last = solved(case, Objective()).grads
        near(*(tree.sub(grads, "anchor.") for grads in (whole, last)))
        others = {name: v.requires_grad_() for name, v in tree.detach(meta).items()}
        fixed = list(states(problem, meta, tasks[0]))[:-1]
        total = 0.0 * tree.norm(others)  # depends on all of them, also where no loss does
        for k, state in enumerate(fixed):
            gradient, _ = problem.task_gradient(others, problem.point(others, state), tasks[0])
            moved = problem.move(others, state, gradient, k)
            total = total + problem.score(others, moved, tasks[0])[0]
        names = [name for name in others if not name.startswith("anchor.")]
        if names and fixed:
            slopes = torch.autograd.grad(total, [others[n] for n in names], materialize_grads=True)
            near({n: whole[n] for n in names}, dict(zip(names, slopes, strict=True)))

    return check


def penalty_is_linear(objective):
    """twice the penalty changes the value and the gradient by twice as much"""

    def check(case):
        none, one, two = (solved(case, objective("last", penalty)) for penalty in (0.0, 1.0, 2.0))
        torch.testing.assert_close(two.value - none.value, 2 * (one.value - none.value))
        once = tree.axpy(-1.0, none.grads, one.grads)
        twice = tree.axpy(-1.0, none.grads, two.grads)
        near(twice, tree.axpy(1.0, once, once))

    return check


def plain(schedule="last", penalty=0.0):
    return Objective(schedule=schedule, penalty=penalty)


RULES = [every_is_the_mean_of_last, warp_splits_the_work, penalty_is_linear]


@given(kinds())
def test_the_terms_are_complete(case):
    terms_are_complete(case)


@pytest.mark.parametrize("rule", RULES, ids=lambda one: one.__name__)
def test_gradients_add_up(rule):
    @settings(max_examples=max(5, settings().max_examples // 3))
    @given(cases(Unrolled))
    def holds(case):
        rule(plain)(case)

    holds()


class Unweighted(Objective):
    def terms(self, n_steps):
        return tuple(replace(term, weight=1.0) for term in super().terms(n_steps))


class Untrained(Objective):
    def terms(self, n_steps):
        return tuple(replace(term, wrt=("anchor.*",)) for term in super().terms(n_steps))


class NeverLast(Objective):
    def terms(self, n_steps):
        return tuple(Term(step=0) for _ in super().terms(n_steps))


class Everyone(Objective):
    """All terms train everything."""

    def terms(self, n_steps):
        return tuple(replace(term, wrt=("*",)) for term in super().terms(n_steps))


class Full(Objective):
    """Single steps are differentiated through the whole trajectory."""

    def terms(self, n_steps):
        return tuple(replace(term, backprop="full") for term in super().terms(n_steps))


def of(kind):
    return lambda schedule="last", penalty=0.0: kind(schedule=schedule, penalty=penalty)


def squared(schedule="last", penalty=0.0):
    return Objective(schedule=schedule, penalty=penalty**2)


@pytest.mark.parametrize("mutant", [Unweighted, Untrained, NeverLast], ids=lambda one: one.__name__)
def test_mutants_of_the_terms_are_rejected(mutant):
    assert_rejects(terms_are_complete, kinds(mutant))


@pytest.mark.parametrize(
    ("rule", "mutant"),
    [
        (every_is_the_mean_of_last, of(Unweighted)),
        (warp_splits_the_work, of(Everyone)),
        (warp_splits_the_work, of(Full)),
        (penalty_is_linear, squared),
    ],
)
def test_mutants_of_the_gradients_are_rejected(rule, mutant):
    assert_rejects(rule(mutant), cases(Unrolled))
