"""C24, C26-C29 and T1-T7: small matrices, sampled curves and numerical optimisation in place of
proofs.
"""

from __future__ import annotations

import cmath
import itertools
import math
from fractions import Fraction

import mpmath
import numpy as np
from scipy import optimize
from scipy.special import expit

from tests.proofs_check.independent import sdps
from tests.proofs_check.independent.registry import computes, for_each


@computes("C24a", "change of phi_2 per z_1")
def other_coordinate() -> float:
    def half_form(z: np.ndarray) -> float:
        return z @ np.array([[1, -0.9], [-0.9, 1]]) @ z / 2

    e = np.eye(2)
    return float(
        half_form(e[0] + e[1]) - half_form(e[0]) - half_form(e[1])
    )  # the mixed second difference


@computes("C24b", "3-cycle sum of the rotation")
def cycle() -> float:
    """Turning by 90 degrees is multiplication by i; <a, b> is the real part of conj(a) b."""
    corners = [cmath.exp(2j * math.pi * k / 3) for k in range(3)]
    return sum(
        ((1j * z).conjugate() * (w - z)).real
        for z, w in zip(corners, [*corners[1:], corners[0]], strict=True)
    )


computes("C24b", "modulus of the rotation")(lambda: ((1j * (3 - 4j)).conjugate() * (3 - 4j)).real)
computes("C24b", "Lipschitz constant of the rotation")(lambda: abs(1j * (3 - 4j)) / abs(3 - 4j))


def shifted(z: tuple, slope: Fraction) -> tuple:
    """s = 1/2, mu_2 = slope z_1."""
    return (z[0] / 2, z[1] / 2 + slope * z[0])


def product(a: tuple, b: tuple, slope: Fraction) -> Fraction:
    images = shifted(a, slope), shifted(b, slope)
    return sum((images[1][i] - images[0][i]) * (b[i] - a[i]) for i in range(2))


ZERO, CORNER = (Fraction(0), Fraction(0)), (Fraction(1), Fraction(-1))
computes("C26", "<g(1,-1)-g(0,0),(1,-1)>")(lambda: product(ZERO, CORNER, Fraction(2)))
computes("T2", "<g(1,-1)-g(0,0),(1,-1)> at s=1/2, mu_2=2z_1")(
    lambda: product(ZERO, CORNER, Fraction(2))
)


def least_form(slope: float, scale: float) -> float:
    """min <g(v), v> over the unit circle for g = (s z_1, s z_2 + m z_1)."""
    angle = np.linspace(0, np.pi, 20001)
    return float((scale + slope * np.sin(angle) * np.cos(angle)).min())


computes("C26", "threshold |m| at s=1/2", within=1e-6)(
    lambda: optimize.brentq(lambda m: least_form(m, 0.5), 0.1, 5)
)
computes("T2", "largest |m|/s of a monotone linear shift", within=1e-6)(
    lambda: optimize.brentq(lambda m: least_form(m, 1.7), 0.1, 9) / 1.7
)


def exact_radius(z1: mpmath.mpf) -> mpmath.mpf:
    """The same from det sym J = 0, to 50 digits."""
    p = 1 / (1 + mpmath.exp(-z1))
    return mpmath.sqrt(2 * p) / (p * (1 - p))


def critical() -> mpmath.mpf:
    return mpmath.findroot(lambda z: mpmath.diff(exact_radius, z), mpmath.mpf("-0.5"))


def radius_at(z1: float) -> float:
    """The |z_2| at which the symmetric part of the Jacobian of (z_1/2, z_2 sigmoid z_1) becomes
    singular.
    """

    def least(z2: float) -> float:
        p = expit(z1)
        return np.linalg.eigvalsh([[0.5, z2 * p * (1 - p) / 2], [z2 * p * (1 - p) / 2, p]])[0]

    return optimize.brentq(least, 0.0, 1e3, xtol=1e-13)


def strip() -> optimize.OptimizeResult:
    return optimize.minimize_scalar(
        radius_at, bounds=(-3, 2), method="bounded", options={"xatol": 1e-10}
    )


computes("C26", "R at s_1=1/2")(lambda: strip().fun)
computes("C26", "critical z_1")(lambda: float(critical()))
computes("T2", "R of the strip, s_1=1/2", within=1e-6)(lambda: strip().fun)
computes("T2", "critical z_1 of the strip")(lambda: float(critical()))
computes("T2", "critical p of the strip", within=1e-5)(lambda: float(expit(strip().x)))


@computes("T2", "prescribed product", within=1e-9)
def prescribed() -> float:
    """Find the t for which the pair ((0, t), (1, t + 1)) of (z_1/2, z_2 sigmoid z_1) has the
    product -1.
    """

    def found(t: float) -> float:
        return 0.5 + ((t + 1) * expit(1.0) - t * expit(0.0)) * 1.0

    return found(optimize.brentq(lambda t: found(t) + 1, -1e3, 1e3, xtol=1e-13))


