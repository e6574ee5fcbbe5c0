"""Theorem T4's local Lipschitz bound, with its constants read off the weights of the library's MLP
form.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from mdtheory.maps.iaf import MLPIAF
from mdtheory.maps.iaf.base import LEAKY_SLOPES
from proofs_check.tools.intervals import Box, greatest_norm, upward


@dataclass(frozen=True)
class Constants:
    """What T4 asks for, block by block (counted from 0); entries j >= i of the two matrices are
    zero.

    ``scales``: l^alpha_ij; ``shifts``: l^mu_ij, Lipschitz constants in block j of block i's
    conditioners; ``top``: sup s_i; ``bend``: sup |s_i'|; ``radius``: sup of |z_c| in block i.
    """

    scales: np.ndarray
    shifts: np.ndarray
    top: np.ndarray
    bend: np.ndarray
    radius: np.ndarray

    def matrix(self) -> np.ndarray:
        """M: top_i on the diagonal, R_i bend_i l^alpha_ij + l^mu_ij below it. shape: (B, B)"""
        below = (self.radius * self.bend)[:, None] * self.scales + self.shifts
        return np.diag(self.top) + np.tril(below, -1)

    def lipschitz(self) -> float:
        """||M||_2, rounded up."""
        return upward(greatest_norm(self.matrix()))

    def crude(self) -> float:
        """max top_i + (sum_i rho_i^2)^(1/2), rho_i the norm of row i below the diagonal."""
        return float(self.top.max() + np.linalg.norm(np.tril(self.matrix(), -1)))


def spectral(weight: torch.Tensor) -> float:
    """||W||_2, proved by a factorisation in balls and rounded up."""
    return upward(greatest_norm(weight.detach().double().numpy()))


def constants(map: MLPIAF, box: Box) -> Constants:
    """Products of spectral norms and slopes. For ``exp`` scales, sup s_i = exp(max |alpha_i(0)| +
    sum_j l_ij ||z_j||).
    """
    own, n, steepest = map.own(), len(map.sizes), LEAKY_SLOPES[1]
    ends = np.concatenate([[0], np.cumsum(map.sizes)])
    reach = np.maximum(np.abs(box.low), np.abs(box.high))
    radius = np.array([reach[a:b].max() for a, b in pairwise(ends)])
    scales, shifts = np.zeros((n, n)), np.zeros((n, n))
    for i in range(1, n):
        outer, inner = own[f"decoders.{i + 1}.1.weight"], own[f"decoders.{i + 1}.0.weight"]
        heads = [spectral(half) for half in outer.chunk(2)]
        width = inner.shape[1] // i
        for j in range(i):
            encoder = [spectral(own[f"encoders.{j + 1}.{layer}.weight"]) for layer in (0, 1)]
            common = (
                steepest**2 * math.prod(encoder) * spectral(inner[:, j * width : (j + 1) * width])
            )
            scales[i, j], shifts[i, j] = (head * common * (1 + 1e-12) for head in heads)
    top, bend = _scale_bounds(map, scales, [np.linalg.norm(reach[a:b]) for a, b in pairwise(ends)])
    return Constants(scales, shifts, top, bend, radius)


def _scale_bounds(
    map: MLPIAF, scales: np.ndarray, lengths: list[float]
) -> tuple[np.ndarray, np.ndarray]:
    n = len(map.sizes)
    if map.scale.bounds is not None:
        low, high = map.scale.bounds
        return np.full(n, high), np.full(n, (high - low) / 4)
    origin = {name: torch.zeros_like(value) for name, value in map.split(_zeros(map)).items()}
    at_zero, _ = map.conditioners({k: v.detach() for k, v in map.own().items()}, origin)
    base = np.array([float(at_zero[str(i + 1)].abs().max()) for i in range(n)])
    top = np.exp(base + scales @ np.array(lengths)) * (1 + 1e-12)
    return top, top


def _zeros(map: MLPIAF) -> dict[str, torch.Tensor]:
    return {name: torch.zeros(value.shape, dtype=torch.float64) for name, value in map.like.items()}
