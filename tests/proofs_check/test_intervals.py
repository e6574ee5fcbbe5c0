"""Interval certificates: enclosures hold what is sampled, bounds bracket the truth, and the second
routine says no to lies.
"""

from __future__ import annotations

import math
from dataclasses import replace

import mpmath
import numpy as np
import pytest
import torch
from flint import arb, arb_mat, ctx

from mdtheory.maps.iaf import base
from mdtheory.maps.iaf.base import Scale, smooth_leaky
from proofs_check.tools import iaf, interval_recheck, intervals
from proofs_check.tools.interval_recheck import Interval, RejectedError
from proofs_check.tools.intervals import Box, Enclosure, UndecidedError, certify, entry_bounds
from proofs_check.tools.local_lipschitz import constants

SCALES = ["exp", "bounded", (0.5, 1.5)]


def small(blocks, scale="bounded", seed=0):
    return iaf.mlp(blocks, seed=seed, size=0.5, hidden=3, code=1, scale=scale).map


def in_block_order(map, z):
    return torch.from_numpy(intervals.library_jacobian(map, tuple(z)))


@pytest.mark.parametrize("x", [-1e3, -1.0, -1e-9, 0.0, 0.3, 50.0])
def test_units_are_the_librarys(x):
    value, slope = float(intervals.unit(arb(x))), float(intervals.unit_slope(arb(x)))
    at = torch.tensor(x, dtype=torch.float64)
    assert math.isclose(value, float(smooth_leaky(at)), rel_tol=1e-15, abs_tol=1e-13)
    assert math.isclose(slope, float(torch.func.grad(smooth_leaky)(at)), rel_tol=1e-13)


@pytest.mark.parametrize("form", SCALES, ids=str)
def test_scale_and_its_slope(form):
    scale = Scale(form)
    for x in (-3.0, 0.0, 0.7):
        at = torch.tensor(x, dtype=torch.float64)
        value, slope = intervals.scale_and_slope(scale, arb(x))
        assert math.isclose(float(value), float(scale(at)), rel_tol=1e-14)
        assert math.isclose(float(slope), float(torch.func.grad(scale)(at)), rel_tol=1e-13)


def test_the_slope_of_a_bounded_scale_over_a_ball_includes_its_peak():
    _, slope = intervals.scale_and_slope(Scale("bounded"), arb(-1).union(arb(2)))
    assert slope.contains(arb(0.5))
    assert not slope.contains(arb(0.51))


@pytest.mark.parametrize("scale", SCALES, ids=str)
@pytest.mark.parametrize("blocks", [[[0], [1]], [[1, 0], [2]], [[2], [0], [1]]], ids=str)
def test_both_enclosures_hold_every_sample(blocks, scale):
    map = small(blocks, scale, seed=2)
    size = sum(map.sizes)
    box = Box((-0.5,) * size, (0.25,) * size)
    with ctx.workdps(30):
        balls = Enclosure(map).jacobian(box)
    both = interval_recheck.jacobians(map, np.array([box.low]), np.array([box.high]))
    generator = np.random.default_rng(0)
    for z in generator.uniform(-0.5, 0.25, (20, size)):
        jacobian = in_block_order(map, z).numpy()
        assert (both.low[0] <= jacobian + 1e-14).all()
        assert (jacobian - 1e-14 <= both.high[0]).all()
        assert all(
            balls[i, j].overlaps(arb(jacobian[i, j], 1e-14))
            for i in range(size)
            for j in range(size)
        )


def test_the_two_routines_agree_at_a_point():
    map = small([[0], [1], [2]], "exp", seed=3)
    z = (0.3, -0.2, 0.9)
    with ctx.workdps(30):
        balls = Enclosure(map).jacobian(Box(z, z))
    other = interval_recheck.jacobians(map, np.array([z]), np.array([z]))
    for i in range(3):
        for j in range(3):
            assert other.low[0, i, j] <= float(balls[i, j].mid()) <= other.high[0, i, j]
            assert float(balls[i, j].rad()) < 1e-25


