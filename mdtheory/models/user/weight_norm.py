"""Weight normalisation in plain arithmetic: torch's fused one has wrong second derivatives."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mdtheory.core.torch_private import WeightNorm


class PlainWeightNorm(WeightNorm):
    """w = g v / ||v||, the norm over all axes but ``dim``, or over all for dim = -1
    (salimans2016weight, eq. (2)).

    Deviation from ``torch.nn.utils.parametrizations.weight_norm``: none in value. There
    ``torch._weight_norm``, when ``dim`` is the first or last axis, has a second derivative that
    central differences refute (torch 2.13).
    """

    def forward(self, weight_g: Tensor, weight_v: Tensor) -> Tensor:
        """The weight from its length and direction. shape: as weight_v"""
        return weight_v * (weight_g / torch.norm_except_dim(weight_v, 2, self.dim))


def write_out_weight_norm(module: nn.Module) -> None:
    """Change the class of torch's parametrization in place; everything else is left alone."""
    if type(module) is WeightNorm:
        module.__class__ = PlainWeightNorm
