"""h = 1/2 ||phi||^2 in the metric of P^{-1}: mirror descent is gradient descent preconditioned by
P.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from mdtheory.core import tree
from mdtheory.core.types import Params
from mdtheory.maps.base import MirrorMap, maps


@maps.register("quadratic")
class Quadratic(MirrorMap):
    """h(phi) = 1/2 phi^T P^{-1} phi, h*(z) = 1/2 z^T P z, phi = P z, with P symmetric positive
    definite and constant.

    ``matrix``: one number (P = c I), or for every tensor either its diagonal (the tensor's shape)
    or a full matrix (n, n) on its n entries. Curvature of h*: the extreme eigenvalues of P.
    """

    def __init__(self, matrix: float | Mapping[str, Tensor] = 1.0):
        super().__init__()
        if isinstance(matrix, (int, float)) and not 0 < matrix < math.inf:
            raise ValueError(
                f"matrix must be positive and finite, got {matrix}; 1 is plain gradient descent"
            )
        self.matrix = matrix

    def build(self, anchor: Params) -> None:
        self.names = list(anchor)
        given = self.matrix
        if not isinstance(given, Mapping):
            given = {name: torch.full_like(value, float(given)) for name, value in anchor.items()}
        if set(given) != set(anchor):
            raise ValueError(
                f"matrix must have an entry for each of {self.names}, got {list(given)}; give a "
                "diagonal or a matrix each"
            )
        spectrum = []
        for i, (name, value) in enumerate(anchor.items()):
            block = given[name].detach().to(value)
            eigenvalues = self._eigenvalues(name, block, value)
            self.register_buffer(f"block_{i}", block.clone())
            self.register_buffer(f"log_det_{i}", eigenvalues.log().sum())
            spectrum += [float(eigenvalues.min()), float(eigenvalues.max())]
        self.extremes = (min(spectrum), max(spectrum))

    @staticmethod
    def _eigenvalues(name: str, block: Tensor, value: Tensor) -> Tensor:
        n = value.numel()
        if block.shape == value.shape:
            eigenvalues = block.reshape(-1)
        elif block.shape == (n, n):
            if (block - block.T).abs().max() > 1e-6 * block.abs().max():
                raise ValueError(
                    f"matrix[{name!r}] must be symmetric, got a difference from its transpose; "
                    "pass "
                    "(P + P.T) / 2"
                )
            eigenvalues = torch.linalg.eigvalsh(block)
        else:
            raise ValueError(
                f"matrix[{name!r}] must have shape {tuple(value.shape)} (a diagonal) or {(n, n)}, "
                f"got {tuple(block.shape)}; "
                "one entry per coordinate, or the full matrix"
            )
        if not (torch.isfinite(eigenvalues).all() and eigenvalues.min() > 0):
            smallest = float(eigenvalues.min())
            raise ValueError(
                f"matrix[{name!r}] must be positive definite, got smallest eigenvalue "
                f"{smallest:.3g}; add a multiple of I"
            )
        return eigenvalues

    def _each(self, x: Params, *, solve: bool) -> Params:
        result = {}
        for i, name in enumerate(self.names):
            block, value = self.get_buffer(f"block_{i}"), x[name]
            if block.shape == value.shape:
                result[name] = value / block if solve else value * block
            else:
                flat = value.reshape(-1)
                result[name] = (torch.linalg.solve(block, flat) if solve else block @ flat).reshape(
                    value.shape
                )
        return result

    def point(self, meta: Params, z: Params) -> Params:
        return self._each(z, solve=False)

    def inverse(self, meta: Params, phi: Params) -> Params:
        return self._each(phi, solve=True)

    def potential(self, meta: Params, phi: Params) -> Tensor:
        return 0.5 * tree.dot(phi, self.inverse(meta, phi))

    def conjugate(self, meta: Params, z: Params) -> Tensor:
        return 0.5 * tree.dot(z, self.point(meta, z))

    def curvature(self, meta: Params) -> tuple[float, float]:
        return self.extremes

    def log_abs_det(self, meta: Params, z: Params) -> Tensor:
        return torch.stack([self.get_buffer(f"log_det_{i}") for i in range(len(self.names))]).sum()
