"""The gradient of the minimiser itself, by the implicit function theorem and conjugate
gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.func import grad, vjp

from mdtheory.core import tree
from mdtheory.core.types import Params
from mdtheory.inner.estimators.base import Estimator, TaskGradient, estimators
from mdtheory.inner.problem import Problem
from mdtheory.inner.solver import visits
from mdtheory.inner.task import Task


class NegativeCurvatureError(ValueError):
    """The task objective is not convex at the point where its minimiser was to be
    differentiated.
    """


@estimators.register("implicit")
class Implicit(Estimator):
    """dF = d_meta l - (d_meta grad_phi f)^T v with (Hessian_phi f) v = grad_phi l, at an
    approximate minimiser of f.

    f = inner_loss_scale * support loss + R(phi; theta), l = query loss (rajeswaran2019imaml, eq.
    (6)); the error is linear in the distance to the minimiser. At most ``n_steps``
    solver steps, fewer once the gradient norm is below ``tolerance`` times its first value; at most
    ``cg_steps`` Hessian-vector products. Memory: one step's graph, whatever K.

    Statistics: ``solve_residual`` = ||grad f|| / ||grad f||_0, ``cg_residual`` = ||H v - b|| /
    ||b||, ``solve_steps``. Errors: ``ValueError`` where f has no penalty R or the geometry learns a
    map or rule (the minimiser does not depend on them), and :class:`NegativeCurvatureError`
    where H is not positive definite. Tasks are always looped over.
    """

    needs_penalty = True
    can_batch = False  # both solvers stop when a residual is small enough

    def __init__(
        self, *, tolerance: float = 1e-8, cg_steps: int = 100, cg_tolerance: float = 1e-10
    ):
        super().__init__()
        self.tolerance = tolerance
        self.cg_steps = cg_steps
        self.cg_tolerance = cg_tolerance

    def surrogate(
        self, problem: Problem, meta: Params, task: Task, noise: Params
    ) -> tuple[Tensor, Params]:
        """The query loss at the minimiser of f itself, found by Newton's method from the start:
        what the gradient is meant for, computed in another way. shape: ()
        """
        self._check(problem, meta, task)
        point = self._newton(problem, meta, task, noise)
        loss, accuracy = task.score(meta, problem.weights(meta, point))
        return loss, {"query_loss": loss, "query_accuracy": accuracy}

    def task_gradient(
        self, problem: Problem, meta: Params, task: Task, noise: Params
    ) -> TaskGradient:
        self._check(problem, meta, task)
        point, residual, steps = self._minimise(problem, meta, task, noise)

        def query(own: Params, phi: Params) -> tuple[Tensor, Tensor]:
            return task.score(own, problem.weights(own, phi))

        loss, pullback, accuracy = vjp(query, meta, point, has_aux=True)  # type: ignore[misc]
        direct, by_point = pullback(torch.ones_like(loss))
        slope = partial(_slope, problem, task)

        def product(v: Params) -> Params:
            return vjp(partial(slope, meta), point)[1](v)[0]

        solved, cg_residual = conjugate_gradients(
            product, by_point, steps=self.cg_steps, tolerance=self.cg_tolerance
        )
        _demand_solution(product, solved, by_point, cg_residual)
        (mixed,) = vjp(lambda own: slope(own, point), meta)[1](solved)
        stats = {
            "query_loss": loss,
            "query_accuracy": accuracy,
            "solve_residual": residual,
            "cg_residual": cg_residual,
            "solve_steps": torch.as_tensor(float(steps)),
        }
        return TaskGradient(loss, tree.axpy(-1.0, mixed, direct), stats)

    def _minimise(
        self, problem: Problem, meta: Params, task: Task, noise: Params
    ) -> tuple[Params, Tensor, int]:
        way = visits(problem, meta, task, noise, hold=tree.detach)
        here = next(way)
        first = size = tree.norm(here.gradient)
        while bool(size > self.tolerance * first) and here.k < problem.n_steps:
            here = next(way)
            size = tree.norm(here.gradient)
        return here.point, size / first.clamp_min(torch.finfo(first.dtype).tiny), here.k

    def _newton(self, problem: Problem, meta: Params, task: Task, noise: Params) -> Params:
        """phi with grad f = 0 to rounding, by Newton steps whose systems are solved by conjugate
        gradients.
        """
        slope = partial(_slope, problem, task)
        point = problem.point(meta, problem.start(meta, noise))
        gradient = slope(meta, point)
        first = tree.norm(gradient)
        goal = 10 * torch.finfo(first.dtype).eps * first
        for _ in range(self.cg_steps):
            if not bool(tree.norm(gradient) > goal):
                break
            hessian = vjp(partial(slope, meta), point)[1]
            step, _ = conjugate_gradients(
                lambda v, product=hessian: product(v)[0],  # type: ignore[misc]
                gradient,
                steps=self.cg_steps,
                tolerance=self.cg_tolerance,
            )
            point = tree.axpy(-1.0, step, point)
            gradient = slope(meta, point)
        return point

    @staticmethod
    def _check(problem: Problem, meta: Params, task: Task) -> None:
        anchor = tree.sub(meta, "anchor.")
        penalty = problem.geometry.task_penalty(tree.sub(meta, "geometry."), anchor, anchor)
        if penalty is None and not task.strongly_convex:
            kind = type(problem.geometry).__name__
            raise ValueError(
                "the implicit estimator must have a task penalty R(phi; theta), got geometry "
                f"{kind} without one, whose "
                "minimiser does not depend on the start; use geometry 'prior' or estimator "
                "'unrolled'"
            )
        idle = [name for name in meta if name.startswith(("geometry.map.", "geometry.rule."))]
        if idle:
            raise ValueError(
                f"the implicit estimator must not be asked for {idle[0]!r}: the minimiser does not "
                "depend on the path to it, "
                "so that gradient is zero; use estimator 'unrolled'"
            )
        if problem.objective.schedule != "last" or problem.objective.penalty:
            raise ValueError(
                "the implicit estimator must have the objective 'last', got "
                f"{problem.objective.schedule!r}; use 'unrolled'"
            )


def _slope(problem: Problem, task: Task, meta: Params, point: Params) -> Params:
    """grad f at a point."""
    return grad(lambda phi: problem.task_objective(meta, phi, task)[0])(point)


def _demand_solution(
    product: Callable[[Params], Params], v: Params, b: Params, recurred: Tensor
) -> None:
    """``ValueError`` where v does not solve the system although conjugate gradients say so: where a
    module declares another derivative than its own, its Hessian may not be symmetric.
    """
    size = tree.norm(b)
    true = tree.norm(tree.axpy(-1.0, b, product(v))) / size.clamp_min(torch.finfo(size.dtype).tiny)
    allowed = 10 * recurred + torch.finfo(size.dtype).eps ** 0.5
    if bool(true > allowed):
        raise ValueError(
            "the implicit estimator must have a symmetric Hessian, got a solution of its linear "
            f"system with the residual {float(true.detach()):.1e}; look for detach or a declared "
            "derivative in the model, or take estimator='unrolled'"
        )


def conjugate_gradients(
    matvec: Callable[[Params], Params], b: Params, *, steps: int, tolerance: float
) -> tuple[Params, Tensor]:
    """v with ``matvec(v)`` = b for a symmetric positive definite operator, and ||matvec(v) - b|| /
    ||b|| as recurred.

    Hestenes and Stiefel 1952. Errors: :class:`NegativeCurvatureError` on the first direction p with
    <p, A p> <= 0.
    """
    v = tree.tree_map(torch.zeros_like, b)
    residual, direction = b, b
    square = whole = tree.dot(b, b)
    for _ in range(steps):
        if bool(square <= tolerance**2 * whole):
            break
        image = matvec(direction)
        curvature = tree.dot(direction, image)
        if not bool(curvature > 0):
            raise NegativeCurvatureError(
                "the task objective must be strongly convex at its minimiser, got curvature "
                f"{float(curvature.detach()):.3g} along a "
                "direction of the linear solve; raise the prior's precision or take more solver "
                "steps"
            )
        length = square / curvature
        v, residual = tree.axpy(length, direction, v), tree.axpy(-length, image, residual)
        before, square = square, tree.dot(residual, residual)
        direction = tree.axpy(square / before, direction, residual)
    return v, torch.sqrt(square / whole.clamp_min(torch.finfo(whole.dtype).tiny))
