"""The inverse of a gradient map by Newton's method, differentiable through the implicit function
theorem.

What a learned conjugate h* needs for h: h(phi) = <phi, z> - h*(z) at the z with grad h*(z) = phi.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import vjp

from mdtheory.core import tree
from mdtheory.core.cg import conjugate_gradients
from mdtheory.core.types import Params

Operator = Callable[..., Tensor]
"""F(x, *parameters) -> vector of x's shape (d,), with a symmetric positive definite Jacobian in x:
the gradient of a smooth strongly convex function. Everything that should receive a gradient is
among ``parameters``."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """When to stop: ||F(x) - y|| <= tol (1 + ||y||), or what rounding allows where that is more;
    else an error.
    """

    tol: float = 1e-10
    newton_steps: int = 100
    cg_steps: int = 1000

    def target(self, y: Tensor) -> float:
        """The residual norm that counts as solved; ``tol`` is at least 50 rounding errors of y's
        precision.
        """
        return max(self.tol, 50 * torch.finfo(y.dtype).eps) * (1 + float(y.norm()))


def invert(
    operator: Operator, y: Tensor, *parameters: Tensor, budget: Budget | None = None
) -> Tensor:
    """x with operator(x, *parameters) = y. shapes: (d,) -> (d,)

    Damped Newton steps on ||F(x) - y||, each solved by conjugate gradients with products J v (one
    backward pass each; the Jacobian is never formed). dx = J^{-1} (dy - dF/dparameters):
    derivatives of any order in y and in the parameters by further solves; forward mode is not
    provided. Under vmap the tasks are solved one after another. ``RuntimeError`` where no solution
    is found: F is then not strongly monotone, or y out of reach.
    """
    return _Inverse.apply(operator, budget or Budget(), y, *parameters)


def conjugate_point(
    point: Callable[[Params, Params], Params],
    meta: Params,
    phi: Params,
    budget: Budget | None = None,
) -> Params:
    """z with point(meta, z) = phi, for ``point`` = grad h* of a smooth strongly convex h*: so z =
    grad h(phi).

    Differentiable in ``meta`` and ``phi``; see :func:`invert`.
    """
    names = list(meta)

    def operator(x: Tensor, *values: Tensor) -> Tensor:
        return tree.flatten(point(dict(zip(names, values, strict=True)), tree.unflatten(x, phi)))

    return tree.unflatten(invert(operator, tree.flatten(phi), *meta.values(), budget=budget), phi)


class _Inverse(torch.autograd.Function):
    """x = F^{-1}(y). Its backward is itself a solve with the linear operator J, so that it can be
    differentiated again.
    """

    @staticmethod
    def forward(operator: Operator, budget: Budget, y: Tensor, *parameters: Tensor) -> Tensor:
        return _newton(lambda x: operator(x, *parameters), y, budget)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.operator, ctx.budget, _, *parameters = inputs
        ctx.save_for_backward(output, *parameters)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, *parameters = ctx.saved_tensors
        operator = ctx.operator

        def linearised(u: Tensor, at: Tensor, *values: Tensor) -> Tensor:
            return _linearise(lambda point: operator(point, *values), at)[1](u)

        w = invert(linearised, grad_outputs[0], x, *parameters, budget=ctx.budget)
        pulled = vjp(lambda *values: operator(x, *values), *parameters)[1](-w) if parameters else ()
        return (None, None, w, *pulled)

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[int | None, ...],
        operator: Operator,
        budget: Budget,
        y: Tensor,
        *parameters: Tensor,
    ) -> tuple[Tensor, int]:
        tensors, dims = (y, *parameters), in_dims[2:]
        solutions = []
        for i in range(info.batch_size):
            task = [
                t if dim is None else t.select(dim, i) for t, dim in zip(tensors, dims, strict=True)
            ]
            solutions.append(invert(operator, *task, budget=budget))
        return torch.stack(solutions), 0


def _linearise(
    operator: Callable[[Tensor], Tensor], x: Tensor
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """F(x), and v -> J v (J is symmetric, so that the backward product serves)."""
    value, pull, *_ = vjp(operator, x)
    return value, lambda v: pull(v)[0]


def _newton(operator: Callable[[Tensor], Tensor], y: Tensor, budget: Budget) -> Tensor:
    x, target, cg_steps = torch.zeros_like(y), budget.target(y), min(budget.cg_steps, 2 * y.numel())
    value, product = _linearise(operator, x)
    residual = y - value
    size = float(residual.norm())
    for _ in range(budget.newton_steps):
        if size <= target:
            break
        tolerance = min(0.1, size) * 1e-2
        step = conjugate_gradients(product, residual, steps=cg_steps, tolerance=tolerance).x
        scale = 1.0
        while (
            scale > 1e-10
        ):  # damping: the largest of 1, 1/2, 1/4, ... that lowers the residual norm
            value, product = _linearise(operator, x + scale * step)
            residual = y - value
            if float(residual.norm()) <= (1 - 1e-4 * scale) * size:
                break
            scale /= 2
        else:
            break
        x, size = x + scale * step, float(residual.norm())
    if size <= target:
        return x
    raise RuntimeError(
        f"the gradient map could not be inverted: residual {size:.2e}, wanted {target:.2e}; "
        "it must be the gradient of a smooth strongly convex function, and phi in its range"
    )
