"""The block on a CPU: the compiled loops of ``block.cpp`` as functions of tensors, and what the
block asks of a machine, made of them.

All images are channels-last; sums come back in float64. The loops are for 3x3 convolutions, a
2 x 2 window and ReLU. Images of T tasks are (T * N, C, H, W), weights (T, C, B, 3, 3), vectors (T,
C); the arithmetic of channels is done for all tasks at once, the loops over images one task after
another.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from mdtheory.kernels import formulas
from mdtheory.kernels.compile import library
from mdtheory.kernels.formulas import First, Plan
from mdtheory.kernels.over_tasks import cut, last

aten = torch.ops.aten
CHUNK = 2**21
"""Values of du that are made at once: 8 MiB in float32, which a processor's cache holds."""

CONVOLUTION = ((1, 1), (1, 1), (1, 1), False, (0, 0), 1)
"""Stride, padding, dilation, transposed, output padding, groups."""


# What the block asks of a machine.


def conv(*pairs: tuple[Tensor, Tensor]) -> Tensor:
    """The sum of the 3x3 convolutions, padding 1, of pairs (x, w). shape: (T * N, C, H, W)"""
    tasks = len(pairs[0][1])
    rows = []
    for t in range(tasks):
        total, *rest = (_conv(cut(x, tasks, t), w[t]) for x, w in pairs)
        rows.append(functools.reduce(Tensor.add_, rest, total))
    return rows[0] if tasks == 1 else last(torch.cat(rows))


