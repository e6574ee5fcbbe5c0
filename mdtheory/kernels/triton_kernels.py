"""The loops over channels-last images that ``triton.py`` launches.

Program (i, t, b) has tile i of task t and channel block b, or every so manieth tile from i on; the
finishing ones, channel block i. A tile is BJ successive windows of WIN x WIN values. Loops start at
0 and not at the program's number, and masks are never of a scalar and a block: Triton's interpreter
needs both.
"""

from __future__ import annotations

from typing import Any

from mdtheory.kernels import formulas
from mdtheory.kernels.have_triton import inline, jit, tl

DEAD: Any = 4 if tl is None else tl.constexpr(4)
"""Added to the place of p in a code where z <= 0."""

_mean_variance = inline(formulas.moments)
_first_coefficients = inline(formulas.first_coefficients)
_quadratic = inline(formulas.quadratic)
_of_gy = inline(formulas.of_gy)
_of_u = inline(formulas.of_u)


@jit
def _windows(tile, rows, columns, BJ: tl.constexpr):
    """The tile's windows: their numbers in the task, items, rows and columns. shapes: (BJ,)"""
    k = tile.to(tl.int64) * BJ + tl.arange(0, BJ)
    rest = k % (rows * columns)
    return k, k // (rows * columns), rest // columns, rest % columns


@jit
def _factor(code, SLOPE: tl.constexpr, like):
    """s of the formulas. shape: as code"""
    one = tl.full(code.shape, 1.0, like.dtype.element_ty)
    return tl.where(code < DEAD, one, one * SLOPE)


@jit
def moments(u, part, steps, values, stride, C, BM: tl.constexpr, BC: tl.constexpr):
    """part: the sums of u - shift and of its square, shift being the task's first value."""
    program = tl.program_id(0)
    task = tl.program_id(1).to(tl.int64)
    c = tl.program_id(2) * BC + tl.arange(0, BC)
    u += task * stride
    shift = tl.load(u + c, mask=c < C, other=0.0)
    first = tl.zeros([BC], dtype=tl.float64)
    square = tl.zeros([BC], dtype=tl.float64)
    for i in range(0, steps):
        p = (i * tl.num_programs(0) + program) * BM + tl.arange(0, BM)
        live = (p < values)[:, None] & (c < C)[None, :]
        a = tl.load(u + p[:, None].to(tl.int64) * C + c[None, :], mask=live, other=0.0)
        d = tl.where(live, a - shift[None, :], 0.0)
        first += tl.sum(d, 0).to(tl.float64)
        square += tl.sum(d * d, 0).to(tl.float64)
    to = part + (task * tl.num_programs(0) + program) * 2 * C + c
    tl.store(to, first, mask=c < C)
    tl.store(to + C, square, mask=c < C)


@jit
def _total(part, programs, k: tl.constexpr, SUMS: tl.constexpr, C, c, BP: tl.constexpr):
    """Sum k of SUMS over the programs. shape: as c"""
    total = tl.zeros([BP, c.shape[0]], dtype=tl.float64)
    for start in range(0, programs, BP):
        row = start + tl.arange(0, BP)
        live = (row < programs)[:, None] & (c < C)[None, :]
        total += tl.load(part + (row[:, None] * SUMS + k) * C + c[None, :], mask=live, other=0.0)
    return tl.sum(total, 0)


@jit
def _double(x, c, C):
    """One task's vector in float64. shape: as c"""
    return tl.load(x + c, mask=c < C, other=0.0).to(tl.float64)