@computes("C27", "growth of the quotient per unit of |z_2|")
def growth() -> float:
    g = lambda z1, z2: np.array([z1 / 2, z2 / (1 + mpmath.exp(-z1))])  # noqa: E731
    far = mpmath.mpf(10) ** 30
    gap = g(mpmath.mpf(1), far) - g(mpmath.mpf(0), far)
    return float(mpmath.sqrt(gap[0] ** 2 + gap[1] ** 2) / far)


@computes("C28", "circulation around the unit square", within=1e-9)
def circulation() -> float:
    """A line integral of g = (z_1/2, z_2/2 + 2 z_1) by the trapezoidal rule, exact for a linear
    field.
    """
    corners, total = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]], float), 0.0
    for a, b in itertools.pairwise(corners):
        middle = (a + b) / 2
        total += np.array([middle[0] / 2, middle[1] / 2 + 2 * middle[0]]) @ (b - a)
    return float(total)


TILTED = np.array([[1, -0.5], [-0.5, 1]])


def spectrum(slope: float) -> np.ndarray:
    return np.sort_complex(np.linalg.eigvals(np.array([[0.5, 0], [slope, 0.5]]) @ TILTED))


for name in ("C29", "T7"):
    computes(name, "least eigenvalue of JA", within=1e-12)(lambda: float(spectrum(4.0)[0].real))
    computes(name, "largest eigenvalue of JA", within=1e-12)(lambda: float(spectrum(4.0)[1].real))


def largest_rate() -> float:
    def grows(alpha: float) -> float:
        return max(abs(np.linalg.eigvals(np.eye(2) - alpha * TILTED))) - 1

    return optimize.brentq(grows, 0.8, 3)


computes("C29", "largest rate of GD", within=1e-9)(largest_rate)
computes("T7", "largest rate of GD on the example", within=1e-9)(largest_rate)
computes("C29", "slope from which the example is unstable", within=1e-6)(
    lambda: optimize.brentq(lambda slope: spectrum(slope)[0].real, 1.5, 2.5, xtol=1e-12)
)


@computes("T7", "least c at (-log 2, 20), s_1=1/2")
def least_curvature() -> float:
    """The c at which tr((I + c v v^T) J) changes sign, v the worst direction of sym J."""
    p = expit(-math.log(2))
    jacobian = np.array([[0.5, 0], [20 * p * (1 - p), p]])
    v = np.linalg.eigh((jacobian + jacobian.T) / 2)[1][:, 0]
    return optimize.brentq(
        lambda c: np.trace((np.eye(2) + c * np.outer(v, v)) @ jacobian), 0, 50, xtol=1e-14
    )


@for_each("T1", "inverse slope at |phi_2|={k}", [10, 1000, 100000])
def inverse_slope(far: int) -> float:
    """g = (z_1, (1/2 + sigmoid z_1) z_2), whose scales fill [1/2, 3/2]: the inverse by bisection,
    phi_1 = 0 and 1.
    """

    def inverse(phi1: float) -> float:
        return optimize.brentq(lambda z2: (0.5 + expit(phi1)) * z2 - far, 0, 2 * far, xtol=1e-9)

    return math.hypot(1.0, inverse(1.0) - inverse(0.0))


computes("T3", "sup of rate/alpha, poster's sigmoid")(lambda: float(expit(800.0)))
computes("T3", "sup of rate/alpha, library's bounded scale")(lambda: 1 + math.tanh(400.0))
computes("T4", "largest slope of a sigmoid", within=1e-9)(
    lambda: (
        -optimize.minimize_scalar(
            lambda x: -expit(x) * (1 - expit(x)), bounds=(-1, 2), method="bounded"
        ).fun
    )
)


@for_each("T4", "||J||/||M|| at (0, R), R={k}", [1, 10, 1000])
def sharpness(radius: int) -> float:
    """(z_1/2, z_2 sigmoid z_1) at z_1 = 0 against T4's matrix ((1/2, 0), (R/4, 1)), sup sigmoid =
    1.
    """
    attained = np.linalg.norm([[0.5, 0], [radius / 4, 0.5]], 2)
    return float(attained / np.linalg.norm([[0.5, 0], [radius / 4, 1.0]], 2))


@for_each("T5", "cos(pi/(B+1)) at B={k}", [2, 3, 4, 5, 6, 7, 8])
def numerical_radius(blocks: int) -> float:
    shift = np.diag(np.ones(blocks - 1), -1)
    return float(np.linalg.eigvalsh((shift + shift.T) / 2)[-1])