def normalise(
    u: Tensor, gamma: Tensor, beta: Tensor, plan: Plan
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y, code, mean and r of the formulas. The code is p's place 0..3, or 4 where y = 0."""
    shift = u[:: len(u) // len(gamma), :, 0, 0].contiguous()
    means = moments(u, shift, counted=plan.counted) / _values(u, plan)
    mean, variance = formulas.moments(means[:, 0], means[:, 1], shift)
    r = variance.clamp(min=0).add(plan.eps).rsqrt().to(u.dtype)
    mean = mean.to(u.dtype)
    y, code = pool(u, sign=gamma.sign(), scale=gamma * r, mean=mean, beta=beta)
    return y, code, mean, r


def slopes(
    gy: Tensor, u: Tensor, code: Tensor, mean: Tensor, r: Tensor, plan: Plan
) -> tuple[Tensor, Tensor]:
    """dgamma and dbeta, in float64. shapes: (T, C)"""
    dbeta, dgamma = reduce(gy, u, code, mean).unbind(1)
    return dgamma * r, dbeta


def through_conv(
    first: First, x: Tensor, weight: Tensor, *, need_x: bool, need_w: bool
) -> tuple[Tensor | None, Tensor | None]:
    """The convolution's adjoints of du at (x, weight), some items at a time: du as a whole is the
    largest tensor of all. shapes: as x, as weight
    """
    gamma, r = first.gamma.double(), first.r.double()
    coefficients = formulas.first_coefficients(
        gamma, r, first.dgamma, first.dbeta, _values(first.u, first.plan)
    )
    rows = [z.to(first.u.dtype) for z in coefficients]
    tasks, parts = len(weight), []
    dw = torch.zeros_like(weight) if need_w else None
    items = len(x) // tasks
    per = math.ceil(items / math.ceil(first.u.numel() / tasks / CHUNK))
    for t in range(tasks):
        weights = last(weight[t])
        for start in range(t * items, (t + 1) * items, per):
            some = slice(start, min(start + per, (t + 1) * items))
            dx_part, dw_part, _ = aten.convolution_backward(
                _du(first, rows, t, some),
                last(x[some]),
                weights,
                None,
                *CONVOLUTION,
                (need_x, need_w, False),
            )
            parts.append(dx_part)
            if dw is not None:
                dw[t] += dw_part
    return _one_after_another(parts) if need_x else None, dw


def second(
    first: First, v: Tensor, vgamma: Tensor | None, vbeta: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The shares of gy, gamma and u. shapes: as y, (T, C), as u"""
    gy, u, code, mean, kind = first.gy, first.u, first.code, first.mean, first.u.dtype
    m, counted = _values(u, first.plan), first.plan.counted
    vgamma, vbeta = (torch.zeros_like(first.gamma) if z is None else z for z in (vgamma, vbeta))
    r, gamma, dgamma, dbeta = (
        x.double() for x in (first.r, first.gamma, first.dgamma, first.dbeta)
    )
    vs, vx, e = reduce_v(v, gy, u, code, mean, counted=counted).unbind(1)
    vx = vx * r
    q, c1, c2 = formulas.quadratic(vs, vx, e, vgamma, gamma, r, dgamma, dbeta, m)
    level, slope, scale = (x.to(kind) for x in formulas.of_gy(vs, vbeta, gamma, r, c1, m))
    to_gy = sparse(v, u, code, mean, level=level, slope=slope, scale=scale)
    level, slope, by_v, by_g = (
        x.to(kind) for x in formulas.of_u(vs, vx, gamma, r, dgamma, dbeta, q, c1, c2, m)
    )
    to_u = scatter_v(
        u, v, gy, code, mean, level=level, slope=slope, by_v=by_v, by_g=by_g, counted=counted
    )
    return to_gy, (r * q).to(kind), to_u


def _conv(x: Tensor, weight: Tensor) -> Tensor:
    return last(aten.convolution(last(x), last(weight), None, *CONVOLUTION))


def _one_after_another(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _du(first: First, rows: list[Tensor], t: int, some: slice) -> Tensor:
    """du of some items of task t, from the coefficients of all tasks."""
    level, slope, by_g = (row[t : t + 1] for row in rows)
    begin = t * (len(first.u) // len(first.mean))
    return scatter(
        first.u[some],
        None if first.gu is None else first.gu[some],
        first.gy[some],
        first.code[some],
        first.mean[t : t + 1],
        level=level,
        slope=slope,
        by_g=by_g,
        counted=min(max(first.plan.counted - (some.start - begin), 0), some.stop - some.start),
    )


def _values(u: Tensor, plan: Plan) -> int:
    """M of the formulas: the number of values behind the statistics of a channel."""
    return plan.counted * u.shape[2] * u.shape[3]


# The loops.


def like(x: Tensor, size: torch.Size, dtype: torch.dtype) -> Tensor:
    """An empty channels-last tensor. shape: size"""
    return torch.empty(size, dtype=dtype, device=x.device, memory_format=torch.channels_last)


def halved(u: Tensor) -> torch.Size:
    """The shape after 2x2 pooling: (N, C, H // 2, W // 2)."""
    return torch.Size((u.shape[0], u.shape[1], u.shape[2] // 2, u.shape[3] // 2))


def moments(u: Tensor, shift: Tensor, *, counted: int) -> Tensor:
    """The sums of u - shift and of its square over the first ``counted`` items. shapes: (T * N, C,
    H, W), (T, C) -> (T, 2, C)
    """
    total = _total(2, shift)
    _call("moments", len(shift), u, shift, total, *_sizes(u, counted))
    return total


def pool(
    u: Tensor, *, sign: Tensor, scale: Tensor, mean: Tensor, beta: Tensor
) -> tuple[Tensor, Tensor]:
    """y = relu(scale (p - mean) + beta), p being the first element of its window with the largest
    sign * u, and p's place.

    The place is 0..3, or 4 where y = 0. shapes: (T * N, C, H, W), four of (T, C) -> two of (T * N,
    C, H // 2, W // 2)
    """
    y, code = like(u, halved(u), u.dtype), like(u, halved(u), torch.uint8)
    _call("pool", len(mean), u, sign, scale, mean, beta, y, code, *_sizes(u, len(u) // len(mean)))
    return y, code


def reduce(gy: Tensor, u: Tensor, code: Tensor, mean: Tensor) -> Tensor:
    """The sums of g and of g (p - mean), with g = gy where y > 0, else 0. shape: (T, 2, C)"""
    total = _total(2, mean)
    _call("reduce", len(mean), gy, u, code, mean, total, *_sizes(u, len(u) // len(mean)))
    return total


def reduce_v(
    v: Tensor, gy: Tensor, u: Tensor, code: Tensor, mean: Tensor, *, counted: int
) -> Tensor:
    """The sums of v and of v (u - mean) over the first ``counted`` items, and of g times v at p
    over all. shape: (T, 3, C)
    """
    total, sizes = _total(3, mean), _sizes(u, len(u) // len(mean))
    _call("reduce_v", len(mean), v, gy, u, code, mean, total, counted, *sizes)
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
    result, sizes = like(u, u.shape, u.dtype), _sizes(u, len(u) // len(mean))
    _call("scatter", len(mean), u, v, gy, code, mean, level, slope, by_g, result, counted, *sizes)
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
    result, sizes = like(u, u.shape, u.dtype), _sizes(u, len(u) // len(mean))
    coefficients = level, slope, by_v, by_g
    _call("scatter_v", len(mean), u, v, gy, code, mean, *coefficients, result, counted, *sizes)
    return result


def sparse(
    v: Tensor, u: Tensor, code: Tensor, mean: Tensor, *, level: Tensor, slope: Tensor, scale: Tensor
) -> Tensor:
    """level + slope (p - mean) + scale * (v at p) where y > 0, else 0. shape: (T * N, C, H // 2, W
    // 2)
    """
    result, sizes = like(u, halved(u), u.dtype), _sizes(u, len(u) // len(mean))
    _call("sparse", len(mean), v, u, code, mean, level, slope, scale, result, *sizes)
    return result


def _total(rows: int, mean: Tensor) -> Tensor:
    return torch.zeros(len(mean), rows, mean.shape[1], dtype=torch.float64)


def _sizes(u: Tensor, n: int) -> tuple[int, int, int, int]:
    """What a loop asks for, over n items of each task."""
    _, c, h, w = u.shape
    return n, h, w, c


def _call(name: str, tasks: int, first: Tensor, *rest: Tensor | int | None) -> None:
    """Run one loop for each task, in the type of its first argument. Every tensor begins with the
    axis of tasks: a task's share of it is one stretch of memory.
    """
    arguments = [_in_one_piece(x) if isinstance(x, Tensor) else x for x in (first, *rest)]
    symbol = f"{name}_{str(first.dtype).removeprefix('torch.')}"
    function = _loop(symbol, tuple(isinstance(x, int) for x in arguments))
    threads = torch.get_num_threads()
    for t in range(tasks):
        function(
            *(
                x.data_ptr() + t * (x.nbytes // tasks) if isinstance(x, Tensor) else x
                for x in arguments
            ),
            threads,
        )


def _in_one_piece(x: Tensor) -> Tensor:
    """Images as they are, vectors contiguous."""
    return x if x.dim() == 4 else x.contiguous()


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
