"""The closed forms of MAML's implicit prior, as claims C05 and C06 state them (H symmetric, alpha >
0, K >= 1 steps).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from mdtheory import descend
from mdtheory.core import tree
from mdtheory.models.base import models
from proofs_check.tools.models import hessian_of

Matrix = np.ndarray


def step_sum(hessian: Matrix, alpha: float, n_steps: int) -> Matrix:
    """S_K = alpha sum_{k<K} (I - alpha H)^k, so that GD's displacement on the Taylor model is -S_K
    g. shape: (d, d)
    """
    keep = np.eye(len(hessian)) - alpha * hessian
    total, power = np.zeros_like(hessian), np.eye(len(hessian))
    for _ in range(n_steps):
        total, power = total + alpha * power, power @ keep
    return total


def precision(hessian: Matrix, alpha: float, n_steps: int) -> Matrix:
    """Lambda = (I - alpha H)^K S_K^{-1}, stable: no inverse of a sum of inverses. shape: (d, d)"""
    keep = np.linalg.matrix_power(np.eye(len(hessian)) - alpha * hessian, n_steps)
    found = np.linalg.solve(step_sum(hessian, alpha, n_steps).T, keep.T).T
    return (found + found.T) / 2


def covariance(hessian: Matrix, alpha: float, n_steps: int) -> Matrix:
    """The boxed form Lambda^{-1} = alpha sum_{j=1}^K (I - alpha H)^{-j}; needs 1 outside spec(alpha
    H). shape: (d, d)
    """
    back = np.linalg.inv(np.eye(len(hessian)) - alpha * hessian)
    return alpha * sum(np.linalg.matrix_power(back, j) for j in range(1, n_steps + 1))


def penalised_minimiser(
    hessian: Matrix, gradient: Matrix, anchor: Matrix, weight: Matrix
) -> Matrix:
    """argmin of the Taylor model plus 1/2 |phi - anchor|^2_weight. shape: (d,)"""
    return anchor - np.linalg.solve(hessian + weight, gradient)


def quadratic(hessian: Matrix, gradient: Matrix, anchor: Matrix) -> Callable[[Tensor], Tensor]:
    """The Taylor model itself: phi -> g^T (phi - anchor) + 1/2 (phi - anchor)^T H (phi -
    anchor).
    """
    h, g, a = (torch.as_tensor(value, dtype=torch.float64) for value in (hessian, gradient, anchor))
    return lambda phi: g @ (phi - a) + 0.5 * (phi - a) @ h @ (phi - a)


def cubic(slope: float, curvature: float, third: float, until: float) -> Callable[[Tensor], Tensor]:
    """1-d: g x + eta x^2/2 + rho x^3/6 on [0, until], continued with constant curvature. shape:
    (1,) -> ()
    """

    def loss(phi: Tensor) -> Tensor:
        inside = phi.clamp(0.0, until)
        beyond = torch.relu(phi - until)  # its derivative at 0 is 0, where clamp's is 1
        bend = third * inside**3 / 6 + beyond * third * until**2 / 2 + third * until * beyond**2 / 2
        return (slope * phi + 0.5 * curvature * phi**2 + bend).sum()

    return loss


def error_constant(n_steps: int) -> float:
    """K (K - 1) (2K - 1) / 12."""
    return n_steps * (n_steps - 1) * (2 * n_steps - 1) / 12


def convex_error(*, rho: float, alpha: float, slope: float, n_steps: int) -> float:
    """rho alpha^3 G^2 K(K-1)(2K-1)/12, for convex L-smooth f and alpha <= 1/L."""
    return rho * alpha**3 * slope**2 * error_constant(n_steps)


def strong_error(*, rho: float, mu: float, slope: float) -> float:
    """rho G^2 / (2 mu^3), for mu-strongly convex f and every K."""
    return rho * slope**2 / (2 * mu**3)


def nonconvex_error(*, rho: float, alpha: float, slope: float, n_steps: int, big_l: float) -> float:
    """sum_{k<K} (1 + alpha L)^{K-1-k} alpha rho/2 [G ((1 + alpha L)^k - 1) / L]^2: exponential in
    alpha L K.
    """
    growth = 1 + alpha * big_l
    travelled = [slope * (growth**k - 1) / big_l for k in range(n_steps)]
    return sum(
        growth ** (n_steps - 1 - k) * alpha * rho / 2 * far**2 for k, far in enumerate(travelled)
    )


def deviation(
    f: Callable[[Tensor], Tensor], anchor: Tensor, *, alpha: float, n_steps: int
) -> float:
    """|phi^K - psi^K|: the library's GD on f and on its Taylor model at the anchor."""
    gradient, hessian = torch.func.grad(f)(anchor), hessian_of(f)(anchor)
    model = quadratic(hessian.numpy(), gradient.numpy(), anchor.numpy())
    how = {"task_lr": alpha, "n_steps": n_steps}
    return float(
        torch.linalg.vector_norm(descend(f, anchor, **how)[-1] - descend(model, anchor, **how)[-1])
    )


