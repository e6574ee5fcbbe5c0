"""The statistics behind every table: intervals, paired differences, Holm's correction, and what
could have been seen at all.

With fewer than :data:`ENOUGH_SEEDS` seeds the trained networks are taken as given and the test
tasks as drawn at random; the scores of a task are first averaged over the seeds. With as many or
more, seed and task are both random (:func:`crossed`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mdtheory.core.estimate import Z95, Estimate, estimate, holm, p_value, standard_error

ENOUGH_SEEDS = 3  # for an answer that is more than suggestive
Z80 = 0.8416  # the quantile of 80% power


@dataclass(frozen=True)
class Difference:
    """A paired difference, its two-sided p value, the same after Holm's correction, the smallest
    that would be seen, and the number of seeds behind it.
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
    """The mean of a table of seeds x tasks with its standard error, Satterthwaite's degrees of
    freedom, and the variances of seeds, tasks and what is left.
    """

    mean: float
    error: float
    freedom: float
    of_seeds: float
    of_tasks: float
    residual: float

    @property
    def half_width(self) -> float:
        """Of the 95% interval by Student's t."""
        from scipy.stats import t

        return float(t.ppf(0.975, self.freedom)) * self.error

    @property
    def p(self) -> float:
        """Two-sided, of a zero mean; 1 where nothing varies and the mean is 0."""
        from scipy.stats import t

        if self.error == 0:
            return 1.0 if self.mean == 0 else 0.0
        return float(2 * t.sf(abs(self.mean) / self.error, self.freedom))


def crossed(table: np.ndarray) -> Crossed:
    """The linear mixed model y_st = mean + a_s + b_t + e_st with random seeds a and tasks b.

    On a full table its REML estimates are those of the analysis of variance (Searle, Casella and
    McCulloch 1992, ch. 4), negative variances taken as 0: with mean squares M_s, M_t, M_e,
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
    return Crossed(float(mean), math.sqrt(variance), freedom, of_seeds, of_tasks, squares[2])


def over_seeds(means: Sequence[float]) -> Estimate:
    """The mean over seeds with Student's 95% interval, the test tasks taken as given; ``n`` is the
    number of seeds. shape: (n_seeds >= 2,)
    """
    from scipy.stats import t

    array = np.asarray(means, dtype=np.float64)
    if len(array) < 2:
        raise ValueError(f"an interval over seeds needs at least 2, got {len(array)}; run more")
    wide = float(t.ppf(0.975, len(array) - 1)) * standard_error(array)
    return Estimate(float(array.mean()), wide, len(array))


def compare(gaps: Mapping[str, np.ndarray]) -> dict[str, Difference]:
    """Paired differences by seed and task, as one family of comparisons. shapes: (n_tasks,) or
    (n_seeds, n_tasks)

    From :data:`ENOUGH_SEEDS` seeds on by :func:`crossed`, below by the tasks alone. ``detectable``:
    (1.96 + 0.84) standard errors, which one comparison at 5% sees with a probability of 80% (less
    where few seeds decide).
    """
    found = {}
    for name, gap in gaps.items():
        table = np.atleast_2d(np.asarray(gap, dtype=np.float64))
        seeds = len(table)
        if seeds >= ENOUGH_SEEDS:
            model = crossed(table)
            mean = Estimate(model.mean, model.half_width, table.shape[1])
            found[name] = (mean, model.p, model.error, seeds)
        else:
            averaged = table.mean(axis=0)
            error = standard_error(averaged)
            found[name] = (estimate(averaged), p_value(averaged), error, seeds)
    corrected = holm([p for _, p, _, _ in found.values()])
    return {
        name: Difference(mean, p, after, (Z95 + Z80) * error, seeds)
        for (name, (mean, p, error, seeds)), after in zip(found.items(), corrected, strict=True)
    }


def p_text(p: float) -> str:
    """Three decimals, or that it is smaller."""
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"
