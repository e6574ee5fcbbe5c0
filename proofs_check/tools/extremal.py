"""Functions that attain worst cases, and iterates known to many digits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from flint import arb, ctx
from torch import Tensor


def huber(kink: float) -> Callable[[Tensor], Tensor]:
    """x^2/2 up to the kink, linear beyond, summed over coordinates."""
    return lambda v: torch.where(v.abs() <= kink, 0.5 * v**2, kink * v.abs() - 0.5 * kink**2).sum()


def sawtooth(n_steps: int) -> Callable[[Tensor], Tensor]:
    """f' runs 1, 1/2, 1, ..., 1 with slope +-1 to the left over [-K, 0], then falls to 0: L = 1,
    all |f'(phi^k)| = 1.
    """

    def loss(phi: Tensor) -> Tensor:
        s = -phi
        cell = s.detach().floor().clamp(0, n_steps - 1)
        u = s - cell
        inside = 0.75 * cell + torch.where(u <= 0.5, u - u**2 / 2, 0.25 + u**2 / 2)
        after = 0.75 * n_steps + 0.5 - 0.5 * (1 - (s - n_steps).clamp(max=1.0)) ** 2
        return -torch.where(s < n_steps, inside, after).sum()

    return loss


def power_iterate(power: int, n_steps: int) -> float:
    """x_K for |x|^p/p from x_0 = 1 with alpha = 1/(p - 1), by 30-digit ball arithmetic, radius
    below 1e-12.
    """
    with ctx.workprec(160):
        x, alpha = arb(1), arb(1) / (power - 1)
        for _ in range(n_steps):
            x = x - alpha * x ** (power - 1)
        if not x.rad() < 1e-12:
            raise ArithmeticError(f"the ball around x_{n_steps} has grown to {x.rad()}")
        return float(x.mid())
