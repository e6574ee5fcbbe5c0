"""The compiled loops as functions of tensors. All images are channels-last; sums come back in
float64.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

import torch
from torch import Tensor

from mdtheory.kernels.compile import library

LAST = torch.channels_last


def like(x: Tensor, size: torch.Size, dtype: torch.dtype) -> Tensor:
    """An empty channels-last tensor. shape: size"""
    return torch.empty(size, dtype=dtype, device=x.device, memory_format=LAST)


def halved(u: Tensor) -> torch.Size:
    """The shape after 2x2 pooling: (N, C, H // 2, W // 2)."""
    return torch.Size((u.shape[0], u.shape[1], u.shape[2] // 2, u.shape[3] // 2))


def moments(u: Tensor, shift: Tensor) -> Tensor:
    """The sums of u - shift and of its square. shapes: (N, C, H, W), (C,) -> (2, C)"""
    total = _total(2, u)
    _call("moments", u, shift, total, *_sizes(u))
    return total


def pool(
    u: Tensor, *, sign: Tensor, scale: Tensor, mean: Tensor, beta: Tensor
) -> tuple[Tensor, Tensor]:
    """y = relu(scale (p - mean) + beta), p being the first element of its window with the largest
    sign * u, and p's place.

    The place is 0..3, or 4 where y = 0. shapes: (N, C, H, W), four of (C,) -> two of (N, C, H // 2,
    W // 2)
    """
    y, code = like(u, halved(u), u.dtype), like(u, halved(u), torch.uint8)
    _call("pool", u, sign, scale, mean, beta, y, code, *_sizes(u))
    return y, code


def reduce(gy: Tensor, u: Tensor, code: Tensor, mean: Tensor) -> Tensor:
    """The sums of g and of g (p - mean), with g = gy where y > 0, else 0. shape: (2, C)"""
    total = _total(2, u)
    _call("reduce", gy, u, code, mean, total, *_sizes(u))
    return total


def reduce_v(
    v: Tensor, gy: Tensor, u: Tensor, code: Tensor, mean: Tensor, *, counted: int
) -> Tensor:
    """The sums of v and of v (u - mean) over the first ``counted`` items, and of g times v at p
    over all. shape: (3, C)
    """
    total = _total(3, u)
    _call("reduce_v", v, gy, u, code, mean, total, counted, *_sizes(u))
    return total


def scatter(
    u: Tensor,
    v: Tensor | None,
    gy: Tensor,
    code: Tensor,
    mean: Tensor,
    *,
    level: Tensor,
    slope: Tensor,
    by_g: Tensor,
    counted: int,
) -> Tensor:
    """by_g * (g put at p, 0 elsewhere) + v, plus level + slope (u - mean) in the first ``counted``
    items. shape: as u
    """
    result = like(u, u.shape, u.dtype)
    _call("scatter", u, v, gy, code, mean, level, slope, by_g, result, counted, *_sizes(u))
    return result


def scatter_v(
    u: Tensor,
    v: Tensor,
    gy: Tensor,
    code: Tensor,
    mean: Tensor,
    *,
    level: Tensor,
    slope: Tensor,
    by_v: Tensor,
    by_g: Tensor,
    counted: int,
) -> Tensor:
    """by_g * (g put at p, 0 elsewhere), plus level + slope (u - mean) + by_v v in the first
    ``counted`` items. shape: as u
    """
    result = like(u, u.shape, u.dtype)
    _call("scatter_v", u, v, gy, code, mean, level, slope, by_v, by_g, result, counted, *_sizes(u))
    return result


def sparse(
    v: Tensor, u: Tensor, code: Tensor, mean: Tensor, *, level: Tensor, slope: Tensor, scale: Tensor
) -> Tensor:
    """level + slope (p - mean) + scale * (v at p) where y > 0, else 0. shape: (N, C, H // 2, W //
    2)
    """
    result = like(u, halved(u), u.dtype)
    _call("sparse", v, u, code, mean, level, slope, scale, result, *_sizes(u))
    return result


def _total(rows: int, u: Tensor) -> Tensor:
    return torch.zeros(rows, u.shape[1], dtype=torch.float64)


def _sizes(u: Tensor) -> tuple[int, int, int, int]:
    n, c, h, w = u.shape
    return n, h, w, c


def _call(name: str, first: Tensor, *rest: Tensor | int | None) -> None:
    """Run one loop, in the type of its first argument."""
    arguments = (first, *rest)
    symbol = f"{name}_{str(first.dtype).removeprefix('torch.')}"
    function = _loop(symbol, tuple(isinstance(x, int) for x in arguments))
    function(
        *(x.data_ptr() if isinstance(x, Tensor) else x for x in arguments), torch.get_num_threads()
    )


@functools.cache
def _loop(symbol: str, counts: tuple[bool, ...]) -> Callable[..., None]:
    """A compiled loop that takes addresses and, where ``counts`` says so, numbers; the number of
    threads comes last.
    """
    compiled = library()
    if compiled is None:
        raise RuntimeError("the compiled loops must be there, got none; ask suits() before calling")
    function = compiled[symbol]
    function.argtypes = [
        *(ctypes.c_long if count else ctypes.c_void_p for count in counts),
        ctypes.c_int,
    ]
    function.restype = None
    return function
