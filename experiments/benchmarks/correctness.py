"""Whether a meta-gradient is right: finite differences of the meta-objective, and a slow exact
reference for large problems.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch.autograd import grad

from experiments.benchmarks.case import Size, Work, episodes, first_weights
from experiments.benchmarks.implementations import OURS, PLAIN
from experiments.benchmarks.implementations.ours import Ours, OursInPlainTorch
from experiments.benchmarks.implementations.plain import Plain
from mdtheory.core import seeding
from mdtheory.core.types import Episode, Params

SMALL = Size(
    shot=2, n_steps=2, channels=4, image_size=21, n_way=3, n_query=3, n_tasks=2, task_lr=0.1
)
"""The problem of the finite differences: every kind of layer, in a second."""
STEP = 1e-6
# of two step widths, relative: otherwise a kink of ReLU or max-pool lies between, and the direction
# is dropped
AGREEMENT = 1e-6
DIRECTIONS, TRIES = 3, 20
RIGHT_FLOAT64 = 1e-5
RIGHT = {"float32": 1e-3, "bf16": 1e-2, "float64": RIGHT_FLOAT64}
"""Largest relative error of a right meta-gradient."""
KNOWN_TO_PLAIN = ("maml", "metasgd")


class Kinks(ArithmeticError):
    """No direction was found along which the objective is smooth."""


def directions(like: Params, number: int) -> Params:
    """Random, every tensor's part of norm 1, so that no tensor's error drowns in a larger one's."""
    rng = seeding.generator("benchmark", "direction", number)
    drawn = {
        name: torch.randn(value.shape, generator=rng, dtype=torch.float64)
        for name, value in like.items()
    }
    return {name: value / value.norm() for name, value in drawn.items()}


def slope(objective: Callable[[], float], values: Params, direction: Params, step: float) -> float:
    """(F(x + h u) - F(x - h u)) / 2h, with the values moved in place and put back."""
    kept = {name: value.detach().clone() for name, value in values.items()}

    def at(t: float) -> float:
        with torch.no_grad():
            for name, value in values.items():
                value.copy_(kept[name] + t * direction[name])
        return objective()

    try:
        return (at(step) - at(-step)) / (2 * step)
    finally:
        at(0.0)


def slopes(objective: Callable[[], float], values: Params) -> list[tuple[Params, float]]:
    """Directions with their slopes, those left out along which two step widths disagree."""
    found: list[tuple[Params, float]] = []
    for number in range(TRIES):
        direction = directions(values, number)
        wide, narrow = (slope(objective, values, direction, step) for step in (STEP, STEP / 4))
        if abs(wide - narrow) <= AGREEMENT * max(abs(wide), abs(narrow)):
            found.append((direction, wide))
        if len(found) == DIRECTIONS:
            return found
    raise Kinks(
        f"{TRIES} directions gave only {len(found)} smooth ones; choose another small problem"
    )


def truth_error(work: Work, gradient: Params) -> float:
    """The relative distance of a float64 meta-gradient of :data:`SMALL` from the slopes of the
    meta-objective.

    MAML and MetaSGD are judged by the plain loop's objective, the other geometries by their own as
    this library computes it, with a network of torch's layers.
    """
    weights, tasks = first_weights(work.size, work.dtype), episodes(work.size, work.dtype)
    judge: Plain | Ours
    if work.method in KNOWN_TO_PLAIN:
        judge = Plain(work, weights)
        values = {**judge.weights, **{f"rate.{name}": rate for name, rate in judge.rates.items()}}
    else:
        judge = OursInPlainTorch(work.model_copy(update={"estimator": "unrolled"}), weights)
        values = judge.live()
    wrong = right = 0.0
    for direction, found in slopes(lambda: judge.query_loss(tasks), values):
        said = sum(
            float((gradient[name] * part).sum())
            for name, part in direction.items()
            if name in gradient
        )
        wrong, right = wrong + (said - found) ** 2, right + found**2
    return math.sqrt(wrong / right)


def distance(gradient: Params, reference: Params) -> float:
    """||g - r|| / ||r|| over all tensors of the reference; what is missing counts as zero."""
    wrong = right = 0.0
    for name, value in reference.items():
        own = (
            gradient[name].double()
            if name in gradient
            else torch.zeros_like(value, dtype=torch.float64)
        )
        wrong, right = (
            wrong + float((own - value.double()).square().sum()),
            right + float(value.double().square().sum()),
        )
    return math.sqrt(wrong / right)


def plain_by_steps(work: Work, tasks: Sequence[Episode]) -> Params:
    """The plain loop's meta-gradient with one step's graph at a time: states forward, then
    vector-Jacobian products back.
    """
    plain = Plain(work, first_weights(work.size, work.dtype))
    total = {f"rate.{name}": torch.zeros_like(rate) for name, rate in plain.rates.items()}
    total.update({name: torch.zeros_like(value) for name, value in plain.weights.items()})
    rates = {
        name: plain.rates.get(name, torch.tensor(work.size.task_lr, dtype=work.dtype))
        for name in plain.weights
    }
    for task in tasks:
        states = [{name: value.detach() for name, value in plain.weights.items()}]
        for _ in range(work.size.n_steps):
            leaves = {name: value.clone().requires_grad_() for name, value in states[-1].items()}
            steps = grad(plain.loss(leaves, task.support_x, task.support_y), list(leaves.values()))
            pairs = zip(leaves.items(), steps, strict=True)
            states.append({name: (value - rates[name] * g).detach() for (name, value), g in pairs})
        leaves = {name: value.requires_grad_() for name, value in states[-1].items()}
        loss = plain.loss(leaves, task.query_x, task.query_y) / len(tasks)
        back = dict(zip(leaves, grad(loss, list(leaves.values())), strict=True))
        for state in reversed(states[:-1]):
            leaves = {name: value.requires_grad_() for name, value in state.items()}
            loss = plain.loss(leaves, task.support_x, task.support_y)
            found = dict(
                zip(leaves, grad(loss, list(leaves.values()), create_graph=True), strict=True)
            )
            for name in plain.rates:
                total[f"rate.{name}"] -= (back[name] * found[name]).detach()
            inner = torch.stack(
                [(rates[name].detach() * back[name] * found[name]).sum() for name in leaves]
            ).sum()
            curved = dict(zip(leaves, grad(inner, list(leaves.values())), strict=True))
            back = {name: back[name] - curved[name] for name in leaves}
        for name, value in back.items():
            total[name] += value
    return {name: value.detach() for name, value in total.items()}


def reference(method: str, size: Size) -> Params:
    """The float64 meta-gradient of a size: of the plain loop, or, where it does not know the
    method, of ours in plain torch.
    """
    if method in KNOWN_TO_PLAIN:
        work = Work(implementation=PLAIN, method=method, precision="float64", size=size)
        return plain_by_steps(work, episodes(size, work.dtype))
    work = Work(
        implementation=OURS, method=method, estimator="stepwise", precision="float64", size=size
    )
    ours = OursInPlainTorch(work, first_weights(size, work.dtype))
    return ours.meta_gradient(episodes(size, work.dtype))
