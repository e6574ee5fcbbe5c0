"""The least that a meta-iteration can take: its necessary convolutions at the speed that this
machine's best one reaches.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch.nn.functional import conv2d

from experiments.benchmarks.case import BLOCKS, Size

SIDE, CHANNELS = 42, 64  # of the probed convolution: the second layer, where most of the work is


def convolution_flops(size: Size) -> float:
    """Multiplications and additions of all 3x3 convolutions that a second-order meta-gradient
    cannot do without.

    One pass over a layer is F = 2 * 9 * in * out * H * W an image. A support image at a step:
    forward, gradient of input and of weights (3 F), and their Hessian-vector product, each with two
    tangents (6 F); in the first layer, whose input is constant, forward and weight gradient with
    one tangent each (4 F). A query image: 3 F, in the first layer 2 F.
    """
    return sum(
        passes * 2 * 9 * inputs * out * side**2 for passes, inputs, out, side in _layers(size)
    )


def convolution_bytes(size: Size) -> float:
    """What those convolutions read and write of images, in float32, each once a pass."""
    return sum(passes * 4 * (inputs + out) * side**2 for passes, inputs, out, side in _layers(size))


def _layers(size: Size) -> Iterator[tuple[int, int, int, int]]:
    """Passes of an image, channels in and out, and the image's side, layer by layer."""
    support, query = size.n_steps * size.n_support, size.n_queries
    side, inputs = size.image_size, 3
    for layer in range(BLOCKS):
        passes = support * (9 if layer else 4) + query * (3 if layer else 2)
        yield size.n_tasks * passes, inputs, size.channels, side
        side, inputs = side // 2, size.channels


def best_throughput(size: Size, precision: str, *, seconds: float) -> float:
    """The best rate, in operations a second, of a channels-last 3x3 convolution of 64 channels at
    the batches of the work.
    """
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    weight = torch.randn(CHANNELS, CHANNELS, 3, 3, generator=torch.Generator().manual_seed(0)).to(
        dtype
    )
    weight = weight.contiguous(memory_format=torch.channels_last)
    best = 0.0
    with torch.no_grad():
        for n_items in sorted({size.n_support, 16, size.n_queries}):
            x = torch.ones(n_items, CHANNELS, SIDE, SIDE, dtype=dtype).contiguous(
                memory_format=torch.channels_last
            )
            flops = 2 * 9 * CHANNELS**2 * SIDE**2 * n_items
            conv2d(x, weight, padding=1)
            until, begun = time.perf_counter() + seconds, 0.0
            while begun < until:
                begun = time.perf_counter()
                conv2d(x, weight, padding=1)
                best = max(best, flops / (time.perf_counter() - begun))
    return best
