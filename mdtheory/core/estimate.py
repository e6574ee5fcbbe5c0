"""A mean with its interval, and whether it is other than zero: the one place that knows 1.96. Loads
no torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

Z95 = 1.96
"""Standard errors on either side of a mean in a normal 95% interval."""


@dataclass(frozen=True)
class Estimate:
    """A mean over ``n`` independent tasks with the half-width of a 95% interval: that of
    :func:`estimate` is the normal one, 1.96 sd / sqrt(n).

    units: those of the quantity; printed as per cent of 1.

    >>> import mdtheory
    >>> print(mdtheory.Estimate(mean=0.481, half_width=0.0187, n=1000))
    48.10 ± 1.87%
    """

    mean: float
    half_width: float
    n: int

    def __str__(self) -> str:
        return f"{100 * self.mean:.2f} ± {100 * self.half_width:.2f}%"


def estimate(values: Tensor | np.ndarray | Sequence[float]) -> Estimate:
    """Mean and half-width 1.96 sd / sqrt(n), sd with n - 1 in the denominator, of independent
    values. shape: (n >= 2,)

    >>> import torch, mdtheory
    >>> print(mdtheory.estimate(torch.tensor([0.4, 0.5, 0.6])))
    50.00 ± 11.32%
    """
    given = values if isinstance(values, np.ndarray | Sequence) else values.detach().cpu()
    array = np.asarray(given, dtype=np.float64)
    if array.ndim != 1 or len(array) < 2:
        raise ValueError(
            "an interval must rest on at least 2 tasks, one value each, got the shape "
            f"{array.shape}; evaluate on more"
        )
    return Estimate(float(array.mean()), Z95 * standard_error(array), len(array))


def standard_error(values: np.ndarray) -> float:
    """sd / sqrt(n), sd with n - 1 in the denominator, of independent values. shape: (n >= 2,)"""
    return float(np.asarray(values, np.float64).std(ddof=1)) / math.sqrt(len(values))


def p_value(values: np.ndarray | Sequence[float]) -> float:
    """Two-sided, normal approximation, of a zero mean; 1 where all values are 0. shape: (n >= 2,)

    >>> round(p_value([0.1, 0.3, 0.2, 0.2]), 6), p_value([0.0, 0.0])
    (1e-06, 1.0)
    """
    array = np.asarray(values, np.float64)
    error, mean = standard_error(array), float(array.mean())
    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return math.erfc(abs(mean) / error / math.sqrt(2))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm 1979: the i-th smallest of m times m - i (i = 0, 1, ...), made monotone and at most 1;
    in the given order.

    >>> holm([0.04, 0.01, 0.5])
    [0.08, 0.03, 0.5]
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, largest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        corrected[index] = largest
    return corrected
