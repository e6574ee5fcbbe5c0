"""RA1 to RD: linear programs of one's own, eigenvalues of small matrices, and plain loops."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from scipy import optimize
from scipy.special import expit

from tests.proofs_check.independent.registry import computes, for_each

computes("RA1", "psi-bar of softplus", within=1e-6)(
    lambda: float(np.diff(np.logaddexp(0, np.linspace(-3, 3, 60001)), 2).max() / 1e-8)
)


def ridge_fit(target, n_angles: int, n_offsets: int) -> float:
    """Least sup-error on a grid of the disc: an affine function plus non-negative ridges max(0, w.z
    - b), b in steps of .05.
    """
    radius, angle = np.meshgrid(np.linspace(0, 1, 15), np.arange(48) * 2 * np.pi / 48)
    points = np.stack([(radius * np.cos(angle)).ravel(), (radius * np.sin(angle)).ravel()], 1)
    directions = np.arange(n_angles) * 2 * np.pi / n_angles
    w = np.stack([np.cos(directions), np.sin(directions)])
    ridges = np.concatenate(
        [np.maximum(points @ w - b, 0) for b in (np.arange(n_offsets) - n_offsets // 2) / 20], 1
    )
    columns = np.concatenate([ridges, np.ones((len(points), 1)), points], 1)
    ones, values = np.ones((len(points), 1)), target(points)
    rows = np.block([[columns, -ones], [-columns, -ones]])
    limits = [(0, None)] * ridges.shape[1] + [(None, None)] * 3 + [(0, None)]
    cost = np.eye(columns.shape[1] + 1)[-1]
    return optimize.linprog(
        cost, rows, np.concatenate([values, -values]), bounds=limits, method="highs"
    ).fun


def triangle(points: np.ndarray) -> np.ndarray:
    return np.maximum(points.max(1), 0)


def square(points: np.ndarray) -> np.ndarray:
    return np.abs(points).max(1)


computes("RA1", "least sup-error of ridge sums, max(0,z1,z2), unit disc", within=2e-3)(
    lambda: ridge_fit(triangle, 48, 37)
)
computes("RA1", "LP for max(|z1|, |z2|)")(lambda: ridge_fit(square, 8, 1))


@computes("RA2", "curvature/L_Phi, two layers of width 1, B_1=0")
def loose() -> float:
    """Second differences of softplus(softplus(z)) over psi-bar (1 + 1) = 1/2."""
    z = np.linspace(-10, 10, 20001)
    return float(np.diff(np.logaddexp(0, np.logaddexp(0, z)), 2).max() / 1e-6 / 0.5)


def coupled(blocks: int, kappa: float, diagonal: float = 1.0) -> np.ndarray:
    return diagonal * np.eye(blocks) - kappa * np.tril(np.ones((blocks, blocks)), -1)


def least(matrix: np.ndarray) -> float:
    return float(np.linalg.eigvalsh((matrix + matrix.T) / 2)[0])


@for_each("RB", "sqrt((B-1)/(2B)) at B={k}", [2, 3, 4, 5, 6], within=1e-6)
def sharp_factor(blocks: int) -> float:
    """max of sum_i x_i |x_{<i}| over the two unit vectors: a numerical maximum of v^T N v over |v|
    = 1 and row norms k.
    """
    rng = np.random.default_rng(blocks)

    def value(parameters: np.ndarray) -> float:
        x, k = parameters[:blocks], parameters[blocks:]
        x, k = x / np.linalg.norm(x), k / np.linalg.norm(k)
        return -sum(abs(k[i - 1]) * abs(x[i]) * np.linalg.norm(x[:i]) for i in range(1, blocks))

    starts = rng.uniform(0.2, 1, (6, 2 * blocks - 1))
    return max(
        -optimize.minimize(value, s, method="BFGS", options={"gtol": 1e-10}).fun for s in starts
    )


computes("RB", "modulus at B=4, kappa=0.3, a=1")(lambda: least(coupled(4, 0.3)))
computes("RB", "sup ||J|| at B=2, a=1, eta=0.3")(lambda: float(np.linalg.norm(coupled(2, 0.3), 2)))
computes("RB", "factor of c tau in eta", within=1e-9)(
    lambda: float((expit(1e-5) - expit(-1e-5)) / 2e-5)
)
computes("RB", "largest alpha L M^2 / m, on all of R^d", within=1e-9)(
    lambda: (
        optimize.brentq(lambda a: -a * (0.3 - a * 1.7 * 1.4**2 / 2), 1e-3, 9) * 1.7 * 1.4**2 / 0.3
    )
)


@computes("RC", "q_2 for the divergent example", within=1e-6)
def least_rate() -> float:
    """The least q with sym(JQ) >= diag(1/2, q/2)/2, J = ((1/2, 0), (4, 1/2)): the modulus that the
    theorem promises.
    """
    return optimize.brentq(
        lambda q: least(np.array([[0.25, 0.0], [4.0, 0.25 * q]])), 1.0, 1e4, xtol=1e-10
    )


computes("RC", "m of the divergent example")(
    lambda: min(Fraction(1, 2) * 1, Fraction(1, 2) * 64) / 2
)
computes("RC", "M of the divergent example")(
    lambda: float(
        np.sqrt(
            np.linalg.eigvalsh(np.array([[0.5, 0], [4, 32]]).T @ np.array([[0.5, 0], [4, 32]]))[-1]
        )
    )
)


@for_each("RC", "q_B of the chain, B={k}", [2, 3, 4])
def chain(blocks: int) -> Fraction:
    q = [Fraction(1)]
    while len(q) < blocks:
        q.append(max(Fraction(1), (blocks - 1) ** 2 * 16 * q[-1] / Fraction(1, 4)))
    return q[-1]


def pullback() -> tuple[np.ndarray, np.ndarray]:
    """20000 steps z - 0.05 J^T u for g = (z_1/2, z_2 sigmoid z_1), f = |phi - (-10, 1)|^2/2, from
    0: (J, u) at the end.
    """
    z = np.zeros(2)
    for step in range(20001):
        p = 1 / (1 + math.exp(-z[0]))
        jacobian = np.array([[0.5, 0.0], [z[1] * p * (1 - p), p]])
        u = np.array([z[0] / 2 + 10, z[1] * p - 1])
        if step < 20000:
            z = z - 0.05 * jacobian.T @ u
    return jacobian, u


computes("RD", "|grad(f o g)| after 20000 pullback steps")(
    lambda: float(np.linalg.norm(pullback()[0].T @ pullback()[1]))
)
computes("RD", "|grad f| after 20000 pullback steps")(lambda: float(np.linalg.norm(pullback()[1])))
computes("RD", "sigma_min(J) there")(lambda: float(np.linalg.svd(pullback()[0])[1][-1]))
computes(
    "RD", "decrease / (alpha |J^T u|^2)"
)(  # F = 2 z^2/2 at z = 3, one step of 1/2 to the minimum
    lambda: Fraction(2 * 9, 2) / (Fraction(1, 2) * Fraction(2 * 3) ** 2)
)
computes("RD", "L_{f o g} at L=2, M=3, |u|=5, L_J=7", within=1e-3)(
    lambda: float(
        np.diff(
            [(3 * z + 3.5 * z * z) ** 2 + 5 * (3 * z + 3.5 * z * z) for z in (-1e-4, 0, 1e-4)], 2
        )[0]
        / 1e-8
    )
)
