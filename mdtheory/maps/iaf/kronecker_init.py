"""The two starts of the Kronecker BlockIAF: the published one, mostly dead, and a live one; both
are the identity.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from mdtheory.maps.iaf.base import centred_uniform, smooth_leaky

Shape = tuple[int, ...]
Role = Literal["encoder", "decoder", "head"]

LAYERS = 3  # of every encoder and decoder; each one halves or doubles every mode


def modes(shape: Sequence[int]) -> Shape:
    """A kernel (out, in, *k) has the modes (out, in, prod k); up to two axes stay as they are; a
    scalar has one mode of 1.
    """
    return (tuple(shape) or (1,)) if len(shape) < 3 else (shape[0], shape[1], math.prod(shape[2:]))


def halved(shape: Shape, times: int) -> Shape:
    """Every mode halved (floor, at least 1) so many times."""
    return shape if times == 0 else halved(tuple(max(1, n // 2) for n in shape), times - 1)


def kron_linear(x: Tensor, factors: Sequence[Tensor], bias: Tensor) -> Tensor:
    """(W_1 x ... x W_m) x + bias for n tensors at once; the Kronecker product is never formed.

    shapes: x (n, i_1, ..., i_m), W_j (n, o_j, i_j), bias and result (n, o_1, ..., o_m). Every
    product contracts the leading mode and appends the new one, so that after m products the modes
    are in order again.
    """
    n = x.shape[0]
    for factor in factors:
        x = torch.bmm(x.reshape(n, factor.shape[2], -1).transpose(1, 2), factor.transpose(1, 2))
    return x.reshape(bias.shape) + bias


def signed_uniform(shape: tuple[int, int], draw: torch.Generator) -> Tensor:
    """Random signs times magnitudes U(1/2, 3/2), scaled to variance 1 / shape[1]; none is near
    zero. Drawn in float64.
    """
    magnitude = 0.5 + torch.rand(shape, generator=draw, dtype=torch.float64)
    return (
        (2 * torch.randint(2, shape, generator=draw) - 1)
        * magnitude
        * math.sqrt(12 / (13 * shape[1]))
    )


def power_of_two(x: float) -> float:
    """The power of two nearest to x > 0 on a logarithmic scale."""
    return 2.0 ** round(math.log2(x))


class PublishedStart:
    """As the public code starts it: ReLU units, factors U(+-1/sqrt(i)), biases 0, and *all* factors
    of the heads zero.

    A product of two or more zero factors has zero gradients, so that the heads of kernels and
    matrices, and what only feeds them, never train; what remains of them is a constant log-scale
    and shift per coordinate.
    """

    live = False  # True: a unit stands before the first layer of an encoder too
    form: tuple[float, float] | None = None
    """p and q where the unit is p x + q sqrt(1 + x^2); ``None``: it is ReLU."""

    @staticmethod
    def unit(x: Tensor) -> Tensor:
        """The activation of encoders and decoders, elementwise. shape: as x"""
        return torch.relu(x)

    def layer(
        self, role: Role, small: Shape, large: Shape, draw: torch.Generator
    ) -> tuple[list[Tensor], Tensor]:
        """Factors (o_j, i_j) and bias of one Kronecker layer from ``small`` to ``large``."""
        pairs = list(zip(large, small, strict=True))
        if role == "head":
            return [torch.zeros(o, i) for o, i in pairs], torch.zeros(large)
        return [
            centred_uniform((o, i), bound=1 / math.sqrt(i), generator=draw) for o, i in pairs
        ], torch.zeros(large)

    def linear(self, n_in: int, n_out: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        """Weight (n_out, n_in) and bias (n_out,) of a linear layer: torch's default."""
        weight, bias = (
            centred_uniform(shape, bound=n_in**-0.5, generator=draw)
            for shape in ((n_out, n_in), (n_out,))
        )
        return weight, bias

    def context_gain(self, n_in: int) -> float:
        """What multiplies the codes before a linear layer."""
        return 1.0

    def head_gain(self, n_features: int) -> float:
        """What multiplies the features before a head."""
        return 1.0


class LiveStart(PublishedStart):
    """A start where no unit is dead: conditioners that do not look at their context yet (own
    design, same tensors).

    Only the linear layers are zero. So every seed is 0, every unit behind it puts out u(0) = 1/2,
    and each decoder bias cancels what its layer makes of that constant: all preactivations and both
    heads are 0, and g is the identity. Decoder factors are signs times powers of two, so that this
    is exact in every precision. At the first meta-step everything but the encoders has a gradient,
    at the second all has (zero heads would leave the decoders a gradient of second order in the
    step as well). Units are :func:`smooth_leaky`, one of them before the first layer too, as z
    itself may be 0.

    Factors keep the size of a signal (about i^(-1/2)). Heads take the mean of their features and
    linear layers n^(-1/4) of their sum, so that an optimizer's step on a weight moves g about as
    much as one on a bias: this keeps Adam stable.
    """

    live = True
    form = (1.0, 0.5)

    @staticmethod
    def unit(x: Tensor) -> Tensor:
        return smooth_leaky(x)

    def layer(
        self, role: Role, small: Shape, large: Shape, draw: torch.Generator
    ) -> tuple[list[Tensor], Tensor]:
        pairs = list(zip(large, small, strict=True))
        if role == "encoder":
            return [signed_uniform((o, i), draw) for o, i in pairs], torch.zeros(large)
        signs = [2.0 * torch.randint(2, pair, generator=draw) - 1 for pair in pairs]
        factors = [
            sign if role == "head" else sign * power_of_two(1 / math.sqrt(sign.shape[1]))
            for sign in signs
        ]
        gain = self.head_gain(math.prod(small)) if role == "head" else 1.0
        constant = torch.full((1, *small), 0.5 * gain)
        return factors, -kron_linear(
            constant, [factor[None] for factor in factors], torch.zeros(1, *large)
        )[0]

    def linear(self, n_in: int, n_out: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        return torch.zeros(n_out, n_in), torch.zeros(n_out)

    def context_gain(self, n_in: int) -> float:
        return n_in**-0.25

    def head_gain(self, n_features: int) -> float:
        return power_of_two(1 / n_features)
