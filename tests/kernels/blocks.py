"""The block as autograd knows it, and every first and second derivative of one, for tasks at
once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import vjp, vmap

from mdtheory.kernels.conv_norm_pool import conv_norm_pool

EPS = 1e-5
Block = Callable[..., Tensor]
OWN = (0, 1, 3, 4)  # x, weight, gamma, beta: the gradient of the bias is an exact 0


@dataclass(frozen=True)
class Size:
    """Of one task: items, input and output channels, height, width; and the block's plan."""

    n: int
    b: int
    c: int
    h: int
    w: int
    counted: int
    k: int = 3
    window: int = 2
    slope: float = 0.0


def ordinary(x: Tensor, weight: Tensor, bias: Tensor, *rest: Tensor, size: Size) -> Tensor:
    """The block of ordinary operations. shape: (n, c, h // window, w // window)"""
    gamma, beta = rest
    u = F.conv2d(x, weight, bias, padding=size.k // 2)
    mean = u[: size.counted].mean((0, 2, 3), keepdim=True)
    var = (u[: size.counted] - mean).square().mean((0, 2, 3), keepdim=True)
    z = (u - mean) * torch.rsqrt(var + EPS) * gamma[:, None, None] + beta[:, None, None]
    z = F.max_pool2d(z, 2) if size.window == 2 else z
    return F.relu(z) if size.slope == 0 else F.leaky_relu(z, size.slope)


def ours(x: Tensor, weight: Tensor, bias: Tensor, *rest: Tensor, size: Size) -> Tensor:
    """The library's. shape: as ordinary"""
    plan = {"counted": size.counted, "window": size.window, "slope": size.slope}
    return conv_norm_pool(x, weight, bias, *rest, eps=EPS, **plan)


def inputs(
    size: Size, *, tasks: int, seed: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, ...]:
    """x, weight, bias, gamma, beta of every task, with an axis of tasks in front."""
    draw = torch.Generator().manual_seed(seed)
    shapes = [
        (size.n, size.b, size.h, size.w),
        (size.c, size.b, size.k, size.k),
        *[(size.c,)] * 3,
    ]
    return tuple(torch.randn(tasks, *shape, generator=draw, dtype=dtype) for shape in shapes)


def along(size: Size, *, tasks: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    """A cotangent of y, and one of every first derivative."""
    draw = torch.Generator().manual_seed(1)
    y = (size.n, size.c, size.h // size.window, size.w // size.window)
    like = inputs(size, tasks=1)
    shapes = [y, *(like[i].shape[1:] for i in OWN)]
    return tuple(torch.randn(tasks, *shape, generator=draw, dtype=dtype) for shape in shapes)


def all_derivatives(block: Block, size: Size) -> Callable[..., tuple[Tensor, ...]]:
    """One task's value, first derivatives along a cotangent, and those of these along further
    ones.
    """

    def first(gy: Tensor, *args: Tensor) -> tuple[Tensor, ...]:
        slopes = vjp(lambda *own: block(*own, size=size), *args)[1](gy)
        return tuple(slopes[i] for i in OWN)

    def one(args: tuple[Tensor, ...], cotangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        gy, *further = cotangents
        slopes, pull = vjp(first, gy, *args)
        shares = pull(tuple(further))
        return block(*args, size=size), *slopes, shares[0], *(shares[1 + i] for i in OWN)

    return one


def looped(block: Block, size: Size, *data: tuple[Tensor, ...]) -> list[Tensor]:
    """All derivatives, task after task."""
    tasks = len(data[0][0])
    one = all_derivatives(block, size)
    rows = [one(*(tuple(x[t] for x in part) for part in data)) for t in range(tasks)]
    return [torch.stack(column) for column in zip(*rows, strict=True)]


def at_once(block: Block, size: Size, *data: tuple[Tensor, ...]) -> list[Tensor]:
    """All derivatives, under vmap."""
    return list(vmap(all_derivatives(block, size))(*data))


def distance(one: list[Tensor], other: list[Tensor]) -> float:
    """The largest difference, relative to the largest entry of what is compared."""
    return max(
        float((a - b).abs().max() / b.abs().max().clamp(min=1))
        for a, b in zip(one, other, strict=True)
    )
