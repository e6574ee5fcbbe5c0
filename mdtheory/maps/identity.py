"""phi = z, the gradient map of h = 1/2 ||phi||^2."""

from __future__ import annotations

import torch
from torch import Tensor

from mdtheory.core import tree
from mdtheory.core.types import Params
from mdtheory.maps.base import MirrorMap, maps


@maps.register("identity")
class Identity(MirrorMap):
    """g(z) = z; h = h* = 1/2 ||.||^2, Bregman divergence 1/2 ||x - y||^2."""

    def point(self, meta: Params, z: Params) -> Params:
        return z

    def inverse(self, meta: Params, phi: Params) -> Params:
        return phi

    def potential(self, meta: Params, phi: Params) -> Tensor:
        return 0.5 * tree.dot(phi, phi)

    def conjugate(self, meta: Params, z: Params) -> Tensor:
        return 0.5 * tree.dot(z, z)

    def curvature(self, meta: Params) -> tuple[float, float]:
        return (1.0, 1.0)

    def log_abs_det(self, meta: Params, z: Params) -> Tensor:
        return torch.zeros((), dtype=next(iter(z.values())).dtype)
