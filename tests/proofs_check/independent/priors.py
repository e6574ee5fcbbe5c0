"""C01, C03, C05, C06, C08, C10-C12, C14, C15, C18, C20, C21: exact recursions, many digits, and
numerical optimisation.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache

import mpmath
import numpy as np
from scipy import optimize

from tests.proofs_check.independent.registry import computes, for_each

mpmath.mp.dps = 50
mpf = mpmath.mpf

computes("C01", "MAP at y=2, s=1, theta=0, lambda=1")(
    lambda: float(np.linalg.lstsq(np.ones((2, 1)), np.array([2.0, 0.0]), rcond=None)[0][0])
)


@for_each("C03", "|meta-gradient|/bound, flat direction, K={k}", [1, 10, 40])
def forgetting(n_steps: int) -> float:
    """x_1 of GD on (mu x_1^2 + x_2^2)/2 is linear in its start: the end from 1 less the end from
    0.
    """
    alpha, mu, x = 0.7, 0.3, np.array([1.0, 0.4])
    for _ in range(n_steps):
        x = x - alpha * np.array([mu, 1.0]) * x
    return float(x[0] / (1 - alpha * mu) ** n_steps)


@computes("C05", "GD, eta=1/2, alpha=1, K=3, theta=1")
def three_steps() -> float:
    phi = 1.0
    for _ in range(3):
        phi -= phi / 2
    return phi


computes("C05", "printed argmin in the same case", within=1e-7)(
    lambda: optimize.minimize_scalar(lambda p: p * p / 4 + (p - 1) ** 2 / 2).x
)


def implied_weight(x: Fraction, n_steps: int) -> Fraction | None:
    """The lambda with (eta + lambda) delta_K = -g, from the iterates alone; alpha = 1, g = 1. None
    where delta_K = 0.
    """
    delta = Fraction(0)
    for _ in range(n_steps):
        delta -= 1 + x * delta
    return None if delta == 0 else -1 / delta - x


computes("C05", "lambda at eta=0, alpha=1/10, K=5")(lambda: 10 * implied_weight(Fraction(0), 5))
computes("C06", "alpha*lambda at alpha*eta=3/2, K=3")(lambda: implied_weight(Fraction(3, 2), 3))
computes("C06", "alpha*lambda at alpha*eta=3/2, K=2")(lambda: implied_weight(Fraction(3, 2), 2))


def edge(n_steps: int, value) -> float:
    return optimize.bisect(value, 0.3, 2.9, args=(n_steps,))


def weight(x: float, n_steps: int) -> float:
    return float(implied_weight(Fraction(x), n_steps))


def moved(x: float, n_steps: int) -> float:
    delta = 0.0
    for _ in range(n_steps):
        delta -= 1 + x * delta
    return -delta


computes("C06", "sup of alpha*eta with a proper prior", within=1e-4)(lambda: edge(3, weight))
computes("C06", "alpha*eta of the flat (improper) prior", within=1e-4)(lambda: edge(5, weight))
computes("C06", "alpha*eta where lambda is infinite, K even", within=1e-9)(lambda: edge(2, moved))
computes("C05", "largest alpha*eta with S_K > 0, K even", within=1e-9)(lambda: edge(4, moved))

for_each("C05", "K(K-1)(2K-1)/12 at K={k}", [2, 3, 4, 5])(
    lambda k: Fraction(sum(j * j for j in range(k)), 2)
)
computes("C05", "leading coefficient of the error constant", within=1e-5)(
    lambda: Fraction(sum(j * j for j in range(10**5)), 2 * 10**15)
)
computes("C05", "condition of the boxed sum, K=10", within=10.0)(
    lambda: float(
        sum(mpf(20) ** j for j in range(1, 11)) / sum(mpf(1) / 2**j for j in range(1, 11))
    )
)


def deviation(*, rho: Fraction, eta: Fraction, alpha: Fraction, n_steps: int) -> Fraction:
    """|GD on f - GD on its Taylor model|, f = -x + eta x^2/2 + rho x^3/6, from 0, in rationals."""
    x = q = Fraction(0)
    for _ in range(n_steps):
        x -= alpha * (-1 + eta * x + rho * x * x / 2)
        q -= alpha * (-1 + eta * q)
    return abs(x - q)


computes("C05", "deviation/bound, cubic, K=2")(
    lambda: (
        float(deviation(rho=Fraction(3, 10), eta=Fraction(1, 2), alpha=Fraction(9, 10), n_steps=2))
        / (0.3 * 0.9**3 * (0 + 1) / 2)
    )
)
for_each("C05", "deviation/bound, cubic, alpha L K -> 0, K={k}", [3, 4, 5])(
    lambda k: (
        float(
            deviation(rho=Fraction(1), eta=Fraction(0), alpha=Fraction(1, 10**4), n_steps=k)
            * 10**12
        )
        / (sum(j * j for j in range(k)) / 2)
    )
)


@computes("C05", "constant of rho G^2/mu^3", within=1e-6)
def strongly_convex_limit() -> float:
    """mu = 1: the distance of the minimisers of x^2/2 - x + rho x^3/6 and of x^2/2 - x, per rho, as
    rho -> 0.
    """
    rho = mpf(10) ** -12
    return float(abs(mpmath.findroot(lambda x: x - 1 + rho * x * x / 2, 1) - 1) / rho)


@cache
def implicit_error(p: float) -> mpmath.mpf:
    """(AID gradient at p - truth)/p for f = mu p^2/2 + rho p^3/6 - t(J p - tau p^2/2), l = -M p +
    Ll p^2/2 + L' t p, t = 0.
    """
    mu, rho, tau, big_j, ll, lp, big_m = map(mpf, ("0.5", "0.7", "0.3", "1.1", "0.9", "0.4", "1.3"))

    def gradient(p: mpmath.mpf) -> mpmath.mpf:
        return lp * p - (-(big_j - tau * p)) / (mu + rho * p) * (-big_m + ll * p)

    return (gradient(mpf(p)) - gradient(mpf(0))) / mpf(p)


computes("C08a", "C at mu=.5,rho=.7,tau=.3,J=1.1,Ll=.9,L'=.4,M=1.3", within=1e-6)(
    lambda: float(implicit_error(1e-9))
)


@for_each("C08b", "gradient error at distance 0, K={k}", [1, 10])
def gradient_at_distance_zero(n_steps: int) -> float:
    """Central differences of x_1 + x_2 after K steps on (0.1 x_1^2 + x_2^2)/2 from (0, 2); the map
    is linear, so exact.
    """

    def end(x1: float, x2: float) -> float:
        for _ in range(n_steps):
            x1, x2 = x1 - 0.1 * x1, x2 - x2
        return x1 + x2

    slope = np.array([(end(1, 2) - end(-1, 2)) / 2, (end(0, 3) - end(0, 1)) / 2])
    return float(np.linalg.norm(slope))


def jacobian_error(n_steps: int, distance: mpmath.mpf) -> tuple[mpmath.mpf, mpmath.mpf]:
    """(|d phi_K - d phi*|, |phi_K - phi*|) for f = mu p^2/2 + rho p^3/6 - theta p at theta = 0,
    start -D, d phi_0 = 1/mu.
    """
    mu, rho, alpha = mpf("0.5"), mpf("0.8"), mpf("0.9")
    p, derivative = -distance, 1 / mu
    for _ in range(n_steps):
        slope, curvature = mu * p + rho * p * p / 2, mu + rho * p
        p, derivative = p - alpha * slope, derivative - alpha * (curvature * derivative - 1)
    return abs(derivative - 1 / mu), abs(p)


@for_each("C08b", "error/distance at mu=.5,rho=.8,alpha=.9, K={k}", [1, 3, 10])
def error_per_distance(n_steps: int) -> float:
    error, distance = jacobian_error(n_steps, mpf(10) ** -20)
    return float(error / distance)


@for_each("C08b", "E_K/bound, attaining family, K={k}", [1, 3, 10])
def share_of_the_bound(n_steps: int) -> float:
    error, _ = jacobian_error(n_steps, mpf(10) ** -20)
    q, bound = 1 - mpf("0.9") * mpf("0.5"), mpf("0.9") * mpf("0.8") / mpf("0.5") * n_steps
    return float(error / (bound * q ** (n_steps - 1) * mpf(10) ** -20))


def second_derivative(a: float, n_steps: int) -> float:
    """One-sided F'' at 0 of l(T^K(x)), T = a x - alpha rho x^2/2, l = -1.3 x + 0.35 x^2, over the
    bound's two terms summed.
    """
    a, scale = mpf(repr(a)), mpf("0.45")

    def end(x: mpmath.mpf) -> mpmath.mpf:
        for _ in range(n_steps):
            x = a * x - scale * x * x / 2
        return -mpf("1.3") * x + mpf("0.35") * x * x

    h = mpf(10) ** -15
    found = (end(2 * h) - 2 * end(h) + end(mpf(0))) / h**2
    lipschitz = mpf(0)
    for k in range(n_steps):  # of D(T^k): c_{k+1} = a c_k + alpha rho a^{2k}
        lipschitz = a * lipschitz + scale * a ** (2 * k)
    return float(found / (a ** (2 * n_steps) * mpf("0.7") + mpf("1.3") * lipschitz))


for a in (0.8, 1.0, 1.25):
    for_each("C10", f"F''/bound, a={a}, K={{k}}", [1, 3, 6])(lambda k, a=a: second_derivative(a, k))

computes("C10", "checkpointed memory / sqrt K", within=1e-6)(
    lambda: (
        optimize.minimize_scalar(lambda s: 100 / s + s, bounds=(1, 100), method="bounded").fun / 10
    )
)
computes("C10", "K/(kappa log(1/eps)), kappa -> oo", within=1e-6)(
    lambda: float(
        mpmath.log(mpf("1e-9")) / mpmath.log(1 - mpf("1e-8")) / (10**8 * mpmath.log(10**9))
    )
)


def surrogate(x: float, y: float, alpha: float) -> float:
    return y * y / 2 + y * (x - y) + (x - y) ** 2 / (2 * alpha)


computes("C11", "surrogate curvature times alpha", within=1e-9)(
    lambda: (
        0.3 * (surrogate(2.0, 0.5, 0.3) - 2 * surrogate(1.0, 0.5, 0.3) + surrogate(0.0, 0.5, 0.3))
    )
)
computes("C12", "gap at alpha=1.01/L, L=1, |x-y|=1")(
    lambda: 1 / (2 * Fraction(101, 100)) - Fraction(1, 2)
)
computes("C12", "largest majorising rate times L", within=1e-9)(
    lambda: optimize.brentq(lambda a: surrogate(2.0, 0.5, a) - 2.0, 0.1, 10, xtol=1e-13)
)
computes("C12", "guaranteed decrease at alpha=1/L, times L/|u|^2")(
    lambda: (Fraction(3) ** 2 / 2 - 0) / Fraction(3) ** 2
)


def proximal_step(row: int, column: int) -> float:
    """The minimiser of <e, d> + d^T P^{-1} d/2 for the shear P, found numerically, with the sign of
    a preconditioner.
    """
    inverse, unit = np.linalg.inv(np.array([[1.0, 1.0], [0.0, 1.0]])), np.eye(2)[column]
    found = optimize.minimize(
        lambda d: unit @ d + d @ inverse @ d / 2,
        np.zeros(2),
        method="BFGS",
        options={"gtol": 1e-10},
    )
    return float(-found.x[row])


computes("C14", "diagonal of the shear's effective P", within=1e-6)(lambda: proximal_step(0, 0))
computes("C14", "off-diagonal of the shear's effective P", within=1e-6)(lambda: proximal_step(0, 1))
computes("C15", "kappa at H=diag(1,10)", within=1e-9)(
    lambda: float(np.linalg.cond(np.diag([1.0, 10.0])))
)
computes("C15", "kappa_P at H=P=diag(1,10)", within=1e-9)(
    lambda: float(
        np.linalg.cond(
            np.diag([1.0, 10.0]) ** 0.5 @ np.diag([1.0, 10.0]) @ np.diag([1.0, 10.0]) ** 0.5
        )
    )
)
computes("C15", "kappa_P at P = H^{-1}", within=1e-9)(
    lambda: float(
        np.linalg.cond(
            np.linalg.inv(np.array([[2.0, 1.0], [1.0, 3.0]])) @ np.array([[2.0, 1.0], [1.0, 3.0]])
        )
    )
)


@computes("C18", "largest alpha*b for Burg entropy", within=1e-6)
def burg() -> float:
    """The largest alpha for which h/alpha - f is convex on a grid: h = -log x, f = 0.3 x - 2 log
    x.
    """
    x = np.linspace(0.5, 3, 4001)

    def least_curvature(alpha: float) -> float:
        return np.diff(-np.log(x) / alpha - (0.3 * x - 2 * np.log(x)), 2).min()

    return 2 * optimize.brentq(least_curvature, 0.1, 0.9, xtol=1e-12)


computes("C18", "largest alpha L/sigma", within=1e-9)(  # h = 0.7 x^2/2, f = 1.9 x^2/2
    lambda: optimize.brentq(lambda a: 0.7 / a - 1.9, 1e-3, 10) * 1.9 / 0.7
)
computes("C20", "sigma * L_{h*}")(
    lambda: 0.4 * (np.linalg.solve([[0.4]], [3.0])[0] - np.linalg.solve([[0.4]], [2.0])[0])
)


@computes("C20", "order of grad h* at 0, h=x^4/4")
def cube_root() -> float:
    at = [
        optimize.brentq(lambda x, z=z: x**3 - z, 0, 1, xtol=1e-18, rtol=1e-15) for z in (1e-6, 1e-3)
    ]
    return math.log(at[1] / at[0]) / math.log(1e3)


computes("C21", "lower end of grad softplus", within=1e-12)(
    lambda: float(mpmath.diff(lambda x: mpmath.log1p(mpmath.exp(x)), -60))
)
computes("C21", "upper end of grad softplus", within=1e-12)(
    lambda: float(mpmath.diff(lambda x: mpmath.log1p(mpmath.exp(x)), 60))
)
computes("C21", "edge of dom h* for Huber", within=1e-6)(
    lambda: (
        # the z from which z x - h(x) grows without end, seen between x = 10^6 and 10^7
        optimize.brentq(lambda z: (z * 1e7 - (1e7 - 0.5)) - (z * 1e6 - (1e6 - 0.5)), 0.5, 2)
    )
)
