"""The plain loop in bf16: what autocast gives, and what the rounding of the factors alone does,
whatever computes with them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from experiments.benchmarks.case import Work
from experiments.benchmarks.implementations import Variant, implementations
from experiments.benchmarks.implementations.plain import Plain
from mdtheory.core.types import Params


class InBf16(Plain):
    """The float32 weights and images of the plain loop; in float64, where formulas are judged, the
    plain loop itself.
    """

    methods = ("maml",)
    variants = (Variant(precision="bf16"),)

    def __init__(self, work: Work, weights: Params):
        super().__init__(work, weights)
        self.enabled = work.precision == "bf16"


@implementations.register("plain-bf16")
class Autocast(InBf16):
    """Forward passes under ``torch.autocast``: convolutions, their derivatives and the classifier
    in bf16.
    """

    def loss(self, weights: Params, x: Tensor, y: Tensor) -> Tensor:
        """The mean cross-entropy. shape: ()"""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.enabled):
            return super().loss(weights, x, y)


@implementations.register("plain-bf16-factors")
class Factors(InBf16):
    """Float32 throughout, but for what every convolution multiplies: images and weights, each
    rounded to bf16 once.
    """

    def __init__(self, work: Work, weights: Params):
        super().__init__(work, weights)
        if self.enabled:
            for block in self.network.blocks:
                block.get_submodule("conv").register_forward_pre_hook(_round_input)

    def loss(self, weights: Params, x: Tensor, y: Tensor) -> Tensor:
        """The mean cross-entropy. shape: ()"""
        if self.enabled:
            weights = {
                name: _rounded(value) if name.endswith("conv.weight") else value
                for name, value in weights.items()
            }
        return super().loss(weights, x, y)


def _rounded(x: Tensor) -> Tensor:
    """x to eight binary digits, with the derivative of x. shape: as x"""
    return x + (x.to(torch.bfloat16).to(x.dtype) - x).detach()


def _round_input(module: nn.Module, args: tuple[Any, ...]) -> tuple[Tensor]:
    return (_rounded(args[0]),)
