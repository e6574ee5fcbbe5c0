"""The gradient of the minimiser itself, by the implicit function theorem and conjugate
gradients.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad, vjp

from mdtheory.core import tree
from mdtheory.core.types import Episode, Params
from mdtheory.inner.estimators.base import Estimator, TaskGradient, estimators
from mdtheory.inner.problem import Problem
from mdtheory.inner.solver import accuracy


class NegativeCurvature(ValueError):
    """The task objective is not convex at the point where its minimiser was to be
    differentiated.
    """


@estimators.register("implicit")
class Implicit(Estimator):
    """dF = d_meta l - (d_meta grad_phi f)^T v with (Hessian_phi f) v = grad_phi l, at an
    approximate minimiser of f.

    f = inner_loss_scale * support loss + R(phi; theta), l = query loss (rajeswaran2019imaml, eq.
    (6)); the error is linear in the distance to the minimiser (ledger C08a). At most ``n_steps``
    solver steps, fewer once the gradient norm is below ``tolerance`` times its first value; at most
    ``cg_steps`` Hessian-vector products. Memory: one step's graph, whatever K.

    Statistics: ``solve_residual`` = ||grad f|| / ||grad f||_0, ``cg_residual`` = ||H v - b|| /
    ||b||, ``solve_steps``. Errors: ``ValueError`` where f has no penalty R or the geometry learns a
    map or rule (the minimiser does not depend on them: ledger C03), and :class:`NegativeCurvature`
    where H is not positive definite. Tasks are always looped over.
    """

    def __init__(
        self, *, tolerance: float = 1e-8, cg_steps: int = 100, cg_tolerance: float = 1e-10
    ):
        super().__init__(batched=False)
        self.tolerance, self.cg_steps, self.cg_tolerance = tolerance, cg_steps, cg_tolerance

    def task_gradient(
        self, problem: Problem, meta: Params, episode: Episode, noise: Params
    ) -> TaskGradient:
        self._check(problem, meta)
        point, residual, steps = self._minimise(problem, meta, episode, noise)

        def slope(own: Params, phi: Params) -> Params:
            return grad(lambda p: problem.task_objective(own, p, episode)[0])(phi)

        outputs, query = vjp(
            lambda own, phi: problem.query_outputs(own, phi, episode), meta, point
        )[:2]
        by_outputs = grad(problem.loss)(outputs, episode.query_y)
        direct, by_point = query(by_outputs)
        solved, cg_residual = conjugate_gradients(
            lambda v: vjp(lambda phi: slope(meta, phi), point)[1](v)[0],
            by_point,
            steps=self.cg_steps,
            tolerance=self.cg_tolerance,
        )
        (mixed,) = vjp(lambda own: slope(own, point), meta)[1](solved)
        loss = problem.loss(outputs, episode.query_y)
        stats = {
            "query_loss": loss,
            "query_accuracy": accuracy(outputs, episode.query_y),
            "solve_residual": residual,
            "cg_residual": cg_residual,
            "solve_steps": torch.as_tensor(float(steps)),
        }
        return TaskGradient(loss, tree.axpy(-1.0, mixed, direct), stats)

    def _minimise(
        self, problem: Problem, meta: Params, episode: Episode, noise: Params
    ) -> tuple[Params, Tensor, int]:
        state = problem.start(meta, noise)
        point = problem.point(meta, state)
        gradient, _ = problem.task_gradient(meta, point, episode)
        first, k = tree.norm(gradient), 0
        while k < problem.n_steps and bool(tree.norm(gradient) > self.tolerance * first):
            state = problem.move(meta, state, gradient, k)
            point, k = problem.point(meta, state), k + 1
            gradient, _ = problem.task_gradient(meta, point, episode)
        return point, tree.norm(gradient) / first.clamp_min(torch.finfo(first.dtype).tiny), k

    @staticmethod
    def _check(problem: Problem, meta: Params) -> None:
        anchor = tree.sub(meta, "anchor.")
        if problem.geometry.task_penalty(tree.sub(meta, "geometry."), anchor, anchor) is None:
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


def conjugate_gradients(
    matvec: Callable[[Params], Params], b: Params, *, steps: int, tolerance: float
) -> tuple[Params, Tensor]:
    """v with ``matvec(v)`` = b for a symmetric positive definite operator, and ||matvec(v) - b|| /
    ||b|| as recurred.

    Hestenes and Stiefel 1952. Errors: :class:`NegativeCurvature` on the first direction p with <p,
    A p> <= 0.
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
            raise NegativeCurvature(
                "the task objective must be strongly convex at its minimiser, got curvature "
                f"{float(curvature):.3g} along a "
                "direction of the linear solve; raise the prior's precision or take more solver "
                "steps"
            )
        length = square / curvature
        v, residual = tree.axpy(length, direction, v), tree.axpy(-length, image, residual)
        before, square = square, tree.dot(residual, residual)
        direction = tree.axpy(square / before, direction, residual)
    return v, torch.sqrt(square / whole.clamp_min(torch.finfo(whole.dtype).tiny))
