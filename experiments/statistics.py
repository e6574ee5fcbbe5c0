"""The statistics behind every table: intervals, paired differences, Holm's correction, and what
could have been seen at all.

With fewer than :data:`ENOUGH_SEEDS` seeds the trained networks are taken as given and the test
tasks as drawn at random; the scores of a task are first averaged over the seeds. With as many or
more, a difference must hold twice: with seed and task both random (:func:`crossed`), and over the
seeds by Student's t. The second is there because three seeds may look alike by chance: the model
then takes their variance as 0, and its interval is too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from mdtheory.core.estimate import Z95, Estimate, holm, standard_error

ENOUGH_SEEDS = 3  # for an answer that is more than suggestive
POWER = 0.8


@dataclass(frozen=True)
class Difference:
    """A paired difference, its two-sided p value, the same after Holm's correction, the smallest
    true one that a single comparison at 5% sees with 80% power, and the number of seeds behind it.
    """

    estimate: Estimate
    p: float
    corrected: float
    detectable: float
    seeds: int = 1

    @property
    def significant(self) -> bool:
        """Whether it is other than zero at 5% over all comparisons of its family."""
        return self.corrected < 0.05

    @property
    def suggestive(self) -> bool:
        """Whether there are too few seeds for more than a suggestion."""
        return self.seeds < ENOUGH_SEEDS


@dataclass(frozen=True)
class Crossed:
    """The mean of a table of seeds x tasks with its standard error and Satterthwaite's degrees of
    freedom, and the variances of seeds, tasks and what is left.
    """

    mean: float
    spread: Spread
    of_seeds: float
    of_tasks: float
    residual: float


@dataclass(frozen=True)
class Spread:
    """A standard error and its degrees of freedom; infinitely many: the normal distribution."""

    error: float
    freedom: float = math.inf

    @property
    def half_width(self) -> float:
        """Of the 95% interval."""
        return _quantile(self.freedom) * self.error

    @property
    def detectable(self) -> float:
        """The true difference that a test at 5% sees with a probability of 80%."""
        return _detectable(self.freedom) * self.error

    def p(self, mean: float) -> float:
        """Two-sided, of a zero mean; 1 where nothing varies and the mean is 0."""
        from scipy.stats import t

        if self.error == 0:
            return 1.0 if mean == 0 else 0.0
        ratio = abs(mean) / self.error
        if math.isinf(self.freedom):
            return math.erfc(ratio / math.sqrt(2))
        return float(2 * t.sf(ratio, self.freedom))


def _quantile(freedom: float) -> float:
    from scipy.stats import t

    return Z95 if math.isinf(freedom) else float(t.ppf(0.975, freedom))


@cache
def _detectable(freedom: float) -> float:
    """In standard errors, by the noncentral t distribution."""
    from scipy.optimize import brentq
    from scipy.stats import nct, norm

    if math.isinf(freedom):
        return Z95 + float(norm.ppf(POWER))
    limit = _quantile(freedom)
    return float(
        brentq(lambda shift: nct.sf(limit, freedom, shift) - POWER, 0.0, 100.0 * limit, xtol=1e-6)
    )


def crossed(table: np.ndarray) -> Crossed:
    """The linear mixed model y_st = mean + a_s + b_t + e_st with random seeds a and tasks b.

    By the analysis of variance on a full table, negative variances taken as 0; REML, where none is
    negative (Searle, Casella and McCulloch 1992, ch. 4): with mean squares M_s, M_t, M_e,
    var(mean) = s_a^2 / S + s_b^2 / T + s_e^2 / (S T), s_a^2 = (M_s - M_e) / T,
    s_b^2 = (M_t - M_e) / S, s_e^2 = M_e; degrees of freedom by Satterthwaite. shape: (S >= 2 seeds,
    T >= 2 tasks)
    """
    y = np.asarray(table, dtype=np.float64)
    if y.ndim != 2 or min(y.shape) < 2:
        raise ValueError(
            f"the table must hold at least 2 seeds and 2 tasks, got shape {y.shape}; run more seeds"
        )
    (seeds, tasks), mean = y.shape, y.mean()
    by_seed, by_task = y.mean(axis=1) - mean, y.mean(axis=0) - mean
    rest = y - mean - by_seed[:, None] - by_task[None]
    free = (seeds - 1, tasks - 1, (seeds - 1) * (tasks - 1))
    squares = (
        tasks * float(by_seed @ by_seed) / free[0],
        seeds * float(by_task @ by_task) / free[1],
        float((rest**2).sum()) / free[2],
    )
    of_seeds = max(0.0, (squares[0] - squares[2]) / tasks)
    of_tasks = max(0.0, (squares[1] - squares[2]) / seeds)
    variance = of_seeds / seeds + of_tasks / tasks + squares[2] / (seeds * tasks)
    # the same as a sum of mean squares, some of which are left out where a variance is 0
    weights = (float(of_seeds > 0), float(of_tasks > 0), 1.0 - (of_seeds > 0) - (of_tasks > 0))
    total = sum(w * m for w, m in zip(weights, squares, strict=True))
    spread = sum((w * m) ** 2 / f for w, m, f in zip(weights, squares, free, strict=True))
    freedom = total**2 / spread if spread > 0 else float(free[2])
    spread_of_mean = Spread(math.sqrt(variance), freedom)
    return Crossed(float(mean), spread_of_mean, of_seeds, of_tasks, squares[2])


def over_seeds(means: Sequence[float]) -> Estimate:
    """The mean over seeds with Student's 95% interval, the test tasks taken as given; ``n`` is the
    number of seeds. shape: (n_seeds >= 2,)
    """
    array = np.asarray(means, dtype=np.float64)
    return Estimate(float(array.mean()), student(array).half_width, len(array))


def student(means: np.ndarray) -> Spread:
    """Of the mean over seeds. shape: (n_seeds >= 2,)"""
    if len(means) < 2:
        raise ValueError(f"an interval over seeds needs at least 2, got {len(means)}; run more")
    return Spread(standard_error(means), len(means) - 1)


def compare(gaps: Mapping[str, np.ndarray]) -> dict[str, Difference]:
    """Paired differences by seed and task, as one family of comparisons. shapes: (n_tasks,) or
    (n_seeds, n_tasks)

    From :data:`ENOUGH_SEEDS` seeds on, the wider of the intervals of :func:`crossed` and
    :func:`student`, and the larger p; below, that of the tasks alone.
    """
    found = {}
    for name, gap in gaps.items():
        table = np.atleast_2d(np.asarray(gap, dtype=np.float64))
        averaged = table.mean(axis=0)
        mean = float(averaged.mean())
        if len(table) >= ENOUGH_SEEDS:
            spreads = [crossed(table).spread, student(table.mean(axis=1))]
        else:
            spreads = [Spread(standard_error(averaged))]
        half_width = max(one.half_width for one in spreads)
        p = max(one.p(mean) for one in spreads)
        detectable = max(one.detectable for one in spreads)
        found[name] = (Estimate(mean, half_width, len(averaged)), p, detectable, len(table))
    corrected = holm([p for _, p, _, _ in found.values()])
    return {
        name: Difference(mean, p, after, detectable, seeds)
        for (name, (mean, p, detectable, seeds)), after in zip(
            found.items(), corrected, strict=True
        )
    }


def counted_seeds(number: int) -> str:
    """``1 seed``, ``3 seeds``."""
    return "1 seed" if number == 1 else f"{number} seeds"


def p_text(p: float) -> str:
    """Three decimals, or that it is smaller."""
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"
