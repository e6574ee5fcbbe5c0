"""Smooth ways to keep learned numbers in an interval and learned matrices below a norm, for every
parameter value.

Spectral norms themselves are not differentiable where singular values tie, as in any orthogonal
start; these bounds are polynomials under a root, exact within a known factor, and never need a
decomposition.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

TINY = 1e-30  # keeps logarithms and roots of zero finite; float32 holds its inverse
# keeps quotients by zero finite; float32 holds the square of its inverse, which their derivatives
# need
FLOOR = 1e-15
HALVINGS = 3  # powers 2, 4, 8 of a Gram matrix; its trace at power 16 is then one inner product
POWER = 2 ** (HALVINGS + 1)


def within(a: Tensor, *, low: float, high: float) -> Tensor:
    """A smooth increasing bijection R -> (-low, high) with value 0 and slope 1 at a = 0; low, high
    > 0. shape: as a

    2 low high t / (low (1 + t) + high (1 - t)) with t = tanh(a (1/low + 1/high) / 2): a logistic
    curve, exactly 0 at 0.
    """
    t = torch.tanh(a * (0.5 / low + 0.5 / high))
    return 2 * low * high * t / (low * (1 + t) + high * (1 - t))


def log_top(gram: Tensor) -> Tensor:
    """log of an upper bound on the largest eigenvalue of positive semi-definite matrices. shapes:
    (..., r, r) -> (...)

    (tr G^16)^(1/16), in [lambda, r^(1/16) lambda]: at most 1.14 lambda for r = 8 and 1.30 lambda
    for r = 64. Smooth wherever G is not 0. Cost: three products of r x r matrices.
    """
    size = gram.shape[-1]
    trace = gram.diagonal(dim1=-2, dim2=-1).sum(-1) + FLOOR
    power = (
        gram * (math.sqrt(size) / trace)[..., None, None]
    )  # eigenvalue range [r^-1/2, r^1/2]: no over- or underflow
    for _ in range(HALVINGS):
        power = power @ power
    return (
        torch.log(trace / math.sqrt(size)) + torch.log((power * power).sum((-2, -1)) + TINY) / POWER
    )


def gram(matrix: Tensor) -> Tensor:
    """A A^T or A^T A, whichever is smaller. shapes: (..., o, i) -> (..., r, r) with r = min(o,
    i)
    """
    return matrix @ matrix.mT if matrix.shape[-2] <= matrix.shape[-1] else matrix.mT @ matrix


def largest(squares: Tensor) -> Tensor:
    """A smooth upper bound on max(squares) >= 0 over the last axis, within a factor n^(1/16).
    shapes: (..., n) -> (...)
    """
    total = squares.sum(-1) + FLOOR
    return total * ((squares / total[..., None]).pow(POWER).sum(-1) + TINY).pow(1 / POWER)


def semi_orthogonal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """A random matrix with orthonormal rows or columns (the fewer), in float64 on the CPU. shape:
    (rows, columns)
    """
    draw = torch.randn(
        max(rows, columns), min(rows, columns), generator=generator, dtype=torch.float64
    )
    q, r = torch.linalg.qr(draw)
    q = q * torch.sign(r.diagonal())
    return (q if rows >= columns else q.mT).contiguous()
