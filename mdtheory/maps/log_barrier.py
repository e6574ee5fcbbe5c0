"""The logarithmic barrier (Burg entropy) of the positive orthant."""

from __future__ import annotations

import torch
from torch import Tensor

from mdtheory.core.types import Params
from mdtheory.maps.base import MirrorMap, maps
from mdtheory.maps.domain import require
from mdtheory.maps.entropy import positive


def negative(z: Params) -> Params:
    """``z``, all < 0, or one sentence."""
    advice = (
        "a dual step left the domain: take a smaller task_lr, or start from negative z (phi = -1/z)"
    )
    return require(
        z, lambda value: value < 0, what="z of the log-barrier must be negative", advice=advice
    )


@maps.register("barrier")
class LogBarrier(MirrorMap):
    """h(phi) = -sum log phi on phi > 0; h*(z) = -sum (1 + log(-z)) on z < 0, phi = -1/z; Bregman
    divergence: Itakura-Saito.

    The dual domain is not R^d, so that dual steps can leave it: refused. Curvature of h*: 1/z^2,
    unbounded.

    source: bauschke2017descent, Example 1; boyd2004convex, section 3.3.1.
    """

    def point(self, meta: Params, z: Params) -> Params:
        return {name: -1 / value for name, value in negative(z).items()}

    def inverse(self, meta: Params, phi: Params) -> Params:
        return {
            name: -1 / value for name, value in positive(phi, what="phi of the log-barrier").items()
        }

    def potential(self, meta: Params, phi: Params) -> Tensor:
        inside = positive(phi, what="phi of the log-barrier")
        return -torch.stack([value.log().sum() for value in inside.values()]).sum()

    def conjugate(self, meta: Params, z: Params) -> Tensor:
        return -torch.stack([(1 + (-value).log()).sum() for value in negative(z).values()]).sum()

    def log_abs_det(self, meta: Params, z: Params) -> Tensor:
        return -2 * torch.stack([(-value).log().sum() for value in negative(z).values()]).sum()
