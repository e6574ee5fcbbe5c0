"""Slow, obvious truths about glyphs: the warp pixel by pixel in float64, and the likeness of two
bitmaps by a loop.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float64]
SIDE = 48


def cubic(distance: float) -> float:
    """Keys's kernel with a = -0.75, torch's choice for bicubic."""
    a, d = -0.75, abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def control_weights(place: float) -> list[float]:
    """The weights of 4 control points at a place in [0, 3], the outer ones repeated beyond the
    border.
    """
    weights = [0.0] * 4
    for k in range(math.floor(place) - 1, math.floor(place) + 3):
        weights[min(max(k, 0), 3)] += cubic(place - k)
    return weights


def restroke(ink: Image, weight: float) -> Image:
    """Towards the 3 x 3 maximum by 0.6 of a positive weight, towards the minimum by 0.3 of a
    negative one.
    """
    result = ink.copy()
    for y in range(1, SIDE - 1):
        for x in range(1, SIDE - 1):
            near = ink[y - 1 : y + 2, x - 1 : x + 2]
            target, amount = (
                (near.max(), 0.6 * weight) if weight > 0 else (near.min(), -0.3 * weight)
            )
            result[y, x] += min(amount, 1.0) * (target - ink[y, x])
    return result


def read(ink: Image, x: float, y: float) -> float:
    """Bilinear between the centres of pixels; x and y in half-widths from the middle, paper
    outside.
    """
    column, row = ((x + 1) * SIDE - 1) / 2, ((y + 1) * SIDE - 1) / 2
    left, top = math.floor(column), math.floor(row)
    total = 0.0
    for i, j in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        if 0 <= i < SIDE and 0 <= j < SIDE:
            total += ink[i, j] * (1 - abs(row - i)) * (1 - abs(column - j))
    return total


def warp(
    bitmap: NDArray[np.uint8], draws: list[float], *, strength: float, size: int, turn: float = 1.0
) -> Image:
    """One image; ``turn`` = -1 is a mutant that rotates the wrong way."""
    ink = restroke(bitmap.astype(np.float64) / 15, strength * draws[6])
    angle, shear = turn * math.radians(15) * strength * draws[0], 0.2 * strength * draws[1]
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    scales = np.diag([math.exp(0.15 * strength * draws[2]), math.exp(0.15 * strength * draws[3])])
    matrix = rotation @ np.array([[1, shear], [0, 1]]) @ scales
    shift = 0.08 * strength * np.array(draws[4:6])
    control = 0.08 * strength * np.array(draws[7:]).reshape(2, 4, 4)
    result = np.zeros((size, size))
    for i in range(size):
        for j in range(size):
            across, down = control_weights(3 * j / (size - 1)), control_weights(3 * i / (size - 1))
            field = np.einsum("cyx,y,x->c", control, down, across)
            x, y = matrix @ [(2 * j + 1) / size - 1, (2 * i + 1) / size - 1] + shift + field
            result[i, j] = read(ink, x, y)
    return result
