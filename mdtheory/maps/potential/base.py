"""A learned conjugate h* whose curvature lies in [mu, L] for every value of its parameters."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn

from mdtheory.core import tree
from mdtheory.core.types import Params
from mdtheory.maps.base import MirrorMap
from mdtheory.maps.newton import conjugate_point
from mdtheory.maps.spectral_bounds import within

QUADRATIC, LEARNED = 0.5, 0.5
"""The shares of 1 - mu and of L - 1 that the quadratic and the learned part may use."""


class BoundedPotential(MirrorMap):
    """h*(z) = 1/2 sum_i q_i z_i^2 + F(z) with mu I <= Hessian <= L I, 0 < mu < 1 < L, on all of
    R^d.

    The learned diagonal q = 1 + ``quadratic`` lies in (1 - (1 - mu)/2, 1 + (L - 1)/2) and the
    Hessian of F between -(1 - mu)/2 and (L - 1)/2, both by construction and not by a penalty. At
    the start q = 1 and F = 0: the identity. So h = (h*)* is 1/L-strongly convex and 1/mu-smooth,
    grad h* is a bijection of R^d, and mirror descent with h has every guarantee that needs these
    two numbers. With F = 0 this is MetaSGD with
    bounded rates; F is what no diagonal can do.

    ``quadratic``: one number per coordinate, in the order of the flattened tensors.
    """

    quadratic: nn.Parameter

    def __init__(self, *, mu: float, L: float):
        super().__init__()
        if not 0 < mu < 1 < L < math.inf:
            raise ValueError(
                f"mu and L must satisfy 0 < mu < 1 < L, got {mu} and {L}; the start has curvature 1"
            )
        self.mu = mu
        self.L = L

    def build(self, anchor: Params) -> None:
        self.quadratic = nn.Parameter(torch.zeros_like(tree.flatten(anchor)))

    def _diagonal(self, meta: Params) -> Tensor:
        return 1 + within(
            meta["quadratic"], low=QUADRATIC * (1 - self.mu), high=QUADRATIC * (self.L - 1)
        )

    @abstractmethod
    def learned(self, meta: Params, z: Params) -> Tensor:
        """F(z). shape: ()"""

    @abstractmethod
    def slope(self, meta: Params, z: Params) -> Tensor:
        """grad F(z), flattened. shape: (d,)"""

    @abstractmethod
    def learned_curvature(self, meta: Params) -> tuple[float, float]:
        """(a, b) with a I <= Hessian of F <= b I everywhere, as narrow as these parameters
        allow.
        """

    def point(self, meta: Params, z: Params) -> Params:
        return tree.unflatten(
            torch.addcmul(self.slope(meta, z), self._diagonal(meta), tree.flatten(z)), z
        )

    def conjugate(self, meta: Params, z: Params) -> Tensor:
        return 0.5 * (self._diagonal(meta) * tree.flatten(z).square()).sum() + self.learned(meta, z)

    def inverse(self, meta: Params, phi: Params) -> Params:
        """grad h(phi), by Newton's method with conjugate gradients; differentiable (implicit
        function theorem).
        """
        return conjugate_point(self.point, meta, phi)

    def potential(self, meta: Params, phi: Params) -> Tensor:
        """h(phi) = <phi, z> - h*(z) at z = grad h(phi), where Fenchel's inequality is an equality.
        shape: ()
        """
        z = self.inverse(meta, phi)
        return tree.dot(phi, z) - self.conjugate(meta, z)

    @torch.no_grad()
    def curvature(self, meta: Params) -> tuple[float, float]:
        """The certificate of these very parameters, computed in float64: inside [mu, L], and as
        narrow as its parts are.
        """
        meta = {name: value.detach().double() for name, value in meta.items()}
        diagonal, (low, high) = self._diagonal(meta), self.learned_curvature(meta)
        return float(diagonal.min()) + low, float(diagonal.max()) + high
