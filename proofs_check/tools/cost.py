"""What an estimator costs, counted and not timed: evaluations of the loss, autograd nodes, saved
tensors.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mdtheory.core.types import Params
from mdtheory.inner.estimators import Estimator, TaskGradient
from mdtheory.inner.estimators.unrolled import Unrolled
from mdtheory.inner.problem import Problem
from mdtheory.inner.solver import solve
from mdtheory.inner.surrogate import surrogate
from mdtheory.inner.task import Task
from proofs_check.tools.memory import PeakTensorBytes
from proofs_check.tools.models import Function, hessian_of, problem_of, vector

CURVATURE = vector(1.0, 0.5, 0.25)
START = vector(1.0, -2.0, 0.5)


def bowl(phi: Tensor) -> Tensor:
    """A smooth, non-quadratic loss of three variables."""
    return (CURVATURE * phi**2).sum() + 0.3 * torch.cos(phi).sum() + 0.1 * phi.prod()


def query(phi: Tensor) -> Tensor:
    """The query loss."""
    return (phi - 1).square().sum()


@dataclass
class Counted:
    """A loss that counts how often it is evaluated."""

    function: Function
    calls: int = 0
    marks: list[int] = field(default_factory=list)

    def __call__(self, phi: Tensor) -> Tensor:
        self.calls += 1
        return self.function(phi)


def loss_calls(estimator: Estimator, n_steps: int) -> int:
    """Evaluations of the task loss (each differentiated once inside) for one meta-gradient."""
    task = Counted(bowl)
    problem, meta, posed = problem_of(task, START, task_lr=0.1, n_steps=n_steps, query=query)
    estimator(problem, meta, [posed])
    return task.calls


def meta_gradient(estimator: Estimator, n_steps: int) -> Tensor:
    """The estimator's gradient by the anchor. shape: (3,)"""
    problem, meta, posed = problem_of(bowl, START, task_lr=0.1, n_steps=n_steps, query=query)
    return estimator(problem, meta, [posed]).grads["anchor.phi"]


def graph_size(n_steps: int, *, first_order: bool = False) -> tuple[int, int]:
    """(nodes, numbers in distinct saved tensors) of the unrolled objective's graph, by walking
    it.
    """
    problem, meta, posed = problem_of(bowl, START, task_lr=0.1, n_steps=n_steps, query=query)
    meta = {name: value.requires_grad_() for name, value in meta.items()}
    value, _ = surrogate(problem, meta, posed, {}, first_order=first_order)
    nodes: set[Any] = set()
    saved: dict[tuple[int, int], int] = {}
    waiting: list[Any] = [value.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in nodes:
            continue
        nodes.add(node)
        waiting.extend(parent for parent, _ in node.next_functions)
        for name in dir(node):
            kept = getattr(node, name) if name.startswith("_saved_") else None
            if isinstance(kept, Tensor):
                saved[kept.data_ptr(), kept.numel()] = kept.numel()
    return len(nodes), sum(saved.values())


def hand_recursion(n_steps: int, *, sign: float = -1.0) -> Tensor:
    """lambda_K = grad l(phi^K), lambda_k = lambda_{k+1} - alpha H(phi^k) lambda_{k+1}, with dense
    Hessians. shape: (3,)
    """
    points = [START]
    for _ in range(n_steps):
        points.append(points[-1] - 0.1 * torch.func.grad(bowl)(points[-1]))
    adjoint = torch.func.grad(query)(points.pop())
    while points:
        adjoint = adjoint + sign * 0.1 * hessian_of(bowl)(points.pop()) @ adjoint
    return adjoint


class Rerun(Unrolled):
    """The right gradient, but the whole trajectory is computed again for every step: O(K^2)."""

    def task_gradient(
        self, problem: Problem, meta: Params, task: Task, noise: Params
    ) -> TaskGradient:
        for _ in range(problem.n_steps):
            solve(problem, meta, task)
        return super().task_gradient(problem, meta, task, noise)


class Watched(Counted):
    """Also notes, at every evaluation, how many tensors Python holds."""

    def __call__(self, phi: Tensor) -> Tensor:
        self.marks.append(sum(issubclass(type(thing), Tensor) for thing in gc.get_objects()))
        return super().__call__(phi)


def growth_of_held_tensors(
    estimator: Estimator, n_steps: int, *, strongly_convex: bool = False
) -> int:
    """Most tensors held at any evaluation of the task loss, less those at the second one."""
    task = Watched(bowl)
    problem, meta, posed = problem_of(
        task,
        START,
        task_lr=0.1,
        n_steps=n_steps,
        query=query,
        strongly_convex=strongly_convex,
    )
    gc.collect()
    gc.freeze()  # what is here already need not be looked through at every evaluation
    estimator(problem, meta, [posed])
    gc.unfreeze()
    return max(task.marks) - task.marks[1]


class _Operations(TorchDispatchMode):
    """Counts every operator that torch really runs, also below its function transforms."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def operations(estimator: Estimator, n_steps: int) -> int:
    """Tensor operations of one meta-gradient, forward and backward."""
    problem, meta, posed = problem_of(bowl, START, task_lr=0.1, n_steps=n_steps, query=query)
    with _Operations() as counted:
        estimator(problem, meta, [posed])
    return counted.count


def cpu_seconds(estimator: Estimator, n_steps: int, *, repeats: int = 5) -> float:
    """The least CPU time of several meta-gradients, which other processes disturb little."""
    problem, meta, posed = problem_of(bowl, START, task_lr=0.1, n_steps=n_steps, query=query)
    times = []
    for _ in range(repeats):
        start = time.process_time()
        estimator(problem, meta, [posed])
        times.append(time.process_time() - start)
    return min(times)


def peak_states(estimator: Estimator, n_steps: int, *, size: int = 1000) -> float:
    """The most memory of tensors alive at once, in units of one state of ``size`` numbers."""
    start = torch.linspace(-1, 1, size, dtype=torch.float64)
    problem, meta, posed = problem_of(
        lambda v: (v.square() + 0.3 * torch.tanh(v) * torch.cos(v)).sum(),
        start,
        task_lr=0.1,
        n_steps=n_steps,
        query=query,
    )
    with PeakTensorBytes() as meter:
        estimator(problem, meta, [posed])
    return meter.peak / (8 * size)


@dataclass(frozen=True)
class Line:
    """Least squares y = intercept + slope k, each with the half-width of its 95 % interval
    (Student's t, n - 2).
    """

    slope: float
    slope_error: float
    intercept: float
    intercept_error: float


def line(steps: Sequence[int], values: Sequence[float]) -> Line:
    """The line through measurements; at least three, of independent errors with one variance."""
    found = stats.linregress(np.asarray(steps, float), np.asarray(values, float))
    width = stats.t.ppf(0.975, len(steps) - 2)
    return Line(found.slope, width * found.stderr, found.intercept, width * found.intercept_stderr)


def smoothness(
    *, a: float, big_lq: float, slope: float, alpha: float, rho: float, n_steps: int
) -> float:
    """a^{2K} L_l + G_l alpha rho a^{K-1} (a^K - 1)/(a - 1); the last factor is K at a = 1."""
    geometric = n_steps if a == 1 else (a**n_steps - 1) / (a - 1)
    return a ** (2 * n_steps) * big_lq + slope * alpha * rho * a ** (n_steps - 1) * geometric
