"""Geometries that are no methods but controls: each has one thing in common with a method, and not
the thing that the method is praised for.

Only :mod:`experiments.run` and what tests its weights register them, so that no table of methods
lists them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mdtheory.core import tree
from mdtheory.core.tree import ParameterTree
from mdtheory.core.types import Params
from mdtheory.geometry.base import Geometry, geometries
from mdtheory.geometry.metacurvature import CurvatureStep
from mdtheory.maps.base import MirrorMap


class Shift(MirrorMap):
    """g(z) = z + b, the gradient of h*(z) = 1/2 ||z||^2 + <b, z>; b = 0 at the start.

    h(phi) = 1/2 ||phi - b||^2. A gradient step in z is a gradient step in phi, so b is redundant
    with the anchor: a gauge. Together they move phi_0 by the sum of two updates.
    """

    def build(self, anchor: Params) -> None:
        """One number for every coordinate."""
        self.shift = ParameterTree(
            {name: value.new_zeros(value.shape) for name, value in anchor.items()}
        )

    def point(self, meta: Params, z: Params) -> Params:
        return tree.axpy(1.0, tree.sub(meta, "shift."), z)

    def inverse(self, meta: Params, phi: Params) -> Params:
        return tree.axpy(-1.0, tree.sub(meta, "shift."), phi)

    def potential(self, meta: Params, phi: Params) -> Tensor:
        z = self.inverse(meta, phi)
        return 0.5 * tree.dot(z, z)

    def conjugate(self, meta: Params, z: Params) -> Tensor:
        return 0.5 * tree.dot(z, z) + tree.dot(tree.sub(meta, "shift."), z)

    def curvature(self, meta: Params) -> tuple[float, float]:
        return (1.0, 1.0)


class DoubledStep(CurvatureStep):
    """Meta-Curvature with P = 2 M - I in place of every matrix M, and 2 s - 1 of every scale s.

    At the start, where M = I, its P moves twice as far as M does, as A^T A does when A moves; but
    it is neither symmetric nor positive. It tells the doubled rate from the form.
    """

    def curved(self, meta: Params, name: str, g: Tensor) -> Tensor:
        """MC(G) with the doubled matrices. shape: as g"""
        doubled = {
            key: 2 * value - _neutral(key, value)
            for key, value in meta.items()
            if key.startswith("curvature.")
        }
        return super().curved(doubled, name, g)


def _neutral(key: str, value: Tensor) -> Tensor:
    """What a matrix or a scale is at the start. shape: as value"""
    if key.startswith("curvature.scale."):
        return torch.ones_like(value)
    return torch.eye(len(value), dtype=value.dtype, device=value.device)


class RedundantShift(Geometry):
    """MAML with a redundant shift of the start: phi = z + b."""

    source = "own design: a control for the gauge of a mirror map"

    def __init__(self) -> None:
        super().__init__(map=Shift())


class DoubledCurvature(Geometry):
    """Meta-Curvature whose matrices learn twice as fast: P = 2 M - I."""

    source = "own design: a control for the rate at which A^T A learns"

    def __init__(self) -> None:
        super().__init__(rule=DoubledStep())


CONTROLS = {"control-shift": RedundantShift, "control-doubled": DoubledCurvature}
"""What configurations call them."""


def register() -> None:
    """Make the controls known to configurations, in this process."""
    for name, geometry in CONTROLS.items():
        geometries.register(name)(geometry)
