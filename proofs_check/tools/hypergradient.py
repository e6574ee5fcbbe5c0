"""Bilevel problems with every constant known, and the library's estimators on them, for claims C03,
C08a and C08b.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from mdtheory.inner.estimators import Estimator, estimators
from proofs_check.tools.models import Function, hessian_of, problem_of


def implicit_gradient(
    task: Function,
    query: Function,
    point: Tensor,
    theta: Tensor,
    estimator: Estimator | None = None,
) -> Tensor:
    """The library's AID gradient d F/d theta at the approximate minimiser ``point`` (zero solver
    steps from it). shape: (p,)
    """
    problem, meta, posed = problem_of(
        task, point, task_lr=1.0, n_steps=0, query=query, theta=theta, strongly_convex=True
    )
    estimator = (
        estimator if estimator is not None else estimators.get("implicit")(cg_tolerance=1e-14)
    )
    return estimator(problem, meta, [posed]).grads["shared.theta"]


def unrolled_gradients(
    task: Function,
    query: Function,
    start: Tensor,
    theta: Tensor,
    *,
    alpha: float,
    n_steps: int,
    estimator: str = "unrolled",
) -> tuple[Tensor, Tensor]:
    """The library's gradients by theta (at fixed start) and by the start. shapes: (p,), (d,)"""
    problem, meta, posed = problem_of(
        task, start, task_lr=alpha, n_steps=n_steps, query=query, theta=theta
    )
    grads = estimators.get(estimator)()(problem, meta, [posed]).grads
    return grads["shared.theta"], grads["anchor.phi"]


@dataclass(frozen=True)
class Bilevel:
    """f(phi, theta) and l(phi, theta) at theta = 0, with the constants of C08.

    mu <= Hessian of f <= big_l; rho, tau, j: Lipschitz constants of the Hessian and of G = d_theta
    d_phi f, and a bound on
    |G|; big_lq, direct: Lipschitz constants in phi of the gradients of l by phi and by theta.
    """

    task: Function
    query: Function
    best: Tensor  # phi*, to rounding
    theta: Tensor
    mu: float
    big_l: float
    rho: float
    tau: float
    j: float
    big_lq: float
    direct: float

    @property
    def m(self) -> float:
        """M = |grad_phi l(phi*)|."""
        return float(
            torch.linalg.vector_norm(
                torch.func.grad(lambda v: self.query(v, self.theta))(self.best)
            )
        )


@cache
def random_bilevel(seed: int, d: int = 3, mu: float = 0.5) -> Bilevel:
    """f = mu/2|phi|^2 + sum c logcosh(w.phi - b) - theta.(B phi + tau logcosh(phi)), l =
    Lq/2|phi-a|^2 + theta.(C phi).
    """
    rng = np.random.default_rng(seed)
    w, b, c = rng.standard_normal((2, d)), rng.standard_normal(2), rng.uniform(0.1, 1.0, 2)
    coupling, cross, target = (
        rng.standard_normal((d, d)),
        0.5 * rng.standard_normal((d, d)),
        rng.standard_normal(d),
    )
    tau, big_lq = float(rng.uniform(0.0, 1.0)), float(rng.uniform(0.1, 1.0))
    tensors = (torch.tensor(value) for value in (w, b, c, coupling, cross, target))
    w_t, b_t, c_t, coupling_t, cross_t, target_t = tensors

    def task(phi: Tensor, theta: Tensor) -> Tensor:
        own = 0.5 * mu * phi @ phi + (c_t * torch.cosh(w_t @ phi - b_t).log()).sum()
        return own - theta @ (coupling_t @ phi + tau * torch.cosh(phi).log())

    def query(phi: Tensor, theta: Tensor) -> Tensor:
        return 0.5 * big_lq * (phi - target_t).square().sum() + theta @ cross_t @ phi

    norms, theta = np.linalg.norm(w, axis=1), torch.zeros(d, dtype=torch.float64)
    return Bilevel(
        task=task,
        query=query,
        best=newton(lambda v: task(v, theta), theta),
        theta=theta,
        mu=mu,
        big_l=mu + float((c * norms**2).sum()),
        rho=float((c * norms**3).sum()) * 4 / (3 * 3**0.5),  # max |logcosh'''|
        tau=tau,
        j=float(np.linalg.norm(coupling, 2)) + tau,
        big_lq=big_lq,
        direct=float(np.linalg.norm(cross, 2)),
    )


def newton(f: Function, start: Tensor, *, n_steps: int = 40) -> Tensor:
    """The minimiser of a strongly convex f, by Newton's method with halving. shape: (d,)"""
    point = start.clone()
    for _ in range(n_steps):
        slope, hessian = torch.func.grad(f)(point), hessian_of(f)(point)
        step, length = torch.linalg.solve(hessian, slope), 1.0
        if float(torch.linalg.vector_norm(step)) <= 1e-16:
            break
        while f(point - length * step) > f(point) and length > 1e-8:
            length /= 2
        point = point - length * step
    return point


def implicit_bound(b: Bilevel, e: float) -> float:
    """(L' + J Lq/mu + M tau/mu + M J rho/mu^2) e."""
    return (b.direct + b.j * b.big_lq / b.mu + b.m * b.tau / b.mu + b.m * b.j * b.rho / b.mu**2) * e


def jacobian_bound(
    b: Bilevel, *, alpha: float, n_steps: int, distance: float, start: float
) -> float:
    """E_K <= q^K E_0 + alpha (rho J/mu + tau) K q^{K-1} D, q = 1 - alpha mu."""
    q = 1 - alpha * b.mu
    return (
        q**n_steps * start
        + alpha * (b.rho * b.j / b.mu + b.tau) * n_steps * q ** (n_steps - 1) * distance
    )


def unrolled_bound(b: Bilevel, *, e: float, jacobian: float) -> float:
    """L' e_K + (J Lq/mu) e_K + (M + Lq e_K) E_K."""
    return b.direct * e + b.j * b.big_lq / b.mu * e + (b.m + b.big_lq * e) * jacobian
