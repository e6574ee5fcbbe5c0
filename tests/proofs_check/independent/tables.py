"""C31 and C32: the poster's numbers typed again from the poster, with statistics and a count of
one's own.
"""

from __future__ import annotations

import math
from fractions import Fraction

import mpmath
import numpy as np
from scipy import stats

from tests.proofs_check.independent.registry import computes, for_each

PRINTED = {  # 5-way accuracy and 95 % half-width in percent, where both are printed
    ("MAML", 1): (48.70, 1.84),
    ("MAML", 5): (63.11, 0.92),
    ("MetaSGD", 1): (50.47, 1.87),
    ("MetaSGD", 5): (64.03, 0.94),
    ("MT-net", 1): (51.70, 1.84),
    ("WarpGrad", 1): (52.3, 0.8),
    ("WarpGrad", 5): (68.4, 0.6),
    ("MetaCurvature", 1): (54.23, 0.88),
    ("MetaCurvature", 5): (67.99, 0.73),
    ("ECML", 1): (48.94, 0.80),
    ("ECML", 5): (65.26, 0.67),
    ("MetaMiDA", 1): (56.10, 1.43),
    ("MetaMiDA", 5): (69.59, 0.71),
}
RIVALS = [key for key in PRINTED if key[0] != "MetaMiDA"]


def score(name: str, n_shot: int) -> float:
    (ours, width), (theirs, other) = PRINTED["MetaMiDA", n_shot], PRINTED[name, n_shot]
    return (ours - theirs) / (math.hypot(width, other) / 1.96)


for name, n_shot in (("MetaCurvature", 1), ("WarpGrad", 5), ("MetaCurvature", 5)):
    computes("C31", f"z against {name}, {n_shot}-shot")(
        lambda name=name, n_shot=n_shot: score(name, n_shot)
    )
    computes("C31", f"two-sided p against {name}, {n_shot}-shot")(
        lambda name=name, n_shot=n_shot: 2 * stats.norm.sf(score(name, n_shot))
    )
computes("C31", "rows with an interval to compare with")(lambda: len(RIVALS))
computes("C31", "z for eleven comparisons at once")(lambda: stats.norm.isf(0.025 / len(RIVALS)))


def task_variance(n_tasks: int, n_shot: int) -> float:
    return n_tasks * (PRINTED["MetaMiDA", n_shot][1] / 196) ** 2


def between(n_tasks: int, n_shot: int) -> float:
    """The covariance of two answers on one task: n Var = m(1-m) + (n-1) v, solved as a linear
    equation.
    """
    m, n = PRINTED["MetaMiDA", n_shot][0] / 100, 5 * n_shot
    return float(
        np.linalg.solve([[n - 1.0]], [n * task_variance(n_tasks, n_shot) - m * (1 - m)])[0]
    )


for n_tasks in (600, 1000):
    for_each("C31", f"v of {n_tasks} tasks, {{k}}-shot", [1, 5])(
        lambda n_shot, n=n_tasks: between(n, n_shot)
    )
    for_each("C31", f"sd of a task, {n_tasks} tasks, {{k}}-shot", [1, 5])(
        lambda n_shot, n=n_tasks: math.sqrt(task_variance(n, n_shot))
    )
for_each("C31", "sd between tasks, {k}-shot", [1, 5])(
    lambda n_shot: math.sqrt(between(1000, n_shot))
)
for_each("C31", "binomial sd, {k}-shot", [1, 5])(
    lambda n_shot: (
        stats.binom(5 * n_shot, PRINTED["MetaMiDA", n_shot][0] / 100).std() / (5 * n_shot)
    )
)


def least_covariance(n: int, *, whole: bool) -> float:
    """The least v of exchangeable answers: counts on two neighbours of n m, or (not attained)
    exactly n m every time.
    """
    m = PRINTED["MetaMiDA", 1 if n == 5 else 5][0] / 100
    low = math.floor(n * m)
    counts, chances = np.array([low, low + 1]), np.array([low + 1 - n * m, n * m - low])
    variance = chances @ (counts / n - m) ** 2 if whole else 0.0
    return float((n * variance - m * (1 - m)) / (n - 1))


for_each("C31", "least v for exchangeable queries, n={k}", [5, 25])(
    lambda n: least_covariance(n, whole=False)
)
for_each("C31", "least v for exchangeable queries, n={k}, sharp", [5, 25])(
    lambda n: least_covariance(n, whole=True)
)


def fewest(name: str, n_shot: int) -> int:
    m, width = PRINTED[name, n_shot]
    m, variance = m / 100, 600 * (width / 196) ** 2
    return next(n for n in range(2, 1000) if n * variance - m * (1 - m) >= 0)


for name, n_shot in RIVALS:
    computes("C31", f"fewest queries per task, {name}, {n_shot}-shot")(
        lambda name=name, n_shot=n_shot: fewest(name, n_shot)
    )


def resnet50(classes: int) -> int:
    """Convolution weights, two numbers per normalised channel, and the classifier, added by
    hand.
    """
    count, channels = 3 * 64 * 49 + 2 * 64, 64
    for width, repeats in ((64, 3), (128, 4), (256, 6), (512, 3)):
        count += channels * 4 * width + 2 * 4 * width  # the projection of the first block
        for _ in range(repeats):
            count += (
                channels * width
                + 9 * width * width
                + 4 * width * width
                + 2 * (width + width + 4 * width)
            )
            channels = 4 * width
    return count + (channels + 1) * classes


computes("C31", "parameters of ResNet-50's backbone")(lambda: resnet50(0))
computes("C31", "parameters of ResNet-50 with its head")(lambda: resnet50(1000))

computes("C32", "|f'(0.3)| for f = x^8/8")(
    lambda: float(mpmath.diff(lambda x: x**8 / 8, mpmath.mpf("0.3")))
)


@computes("C32", "x after 200 steps of 1/7 from 0.3")
def slow_descent() -> float:
    x = Fraction(3, 10)
    for _ in range(200):
        x = (x - x**7 / 7).limit_denominator(10**20)
    return float(x)


computes("C32", "F(30 V), 5-way")(lambda: float(mpmath.log(1 + 4 * mpmath.exp(-30))))
