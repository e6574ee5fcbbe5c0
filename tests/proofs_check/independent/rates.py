"""C04, C07, C09, C22, C30: rates by simulation, by brute force and by semidefinite programs written
out by hand.
"""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import mpmath
import numpy as np
from scipy import integrate, optimize

from tests.proofs_check.independent import sdps
from tests.proofs_check.independent.registry import computes, for_each

STEPS = [1, 2, 3, 4, 5]


def double_well(x: float) -> float:
    return (x * x - 1) ** 2 / 4 + x / 10


@computes("C04", "f at the limit")
def trapped() -> float:
    x = 0.9
    for _ in range(5000):
        x -= (x**3 - x + 0.1) / 8
    return double_well(x)


@computes("C04", "global minimum of f")
def lowest() -> float:
    return min(
        double_well(root.real) for root in np.roots([1, 0, -1, 0.1]) if abs(root.imag) < 1e-12
    )


@computes("C04", "PL modulus of x^2+3sin^2 x on [-6,6]")
def modulus() -> float:
    def ratio(x: float) -> float:
        return (2 * x + 3 * np.sin(2 * x)) ** 2 / (2 * (x * x + 3 * np.sin(x) ** 2))

    starts = np.linspace(0.05, 5.95, 60)
    return min(
        optimize.minimize_scalar(ratio, bounds=(s - 0.05, s + 0.05), method="bounded").fun
        for s in starts
    )


def peak(k: int) -> optimize.OptimizeResult:
    return optimize.minimize_scalar(
        lambda q: -q * (1 - q) ** k, bounds=(0, 1), method="bounded", options={"xatol": 1e-12}
    )


for_each("C07", "K^K/(K+1)^(K+1), K={k}", STEPS, within=1e-10)(lambda k: -peak(k).fun)
for_each("C07", "mu/L that attains it, K={k}", STEPS, within=1e-6)(lambda k: peak(k).x)
for_each("C07", "worst distance/D at mu/L=1/5, K={k}", STEPS)(lambda k: sdps.distance(k, 0.2))
for_each("C07", "worst convex gap/(L D^2), K={k}", STEPS, within=1e-5)(sdps.convex_value)
for_each("C07", "sup distance/D, convex, K={k}", STEPS, within=1e-5)(
    lambda k: sdps.distance(k, 0.0)
)
for_each("C07", "worst min|grad f|^2/(L Delta_0), K={k}", STEPS, within=1e-5)(sdps.least_gradient)
for_each("C07", "worst MD gap/(L D_h), K={k}", STEPS, within=1e-5)(
    lambda k: sdps.mirror(k, 0.0, "gap")
)
for_each("C07", "worst D_h ratio at mu/L=1/5, K={k}", STEPS, within=1e-5)(
    lambda k: sdps.mirror(k, 0.2, "divergence")
)
for_each("C07", "worst gap/(L D_h) at mu/L=1/5, K={k}", STEPS, within=1e-5)(
    lambda k: sdps.mirror(k, 0.2, "gap")
)


@computes("C07", "largest alpha (L + mu) of the contraction", within=1e-6)
def edge_of_the_contraction() -> float:
    mu, big_l = (
        0.3,
        2.0,
    )  # the factor is max |1 - alpha eta| over [mu, L]; it is 1 - alpha mu up to the edge
    grid = np.linspace(mu, big_l, 2001)
    gap = optimize.brentq(lambda a: np.abs(1 - a * grid).max() - (1 - a * mu) - 1e-9, 0.1, 1.5)
    return gap * (mu + big_l)


@computes("C07", "constant of L/(e mu K) D", within=1e-10)
def constant_of_exponential() -> float:
    return -optimize.minimize_scalar(
        lambda t: -t * math.exp(-t), bounds=(0, 5), method="bounded"
    ).fun


@for_each("C07", "distance/D at mu=L/K^2, K={k}", STEPS)
def flat_parabola(k: int) -> Fraction:
    x = Fraction(1)
    for _ in range(k):
        x -= x / k**2
    return x


@for_each("C07", "Huber kink/D, K={k}", STEPS, within=1e-6)
def worst_kink(k: int) -> float:
    def final(kink: float) -> float:
        x = 1.0
        for _ in range(k):
            x -= min(x, kink)
        return x * x / 2 if x <= kink else kink * x - kink**2 / 2

    return optimize.minimize_scalar(
        lambda c: -final(c), bounds=(1e-3, 0.9 / k), method="bounded", options={"xatol": 1e-9}
    ).x


