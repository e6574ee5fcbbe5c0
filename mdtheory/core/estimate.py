"""A mean with its interval: the one place that knows 1.96."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from mdtheory.core.types import Estimate

Z95 = 1.96
"""Standard errors on either side of a mean in a normal 95% interval."""


def estimate(values: Tensor | np.ndarray | Sequence[float]) -> Estimate:
    """Mean and half-width 1.96 sd / sqrt(n), sd with n - 1 in the denominator, of independent
    values. shape: (n >= 2,)

    >>> import torch, mdtheory
    >>> print(mdtheory.estimate(torch.tensor([0.4, 0.5, 0.6])))
    50.00 ± 11.32%
    """
    given = values.detach().cpu() if isinstance(values, Tensor) else values
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
