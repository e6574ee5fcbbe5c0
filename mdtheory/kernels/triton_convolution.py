"""Convolutions of all tasks, each with its own weights, in one launch: forward, and both adjoints.

    forward:          out[p, o] = sum_{tap, b} x[p + tap, b] w[o, tap, b]
    input gradient:   dx[p, b]  = sum_{tap, o} g[p - tap, o] w[o, tap, b]
    weight gradient:  dw[o, tap, b] = sum_p g[p, o] x[p + tap, b]

with stride 1 and zero padding that keeps the size, for k x k kernels, k odd. Taps and channels are
one axis of a matrix product (implicit GEMM), so that any number of channels fills the tensor cores.
In float32 the products are taken as three TF32 ones ("tf32x3": the error of float32), or as one
where :mod:`mdtheory.kernels.precision` allows that. Partial sums are dealt out by the task's own
size and finished in float64: neither the number of tasks nor the card moves a result.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mdtheory.kernels import precision
from mdtheory.kernels.have_triton import OPTIONS, interpreted, jit, tl, triton
from mdtheory.kernels.over_tasks import cut, last

aten = torch.ops.aten
POSITIONS = 64
"""Positions of one tile."""

SPLITS = 32
"""At most so many partial sums of a weight gradient in each task."""

LARGE = 8192
"""Positions of a task from which cuDNN's TF32 convolutions are faster than one launch for all."""


def conv(*pairs: tuple[Tensor, Tensor]) -> Tensor:
    """The sum of the convolutions of pairs (x, w). shapes: (T * N, B, H, W), (T, C, B, k, k) -> (T
    * N, C, H, W)
    """
    x, w = pairs[0]
    if not _own(x, len(w)):
        total = torch.cat([_plain(cut(x, len(w), t), w[t]) for t in range(len(w))])
        for other, weight in pairs[1:]:
            total += torch.cat([_plain(cut(other, len(w), t), weight[t]) for t in range(len(w))])
        return last(total)
    return _conv([(last(x), _taps_first(w)) for x, w in pairs], flip=False)


def input_gradient(g: Tensor, w: Tensor) -> Tensor:
    """The adjoint in x. shapes: (T * N, C, H, W), (T, C, B, k, k) -> (T * N, B, H, W)"""
    if not _own(g, len(w)):
        return torch.cat([_adjoint(g, None, w, t)[0] for t in range(len(w))])
    return _conv([(last(g), _taps_first(w))], flip=True)


def weight_gradient(g: Tensor, x: Tensor, like: Tensor) -> Tensor:
    """The adjoint in w, whose shape and number of tasks ``like`` has. shapes: (T * N, C, H, W), (T
    * N, B, H, W), (T, C, B, k, k) -> as like
    """
    tasks, channels, inputs, k, _ = like.shape
    if not _own(x, tasks):
        return torch.stack([_adjoint(g, x, like, t)[1] for t in range(tasks)])
    n, _, h, w = x.shape
    values = n // tasks * h * w
    width = k * k * inputs
    splits = min(SPLITS, triton.cdiv(values, 4 * POSITIONS))
    part = torch.empty(tasks, splits, width, channels, dtype=x.dtype, device=x.device)
    bk, bo = _edge(width), _edge(channels)
    grid = (triton.cdiv(width, bk) * triton.cdiv(channels, bo), tasks, splits)
    sizes = {"IN": inputs, "OUT": channels, "KS": k, "BK": bk, "BO": bo}
    steps = triton.cdiv(values, POSITIONS * splits)
    launch(
        _weight_parts, grid, last(x), last(g), part, steps, values, h, w,
        BM=POSITIONS, PRECISION=_precision(x), **sizes,
    )  # fmt: skip
    result = torch.empty(like.shape, dtype=x.dtype, device=x.device)
    ends = (triton.cdiv(width * channels, 256), tasks)
    launch(_finish_weight, ends, part, result, splits, IN=inputs, OUT=channels, TAPS=k * k, BN=256)
    return result


def launch(kernel: Any, grid: tuple[int, ...], first: Tensor, *arguments: Any, **sizes: Any) -> Any:
    """Run a kernel on the card of its first tensor."""
    with torch.cuda.device_of(first):
        kernel[grid](first, *arguments, **sizes, **OPTIONS)