def power_steps(power: int, n_steps: int) -> mpmath.mpf:
    x = mpmath.mpf(1)
    for _ in range(n_steps):
        x -= x ** (power - 1) / (power - 1)
    return x


computes("C07", "K x_K/L at p=3, K=20000")(lambda: float(20000 * power_steps(3, 20000) / 2))
computes("C07", "x_K sqrt(2 alpha K) at p=4, K=20000")(
    lambda: float(power_steps(4, 20000) * mpmath.sqrt(40000 / mpmath.mpf(3)))
)
computes("C07", "x_1 at p=4")(lambda: float(power_steps(4, 1)))


@computes("C07", "p=4 increment/alpha", within=1e-9)
def largest_increment() -> float:
    """y = 1/x^2 rises by at most 3.75 alpha in a step, and most in the first."""
    rises, x = [], 1.0
    for _ in range(50):
        after = x - x**3 / 3
        rises.append(3 * (after**-2 - x**-2))
        x = after
    return max(rises)


@computes("C07", "largest p with O(1/K)", within=1e-3)
def break_even() -> float:
    """The power whose iterates fall like 1/K, from continuous time: x' = -x^{p-1}."""

    def order(power: float) -> float:
        found = integrate.solve_ivp(
            lambda t, x: -(x ** (power - 1)),
            (0, 1e6),
            [1.0],
            t_eval=[1e5, 1e6],
            rtol=1e-9,
            atol=1e-14,
        )
        return math.log10(found.y[0, 0] / found.y[0, 1])

    return optimize.brentq(lambda power: order(power) - 1, 2.6, 3.5)


@computes("C07", "PL distance constant")
def path_constant() -> float:
    """Sum of the step lengths in continuous time on mu x^2/2, times 2: sqrt(2 Delta_0/mu) there,
    and twice that in discrete.
    """
    mu, start = 0.7, 1.3
    length = integrate.quad(lambda t: mu * start * math.exp(-mu * t), 0, np.inf)[0]
    return 2 * length / math.sqrt(mu * start**2 / 2 / mu)


@computes("C07", "PL distance constant of L/(mu K)", within=1e-9)
def path_constant_of_the_rate() -> float:
    best = optimize.minimize_scalar(
        lambda t: -t * math.exp(-t / 2), bounds=(0, 9), method="bounded", options={"xatol": 1e-12}
    )
    return -best.fun * 2 * math.sqrt(2)


@for_each("C09", "variance factor at T=6, b={k}", [1, 2, 3, 4, 5, 6])
def variance_factor(b: int) -> Fraction:
    values = [Fraction(n) for n in (2, 7, 1, 8, 2, 8)]
    mean = sum(values) / 6
    means = [sum(drawn) / b for drawn in itertools.combinations(values, b)]
    return (
        sum((m - mean) ** 2 for m in means)
        / len(means)
        / (sum((v - mean) ** 2 for v in values) / 6)
    )


@computes("C09", "beta of the mean over beta of the sum, T=6")
def factor_of_the_sum() -> Fraction:
    values = [Fraction(n) for n in (2, 7, 1, 8, 2, 8)]
    means = [sum(drawn) / 3 for drawn in itertools.combinations(values, 3)]
    return sum(values) / (sum(means) / len(means))


def descend(slope, x: float, rate: float, n_steps: int) -> float:
    for _ in range(n_steps):
        x -= rate * slope(x)
    return x


computes("C22", "GD on x^4/4, K=40")(lambda: descend(lambda x: x**3, 1.0, 1 / 3, 40))
computes("C22", "order of GD on x^4/4")(
    lambda: (
        math.log(
            descend(lambda x: x**3, 1.0, 1 / 3, 4000) / descend(lambda x: x**3, 1.0, 1 / 3, 1000)
        )
        / math.log(4)
    )
)


def dual_cubes(n_steps: int) -> float:
    z = 1.0
    for _ in range(n_steps):
        z -= 0.5 * np.cbrt(z) ** 3
    return float(np.cbrt(z))