@pytest.mark.parametrize("kind", ["monotone", "lipschitz"])
@pytest.mark.parametrize("scale", SCALES, ids=str)
def test_a_certificate_brackets_the_truth_and_passes_its_recheck(kind, scale):
    map = small([[0], [1]], scale, seed=1)
    found = certify(map, Box.cube(0.5, 2), kind, tolerance=0.02)
    assert found.settled
    grid = [
        in_block_order(map, (a, b))
        for a in np.linspace(-0.5, 0.5, 7)
        for b in np.linspace(-0.5, 0.5, 7)
    ]
    measure, sign = (iaf.least, 1) if kind == "monotone" else (iaf.norm, -1)
    assert sign * found.bound <= min(sign * measure(jacobian) for jacobian in grid)
    assert math.isclose(
        measure(in_block_order(map, found.witness)), found.attained, rel_tol=1e-9, abs_tol=1e-12
    )
    assert 0 <= sign * (found.attained - found.bound) <= 0.02
    assert interval_recheck.recheck(map, found) >= len(found.leaves)


@pytest.mark.parametrize("kind", ["monotone", "lipschitz"])
def test_the_second_routine_rejects_lies(kind):
    map = small([[0], [1]], seed=1)
    found = certify(map, Box.cube(0.5, 2), kind, tolerance=0.05)
    better = 0.2 if kind == "monotone" else -0.2
    lies = {
        "boxes do not cover": replace(found, leaves=found.leaves[1:]),
        "could not be confirmed": replace(found, bound=found.bound + better),
        "witness gives": replace(found, attained=found.attained - better),
        "outside the box": replace(found, witness=(0.0, 0.6)),
    }
    for message, lie in lies.items():
        with pytest.raises(RejectedError, match=message):
            interval_recheck.recheck(map, lie)


def test_another_maps_certificate_is_rejected():
    found = certify(small([[0], [1]], seed=1), Box.cube(0.5, 2), "monotone", tolerance=0.05)
    with pytest.raises(RejectedError):
        interval_recheck.recheck(small([[0], [1]], seed=4), found)


def test_it_refuses_where_the_answer_lies_between_bound_and_attained():
    map = iaf.shifted_mlp(
        2.0, 1.0
    ).map  # sym J is singular everywhere: monotone, but no interval can tell
    found = certify(map, Box.cube(1.0, 2), "monotone", threshold=0.0, max_boxes=20)
    assert not found.settled
    with pytest.raises(UndecidedError, match=r"between .* down to width"):
        found.decide()
    assert (
        certify(iaf.shifted_mlp(1.9, 1.0).map, Box.cube(0.1, 2), "monotone", threshold=0.0).decide()
        is True
    )
    assert (
        certify(
            iaf.shifted_mlp(2.01, 1.0).map, Box.cube(1.0, 2), "monotone", threshold=0.0
        ).decide()
        is False
    )


def test_it_stops_at_the_least_width_and_says_so():
    found = certify(
        small([[0], [1]], seed=1), Box.cube(1.0, 2), "lipschitz", tolerance=1e-9, min_width=0.25
    )
    assert not found.settled
    assert found.width == 0.25


def test_a_map_that_computes_something_else_is_refused():
    map = small([[0], [1]])
    point = map.point
    map.point = lambda meta, z: {"phi": point(meta, z)["phi"] * 1.001}
    with pytest.raises(ValueError, match="what the intervals enclose"):
        certify(map, Box.cube(1.0, 2), "monotone")


@pytest.mark.parametrize(
    ("low", "high"),
    [((0.0,), (0.0, 1.0)), ((1.0,), (0.0,)), ((0.0,), (math.inf,)), ((math.nan,), (0.0,))],
)
def test_a_box_needs_finite_ordered_ends(low, high):
    with pytest.raises(ValueError, match="a box must have finite low <= high"):
        Box(low, high)