def _conv(pairs: list[tuple[Tensor, Tensor]], *, flip: bool) -> Tensor:
    x, w = pairs[0]
    other, weight = pairs[-1]
    tasks, channels, k, _, inputs = w.shape
    n, _, h, width = x.shape
    into, out = (channels, inputs) if flip else (inputs, channels)
    result = torch.empty(
        n, out, h, width, dtype=x.dtype, device=x.device, memory_format=torch.channels_last
    )
    values = n // tasks * h * width
    bo = _edge(out)
    grid = (triton.cdiv(values, POSITIONS), tasks, triton.cdiv(out, bo))
    launch(
        _sum_taps, grid, x, w, other, weight, result, values, h, width,
        IN=into, OUT=out, KS=k, FLIP=flip, TWO=len(pairs) == 2,
        BM=POSITIONS, BK=_edge(into), BO=bo, PRECISION=_precision(x),
    )  # fmt: skip
    return result


def _own(x: Tensor, tasks: int) -> bool:
    """Whether the kernels of this file are to run: cuDNN has float64, and is the faster one for
    large images in TF32.
    """
    if interpreted():
        return True
    values = x.shape[0] // tasks * x.shape[2] * x.shape[3]
    return x.dtype == torch.float32 and not (precision.tf32() and values > LARGE)


def _precision(x: Tensor) -> str:
    if x.dtype == torch.float64:
        return "ieee"
    return "tf32" if precision.tf32() else "tf32x3"


def _edge(n: int) -> int:
    """The edge of a tile over n channels: what tensor cores take, 16 to 64."""
    return max(16, min(64, triton.next_power_of_2(n)))


def _taps_first(w: Tensor) -> Tensor:
    """(T, C, B, k, k) -> (T, C, k, k, B)"""
    return w.permute(0, 1, 3, 4, 2).contiguous()


def _plain(x: Tensor, w: Tensor) -> Tensor:
    return aten.convolution(last(x), last(w), None, *_layout(w))


def _adjoint(g: Tensor, x: Tensor | None, w: Tensor, t: int) -> Any:
    own, tasks = last(cut(g, len(w), t)), len(w)
    n, _, h, width = own.shape
    shape = (n, w.shape[2], h, width)
    of_x = own.new_empty(shape) if x is None else cut(x, tasks, t)  # not read for its own gradient
    mask = (x is None, x is not None, False)
    return aten.convolution_backward(own, last(of_x), last(w[t]), None, *_layout(w[t]), mask)


def _layout(w: Tensor) -> Any:
    """Stride, padding, dilation, transposed, output padding, groups."""
    pad = w.shape[-1] // 2
    return (1, 1), (pad, pad), (1, 1), False, (0, 0), 1


# Channels-last images of one task are a matrix (positions, channels); program (., t, .) has task t.


