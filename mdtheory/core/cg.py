"""Conjugate gradients, for everything that solves a system with Hessian-vector products."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Solution(NamedTuple):
    """What :func:`conjugate_gradients` found. shape: ``x`` (d,)

    ``residual``: ||A x - b|| / ||b|| as recurred. ``curvature``: <p, A p> of the direction p that
    ended the work because it is not positive; ``None`` where there was none.
    """

    x: Tensor
    residual: float
    curvature: float | None


def conjugate_gradients(
    product: Callable[[Tensor], Tensor], b: Tensor, *, steps: int, tolerance: float
) -> Solution:
    """x with ||A x - b|| <= tolerance ||b||, or the best after so many steps, from x = 0; ``b``
    has the shape (d,), ``product`` is x -> A x for a symmetric positive definite A.

    Every step has one product; numbers of the recurrence are read by the host, in double precision,
    and are constants for autograd.
    Source: hestenes1952methods. A direction of non-positive curvature ends the work; whether that
    is an error is for the caller to say. shape: (d,)
    """
    x, residual, direction = torch.zeros_like(b), b, b
    square = whole = _dot(b, b)
    curvature = None
    for _ in range(steps):
        if square <= tolerance * tolerance * whole:
            break
        image = product(direction)
        along = _dot(direction, image)
        if not along > 0:
            curvature = along
            break
        x = x + (square / along) * direction
        residual = residual - (square / along) * image
        before, square = square, _dot(residual, residual)
        direction = residual + (square / before) * direction
    return Solution(x, math.sqrt(square / whole) if whole > 0 else 0.0, curvature)


def _dot(a: Tensor, b: Tensor) -> float:
    return float(a.detach().dot(b.detach()))