computes("C22", "MD with h=f on x^4/4, K=40")(lambda: dual_cubes(40))
computes("C22", "MD contraction on x^4/4", within=1e-12)(lambda: dual_cubes(7) / dual_cubes(6))
computes("C22", "L D_h for h=f=x^4/4, D=1")(lambda: 0.0 - 0.25 - 1.0 * (0.0 - 1.0))
computes("C22", "contraction with h=50x^2")(lambda: descend(lambda x: x / 100, 1.0, 1.0, 1))


@computes("C22", "L_Eucl D^2/2 for x^4/4, D=1", within=1e-4)
def euclidean_constant() -> float:
    x = np.linspace(0, 1, 100001)
    return float((np.diff(x**3) / np.diff(x)).max()) / 2  # the steepest slope of f' = x^3 on [0, 1]


for_each("C22", "MD guarantee / GD worst case, K={k}", STEPS)(
    lambda k: 0.5 / k / sdps.convex_value(k)
)


def truncated(theta: float, n_steps: int) -> float:
    """d/dtheta (p_K - 1)^2/2 for p+ = p - (p/2 - theta), p_0 = 0, by carrying the derivative
    along.
    """
    p = derivative = 0.0
    for _ in range(n_steps):
        p, derivative = p - (p / 2 - theta), derivative - (derivative / 2 - 1)
    return (p - 1) * derivative


def floor(n_steps: int) -> float:
    theta = optimize.brentq(lambda t: truncated(t, n_steps), 0.01, 5.0, xtol=1e-15)
    return abs((2 * theta - 1) * 2)


computes("C30", "|grad F| that K=1 cannot undercut")(lambda: floor(1))


@for_each("C30", "K for |grad F| <= 1e-{k}, kappa=2", [1, 3, 6])
def steps_needed(exponent: int) -> int:
    return next(k for k in itertools.count(1) if floor(k) <= 10.0**-exponent)


def rounds(bound, eps: float) -> float:
    return optimize.brentq(lambda log_r: bound(math.exp(log_r)) - eps**2, 0, 80, xtol=1e-13)


def deterministic(eps: float) -> float:
    return rounds(lambda r: 2 * 1.7 * 0.6 / r + eps**2 / 2, eps)


def stochastic(eps: float) -> float:
    def best(r: float) -> float:  # over the constant rate beta, numerically

        def value(log_b, r=r):
            return 2 * 0.6 / (math.exp(log_b) * r) + math.exp(log_b) * 1.7 * 0.9**2

        return optimize.minimize_scalar(
            value, bounds=(-40, 5), method="bounded", options={"xatol": 1e-10}
        ).fun

    return rounds(best, eps)


computes("C30", "R eps^2/(L_F Delta), b = eps/sqrt 2", within=1e-6)(
    lambda: math.exp(deterministic(1e-2)) * 1e-4 / (1.7 * 0.6)
)
computes("C30", "order of R in 1/eps, deterministic", within=1e-6)(
    lambda: (deterministic(1e-3) - deterministic(1e-2)) / math.log(10)
)
computes("C30", "R eps^4/(L_F Delta sigma^2), constant batch", within=1e-5)(
    lambda: math.exp(stochastic(1e-2)) * 1e-8 / (1.7 * 0.6 * 0.81)
)
computes("C30", "order of R in 1/eps, task SGD", within=1e-5)(
    lambda: (stochastic(1e-3) - stochastic(1e-2)) / math.log(10)
)
computes("C30", "batch eps^2/sigma^2 at beta = 1/L_F", within=1e-9)(
    lambda: optimize.brentq(lambda b: 0.81 / b - 0.5e-4, 1, 1e6) * 1e-4 / 0.81
)


@computes("C30", "min|grad F|^2 / bound, R -> oo, bias b")
def standing_still() -> float:
    big_l, b, x, least = 4.0, 0.5, 0.125, math.inf
    gap = big_l / 2 * x * x
    for _ in range(1000):
        u = big_l * x
        least, x = min(least, u * u), x - (u - b * np.sign(u)) / big_l
    return least / (2 * big_l * gap / 1e6 + b * b)


@computes("C30", "|grad F|^2/(2 L Delta) at L=1e4")
def gate() -> float:
    big_l, z = 1e4, np.array([0.0, 1200.0])

    def value(z: np.ndarray) -> float:
        return (z[1] / (1 + math.exp(-z[0])) - 599.0) ** 2 / 2

    steps = 1e-6 * np.eye(2)
    slope = np.array([(value(z + d) - value(z - d)) / 2e-6 for d in steps])
    return float(slope @ slope / (2 * big_l * 0.5))
