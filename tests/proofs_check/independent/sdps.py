"""Worst cases over whole function classes: the interpolation inequalities written down by hand and
given to a solver.

Taylor, Hendrickx and Glineur (2017): points and gradients belong to a function of the class iff one
quadratic inequality holds for every pair. Everything is an inner product of a few unknown vectors,
so the worst case is a semidefinite program.
"""

from __future__ import annotations

import warnings
from functools import cache
from itertools import permutations

import cvxpy as cp
import numpy as np

Vector = np.ndarray


class Program:
    """Unknown vectors e_1..e_n with a Gram matrix, and unknown function values."""

    def __init__(self, vectors: int, values: int):
        self.gram, self.values = cp.Variable((vectors, vectors), PSD=True), cp.Variable(values)
        self.basis, self.rules = np.eye(vectors), []

    def inner(self, a: Vector, b: Vector) -> cp.Expression:
        return cp.sum(cp.multiply(self.gram, (np.outer(a, b) + np.outer(b, a)) / 2))

    def worst(self, goal: cp.Expression) -> float:
        problem = cp.Problem(cp.Maximize(goal), self.rules)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a solver's doubt; the comparison decides
            problem.solve(solver=cp.CLARABEL)
        assert problem.status in ("optimal", "optimal_inaccurate"), problem.status
        return float(problem.value)


def _interpolate(p: Program, points: list, *, mu: float, big_l: float) -> None:
    """points: (x, gradient, value). f_i >= f_j + <g_j, d> + (|e|^2/L + mu |d|^2 - 2 mu/L <e, d>)/(2
    (1 - mu/L)).
    """
    for (x, g, f), (y, h, v) in permutations(points, 2):
        d, e = x - y, g - h
        square = p.inner(e, e) / big_l + mu * p.inner(d, d) - 2 * mu / big_l * p.inner(e, d)
        p.rules.append(f >= v + p.inner(h, d) + square / (2 * (1 - mu / big_l)))


def _descent(n_steps: int, *, mu: float) -> tuple[Program, list]:
    """Gradient descent with L = 1 and alpha = 1 from x_0, minimiser 0 with f = 0."""
    p = Program(n_steps + 2, n_steps + 1)
    x, gradients, zero = [p.basis[0]], p.basis[1:], np.zeros(n_steps + 2)
    for k in range(n_steps):
        x.append(x[k] - gradients[k])
    points = [(x[k], gradients[k], p.values[k]) for k in range(n_steps + 1)]
    _interpolate(p, [*points, (zero, zero, 0.0)], mu=mu, big_l=1.0)
    p.rules.append(p.inner(x[0], x[0]) <= 1)
    return p, points


@cache
def convex_value(n_steps: int) -> float:
    """max f(x_K) - f* over convex 1-smooth f with |x_0 - x*| <= 1."""
    p, points = _descent(n_steps, mu=0.0)
    return p.worst(points[-1][2])


def distance(n_steps: int, mu: float) -> float:
    """max |x_K - x*| over mu-strongly convex 1-smooth f."""
    p, points = _descent(n_steps, mu=mu)
    return p.worst(p.inner(points[-1][0], points[-1][0])) ** 0.5


def least_gradient(n_steps: int) -> float:
    """max min_k |g_k|^2 over 1-smooth, not nec. convex f with f(x_0) - inf f <= 1."""
    p = Program(n_steps + 2, n_steps + 2)
    least = cp.Variable()
    x, gradients = [p.basis[0]], p.basis[1:]
    for k in range(n_steps):
        x.append(x[k] - gradients[k])
    points = [(x[k], gradients[k], p.values[k]) for k in range(n_steps + 1)]
    _interpolate(p, points, mu=-1.0, big_l=1.0)
    lowest = p.values[n_steps + 1]
    p.rules += [
        f - p.inner(g, g) / 2 >= lowest for _, g, f in points
    ]  # a further gradient step goes no lower than inf f
    p.rules += [p.inner(g, g) >= least for _, g, _ in points] + [points[0][2] - lowest <= 1]
    return p.worst(least)


def mirror(n_steps: int, mu: float, measure: str) -> float:
    """Mirror descent with L = 1, alpha = 1 over all convex h, and f with h - f and f - mu h convex;
    D_h(x*, x_0) <= 1.

    Vectors: x_0..x_K, g_0..g_K (gradients of f), s_0 and s_* (of h); x* = 0, g_* = 0. ``measure``:
    gap or divergence at K.
    """
    steps = n_steps + 1
    p = Program(2 * steps + 2, 2 * steps)
    x, g, s = list(p.basis[:steps]), list(p.basis[steps : 2 * steps]), [p.basis[2 * steps]]
    for k in range(n_steps):
        s.append(s[k] - g[k])
    star, zero = p.basis[2 * steps + 1], np.zeros(2 * steps + 2)
    f, h = [*p.values[:steps], 0.0], [*p.values[steps:], 0.0]
    x, g, s = [*x, zero], [*g, zero], [*s, star]
    for i, j in permutations(range(steps + 1), 2):
        d = x[i] - x[j]
        df, dh = f[i] - f[j] - p.inner(g[j], d), h[i] - h[j] - p.inner(s[j], d)
        p.rules += [df >= mu * dh, dh >= df]

    def divergence(k: int) -> cp.Expression:
        return h[-1] - h[k] + p.inner(s[k], x[k])

    p.rules.append(divergence(0) <= 1)
    return p.worst(f[n_steps] if measure == "gap" else divergence(n_steps))


def dual_step(big_l: float, m: float, big_m: float, alpha: float) -> float:
    """max f(p+) - f(p) at |u| = 1, p+ = p - q: <q, u> >= alpha m, |q| <= alpha M, f any L-smooth
    function.
    """
    p = Program(3, 2)
    u, q, after = p.basis
    _interpolate(
        p, [(np.zeros(3), u, p.values[0]), (-q, after, p.values[1])], mu=-big_l, big_l=big_l
    )
    p.rules += [
        p.inner(u, u) == 1,
        p.inner(q, u) >= alpha * m,
        p.inner(q, q) <= (alpha * big_m) ** 2,
    ]
    return p.worst(p.values[1] - p.values[0])