def logistic(inputs: Matrix) -> tuple[Callable[[Tensor], Tensor], float, float]:
    """Mean softplus(x_i^T phi), with L = lambda_max(X^T X)/(4n) and rho = max|x_i| lambda_max(X^T
    X)/(6 sqrt(3) n).
    """
    x = torch.as_tensor(inputs, dtype=torch.float64)
    top = float(np.linalg.eigvalsh(inputs.T @ inputs / len(inputs))[-1])
    rho = float(np.linalg.norm(inputs, axis=1).max()) * top / (6 * 3**0.5)
    return lambda phi: torch.nn.functional.softplus(x @ phi).mean(), top / 4, rho


def tanh_network() -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """Mean squared error of the library's 2-3-1 tanh network on six points, by its 13 parameters,
    and its start.
    """
    draw = torch.Generator().manual_seed(5)
    network = models.get("mlp")(
        in_features=2, n_way=1, hidden=(3,), activation="tanh", seed=5
    ).double()
    params = tree.detach(dict(network.named_parameters()))
    x = torch.randn(6, 2, generator=draw, dtype=torch.float64)
    y = torch.sin(x.sum(1, keepdim=True))

    def loss(phi: Tensor) -> Tensor:
        return torch.nn.functional.mse_loss(
            functional_call(network, tree.unflatten(phi, params), (x,)), y
        )

    return loss, tree.flatten(params)


def network_deviation(
    f: Callable[[Tensor], Tensor],
    anchor: Tensor,
    *,
    alpha: float,
    n_steps: int,
    bound: Callable[..., float],
) -> tuple[float, float]:
    """(|phi^K - psi^K|, bound) with L and rho measured along the path: L over its steps, rho over
    the rays from the anchor.
    """
    curvature, points = hessian_of(f), descend(f, anchor, task_lr=alpha, n_steps=n_steps)
    base = curvature(anchor)
    big_l, rho = float(torch.linalg.matrix_norm(base, 2)), 0.0
    for before, after in pairwise(points):
        for t in torch.linspace(0.0, 1.0, 9, dtype=torch.float64):
            big_l = max(
                big_l, float(torch.linalg.matrix_norm(curvature(before + t * (after - before)), 2))
            )
            ray = t * (after - anchor)
            if t > 0:
                change = torch.linalg.matrix_norm(
                    curvature(anchor + ray) - base, 2
                ) / torch.linalg.vector_norm(ray)
                rho = max(rho, float(change))
    slope = float(torch.linalg.vector_norm(torch.func.grad(f)(anchor)))
    limit = bound(rho=rho, alpha=alpha, slope=slope, n_steps=n_steps, big_l=big_l)
    return deviation(f, anchor, alpha=alpha, n_steps=n_steps), limit
