"""What a geometry owes to the estimators: exact meta-gradients, however they are computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Literal

import torch

from mdtheory.contract.setting import ContractViolation, NotApplicable, Setting, distance
from mdtheory.core import tree
from mdtheory.core.objectives import Objective
from mdtheory.core.seeding import generator
from mdtheory.core.types import Episode, Params
from mdtheory.inner.estimators import estimators
from mdtheory.meta.learner import MetaLearner

ESTIMATORS = [name for name in estimators.names() if name != "implicit"]
"""Those that apply to every geometry: the implicit one needs a strongly convex penalty."""

SCHEDULES: tuple[Literal["last", "every", "warp"], ...] = ("last", "every", "warp")


AT_ONCE = 12
"""How many meta-parameters one central difference moves together; where it disagrees, they are
looked at singly.
"""


def differentiable(setting: Setting) -> None:
    """meta-gradients are central differences of the declared objective"""
    for estimator in ESTIMATORS:
        learner, episode = setting.learner(estimator), setting.episodes(1)[0]
        grads = learner.meta_gradient([episode]).grads
        names = list(grads)
        slopes = partial(slope_errors, learner, episode, grads)
        errors = slopes(tuple(names[i : i + AT_ONCE]) for i in range(0, len(names), AT_ONCE))
        worst = max(errors, key=errors.__getitem__)
        if not errors[worst] < 1e-6:
            errors = slopes((name,) for name in worst)
            worst = max(errors, key=errors.__getitem__)
            raise ContractViolation(
                f"the {estimator} meta-gradient must be the slope of its objective, got a relative "
                "error of "
                f"{errors[worst]:.1e} at {worst[0]!r}; look for detach, .data or a wrong backward, "
                "and hold values "
                "constant with mdtheory.core.stop_gradient"
            )


def slope_errors(
    learner: MetaLearner,
    episode: Episode,
    grads: Params,
    groups: Iterable[tuple[str, ...]],
) -> dict[tuple[str, ...], float]:
    """|<gradient, v> - central difference of the estimator's surrogate along v|, v a random unit
    direction in each group of meta-parameters.

    Relative to the largest norm of a tensor's gradient. The step is small: a larger one crosses
    kinks of ReLU and max-pool.
    """
    problem, meta, step = learner.problem(), tree.detach(learner.meta()), 1e-6
    task, rng = learner.task(episode), generator("contract", "direction")
    noise = problem.noise(meta, task)
    tape = learner.estimator.record_tape(problem, meta, task, noise)
    scale, errors = max(float(g.norm()) for g in grads.values()), {}
    for group in groups:
        drawn = {
            name: torch.randn(meta[name].shape, generator=rng, dtype=torch.float64)
            for name in group
        }
        length = tree.norm(drawn)
        v = {name: (value / length).to(meta[name].device) for name, value in drawn.items()}
        here = {n: meta[n] for n in group}
        ends = [
            learner.estimator.value(
                problem, {**meta, **tree.axpy(h, v, here)}, task, noise, tape=tape
            )
            for h in (step, -step)
        ]
        slope = (ends[0] - ends[1]) / (2 * step)
        errors[group] = abs(float(tree.dot({n: grads[n] for n in group}, v) - slope)) / scale
    return errors


def stepwise(setting: Setting) -> None:
    """the step-by-step gradient is the unrolled one, for every objective"""
    penalty = setting.make().objective.penalty
    for schedule in SCHEDULES:
        whole, swept = (
            setting.learner(
                estimator, objective=Objective(schedule=schedule, penalty=penalty), n_steps=3
            ).meta_gradient(setting.episodes(1))
            for estimator in ("unrolled", "stepwise")
        )
        gap = max(
            distance(swept.grads, whole.grads),
            distance({"value": swept.value}, {"value": whole.value}),
        )
        if not gap < 1e-12:
            raise ContractViolation(
                f"stepwise must equal unrolled, got a difference of {gap:.1e} for the objective "
                f"{schedule!r}; "
                "everything that a later step needs must be in the state"
            )


def batched(setting: Setting) -> None:
    """tasks together give what a loop gives"""
    if not setting.make().vmappable:
        raise NotApplicable("declared: vmappable = False")
    for estimator in ESTIMATORS:
        learner, episodes = setting.learner(estimator), setting.episodes()
        loop = learner.meta_gradient(episodes)
        learner.estimator.batched = True
        tasks = [learner.task(episode) for episode in episodes]
        together = learner.estimator(learner.problem(), learner.meta(), tasks)
        gap = max(
            distance(together.grads, loop.grads),
            distance({"value": together.value}, {"value": loop.value}),
            *(
                distance({name: together.stats[name]}, {name: value})
                for name, value in loop.stats.items()
            ),
        )
        if learner.estimator.unbatchable or not gap < 1e-10:
            found = "none" if learner.estimator.unbatchable else f"a difference of {gap:.1e}"
            raise ContractViolation(
                f"tasks computed together must give what a loop gives, got {found} with "
                f"{estimator}; write hooks for one task, without reading values into Python, or "
                "declare vmappable = False"
            )


GRADIENTS: dict[str, Callable[[Setting], None]] = {
    each.__name__: each for each in (differentiable, stepwise, batched)
}
"""The properties of this file by name; each docstring says what holds."""