@jit
def _add_taps(
    acc, x, w, p, o, values, h, wd,
    IN: tl.constexpr, OUT: tl.constexpr, KS: tl.constexpr, FLIP: tl.constexpr,
    BK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """acc + sum over taps and channels of x's value there times its weight. shape: (BM, BO)"""
    y = (p % (h * wd)) // wd
    across = p % wd
    taps: tl.constexpr = KS * KS
    for start in range(0, taps * IN, BK):
        k = start + tl.arange(0, BK)
        tap = k // IN
        c = k % IN
        dy = tap // KS - KS // 2
        dx = tap % KS - KS // 2
        row = y[:, None] + dy[None, :]
        column = across[:, None] + dx[None, :]
        inside = (row >= 0) & (row < h) & (column >= 0) & (column < wd)
        live = inside & (p < values)[:, None] & (k < taps * IN)[None, :]
        at = p[:, None].to(tl.int64) + (dy * wd + dx)[None, :]
        a = tl.load(x + at * IN + c[None, :], mask=live, other=0.0)
        if FLIP:  # w (in, taps, out), seen from the other side
            place = (c * taps + taps - 1 - tap)[:, None] * OUT + o[None, :]
        else:  # w (out, taps, in)
            place = (o[None, :] * taps + tap[:, None]) * IN + c[:, None]
        known = (k < taps * IN)[:, None] & (o < OUT)[None, :]
        b = tl.load(w + place, mask=known, other=0.0)
        acc = tl.dot(a, b, acc, input_precision=PRECISION, out_dtype=acc.dtype)
    return acc


@jit
def _sum_taps(
    x, w, other, weight, out, values, h, wd,
    IN: tl.constexpr, OUT: tl.constexpr, KS: tl.constexpr, FLIP: tl.constexpr, TWO: tl.constexpr,
    BM: tl.constexpr, BK: tl.constexpr, BO: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of a convolution or its input gradient; with TWO, of the sum of two."""
    t = tl.program_id(1).to(tl.int64)
    p = tl.program_id(0) * BM + tl.arange(0, BM)
    o = tl.program_id(2) * BO + tl.arange(0, BO)
    image = t * values * IN
    kernel = t * KS * KS * IN * OUT
    acc = tl.zeros([BM, BO], dtype=out.dtype.element_ty)
    acc = _add_taps(
        acc, x + image, w + kernel, p, o, values, h, wd, IN, OUT, KS, FLIP, BK, PRECISION
    )
    if TWO:
        acc = _add_taps(
            acc, other + image, weight + kernel, p, o, values, h, wd, IN, OUT, KS, FLIP, BK,
            PRECISION,
        )  # fmt: skip
    live = (p < values)[:, None] & (o < OUT)[None, :]
    tl.store(out + t * values * OUT + p[:, None].to(tl.int64) * OUT + o[None, :], acc, mask=live)


@jit
def _weight_parts(
    x, g, part, steps, values, h, wd,
    IN: tl.constexpr, OUT: tl.constexpr, KS: tl.constexpr,
    BK: tl.constexpr, BO: tl.constexpr, BM: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """part (T, splits, taps * IN, OUT): the share of every splits-th tile of positions."""
    taps: tl.constexpr = KS * KS
    columns: tl.constexpr = (OUT + BO - 1) // BO
    t = tl.program_id(1).to(tl.int64)
    s = tl.program_id(2)
    splits = tl.num_programs(2)
    k = (tl.program_id(0) // columns) * BK + tl.arange(0, BK)
    o = (tl.program_id(0) % columns) * BO + tl.arange(0, BO)
    tap = k // IN
    c = k % IN
    dy = tap // KS - KS // 2
    dx = tap % KS - KS // 2
    x += t * values * IN
    g += t * values * OUT
    acc = tl.zeros([BK, BO], dtype=part.dtype.element_ty)
    for i in range(0, steps):
        p = (i * splits + s) * BM + tl.arange(0, BM)
        row = ((p % (h * wd)) // wd)[None, :] + dy[:, None]
        column = (p % wd)[None, :] + dx[:, None]
        inside = (row >= 0) & (row < h) & (column >= 0) & (column < wd)
        live = inside & (p < values)[None, :] & (k < taps * IN)[:, None]
        at = p[None, :].to(tl.int64) + (dy * wd + dx)[:, None]
        a = tl.load(x + at * IN + c[:, None], mask=live, other=0.0)
        known = (p < values)[:, None] & (o < OUT)[None, :]
        b = tl.load(g + p[:, None].to(tl.int64) * OUT + o[None, :], mask=known, other=0.0)
        acc = tl.dot(a, b, acc, input_precision=PRECISION, out_dtype=acc.dtype)
    live = (k < taps * IN)[:, None] & (o < OUT)[None, :]
    to = part + (t * splits + s) * taps * IN * OUT
    tl.store(to + k[:, None] * OUT + o[None, :], acc, mask=live)


@jit
def _finish_weight(
    part, out, splits, IN: tl.constexpr, OUT: tl.constexpr, TAPS: tl.constexpr, BN: tl.constexpr
):
    """out (T, OUT, IN, taps) = the sum of the parts, in float64."""
    t = tl.program_id(1).to(tl.int64)
    at = tl.program_id(0) * BN + tl.arange(0, BN)
    size: tl.constexpr = TAPS * IN * OUT
    o = at // (IN * TAPS)
    c = (at // TAPS) % IN
    tap = at % TAPS
    total = tl.zeros([BN], dtype=tl.float64)
    for s in range(0, splits):
        value = tl.load(
            part + (t * splits + s) * size + (tap * IN + c) * OUT + o, mask=at < size, other=0.0
        )
        total += value.to(tl.float64)
    tl.store(out + t * size + at, total.to(out.dtype.element_ty), mask=at < size)
