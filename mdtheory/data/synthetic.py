"""Regression tasks by address: linear least squares with everything in closed form, and the
sinusoids of MAML.

A least-squares task is a quadratic, f(phi) = 1/n |X phi - y|^2, that runs through the library's own
``Problem``: the model is ``nn.Linear(n_features, 1, bias=False)``, the loss ``mse_loss``, the
support set (X, y) and the query set another such pair. Its Hessian is H = 2 X^T X / n. Then K steps
of gradient descent with diagonal rates r are affine in the start,

    phi_K = A^K phi_0 + (I + A + ... + A^(K-1)) (r * b),    A = I - diag(r) H,    b = 2 X^T y / n,

and the query loss after them is a quadratic of the start: its gradient and its minimiser are known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mdtheory.core import seeding
from mdtheory.core.types import Episode


@dataclass(frozen=True)
class Quadratic:
    """f(phi) = 1/2 phi^T H phi - b^T phi + c. shapes: ``hessian`` (d, d), ``linear`` (d,),
    ``constant`` ()
    """

    hessian: Tensor
    linear: Tensor
    constant: Tensor

    def value(self, phi: Tensor) -> Tensor:
        """f(phi). shape: ()"""
        return phi @ self.hessian @ phi / 2 - self.linear @ phi + self.constant

    def gradient(self, phi: Tensor) -> Tensor:
        """H phi - b. shape: (d,)"""
        return self.hessian @ phi - self.linear

    def optimum(self) -> Tensor:
        """The minimiser, the shortest one where H is singular. shape: (d,)"""
        return torch.linalg.pinv(self.hessian, hermitian=True) @ self.linear


def quadratic(x: Tensor, y: Tensor) -> Quadratic:
    """The mean squared error of a linear model as a function of its weights. shapes: ``x`` (n, d),
    ``y`` (n, 1)
    """
    n, target = len(x), y[:, 0]
    return Quadratic(2 * x.T @ x / n, 2 * x.T @ target / n, target @ target / n)


def descend(task: Quadratic, start: Tensor, rates: Tensor, *, n_steps: int) -> Tensor:
    """phi_K by the closed form, without iterating. shapes: ``start`` (d,), ``rates`` (d,) or ();
    result (d,)
    """
    power, total = _powers(task, rates, n_steps=n_steps)
    return power @ start + total @ (rates * task.linear)


def meta_gradient(
    episode: Episode, start: Tensor, rates: Tensor, *, n_steps: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The query loss F after K steps and its exact gradients with respect to the start and to the
    rates.

    With v = grad f_query(phi_K): dF/dstart = (A^T)^K v and dF/drates = - sum_k (A^T)^(K-1-k) v *
    grad f_support(phi_k), second-order terms included. For one common rate the derivative is the
    sum of the second. Cost: O(K) products of d x d matrices. shapes: ``rates`` (d,) or (); results
    (), (d,), (d,)
    """
    support, query = (
        quadratic(episode.support_x, episode.support_y),
        quadratic(episode.query_x, episode.query_y),
    )
    last = descend(support, start, rates, n_steps=n_steps)
    outer = query.gradient(last)
    by_rates = torch.zeros_like(start)
    for k in range(n_steps):
        back, _ = _powers(support, rates, n_steps=n_steps - 1 - k)
        by_rates = by_rates - (back.T @ outer) * support.gradient(
            descend(support, start, rates, n_steps=k)
        )
    power, _ = _powers(support, rates, n_steps=n_steps)
    return query.value(last), power.T @ outer, by_rates


def best_start(episodes: Sequence[Episode], rates: Tensor, *, n_steps: int) -> Tensor:
    """The start that minimises the mean query loss after K steps over these tasks. shape: (d,)

    It solves sum_t P_t^T H_t P_t phi_0 = sum_t P_t^T (b_t - H_t q_t) with phi_K = P_t phi_0 + q_t
    in task t and H_t, b_t of its query set; the shortest solution where there are many.
    """
    left, right = [], []
    for episode in episodes:
        support, query = (
            quadratic(episode.support_x, episode.support_y),
            quadratic(episode.query_x, episode.query_y),
        )
        power, total = _powers(support, rates, n_steps=n_steps)
        left.append(power.T @ query.hessian @ power)
        right.append(-power.T @ query.gradient(total @ (rates * support.linear)))
    return torch.linalg.pinv(torch.stack(left).sum(0), hermitian=True) @ torch.stack(right).sum(0)


