"""What an estimator of the meta-gradient owes: the exact gradient of the surrogate that it
declares, however tasks are added up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from mdtheory.contract.check import Finding, findings
from mdtheory.contract.gradients import SCHEDULES, slope_errors
from mdtheory.contract.setting import (
    CPU,
    N_WAY,
    ContractViolation,
    NotApplicable,
    Setting,
    distance,
)
from mdtheory.core.objectives import Objective
from mdtheory.geometry.base import geometries
from mdtheory.inner.estimators.base import Estimator
from mdtheory.meta.learner import MetaLearner
from mdtheory.models.base import models

SUBJECTS = (("metasgd", "mlp"), ("metamida", "mlp"), ("warpgrad", "mlp"), ("maml", "conv4"))
"""Geometry and model on which an estimator is examined: learned rates, a learned map, added
layers, and convolutions with batch statistics.
"""
WITH_PENALTY = (("prior", "linear"),)
"""Logistic regression with a Gaussian prior: strongly convex, with one minimiser."""
STEPS = {True: 400, False: 2}
"""Steps of the task solver: an estimator that relies on a minimiser must be given one."""


@dataclass(frozen=True)
class EstimatorSetting:
    """An estimator with a geometry on a small model."""

    make: Callable[[], Estimator]
    geometry: str
    model: str
    device: torch.device = CPU

    def learner(self, estimator: Estimator | None = None, **options: Any) -> MetaLearner:
        """A float64 learner with this estimator, or another."""
        own = self.make() if estimator is None else estimator
        steps = STEPS[own.needs_penalty]
        return self.setting.learner(own, **{"n_steps": steps, **options})

    @property
    def setting(self) -> Setting:
        """The geometry on the model, and where tasks come from."""
        network = (partial(models.get("linear"), in_features=6, n_way=N_WAY), (6,))
        other = network if self.model == "linear" else None
        return Setting(geometries.get(self.geometry), self.model, self.device, network=other)


def described(setting: EstimatorSetting) -> None:
    """its docstring says what it computes"""
    if not (type(setting.make()).__doc__ or "").strip():
        raise ContractViolation(
            f"{type(setting.make()).__name__} must have a docstring, got none; say what gradient "
            "it returns, its cost and its source"
        )


def declared(setting: EstimatorSetting) -> None:
    """the gradient is the slope of the surrogate that it declares, for every objective"""
    only_last = setting.make().needs_penalty
    for schedule in SCHEDULES[:1] if only_last else SCHEDULES:
        learner = setting.learner(objective=Objective(schedule=schedule))
        episode = setting.setting.episodes(1)[0]
        grads = learner.meta_gradient([episode]).grads
        errors = slope_errors(learner, episode, grads, [(name,) for name in grads])
        worst = max(errors, key=errors.__getitem__)
        if not errors[worst] < 1e-6:
            raise ContractViolation(
                "the meta-gradient must be the slope of surrogate(), got a relative error of "
                f"{errors[worst]:.1e} at {worst[0]!r} for the objective {schedule!r}; correct "
                "either"
            )


def valued(setting: EstimatorSetting) -> None:
    """the value is the surrogate's, and statistics have one number a task"""
    learner = setting.learner()
    episodes = setting.setting.episodes()
    problem, meta = learner.problem(), learner.meta()
    found = learner.meta_gradient(episodes)
    tasks = [learner.task(episode) for episode in episodes]
    values = [
        learner.estimator.value(problem, meta, task, problem.noise(meta, task)) for task in tasks
    ]
    expected = torch.stack(values).mean().detach()
    tolerance = 1e-6 if learner.estimator.needs_penalty else 1e-12
    if not abs(float(found.value - expected)) <= tolerance * (1 + abs(float(expected))):
        raise ContractViolation(
            f"the value must be the surrogate's mean {float(expected):.9g}, got "
            f"{float(found.value):.9g}; return TaskGradient(surrogate, gradient, statistics)"
        )
    wrong = [name for name, each in found.stats.items() if each.shape != (len(episodes),)]
    if wrong or {"query_loss", "query_accuracy"} - set(found.stats):
        raise ContractViolation(
            "statistics must hold query_loss, query_accuracy and other scalars of a task, got "
            f"{ {name: tuple(each.shape) for name, each in found.stats.items()} }; add them"
        )


def mean(setting: EstimatorSetting) -> None:
    """the gradient of several tasks is the mean of their own, by every meta-parameter"""
    learner = setting.learner()
    episodes = setting.setting.episodes()
    together = learner.meta_gradient(episodes).grads
    alone = [learner.meta_gradient([episode]).grads for episode in episodes]
    expected = {name: torch.stack([own[name] for own in alone]).mean(0) for name in learner.meta()}
    if set(together) != set(expected) or distance(together, expected) > 1e-12:
        raise ContractViolation(
            "several tasks must give the mean of their gradients, by the names of meta(), got "
            "another; keep task_gradient pure and leave __call__ alone"
        )


def repeatable(setting: EstimatorSetting) -> None:
    """the same tasks give the same gradient twice, and nothing is left behind"""
    learner = setting.learner()
    episodes = setting.setting.episodes(2)
    held = {name: value.clone() for name, value in learner.state_dict().items()}
    before = torch.get_rng_state()
    first, second = (learner.meta_gradient(episodes).grads for _ in range(2))
    kept = all(torch.equal(held[name], value) for name, value in learner.state_dict().items())
    if distance(second, first) > 0 or not kept or not torch.equal(before, torch.get_rng_state()):
        raise ContractViolation(
            "an estimator must leave parameters and the global generator alone and give the same "
            "gradient twice, which it does not; keep task_gradient pure"
        )


def batched(setting: EstimatorSetting) -> None:
    """tasks at once give what a loop gives, whole and in chunks"""
    if not setting.make().can_batch:
        raise NotApplicable("declared: can_batch = False")
    episodes = setting.setting.episodes()
    loop = setting.learner().meta_gradient(episodes)
    for chunk in (None, 2):
        estimator = setting.make()
        estimator.batched = True
        estimator.chunk = chunk
        learner = setting.learner(estimator)
        tasks = [learner.task(episode) for episode in episodes]
        together = estimator(learner.problem(), learner.meta(), tasks)
        gap = distance(together.grads, loop.grads)
        if estimator.unbatchable or not gap < 1e-10:
            raise ContractViolation(
                "tasks computed together must give what a loop gives, got a difference of "
                f"{gap:.1e}; write task_gradient for torch.func, or declare can_batch = False"
            )


PROPERTIES: dict[str, Callable[[EstimatorSetting], None]] = {
    each.__name__: each for each in (described, declared, valued, mean, repeatable, batched)
}
"""Every property of an estimator by name."""


def check_estimator(
    make: Callable[[], Estimator], *, device: torch.device = CPU
) -> Iterator[Finding]:
    """Every property in turn; the first geometry and model on which it is broken decides."""
    pairs = WITH_PENALTY if make().needs_penalty else SUBJECTS
    return findings(
        lambda: [EstimatorSetting(make, geometry, model, device) for geometry, model in pairs],
        PROPERTIES,
    )