def test_covering_is_decided_by_the_boxes_alone():
    box = Box.cube(1.0, 2)
    left, right = box.halves()
    leaves = [left, *right.halves()]
    assert interval_recheck.covers(box, leaves)
    assert interval_recheck.covers(box, [left, right])
    assert not interval_recheck.covers(box, leaves[:-1])
    assert not interval_recheck.covers(box, [left, Box((0.0, -1.0), (1.0, 0.99))])


def test_definiteness_by_factorisation():
    def balls(rows, radius=0.0):
        return arb_mat([[arb(v, radius) for v in row] for row in rows])

    assert intervals.definite(balls([[2, 1], [1, 2]]))
    assert not intervals.definite(balls([[1, 2], [2, 1]]))
    assert not intervals.definite(balls([[1, 1], [1, 1]]))
    assert not intervals.definite(balls([[2, 1], [1, 2]], 1.5))


def test_norms_and_eigenvalues_of_exact_matrices():
    matrix = np.random.default_rng(1).standard_normal((4, 3))
    assert 0 <= float(intervals.greatest_norm(matrix)) - np.linalg.norm(matrix, 2) < 1e-10
    gram = matrix.T @ matrix
    assert 0 <= np.linalg.eigvalsh(gram)[0] - float(intervals.least_eigenvalue(gram)) < 1e-10


def test_entry_bounds_hold_the_entries():
    map = small([[0], [1]], seed=5)
    low, high = entry_bounds(map, Box.cube(0.5, 2), parts=16)
    for z in ((0.5, 0.5), (-0.5, 0.5), (0.1, -0.3)):
        jacobian = in_block_order(map, z).numpy()
        assert (low <= jacobian).all()
        assert (jacobian <= high).all()
    assert (high - low).max() < 2.0


def interval(low, high):
    return Interval(np.array([low]), np.array([high]))


@pytest.mark.parametrize("a", [(-2.0, 3.0), (0.5, 0.7), (-1.0, -0.25)])
@pytest.mark.parametrize("b", [(0.1, 4.0), (2.0, 2.0)])
def test_float_intervals_contain_mpmaths(a, b):
    """mpmath's intervals of 60 digits are the truth here."""
    x, y, p, q = interval(*a), interval(*b), mpmath.iv.mpf(a), mpmath.iv.mpf(b)
    pairs = [
        (x + y, p + q),
        (x - y, p - q),
        (x * y, p * q),
        (x.over(y), p / q),
        (interval_recheck.exp(x), mpmath.iv.exp(p)),
        (interval_recheck.root(y), mpmath.iv.sqrt(q)),
        (interval_recheck.square(x), p**2),
    ]
    for ours, theirs in pairs:
        assert float(ours.low[0]) <= theirs.a + 0
        assert theirs.b <= float(ours.high[0])
        assert float(ours.high[0] - ours.low[0]) <= float(theirs.delta) + 1e-13 * (
            1 + abs(float(theirs.b))
        )


@pytest.mark.parametrize("scale", SCALES, ids=str)
def test_theorem_t4s_constants_are_upper_bounds(scale):
    map = small([[0], [1], [2]], scale, seed=6)
    box = Box.cube(0.5, 3)
    found = certify(map, box, "lipschitz", tolerance=0.5, max_boxes=200)
    assert found.attained <= constants(map, box).lipschitz() <= constants(map, box).crude() + 1e-9


def test_the_units_slopes_are_the_ones_that_the_bounds_use():
    x = torch.linspace(-1e4, 1e4, 10001, dtype=torch.float64)
    slopes = torch.vmap(torch.func.grad(smooth_leaky))(x)
    low, high = base.LEAKY_SLOPES
    assert low <= float(slopes.min())
    assert float(slopes.max()) <= high
