"""The p-norm potential: mirror descent that prefers sparse (p near 1) or spread (large p)
points.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mdtheory.core import tree
from mdtheory.core.types import Params
from mdtheory.maps.base import MirrorMap, maps


def _powers(x: Tensor, p: float) -> tuple[Tensor, Tensor, Tensor]:
    """c = max |x| (or 1), x / c, and sum |x / c|^p (or 1 at x = 0), so that nothing overflows.
    shapes: (), (d,), ()

    c counts as a constant for derivatives: what is made of the three is homogeneous, so that it
    does not depend on c.
    """
    size = x.detach().abs().amax()
    size = torch.where(size > 0, size, torch.ones_like(size))
    unit = x / size
    total = unit.abs().pow(p).sum()
    return size, unit, torch.where(total > 0, total, torch.ones_like(total))


def _half_square(x: Tensor, p: float) -> Tensor:
    """1/2 ||x||_p^2, differentiable also at x = 0. shape: ()"""
    size, unit, total = _powers(x, p)
    return torch.where(unit.abs().sum() > 0, 0.5 * size.square() * total.pow(2 / p), 0.0)


def _slope(x: Tensor, p: float) -> Tensor:
    """The gradient of 1/2 ||x||_p^2: sign(x) |x|^(p-1) ||x||_p^(2-p); 0 at x = 0. shape: that of
    x
    """
    size, unit, total = _powers(x, p)
    return size * unit.sign() * unit.abs().pow(p - 1) * total.pow((2 - p) / p)


@maps.register("pnorm")
class PNorm(MirrorMap):
    """h(phi) = 1/2 ||phi||_p^2 over all names together, h*(z) = 1/2 ||z||_q^2 with 1/p + 1/q = 1.

    h is (p - 1)-strongly convex for p <= 2, so h* has curvature at most q - 1; for p >= 2 at least
    q - 1. Where a coordinate is 0, ``point`` is differentiable for p < 2 only, ``inverse`` for p >
    2 only; both are continuous.

    source: grove2001general; shalev2012online, section 2.5; juditsky2008large (strong convexity).
    """

    def __init__(self, p: float = 1.5):
        super().__init__()
        if not 1 < p < math.inf:
            raise ValueError(
                f"p must be in (1, inf), got {p}; 2 is gradient descent, values towards 1 favour "
                "sparse points"
            )
        self.p = p
        self.q = p / (p - 1)

    def point(self, meta: Params, z: Params) -> Params:
        return tree.unflatten(_slope(tree.flatten(z), self.q), z)

    def inverse(self, meta: Params, phi: Params) -> Params:
        return tree.unflatten(_slope(tree.flatten(phi), self.p), phi)

    def potential(self, meta: Params, phi: Params) -> Tensor:
        return _half_square(tree.flatten(phi), self.p)

    def conjugate(self, meta: Params, z: Params) -> Tensor:
        return _half_square(tree.flatten(z), self.q)

    def curvature(self, meta: Params) -> tuple[float, float]:
        if self.p == 2:
            return (1.0, 1.0)
        return (0.0, self.q - 1) if self.p < 2 else (self.q - 1, math.inf)

    def log_abs_det(self, meta: Params, z: Params) -> Tensor:
        """By the matrix determinant lemma: (d - 1) log(q - 1) + (q - 2) sum log(|z| / ||z||_q).
        shape: ()
        """
        _, unit, total = _powers(tree.flatten(z), self.q)
        ratios = (unit.abs().log() - total.log() / self.q).sum()
        return (unit.numel() - 1) * math.log(self.q - 1) + (self.q - 2) * ratios
