"""The statistics behind every table: intervals, paired differences, Holm's correction, and what
could have been seen at all.

All of them treat the trained networks as given and the test tasks as drawn at random; with several
seeds, the scores of a task are first averaged over them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Z95 = 1.96
Z80 = 0.8416  # the quantile of 80% power


@dataclass(frozen=True)
class Estimate:
    """A mean with the half-width of its normal 95% interval over ``n`` tasks."""

    mean: float
    half_width: float
    n: int


@dataclass(frozen=True)
class Difference:
    """A paired difference, its two-sided p value, the same after Holm's correction, and the
    smallest that would be seen.
    """

    estimate: Estimate
    p: float
    corrected: float
    detectable: float

    @property
    def significant(self) -> bool:
        """Whether it is other than zero at 5% over all comparisons of its family."""
        return self.corrected < 0.05


def estimate(values: Sequence[float] | np.ndarray) -> Estimate:
    """Mean and 1.96 sd / sqrt(n), sd with n - 1 in the denominator. shape: (n >= 2,)"""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) < 2:
        raise ValueError(
            f"values must be at least 2 numbers, got shape {array.shape}; test on more tasks"
        )
    return Estimate(float(array.mean()), Z95 * _standard_error(array), len(array))


def p_value(differences: np.ndarray) -> float:
    """Two-sided, normal approximation, of a zero mean; 1 where all differences are 0."""
    error, mean = _standard_error(differences), float(differences.mean())
    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return math.erfc(abs(mean) / error / math.sqrt(2))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm 1979: the i-th smallest of m times m - i (i = 0, 1, ...), made monotone and at most 1;
    in the given order.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, largest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        corrected[index] = largest
    return corrected


def compare(gaps: Mapping[str, np.ndarray]) -> dict[str, Difference]:
    """Paired differences by task, as one family of comparisons. shapes: (n_tasks,)

    ``detectable``: (1.96 + 0.84) standard errors, which one comparison at 5% sees with a
    probability of 80%.
    """
    raw = [p_value(gap) for gap in gaps.values()]
    return {
        name: Difference(estimate(gap), p, corrected, (Z95 + Z80) * _standard_error(gap))
        for (name, gap), p, corrected in zip(gaps.items(), raw, holm(raw), strict=True)
    }


def _standard_error(values: np.ndarray) -> float:
    return float(np.asarray(values, np.float64).std(ddof=1)) / math.sqrt(len(values))


def p_text(p: float) -> str:
    """Three decimals, or that it is smaller."""
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"
