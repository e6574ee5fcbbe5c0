"""Answers that one can act on: calibrated probabilities, and sets with a stated coverage.

Both are learned from examples that an adaptation did not see. *Temperature* (guo2017calibration)
divides the scores by one number T. *Prediction sets* are split conformal (sadinle2019least): with
n held-out examples and the scores s_i = 1 - p_i(true class), a set holds every class whose score is
at most the k-th smallest s_i, k = ceil((n + 1) (1 - alpha)). If the held-out examples and the new
ones are exchangeable, such a set holds the true class with probability at least 1 - alpha, whatever
the model. Below n = 1 / alpha - 1 no threshold says that much, and a set holds every class.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

HOTTEST, COLDEST = 100.0, 0.01
"""Bounds of the temperature."""


def held_out_folds(labels: Tensor, n_folds: int) -> list[Tensor]:
    """Places of the examples in ``n_folds`` parts, every class dealt out in turn. shapes:
    ``labels`` (n,); each part (m,) with m about n / n_folds

    >>> [part.tolist() for part in held_out_folds(torch.tensor([0, 0, 0, 1, 1]), 2)]
    [[0, 2, 3], [1, 4]]
    """
    dealt = torch.zeros(len(labels), dtype=torch.int64)
    for label in labels.unique():
        own = (labels == label).nonzero()[:, 0].cpu()
        dealt[own] = torch.arange(len(own)) % n_folds
    return [(dealt == part).nonzero()[:, 0] for part in range(n_folds)]


def temperature(logits: Tensor, labels: Tensor) -> float:
    """The T > 0 that makes softmax(logits / T) likeliest on held-out examples. shapes: (n, C),
    (n,)

    T minimises the cross-entropy against targets smoothed as by one more example of every class
    (Platt's rule: the true class has (n + 1) / (n + C), any other 1 / (n + C)), without which a few
    examples that are all right would ask for T = 0. The cross-entropy is convex in 1 / T, so its
    derivative is bisected; the result lies between ``COLDEST`` and ``HOTTEST``.

    >>> sure = torch.tensor([[9.0, 0.0], [9.0, 0.0], [0.0, 9.0], [9.0, 0.0]])
    >>> temperature(sure, torch.tensor([0, 0, 1, 1])) > 4  # one in four is wrong
    True
    """
    n, n_classes = logits.shape
    if n == 0 or labels.shape != (n,):
        raise ValueError(
            f"there must be one label for each of n >= 1 rows of logits, got {tuple(labels.shape)} "
            f"for {tuple(logits.shape)}; hold some examples out"
        )
    z = logits.detach().to("cpu", torch.float64)
    z = z - z.max(dim=1, keepdim=True).values
    targets = torch.full_like(z, 1 / (n + n_classes))
    targets[torch.arange(n), labels.cpu()] = (n + 1) / (n + n_classes)

    def slope(beta: float) -> float:
        """The derivative of the cross-entropy by beta = 1 / T."""
        return float((((z * beta).softmax(1) - targets) * z).sum())

    low, high = 1 / HOTTEST, 1 / COLDEST
    if slope(low) >= 0:
        return HOTTEST
    if slope(high) <= 0:
        return COLDEST
    for _ in range(100):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 1 / math.sqrt(low * high)


def needed(coverage: float) -> int:
    """The least number of held-out examples with which a set can promise this coverage.

    >>> needed(0.9), needed(0.95)
    (9, 19)
    """
    check_coverage(coverage)
    return math.ceil(1 / (1 - coverage) - 1 - 1e-9)


def check_coverage(coverage: float) -> None:
    """``ValueError`` for what is no probability between 0 and 1."""
    if not 0 < coverage < 1:
        meant = f"{coverage / 100:g} is {coverage:g} %" if 1 < coverage < 100 else "0.9 is 90 %"
        raise ValueError(f"coverage must lie between 0 and 1, got {coverage}; {meant}")


@dataclass(frozen=True)
class ConformalSets:
    """Sets that hold the true class with probability at least ``coverage``. ``scores``: 1 - p(true
    class) of the held-out examples, shape (n,)
    """

    scores: Tensor
    coverage: float

    @property
    def threshold(self) -> float:
        """The k-th smallest score, k = ceil((n + 1) coverage); infinite where k > n."""
        check_coverage(self.coverage)
        n = len(self.scores)
        k = math.ceil((n + 1) * self.coverage - 1e-9)
        return math.inf if k > n else float(self.scores.double().sort().values[max(k, 1) - 1])

    def sets(self, probabilities: Tensor) -> Tensor:
        """Which classes each set holds, as booleans. shapes: (n_items, C) -> (n_items, C)

        The likeliest class is always there, which can only add to the coverage.
        """
        held = 1 - probabilities.double() <= self.threshold
        return held | (probabilities == probabilities.max(dim=1, keepdim=True).values)


def split_conformal(probabilities: Tensor, labels: Tensor, *, coverage: float) -> ConformalSets:
    """Calibrate sets on held-out examples. shapes: (n, C), (n,)

    >>> p = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7]])
    >>> made = split_conformal(p, torch.tensor([0, 0, 1]), coverage=0.75)
    >>> round(made.threshold, 3)  # the third smallest of 0.1, 0.4 and 0.3
    0.4
    >>> made.sets(torch.tensor([[0.62, 0.38], [0.95, 0.05]])).tolist()
    [[True, False], [True, False]]
    """
    check_coverage(coverage)
    taken = probabilities.double().gather(1, labels[:, None].to(probabilities.device))[:, 0]
    return ConformalSets(1 - taken, coverage)
