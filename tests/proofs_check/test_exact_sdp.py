"""Exact dual certificates: they prove what the SDPs only solve, and any fault in one is refused."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest

from proofs_check.tools import exact_sdp, sdp
from proofs_check.tools.exact_sdp import Certificate, NotProvedError, Problem, pivots, prove

FIFTH = Fraction(1, 5)
STEPS = (1, 2, 3, 4, 5)
PROOFS = {
    "convex gap": exact_sdp.convex_gap,
    "distance": lambda k: exact_sdp.distance(k, FIFTH),
    "nonconvex gradient": exact_sdp.nonconvex_gradient,
    "mirror gap": exact_sdp.mirror_descent,
    "mirror gap, relatively strongly convex": lambda k: exact_sdp.mirror_descent(k, FIFTH),
    "mirror divergence": lambda k: exact_sdp.mirror_descent(k, FIFTH, "divergence"),
}
SOLVED = {
    "convex gap": sdp.convex_gap,
    "distance": lambda k: sdp.distance(k, 0.2) ** 2,
    "nonconvex gradient": sdp.nonconvex_gradient,
    "mirror gap": sdp.mirror_descent,
    "mirror gap, relatively strongly convex": lambda k: sdp.mirror_descent(k, 0.2),
    "mirror divergence": lambda k: sdp.mirror_descent(k, 0.2, "divergence"),
}
CLOSED = {
    "convex gap": lambda k: Fraction(1, 4 * k + 2),
    "distance": lambda k: Fraction(4, 5) ** (2 * k),
    "nonconvex gradient": lambda k: Fraction(4, 3 * k + 2),
    "mirror gap": lambda k: Fraction(1, k),
    "mirror gap, relatively strongly convex": lambda k: FIFTH / (Fraction(5, 4) ** k - 1),
    "mirror divergence": lambda k: Fraction(4, 5) ** k,
}


@pytest.mark.parametrize("k", STEPS)
@pytest.mark.parametrize("name", PROOFS)
def test_the_bound_is_proved_in_rationals(name, k):
    problem, certificate = PROOFS[name](k)
    assert certificate.bound == CLOSED[name](k)
    assert all(isinstance(pivot, Fraction) for pivot in prove(problem, certificate))


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("name", PROOFS)
def test_the_solver_finds_the_same_number(name, k):
    """The SDP of PEPit is built independently: same class, same bound, so nothing is vacuous."""
    _, certificate = PROOFS[name](k)
    assert SOLVED[name](k) == pytest.approx(float(certificate.bound), rel=1e-4)


def test_many_more_steps_of_gradient_descent():
    assert min(prove(*exact_sdp.convex_gap(30))) == 0


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("name", PROOFS)
def test_a_smaller_bound_is_refused(name, k):
    problem, certificate = PROOFS[name](k)
    for factor in (Fraction(1, 2), Fraction(999_999, 1_000_000)):
        with pytest.raises(NotProvedError):
            prove(problem, replace(certificate, bound=factor * certificate.bound))


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("name", PROOFS)
def test_every_multiplier_is_needed_as_it_is(name, k):
    problem, certificate = PROOFS[name](k)
    for inequality, multiplier in certificate.multipliers.items():
        for changed in (multiplier + Fraction(1, 10**6), Fraction(0), -multiplier):
            spoilt = {**certificate.multipliers, inequality: changed}
            with pytest.raises(NotProvedError):
                prove(problem, Certificate(certificate.bound, spoilt))


def test_a_larger_class_is_refused():
    """The multipliers of convex functions do not serve functions that need not be convex."""
    problem, certificate = exact_sdp.convex_gap(3)
    points = {exact_sdp.STAR: ({}, {}), **exact_sdp._descent(3)}
    wider = exact_sdp.interpolation(points, Fraction(-1, 10))
    with pytest.raises(NotProvedError):
        prove(Problem(wider, problem.target, problem.start), certificate)


def test_a_shorter_step_is_refused():
    """Of steps below 1/L the bound is false; steps a little longer keep it."""
    problem, certificate = exact_sdp.convex_gap(2)
    x, points = exact_sdp.unit("x"), {exact_sdp.STAR: ({}, {})}
    for k in range(3):
        g = exact_sdp.unit(f"g{k}")
        points[str(k)] = (x, g)
        x = exact_sdp.combination((1, x), (Fraction(-19, 20), g))
    shorter = exact_sdp.interpolation(points, Fraction(0))
    with pytest.raises(NotProvedError):
        prove(Problem(shorter, problem.target, problem.start), certificate)


def test_a_negative_multiplier_is_refused_by_name():
    problem, certificate = exact_sdp.convex_gap(1)
    spoilt = {**certificate.multipliers, "1,0": Fraction(-1)}
    with pytest.raises(NotProvedError, match="non-negative, got -1 for 1,0"):
        prove(problem, Certificate(certificate.bound, spoilt))


def quadratic(points, curvature):
    """Values, points and gradients of curvature |x|^2/2 at numbers on a line."""
    return {name: (x, curvature * x, curvature * x * x / 2) for name, x in points.items()}


def evaluated(form, gram, values):
    return sum(c * values[n] for n, c in form.values.items()) + sum(
        c * gram[a] * gram[b] for (a, b), c in form.gram.items()
    )


@pytest.mark.parametrize(
    ("curvature", "inside"), [(0.2, True), (0.6, True), (1.0, True), (1.1, False), (0.1, False)]
)
def test_interpolation_holds_for_the_class_and_only_for_it(curvature, inside):
    """On the quadratics of curvature c: all inequalities hold iff mu <= c <= 1."""
    points = {name: (exact_sdp.unit(f"x{name}"), exact_sdp.unit(f"g{name}")) for name in "ab"}
    found = exact_sdp.interpolation(points, FIFTH)
    assert set(found) == {f"{i},{j}" for i, j in permutations("ab", 2)}
    at = quadratic({"a": -0.7, "b": 1.3}, curvature)
    gram = {f"x{n}": x for n, (x, _, _) in at.items()} | {f"g{n}": g for n, (_, g, _) in at.items()}
    worst = max(evaluated(f, gram, {f"f{n}": at[n][2] for n in at}) for f in found.values())
    assert (worst <= 1e-12) == inside


def test_definiteness_is_decided_exactly():
    generator = np.random.default_rng(0)
    for rank in (1, 2, 4):
        factor = generator.integers(-3, 4, (4, rank))
        gram = [[Fraction(int(v)) for v in row] for row in factor @ factor.T]
        assert sum(pivot > 0 for pivot in pivots(gram)) == np.linalg.matrix_rank(factor)
        gram[3][3] -= Fraction(1, 10**30) + gram[3][3] * (rank == 4)
        with pytest.raises(NotProvedError, match="semi-definite"):
            pivots(gram)
    with pytest.raises(NotProvedError):
        pivots([[Fraction(0), Fraction(1)], [Fraction(1), Fraction(5)]])
