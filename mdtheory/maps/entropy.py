"""Negative entropy on the positive orthant: mirror descent with multiplicative updates."""

from __future__ import annotations

import torch
from torch import Tensor

from mdtheory.core import tree
from mdtheory.core.types import Params
from mdtheory.maps.base import MirrorMap, maps
from mdtheory.maps.domain import require


def positive(values: Params, *, what: str) -> Params:
    """``values``, all > 0, or one sentence."""
    advice = "start from positive values, or choose a map of all of R^d such as 'hypentropy'"
    return require(values, lambda value: value > 0, what=f"{what} must be positive", advice=advice)


@maps.register("entropy")
class NegativeEntropy(MirrorMap):
    """h(phi) = sum phi log phi - phi on phi > 0; h*(z) = sum e^z, phi = e^z; Bregman divergence:
    generalised Kullback-Leibler.

    A dual step is phi <- phi e^(-rate grad), the unnormalised exponentiated gradient. Curvature of
    h*: e^z, unbounded.

    source: beck2003mirror, section 5; kivinen1997exponentiated.
    """

    def point(self, meta: Params, z: Params) -> Params:
        return {name: value.exp() for name, value in z.items()}

    def inverse(self, meta: Params, phi: Params) -> Params:
        return {
            name: value.log()
            for name, value in positive(phi, what="phi of the negative entropy").items()
        }

    def potential(self, meta: Params, phi: Params) -> Tensor:
        return tree.dot(phi, tree.tree_map(lambda log: log - 1, self.inverse(meta, phi)))

    def conjugate(self, meta: Params, z: Params) -> Tensor:
        return torch.stack([value.exp().sum() for value in z.values()]).sum()

    def log_abs_det(self, meta: Params, z: Params) -> Tensor:
        return torch.stack([value.sum() for value in z.values()]).sum()
