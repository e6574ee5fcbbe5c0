"""Convolution, norm, pooling and activation as :mod:`mdtheory.kernels` computes them where it can,
and what lets networks of users have that too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from mdtheory.kernels import conv_norm_pool, convolution
from mdtheory.models.norm import BatchStatNorm


class Conv2d(nn.Conv2d):
    """``nn.Conv2d``, by :mod:`mdtheory.kernels.convolution` where that is worth it."""

    def forward(self, input: Tensor) -> Tensor:
        """The convolution. shape: (N, C, H', W')"""
        if convolution.suits(input, self):
            return convolution.conv2d(input, self)
        return super().forward(input)


def conv_norm(
    conv: nn.Conv2d, norm: BatchStatNorm, x: Tensor, *, pool: bool, slope: float
) -> Tensor:
    """leaky(pool(norm(conv(x)))), max-pooled 2x2 or not, of this slope below 0 (0: ReLU, 1:
    none).

    shape: (N, C, H // 2, W // 2), or as conv(x)
    """
    gamma, beta, window = norm.weight, norm.bias, 2 if pool else 1
    if (
        gamma is not None
        and beta is not None
        and _usual(conv, norm)
        and conv_norm_pool.suits(x, conv.weight, gamma, beta, window=window, slope=slope)
    ):
        return conv_norm_pool.conv_norm_pool(
            x,
            conv.weight,
            conv.bias,
            gamma,
            beta,
            eps=norm.eps,
            counted=norm.counted(x),
            window=window,
            slope=slope,
        )
    y = norm(conv(x))
    y = F.max_pool2d(y, 2) if pool else y
    return F.relu(y) if slope == 0 else y if slope == 1 else F.leaky_relu(y, slope)


def _usual(conv: nn.Conv2d, norm: BatchStatNorm) -> bool:
    """Whether both layers do what they were built for, nothing hooked on: only then may their
    forward passes be skipped.
    """
    k = conv.kernel_size
    return (
        type(conv).forward in (nn.Conv2d.forward, Conv2d.forward)
        and type(conv)._conv_forward is nn.Conv2d._conv_forward
        and type(norm).forward is BatchStatNorm.forward
        and not _hooked(conv, norm)
        and norm.normalises_by_batch()
        and k[0] == k[1]
        and conv.padding == (k[0] // 2,) * 2
        and conv.stride == conv.dilation == (1, 1)
        and conv.groups == 1
        and conv.padding_mode == "zeros"
    )


def _hooked(*layers: nn.Module) -> bool:
    return any(layer._forward_hooks or layer._forward_pre_hooks for layer in layers)


class Fused(nn.Sequential):
    """``nn.Sequential`` in which convolution, batch norm, ReLU and 2x2 max-pool that follow one
    another are one operation on a GPU. Both orders of the last two give the same values.
    """

    def forward(self, input: Tensor) -> Tensor:
        """The last layer's output. shape: whatever that gives"""
        layers = list(self)
        while layers:
            taken = _run(layers) if conv_norm_pool.on_gpu(input) else None
            if taken is None:
                input = layers.pop(0)(input)
                continue
            length, run = taken
            input, layers = run(input), layers[length:]
        return input


def _run(layers: Sequence[nn.Module]) -> tuple[int, Callable[[Tensor], Tensor]] | None:
    """How many of the first layers are one operation, and it."""
    if len(layers) < 2 or _hooked(*layers[:2]):
        return None
    conv, norm = layers[:2]
    if not (isinstance(conv, nn.Conv2d) and isinstance(norm, BatchStatNorm)):
        return None
    if not _usual(conv, norm):
        return None
    pool, slope, length = False, 1.0, 2
    for layer in layers[2:4]:
        if _hooked(layer):
            break
        if (found := _slope(layer)) is not None and slope == 1.0:
            slope = found
        elif _halves(layer) and not pool:
            pool = True
        else:
            break
        length += 1
    return length, partial(conv_norm, conv, norm, pool=pool, slope=slope)


def _slope(layer: nn.Module) -> float | None:
    """Of an activation that max-pooling commutes with; ``None`` for every other layer."""
    if type(layer) is nn.ReLU:
        return 0.0
    if type(layer) is nn.LeakyReLU and 0 <= layer.negative_slope < 1:
        return float(layer.negative_slope)
    return None


def _halves(layer: nn.Module) -> bool:
    """Whether it is a 2x2 max-pool without padding."""
    return (
        type(layer) is nn.MaxPool2d
        and layer.kernel_size in (2, (2, 2))
        and layer.stride in (2, (2, 2))
        and layer.padding in (0, (0, 0))
        and layer.dilation in (1, (1, 1))
        and not (layer.ceil_mode or layer.return_indices)
    )


def fuse(network: nn.Module) -> nn.Module:
    """Let every plain ``nn.Conv2d`` and ``nn.Sequential`` inside be the one of this file, in place.

    Parameters, names and, on a CPU, every operation stay what they were.
    """
    for module in network.modules():
        if type(module) is nn.Conv2d:
            module.__class__ = Conv2d
        elif type(module) is nn.Sequential:
            module.__class__ = Fused
    return network
