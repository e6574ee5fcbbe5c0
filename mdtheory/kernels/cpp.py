"""The block on a CPU: the compiled loops of ``block.cpp`` as functions of tensors, and what the
block asks of a machine, task by task, made of them.

All images are channels-last; sums come back in float64. The loops are for 3x3 convolutions, a
2 x 2 window and ReLU.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Callable
from dataclasses import replace

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


# What the block asks of a machine. Images of T tasks are (T * N, C, H, W), weights (T, C, B, 3, 3),
# vectors (T, C).


def conv(*pairs: tuple[Tensor, Tensor]) -> Tensor:
    """The sum of the 3x3 convolutions, padding 1, of pairs (x, w). shape: (T * N, C, H, W)"""
    tasks = len(pairs[0][1])
    rows = []
    for t in range(tasks):
        total, *rest = (_conv(cut(x, tasks, t), w[t]) for x, w in pairs)
        rows.append(functools.reduce(Tensor.add_, rest, total))
    return _stacked(rows)


def normalise(
    u: Tensor, gamma: Tensor, beta: Tensor, plan: Plan
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y, code, mean and r of the formulas. The code is p's place 0..3, or 4 where y = 0."""
    tasks = len(gamma)
    rows = [_normalise(cut(u, tasks, t), gamma[t], beta[t], plan) for t in range(tasks)]
    y, code, mean, r = zip(*rows, strict=True)
    return _stacked(y), _stacked(code), torch.stack(mean), torch.stack(r)


def slopes(
    gy: Tensor, u: Tensor, code: Tensor, mean: Tensor, r: Tensor, plan: Plan
) -> tuple[Tensor, Tensor]:
    """dgamma and dbeta, in float64. shapes: (T, C)"""
    tasks = len(mean)
    rows = [
        reduce(cut(gy, tasks, t), cut(u, tasks, t), cut(code, tasks, t), mean[t])
        for t in range(tasks)
    ]
    dbeta, dgamma = torch.stack(rows, dim=1)
    return dgamma * r, dbeta


def through_conv(
    first: First, x: Tensor, weight: Tensor, *, need_x: bool, need_w: bool
) -> tuple[Tensor | None, Tensor | None]:
    """The convolution's adjoints of du at (x, weight). shapes: as x, as weight"""
    tasks = len(weight)
    rows = [
        _through_conv(_of(first, t), cut(x, tasks, t), weight[t], need_x=need_x, need_w=need_w)
        for t in range(tasks)
    ]
    return (
        torch.cat([dx for dx, _ in rows if dx is not None]) if need_x else None,
        torch.stack([dw for _, dw in rows if dw is not None]) if need_w else None,
    )


def second(
    first: First, v: Tensor, vgamma: Tensor | None, vbeta: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The shares of gy, gamma and u. shapes: as y, (T, C), as u"""
    vgamma, vbeta = (torch.zeros_like(first.gamma) if z is None else z for z in (vgamma, vbeta))
    tasks = len(first.gamma)
    rows = [_second(_of(first, t), cut(v, tasks, t), vgamma[t], vbeta[t]) for t in range(tasks)]
    to_gy, to_gamma, to_u = zip(*rows, strict=True)
    return _stacked(to_gy), torch.stack(to_gamma), _stacked(to_u)


# One task. Images are (N, C, H, W), vectors (C,).


def _conv(x: Tensor, weight: Tensor) -> Tensor:
    return last(aten.convolution(last(x), last(weight), None, *CONVOLUTION))


def _normalise(
    u: Tensor, gamma: Tensor, beta: Tensor, plan: Plan
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    shift = u[0, :, 0, 0].contiguous()
    means = moments(u[: plan.counted], shift) / _values(u, plan)
    mean, variance = formulas.moments(means[0], means[1], shift)
    r = variance.clamp(min=0).add(plan.eps).rsqrt().to(u.dtype)
    mean = mean.to(u.dtype)
    y, code = pool(u, sign=gamma.sign(), scale=gamma * r, mean=mean, beta=beta.contiguous())
    return y, code, mean, r


def _through_conv(
    first: First, x: Tensor, weight: Tensor, *, need_x: bool, need_w: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Some items at a time: du as a whole is the largest tensor of all."""
    weights, mask = last(weight), (need_x, need_w, False)
    chunks = math.ceil(first.u.numel() / CHUNK)
    per = math.ceil(len(x) / chunks)
    parts, dw = [], torch.zeros_like(weight) if need_w else None
    for start in range(0, len(x), per):
        items = slice(start, start + per)
        dx_part, dw_part, _ = aten.convolution_backward(
            _du(first, items), last(x[items]), weights, None, *CONVOLUTION, mask
        )
        if dw is not None:
            dw += dw_part
        parts.append(dx_part)
    return torch.cat(parts) if need_x else None, dw


def _du(first: First, items: slice) -> Tensor:
    counted = min(max(first.plan.counted - items.start, 0), len(first.u[items]))
    level, slope, by_g = formulas.first_coefficients(
        first.gamma.double(),
        first.r.double(),
        first.dgamma,
        first.dbeta,
        _values(first.u, first.plan),
    )
    kind = first.u.dtype
    return scatter(
        first.u[items],
        None if first.gu is None else first.gu[items],
        first.gy[items],
        first.code[items],
        first.mean,
        level=level.to(kind),
        slope=slope.to(kind),
        by_g=by_g.to(kind),
        counted=counted,
    )


def _second(
    first: First, v: Tensor, vgamma: Tensor, vbeta: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    gy, u, code, mean, kind = first.gy, first.u, first.code, first.mean, first.u.dtype
    m, counted = _values(u, first.plan), first.plan.counted
    r, gamma, dgamma, dbeta = (
        x.double() for x in (first.r, first.gamma, first.dgamma, first.dbeta)
    )
    vs, vx, e = reduce_v(v, gy, u, code, mean, counted=counted)
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


def _of(first: First, t: int) -> First:
    """What the first derivative kept, of task t alone."""
    tasks = len(first.gamma)
    return replace(
        first,
        gy=cut(first.gy, tasks, t),
        gu=None if first.gu is None else cut(first.gu, tasks, t),
        u=cut(first.u, tasks, t),
        code=cut(first.code, tasks, t),
        gamma=first.gamma[t],
        mean=first.mean[t],
        r=first.r[t],
        dgamma=first.dgamma[t],
        dbeta=first.dbeta[t],
    )


def _stacked(rows: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    """The tasks' images, one after another."""
    return rows[0] if len(rows) == 1 else last(torch.cat(list(rows)))


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