@computes("T5", "threshold of ||D_2^-1/2 J_21 D_1^-1/2||", within=1e-9)
def schur_threshold() -> float:
    """D_1 = 0.3 I, D_2 = 2 I, J_21 = c turn: the c where sym J becomes singular, in the scaled
    norm.
    """
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])

    def least(c: float) -> float:
        jacobian = np.block([[0.3 * np.eye(2), np.zeros((2, 2))], [c * turn, 2 * np.eye(2)]])
        return np.linalg.eigvalsh((jacobian + jacobian.T) / 2)[0]

    return optimize.brentq(least, 0.1, 9, xtol=1e-13) / math.sqrt(0.3 * 2)


for big_l, m, big_m, text in (
    (1.0, 0.5, 1.0, "L=1, m=0.5, M=1"),
    (2.0, 0.3, 1.5, "L=2, m=0.3, M=1.5"),
):
    for_each("T6", f"SDP worst change, {text}, {{k}} m/(LM^2)", [0.5, 1, 2.5])(
        lambda factor, big_l=big_l, m=m, big_m=big_m: sdps.dual_step(
            big_l, m, big_m, factor * m / (big_l * big_m**2)
        )
    )

computes("T6", "largest alpha * L M^2 / m", within=1e-4)(
    lambda: optimize.brentq(lambda a: sdps.dual_step(1.0, 0.5, 1.0, a), 0.3, 2.0, xtol=1e-6) / 0.5
)


def rotation_change(alpha: float, m: float, big_m: float, big_l: float) -> float:
    """f(phi+) - f(phi) over |u|^2 on L/2 |phi|^2 with g a rotation of norm M and symmetric part
    m.
    """
    g, phi = complex(m, math.sqrt(big_m**2 - m**2)), 1.7 - 0.4j
    u = big_l * phi
    return big_l / 2 * (abs(phi - alpha * g * u) ** 2 - abs(phi) ** 2) / abs(u) ** 2


def symmetric_change(alpha: float, m: float, big_m: float, big_l: float) -> float:
    """The worst of the eigenvalues in [m, M]."""
    lam = np.linspace(m, big_m, 2001)
    return float((-alpha * lam + big_l * (alpha * lam) ** 2 / 2).max())


def best(change, m: float, big_m: float, big_l: float) -> float:
    """The best guaranteed decrease over all rates."""
    found = optimize.minimize_scalar(
        lambda a: change(a, m, big_m, big_l),
        bounds=(0, 2 / (big_l * big_m)),
        method="bounded",
        options={"xatol": 1e-13},
    )
    return -found.fun


for_each("T6", "price of asymmetry at kappa={k}", [1, 2, 10, 100], within=1e-3)(
    lambda kappa: best(symmetric_change, 1.0, kappa, 1.3) / best(rotation_change, 1.0, kappa, 1.3)
)
computes("T6", "price at kappa=10, rounded")(
    lambda: best(symmetric_change, 1.0, 10.0, 1.3) / best(rotation_change, 1.0, 10.0, 1.3)
)
computes("T6", "best decrease / (m^2/(L M^2))", within=1e-9)(
    lambda: best(rotation_change, 0.4, 1.1, 0.7) / (0.4**2 / (0.7 * 1.1**2))
)
computes("T6", "K min|grad f|^2 / (L M^2 Delta_0/m^2)", within=1e-9)(
    lambda: 0.4**2 / (0.7 * 1.1**2) / best(rotation_change, 0.4, 1.1, 0.7)
)
computes("T6", "best decrease of a mirror map, L=1, m=1, M=3", within=1e-6)(
    lambda: best(symmetric_change, 1.0, 3.0, 1.0)
)
computes("T6", "largest alpha L M of a mirror map", within=1e-6)(
    lambda: optimize.brentq(lambda a: symmetric_change(a, 0.5, 2.2, 0.6), 0.9, 5.0) * 2.2 * 0.6
)


@computes("T6", "PL factor, mu=1/2, L=1, m=1, M=2")
def pl_factor() -> Fraction:
    """One step on a loss where f - f* = |u|^2/(2 mu) exactly and the descent bound is attained."""
    decrease = Fraction(1, 4) * (
        1 - Fraction(1, 4) * 4 / 2
    )  # alpha (m - alpha L M^2/2) at alpha = m/(L M^2) = 1/4
    return 1 - decrease / (1 / (2 * Fraction(1, 2)))


@computes("T6", "|r| / (alpha^2 L_J |u|^2)", within=1e-9)
def remainder() -> float:
    """g = z^2/2 on the line, whose derivative is 1-Lipschitz."""
    z, alpha, u = 0.3, 0.2, 1.5
    return abs((z - alpha * u) ** 2 / 2 - z * z / 2 + alpha * z * u) / (alpha * u) ** 2
