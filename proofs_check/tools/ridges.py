"""Sums of convex ridge functions: best approximation by linear programming, and the exact sup-error
over the unit disc.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.optimize import linprog

Array = np.ndarray


def triangle(points: Array) -> Array:
    """max(0, z_1, z_2): the support function of a triangle. shape: (n, 2) -> (n,)"""
    return np.maximum(0.0, points.max(axis=1))


def square(points: Array) -> Array:
    """max(|z_1|, |z_2|): the support function of a square, a zonotope. shape: (n, 2) -> (n,)"""
    return np.abs(points).max(axis=1)


def polar(radii: int, angles: int) -> Array:
    """The centre and ``radii`` circles of the unit disc. shape: (1 + radii * angles, 2)"""
    turn = np.arange(angles) * 2 * np.pi / angles
    ring = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    return np.concatenate([np.zeros((1, 2)), *(r * ring for r in np.linspace(0, 1, radii + 1)[1:])])


@dataclass(frozen=True)
class RidgeSum:
    """F(z) = sum_k c_k relu(w_k . z - b_k) + affine, c_k >= 0, |w_k| = 1."""

    directions: Array
    offsets: Array
    weights: Array
    affine: Array

    def __call__(self, points: Array) -> Array:
        """F. shape: (n, 2) -> (n,)"""
        ridges = np.maximum(points @ self.directions.T - self.offsets, 0.0)
        return ridges @ self.weights + self.affine[0] + points @ self.affine[1:]


def chebyshev(
    columns: Array, free: Array, target: Array, *, budget: float | None = None
) -> tuple[float, Array]:
    """min over c >= 0 (sum c <= budget), free d of max |columns c + free d - target|: the value and
    (c, d).
    """
    n, m, k = len(target), columns.shape[1], free.shape[1]
    one = np.ones((n, 1))
    rows = np.block([[columns, free, -one], [-columns, -free, -one]])
    limits = np.concatenate([target, -target])
    if budget is not None:
        rows = np.vstack([rows, np.concatenate([np.ones(m), np.zeros(k + 1)])])
        limits = np.append(limits, budget)
    cost = np.append(np.zeros(m + k), 1.0)
    bounds = [(0, None)] * m + [(None, None)] * k + [(0, None)]
    found = linprog(cost, A_ub=rows, b_ub=limits, bounds=bounds, method="highs")
    if not found.success:
        raise ArithmeticError(f"the linear program did not end: {found.message}")
    return float(found.fun), found.x[:-1]


def best_fit(function, *, angles: int, offsets: int, points: Array) -> tuple[float, RidgeSum]:
    """The best fit on ``points`` with ``offsets`` ridges in each of ``angles`` directions, and its
    error there.
    """
    turn = np.repeat(np.arange(angles) * 2 * np.pi / angles, offsets)
    directions = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    levels = np.tile(np.linspace(-1, 1, offsets + 2)[1:-1], angles)
    columns = np.maximum(points @ directions.T - levels, 0.0)
    free = np.concatenate([np.ones((len(points), 1)), points], axis=1)
    error, x = chebyshev(columns, free, function(points))
    keep = x[: len(levels)] > 1e-10
    return error, RidgeSum(directions[keep], levels[keep], x[: len(levels)][keep], x[len(levels) :])


def sup_error(fit: RidgeSum) -> float:
    """max over the whole unit disc of |F - max(0, z_1, z_2)|, from the finitely many points where
    it can be.

    The error is linear on every cell of the arrangement of all kinks: its extremes are at the
    arrangement's vertices, where kinks meet the circle, or where a cell's gradient points along the
    radius.
    """
    lines = np.concatenate([fit.directions, [[1.0, 0.0], [0.0, 1.0], [1.0, -1.0]]])
    levels = np.concatenate([fit.offsets, np.zeros(3)])
    candidates = [np.zeros(2)]
    for i in range(len(levels)):
        for j in range(i):
            pair = lines[[i, j]]
            if abs(np.linalg.det(pair)) > 1e-12:
                candidates.append(np.linalg.solve(pair, levels[[i, j]]))
    candidates = [z for z in candidates if z @ z <= 1 + 1e-12]
    lengths = np.hypot(*lines.T)
    meets = np.abs(levels / lengths) <= 1
    towards, half = (
        np.arctan2(lines[meets, 1], lines[meets, 0]),
        np.arccos((levels / lengths)[meets]),
    )
    angles = np.sort(np.mod(np.concatenate([towards + half, towards - half]), 2 * np.pi))
    for a, b in pairwise([*angles, angles[0] + 2 * np.pi]):
        middle = (1 - 1e-9) * np.array([np.cos((a + b) / 2), np.sin((a + b) / 2)])
        slope = (
            middle @ fit.directions.T > fit.offsets
        ) * fit.weights @ fit.directions + fit.affine[1:]
        slope = slope - np.array([[0, 0], [1, 0], [0, 1]])[int(np.argmax([0.0, *middle]))]
        radial = [
            np.arctan2(*(sign * slope)[::-1]) + turn
            for sign in (1, -1)
            for turn in (0.0, 2 * np.pi, -2 * np.pi)
        ]
        candidates += [np.array([np.cos(c), np.sin(c)]) for c in (a, *radial) if a <= c <= b]
    points = np.array(candidates)
    return float(np.abs(fit(points) - triangle(points)).max())