def _powers(task: Quadratic, rates: Tensor, *, n_steps: int) -> tuple[Tensor, Tensor]:
    """A^K and I + A + ... + A^(K-1). shapes: (d, d), (d, d)"""
    eye = torch.eye(len(task.linear), dtype=task.linear.dtype, device=task.linear.device)
    step = eye - rates.expand(len(task.linear))[:, None] * task.hessian
    power, total = eye, torch.zeros_like(eye)
    for _ in range(n_steps):
        power, total = power @ step, total + power
    return power, total


@dataclass(frozen=True, kw_only=True)
class LeastSquaresStream:
    """``stream(index) -> Episode``: X has standard normal entries, y = X w + ``noise`` * standard
    normal, w too.

    The support and the query set share w and have draws of their own; neither depends on the
    other's size. shapes: x (n, n_features), y (n, 1). Own design.
    """

    seed: int
    n_features: int = 4
    n_support: int = 8
    n_query: int = 8
    noise: float = 0.1
    dtype: torch.dtype = torch.float64

    def __post_init__(self) -> None:
        _check_sizes(n_features=self.n_features, n_support=self.n_support, n_query=self.n_query)

    def __call__(self, index: int) -> Episode:
        """The task at ``index`` (>= 0)."""
        address = _address("least squares", self.seed, index)
        weights = torch.randn(
            self.n_features, 1, dtype=torch.float64, generator=seeding.generator(address, "task")
        )

        def examples(part: str, n_items: int) -> tuple[Tensor, Tensor]:
            generator = seeding.generator(address, part)
            x = torch.randn(n_items, self.n_features, dtype=torch.float64, generator=generator)
            y = x @ weights + self.noise * torch.randn(
                n_items, 1, dtype=torch.float64, generator=generator
            )
            return x.to(self.dtype), y.to(self.dtype)

        sets = (*examples("support", self.n_support), *examples("query", self.n_query))
        return Episode(*sets, seed=seeding.seed(address, "noise"))


@dataclass(frozen=True, kw_only=True)
class SinusoidStream:
    """``stream(index) -> Episode``: y = a sin(x - p), with a in [0.1, 5], p in [0, pi] and x in
    [-5, 5], all uniform.

    Source: finn2017maml, section 5.1 (there 5, 10 or 20 examples for adaptation); the sign of the
    phase as in the authors' code. The support and the query set have draws of their own. shapes: x
    (n, 1), y (n, 1).
    """

    seed: int
    n_shot: int = 10
    n_query: int = 10
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        _check_sizes(n_shot=self.n_shot, n_query=self.n_query)

    def wave(self, index: int) -> tuple[float, float]:
        """The amplitude and the phase of a task."""
        generator = seeding.generator(_address("sinusoid", self.seed, index), "task")
        first, second = torch.rand(2, dtype=torch.float64, generator=generator).tolist()
        return 0.1 + 4.9 * first, math.pi * second

    def __call__(self, index: int) -> Episode:
        """The task at ``index`` (>= 0)."""
        address = _address("sinusoid", self.seed, index)
        amplitude, phase = self.wave(index)

        def examples(part: str, n_items: int) -> tuple[Tensor, Tensor]:
            x = (
                10
                * torch.rand(
                    n_items, 1, dtype=torch.float64, generator=seeding.generator(address, part)
                )
                - 5
            )
            return x.to(self.dtype), (amplitude * torch.sin(x - phase)).to(self.dtype)

        return Episode(
            *examples("support", self.n_shot),
            *examples("query", self.n_query),
            seed=seeding.seed(address, "noise"),
        )


def _address(kind: str, seed: int, index: int) -> int:
    if index < 0:
        raise ValueError(f"index must be a whole number >= 0, got {index}; count the tasks from 0")
    return seeding.seed(kind, seed, index)


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}; raise it")
