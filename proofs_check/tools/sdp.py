"""Worst cases over whole function classes, as performance-estimation SDPs (Drori and Teboulle 2014;
Taylor et al. 2017).

Every number is solved by CLARABEL, and again by SCS where asked. L = 1 and the initial distance (or
gap) is 1 throughout: the problems are homogeneous.
"""

from __future__ import annotations

import warnings
from functools import cache

from PEPit import PEP
from PEPit.functions import (
    ConvexFunction,
    SmoothConvexFunction,
    SmoothFunction,
    SmoothStronglyConvexFunction,
)
from PEPit.primitive_steps import bregman_gradient_step


def solved(problem: PEP, solver: str = "CLARABEL") -> float:
    """The SDP's optimal value, by the dual; solver warnings about accuracy are the caller's
    business (compare two solvers).
    """
    options = {"eps_abs": 1e-7, "eps_rel": 1e-7, "max_iters": 200_000} if solver == "SCS" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(problem.solve(wrapper="cvxpy", solver=solver, verbose=0, **options))


def _gradient_descent(
    kind: type, measure: str, n_steps: int, step: float, **constants: float
) -> PEP:
    """K steps of GD from distance <= 1 of a minimiser; the gap or the distance (squared) at the
    end.
    """
    problem = PEP()
    f = problem.declare_function(kind, **constants)
    best = f.stationary_point()
    x = problem.set_initial_point()
    problem.set_initial_condition((x - best) ** 2 <= 1)
    for _ in range(n_steps):
        x = x - step * f.gradient(x)
    problem.set_performance_metric(f(x) - f(best) if measure == "gap" else (x - best) ** 2)
    return problem


@cache
def convex_gap(n_steps: int, step: float = 1.0, solver: str = "CLARABEL") -> float:
    """max f(phi^K) - f* over convex 1-smooth f with D = 1."""
    return solved(_gradient_descent(SmoothConvexFunction, "gap", n_steps, step, L=1.0), solver)


@cache
def distance(n_steps: int, mu: float = 0.0, step: float = 1.0, solver: str = "CLARABEL") -> float:
    """max |phi^K - phi*| over mu-strongly convex 1-smooth f with D = 1."""
    problem = _gradient_descent(
        SmoothStronglyConvexFunction, "distance", n_steps, step, L=1.0, mu=mu
    )
    return max(0.0, solved(problem, solver)) ** 0.5


@cache
def nonconvex_gradient(n_steps: int, solver: str = "CLARABEL") -> float:
    """max min_k |grad f(phi^k)|^2, k <= K, over 1-smooth f with f(phi^0) - f(phi) <= 1 at every phi
    of the problem.
    """
    problem = PEP()
    f = problem.declare_function(SmoothFunction, L=1.0)
    x = problem.set_initial_point()
    gradient, value = f.oracle(x)
    problem.set_performance_metric(gradient**2)
    start = value
    for _ in range(n_steps):
        x = x - gradient
        gradient, value = f.oracle(x)
        problem.set_performance_metric(gradient**2)
    # the infimum is at most the value after one more step, which is at most f(x) - |g|^2 / 2
    problem.set_initial_condition(start - value + gradient**2 / 2 <= 1)
    return solved(problem, solver)


@cache
def mirror_descent(
    n_steps: int, mu: float = 0.0, measure: str = "gap", solver: str = "CLARABEL"
) -> float:
    """max of the gap, or of D_h(phi*, phi^K), over all h, all f with mu h <= f <= h relatively,
    with D_h(phi*, phi^0) = 1.
    """
    problem = PEP()
    above = problem.declare_function(ConvexFunction, reuse_gradient=True)  # f - mu h
    below = problem.declare_function(ConvexFunction, reuse_gradient=True)  # h - f
    h = (above + below) / (1 - mu)
    f = mu * h + above
    best = f.stationary_point()
    _, h_best = h.oracle(best)
    x = problem.set_initial_point()
    gradient, value = f.oracle(x)
    slope, h_x = h.oracle(x)
    problem.set_initial_condition(h_best - h_x - slope * (best - x) <= 1)
    for _ in range(n_steps):
        x, slope, h_x = bregman_gradient_step(gradient, slope, h, 1.0)
        gradient, value = f.oracle(x)
    problem.set_performance_metric(
        value - f(best) if measure == "gap" else h_best - h_x - slope * (best - x)
    )
    return solved(problem, solver)