@jit
def finish_moments(
    part, u, mean, r, programs, values, stride, C,
    EPS: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """mean and r of the formulas, from the parts."""
    task = tl.program_id(1).to(tl.int64)
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    part += task * programs * 2 * C
    first = _total(part, programs, 0, 2, C, c, BP) / values
    square = _total(part, programs, 1, 2, C, c, BP) / values
    centre, variance = _mean_variance(first, square, _double(u + task * stride, c, C))
    kind = mean.dtype.element_ty
    tl.store(mean + task * C + c, centre.to(kind), mask=c < C)
    root = tl.sqrt(tl.maximum(variance, 0.0) + EPS)
    tl.store(r + task * C + c, (1.0 / root).to(kind), mask=c < C)


@jit
def pool(
    u, gamma, r, mean, beta, out, code, n, h, w, C,
    WIN: tl.constexpr, SLOPE: tl.constexpr, BJ: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """y and the code of every window."""
    task = tl.program_id(1).to(tl.int64)
    c = tl.program_id(2) * BC + tl.arange(0, BC)
    rows = h // WIN
    columns = w // WIN
    number, item, i, j = _windows(tl.program_id(0), rows, columns, BJ)
    live = (number < n * rows * columns)[:, None] & (c < C)[None, :]
    base = u + (((task * n + item) * h + WIN * i) * w + WIN * j)[:, None] * C + c[None, :]
    g = tl.load(gamma + task * C + c, mask=c < C, other=0.0)[None, :]
    scale = g * tl.load(r + task * C + c, mask=c < C, other=0.0)[None, :]
    sign = tl.where(g > 0, 1.0, tl.where(g < 0, -1.0, 0.0)).to(g.dtype)
    p = tl.load(base, mask=live, other=0.0)
    best = sign * p
    q = tl.zeros([BJ, BC], dtype=tl.int32)
    for e in tl.static_range(1, WIN * WIN):
        a = tl.load(base + ((e // WIN) * w + e % WIN) * C, mask=live, other=0.0)
        better = (sign * a > best) | (a != a)  # a nan is the largest, as in torch
        best = tl.where(better, sign * a, best)
        p = tl.where(better, a, p)
        q = tl.where(better, e, q)
    mu = tl.load(mean + task * C + c, mask=c < C, other=0.0)[None, :]
    z = scale * (p - mu) + tl.load(beta + task * C + c, mask=c < C, other=0.0)[None, :]
    below = z <= 0
    at = (task * n * rows * columns + number)[:, None] * C + c[None, :]
    y = tl.where(below, 0.0, z) if SLOPE == 0.0 else tl.where(below, z * SLOPE, z)
    tl.store(out + at, y, mask=live)
    tl.store(code + at, (q + tl.where(below, DEAD, 0)).to(tl.uint8), mask=live)


@jit
def sum_first(
    gy, u, code, mean, part, steps, n, h, w, C,
    WIN: tl.constexpr, SLOPE: tl.constexpr, BJ: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """part: the sums of g and of g (p - mean)."""
    program = tl.program_id(0)
    task = tl.program_id(1).to(tl.int64)
    c = tl.program_id(2) * BC + tl.arange(0, BC)
    rows = h // WIN
    columns = w // WIN
    mu = tl.load(mean + task * C + c, mask=c < C, other=0.0)[None, :]
    of_g = tl.zeros([BC], dtype=tl.float64)
    of_gp = tl.zeros([BC], dtype=tl.float64)
    for step in range(0, steps):
        tile = step * tl.num_programs(0) + program
        number, item, i, j = _windows(tile, rows, columns, BJ)
        live = (number < n * rows * columns)[:, None] & (c < C)[None, :]
        at = (task * n * rows * columns + number)[:, None] * C + c[None, :]
        found = tl.load(code + at, mask=live, other=0).to(tl.int32)
        g = tl.load(gy + at, mask=live, other=0.0) * _factor(found, SLOPE, u)
        q = found % DEAD
        y = ((task * n + item) * h + WIN * i)[:, None] + q // WIN
        x = WIN * j[:, None] + q % WIN
        p = tl.load(u + (y * w + x) * C + c[None, :], mask=live, other=0.0)
        of_g += tl.sum(g, 0).to(tl.float64)
        of_gp += tl.sum(g * (p - mu), 0).to(tl.float64)
    to = part + (task * tl.num_programs(0) + program) * 2 * C + c
    tl.store(to, of_g, mask=c < C)
    tl.store(to + C, of_gp, mask=c < C)


@jit
def finish_first(part, r, dgamma, dbeta, programs, C, BP: tl.constexpr, BC: tl.constexpr):
    """dgamma and dbeta, from the parts."""
    task = tl.program_id(1).to(tl.int64)
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    part += task * programs * 2 * C
    kind = dgamma.dtype.element_ty
    of_gp = _total(part, programs, 1, 2, C, c, BP) * _double(r + task * C, c, C)
    tl.store(dbeta + task * C + c, _total(part, programs, 0, 2, C, c, BP).to(kind), mask=c < C)
    tl.store(dgamma + task * C + c, of_gp.to(kind), mask=c < C)


@jit
def du(
    u, gu, gy, code, mean, r, gamma, dgamma, dbeta, out, values, counted, n, h, w, C,
    WITH_GU: tl.constexpr,
    WIN: tl.constexpr, SLOPE: tl.constexpr, BJ: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """du of the formulas, plus gu."""
    task = tl.program_id(1).to(tl.int64)
    c = tl.program_id(2) * BC + tl.arange(0, BC)
    k = task * C
    level, slope, by_g = _first_coefficients(
        _double(gamma + k, c, C), _double(r + k, c, C), _double(dgamma + k, c, C),
        _double(dbeta + k, c, C), values,
    )  # fmt: skip
    kind = u.dtype.element_ty
    level = level.to(kind)[None, :]
    slope = slope.to(kind)[None, :]
    by_g = by_g.to(kind)[None, :]
    mu = tl.load(mean + k + c, mask=c < C, other=0.0)[None, :]
    _, item, i, j = _windows(tl.program_id(0), (h + WIN - 1) // WIN, (w + WIN - 1) // WIN, BJ)
    whole = ((item < n) & (i < h // WIN) & (j < w // WIN))[:, None] & (c < C)[None, :]
    at = (((task * n + item) * (h // WIN) + i) * (w // WIN) + j)[:, None] * C + c[None, :]
    found = tl.load(code + at, mask=whole, other=0).to(tl.int32)
    g = by_g * (tl.load(gy + at, mask=whole, other=0.0) * _factor(found, SLOPE, u))
    q = found % DEAD
    for e in tl.static_range(WIN * WIN):
        y = WIN * i + e // WIN
        x = WIN * j + e % WIN
        live = ((item < n) & (y < h) & (x < w))[:, None] & (c < C)[None, :]
        pixel = (((task * n + item) * h + y) * w + x)[:, None] * C + c[None, :]
        a = tl.load(u + pixel, mask=live, other=0.0)
        value = tl.where((item < counted)[:, None], level + slope * (a - mu), 0.0) + tl.where(
            q == e, g, 0.0
        )
        if WITH_GU:
            value += tl.load(gu + pixel, mask=live, other=0.0)
        tl.store(out + pixel, value, mask=live)


@jit
def sum_second(
    v, gy, u, code, mean, part, steps, counted, n, h, w, C,
    WIN: tl.constexpr, SLOPE: tl.constexpr, BJ: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """part: the sums of V and of V (u - mean) over the counted items, and of g V(p) over all."""
    program = tl.program_id(0)
    task = tl.program_id(1).to(tl.int64)
    c = tl.program_id(2) * BC + tl.arange(0, BC)
    mu = tl.load(mean + task * C + c, mask=c < C, other=0.0)[None, :]
    of_v = tl.zeros([BC], dtype=tl.float64)
    of_vu = tl.zeros([BC], dtype=tl.float64)
    of_gv = tl.zeros([BC], dtype=tl.float64)
    for step in range(0, steps):
        tile = step * tl.num_programs(0) + program
        _, item, i, j = _windows(tile, (h + WIN - 1) // WIN, (w + WIN - 1) // WIN, BJ)
        whole = ((item < n) & (i < h // WIN) & (j < w // WIN))[:, None] & (c < C)[None, :]
        at = (((task * n + item) * (h // WIN) + i) * (w // WIN) + j)[:, None] * C + c[None, :]
        found = tl.load(code + at, mask=whole, other=0).to(tl.int32)
        g = tl.load(gy + at, mask=whole, other=0.0) * _factor(found, SLOPE, u)
        q = found % DEAD
        chosen = tl.zeros([BJ, BC], dtype=u.dtype.element_ty)
        for e in tl.static_range(WIN * WIN):
            y = WIN * i + e // WIN
            x = WIN * j + e % WIN
            live = ((item < n) & (y < h) & (x < w))[:, None] & (c < C)[None, :]
            pixel = (((task * n + item) * h + y) * w + x)[:, None] * C + c[None, :]
            b = tl.load(v + pixel, mask=live, other=0.0)
            a = tl.load(u + pixel, mask=live & (item < counted)[:, None], other=0.0)
            chosen = tl.where(q == e, b, chosen)
            b = tl.where(live & (item < counted)[:, None], b, 0.0)
            of_v += tl.sum(b, 0).to(tl.float64)
            of_vu += tl.sum(b * (a - mu), 0).to(tl.float64)
        of_gv += tl.sum(g * chosen, 0).to(tl.float64)
    to = part + (task * tl.num_programs(0) + program) * 3 * C + c
    tl.store(to, of_v, mask=c < C)
    tl.store(to + C, of_vu, mask=c < C)
    tl.store(to + 2 * C, of_gv, mask=c < C)


@jit
def finish_second(
    part, r, gamma, dgamma, dbeta, vgamma, vbeta, coefficients, to_gamma, programs, values, C,
    VGAMMA: tl.constexpr, VBETA: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """coefficients (T, 7, C): of gy level, slope, scale; of u level, slope, by_v, by_g."""
    task = tl.program_id(1).to(tl.int64)
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    k = task * C
    part += task * programs * 3 * C
    root = _double(r + k, c, C)
    scale = _double(gamma + k, c, C)
    dg = _double(dgamma + k, c, C)
    db = _double(dbeta + k, c, C)
    vs = _total(part, programs, 0, 3, C, c, BP)
    vx = _total(part, programs, 1, 3, C, c, BP) * root
    e = _total(part, programs, 2, 3, C, c, BP)
    vg = tl.zeros([BC], dtype=tl.float64)
    vb = tl.zeros([BC], dtype=tl.float64)
    if VGAMMA:
        vg = _double(vgamma + k, c, C)
    if VBETA:
        vb = _double(vbeta + k, c, C)
    q, c1, c2 = _quadratic(vs, vx, e, vg, scale, root, dg, db, values)
    level, slope, by_v = _of_gy(vs, vb, scale, root, c1, values)
    to = coefficients + task * 7 * C + c
    kind = coefficients.dtype.element_ty
    tl.store(to, level.to(kind), mask=c < C)
    tl.store(to + C, slope.to(kind), mask=c < C)
    tl.store(to + 2 * C, by_v.to(kind), mask=c < C)
    level, slope, by_v, by_g = _of_u(vs, vx, scale, root, dg, db, q, c1, c2, values)
    tl.store(to + 3 * C, level.to(kind), mask=c < C)
    tl.store(to + 4 * C, slope.to(kind), mask=c < C)
    tl.store(to + 5 * C, by_v.to(kind), mask=c < C)
    tl.store(to + 6 * C, by_g.to(kind), mask=c < C)
    tl.store(to_gamma + k + c, (root * q).to(kind), mask=c < C)


@jit
def second(
    u, v, gy, code, mean, coefficients, to_gy, to_u, counted, n, h, w, C,
    WIN: tl.constexpr, SLOPE: tl.constexpr, BJ: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """The shares of gy and of u, in one pass over u and V."""
    task = tl.program_id(1).to(tl.int64)
    c = tl.program_id(2) * BC + tl.arange(0, BC)
    k = coefficients + task * 7 * C + c
    gy_level = tl.load(k, mask=c < C, other=0.0)[None, :]
    gy_slope = tl.load(k + C, mask=c < C, other=0.0)[None, :]
    gy_by_v = tl.load(k + 2 * C, mask=c < C, other=0.0)[None, :]
    level = tl.load(k + 3 * C, mask=c < C, other=0.0)[None, :]
    slope = tl.load(k + 4 * C, mask=c < C, other=0.0)[None, :]
    by_v = tl.load(k + 5 * C, mask=c < C, other=0.0)[None, :]
    by_g = tl.load(k + 6 * C, mask=c < C, other=0.0)[None, :]
    mu = tl.load(mean + task * C + c, mask=c < C, other=0.0)[None, :]
    _, item, i, j = _windows(tl.program_id(0), (h + WIN - 1) // WIN, (w + WIN - 1) // WIN, BJ)
    whole = ((item < n) & (i < h // WIN) & (j < w // WIN))[:, None] & (c < C)[None, :]
    at = (((task * n + item) * (h // WIN) + i) * (w // WIN) + j)[:, None] * C + c[None, :]
    found = tl.load(code + at, mask=whole, other=0).to(tl.int32)
    factor = _factor(found, SLOPE, u)
    g = by_g * (tl.load(gy + at, mask=whole, other=0.0) * factor)
    q = found % DEAD
    share = tl.zeros([BJ, BC], dtype=u.dtype.element_ty)
    for e in tl.static_range(WIN * WIN):
        y = WIN * i + e // WIN
        x = WIN * j + e % WIN
        live = ((item < n) & (y < h) & (x < w))[:, None] & (c < C)[None, :]
        pixel = (((task * n + item) * h + y) * w + x)[:, None] * C + c[None, :]
        a = tl.load(u + pixel, mask=live, other=0.0) - mu
        b = tl.load(v + pixel, mask=live, other=0.0)
        dense = tl.where((item < counted)[:, None], level + slope * a + by_v * b, 0.0)
        tl.store(to_u + pixel, dense + tl.where(q == e, g, 0.0), mask=live)
        share = tl.where(q == e, gy_level + gy_slope * a + gy_by_v * b, share)
    tl.store(to_gy + at, share * factor, mask=whole)
