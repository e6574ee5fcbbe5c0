"""Hyperbolic entropy: between gradient descent and multiplicative updates, on all of R^d."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mdtheory.core.types import Params
from mdtheory.maps.base import MirrorMap, maps


@maps.register("hypentropy")
class Hypentropy(MirrorMap):
    """h(phi) = sum phi asinh(phi / beta) - sqrt(phi^2 + beta^2); h*(z) = beta sum cosh z, phi =
    beta sinh z.

    Large beta: close to beta times gradient descent; small beta: multiplicative updates with a
    sign. Curvature of h*: beta cosh z, in [beta, inf).

    source: ghai2020exponentiated, definition 1.
    """

    def __init__(self, beta: float = 1.0):
        super().__init__()
        if not 0 < beta < math.inf:
            raise ValueError(
                f"beta must be positive and finite, got {beta}; 1 is between gradient and "
                "multiplicative steps"
            )
        self.beta = beta

    def point(self, meta: Params, z: Params) -> Params:
        return {name: self.beta * value.sinh() for name, value in z.items()}

    def inverse(self, meta: Params, phi: Params) -> Params:
        return {name: (value / self.beta).asinh() for name, value in phi.items()}

    def potential(self, meta: Params, phi: Params) -> Tensor:
        terms = [
            v * (v / self.beta).asinh() - torch.sqrt(v * v + self.beta * self.beta)
            for v in phi.values()
        ]
        return torch.stack([term.sum() for term in terms]).sum()

    def conjugate(self, meta: Params, z: Params) -> Tensor:
        return self.beta * torch.stack([value.cosh().sum() for value in z.values()]).sum()

    def curvature(self, meta: Params) -> tuple[float, float]:
        return (self.beta, math.inf)

    def log_abs_det(self, meta: Params, z: Params) -> Tensor:
        offset = math.log(self.beta / 2)
        return torch.stack(
            [(torch.logaddexp(value, -value) + offset).sum() for value in z.values()]
        ).sum()
