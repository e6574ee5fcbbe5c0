"""Intervals, p values and Holm's correction against their definitions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from scipy import stats

from experiments.statistics import compare, estimate, holm, p_value
from mdtheory.meta.evaluate import estimate as library_estimate

PROBABILITIES = st.lists(st.floats(0, 1), min_size=1, max_size=6)


def test_the_estimate_is_the_library_s(rng_values):
    mine, theirs = estimate(rng_values), library_estimate(torch.tensor(rng_values))
    assert (mine.mean, mine.half_width, mine.n) == pytest.approx(
        (theirs.mean, theirs.half_width, theirs.n), rel=1e-12
    )


def test_the_p_value_is_scipy_s(rng_values):
    z = rng_values.mean() / (rng_values.std(ddof=1) / np.sqrt(len(rng_values)))
    assert p_value(rng_values) == pytest.approx(2 * stats.norm.sf(abs(z)), rel=1e-9)


def test_no_difference_at_all_has_p_1_and_a_constant_one_0():
    assert p_value(np.zeros(5)) == 1.0
    assert p_value(np.ones(5)) == 0.0


def test_holm_on_a_case_by_hand():
    # 0.01 x 3; 0.03 x 2; 0.04 x 1, raised to the one before
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])


@given(PROBABILITIES)
def test_holm_is_the_closed_test_of_bonferroni(values):
    """The corrected p of i is the largest, over all subsets with i, of the subset's Bonferroni p
    (Marcus et al. 1976).
    """
    corrected = holm(values)
    for i in range(len(values)):
        others = [j for j in range(len(values)) if j != i]
        subsets = (s for size in range(len(values)) for s in itertools.combinations(others, size))
        wanted = max(
            min(1.0, (len(s) + 1) * min(values[i], *(values[j] for j in s), 1.0)) for s in subsets
        )
        assert corrected[i] == pytest.approx(wanted, abs=1e-12)


def test_pairing_sees_what_unpaired_scores_hide():
    generator = np.random.Generator(np.random.PCG64(3))
    tasks = generator.normal(0.5, 0.1, 400)
    better = tasks + 0.01 + generator.normal(0, 0.02, 400)
    found = compare({"better": better - tasks, "same": generator.normal(0, 0.02, 400)})
    assert found["better"].significant and not found["same"].significant
    assert abs(better.mean() - tasks.mean()) < estimate(tasks).half_width + 0.001
    assert 0.002 < found["better"].detectable < 0.004  # 2.8 x 0.02 / 20


def test_too_few_tasks_are_refused():
    with pytest.raises(ValueError, match="at least 2 numbers"):
        estimate([0.5])


@pytest.fixture
def rng_values() -> np.ndarray:
    return np.random.Generator(np.random.PCG64(1)).normal(0.1, 1.0, 50)
