"""Temperature and prediction sets against what is slower and obvious."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from mdtheory.meta import calibrate
from mdtheory.meta.calibrate import held_out_folds, needed, split_conformal, temperature


def smoothed_loss(logits, labels, heat):
    """The cross-entropy against Platt's targets, item by item."""
    n, c = logits.shape
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        z = [value / heat for value in row]
        norm = max(z) + math.log(sum(math.exp(v - max(z)) for v in z))
        for k, value in enumerate(z):
            target = (n + 1) / (n + c) if k == label else 1 / (n + c)
            total -= target * (value - norm)
    return total


@pytest.mark.parametrize("seed", range(8))
def test_the_temperature_is_the_minimum_of_a_grid(seed):
    generator = torch.Generator().manual_seed(seed)
    n, c = 6 + 3 * seed, 2 + seed % 4
    labels = torch.randint(c, (n,), generator=generator)
    logits = torch.randn(n, c, generator=generator, dtype=torch.float64) * 3
    logits[torch.arange(n), labels] += seed  # from useless to good
    found = temperature(logits, labels)
    grid = np.geomspace(calibrate.COLDEST, calibrate.HOTTEST, 4001)
    losses = [smoothed_loss(logits, labels, heat) for heat in grid]
    assert smoothed_loss(logits, labels, found) <= min(losses) + 1e-9
    if 1 < int(np.argmin(losses)) < 3999:
        assert found == pytest.approx(grid[int(np.argmin(losses))], rel=5e-3)


def test_overconfident_scores_are_cooled_and_timid_ones_sharpened():
    """Labels drawn from softmax(z): then logits 5 z want T near 5 and z / 5 wants T near 1 / 5."""
    generator = torch.Generator().manual_seed(0)
    z = 2 * torch.randn(4000, 4, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(z.softmax(1), 1, generator=generator)[:, 0]
    for scale in (5.0, 1.0, 0.2):
        assert temperature(scale * z, labels) == pytest.approx(scale, rel=0.06)


def test_a_few_right_answers_do_not_ask_for_certainty():
    """Without smoothing the minimum lies at T = 0."""
    logits, labels = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1])
    assert (logits / temperature(logits, labels)).softmax(1).max() < 0.8
    assert temperature(1000 * logits, labels) <= calibrate.HOTTEST * 1000
    assert temperature(torch.zeros(3, 2), torch.tensor([0, 1, 0])) == calibrate.HOTTEST
    with pytest.raises(ValueError, match="one label for each of n >= 1 rows"):
        temperature(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64))


def reference_set(scores, coverage, probabilities):
    """The definition, by counting: c is in the set unless its score would be among the largest
    alpha of all n + 1.
    """
    held = []
    for p in probabilities:
        below = sum(score < 1 - p for score in scores)
        held.append(below + 1 <= math.ceil((len(scores) + 1) * coverage - 1e-9))
    best = max(probabilities)
    return [a or p == best for a, p in zip(held, probabilities, strict=True)]


@given(
    st.integers(1, 25),
    st.integers(2, 5),
    st.sampled_from([0.5, 0.8, 0.9, 0.95]),
    st.integers(0, 99),
)
def test_sets_are_those_of_the_definition(n, c, coverage, seed):
    generator = torch.Generator().manual_seed(seed)

    def draw(m):
        return (3 * torch.randn(m, c, generator=generator, dtype=torch.float64)).softmax(1)

    held, labels, asked = draw(n), torch.randint(c, (n,), generator=generator), draw(7)
    made = split_conformal(held, labels, coverage=coverage)
    expected = [reference_set(made.scores.tolist(), coverage, row) for row in asked.tolist()]
    assert made.sets(asked).tolist() == expected
    assert (made.threshold == math.inf) == (n < needed(coverage))


@pytest.mark.parametrize(("n", "coverage"), [(9, 0.9), (19, 0.95), (20, 0.8), (13, 0.5)])
def test_the_coverage_is_exact_over_exchangeable_examples(n, coverage):
    """Of n + 1 examples each in turn is the new one: exactly k of them are covered, whatever the
    scores are.
    """
    generator = torch.Generator().manual_seed(n)
    scores = torch.rand(n + 1, generator=generator, dtype=torch.float64)
    k = math.ceil((n + 1) * coverage - 1e-9)

    def covered(promise):
        hits = 0
        for new in range(n + 1):
            rest = torch.cat([scores[:new], scores[new + 1 :]])
            hits += float(scores[new]) <= calibrate.ConformalSets(rest, promise).threshold
        return hits

    assert covered(coverage) == k
    assert k / (n + 1) >= coverage
    assert covered((k - 1) / (n + 1)) == k - 1  # the mutant: the rank below covers too few


@pytest.mark.parametrize("coverage", [0.0, 1.0, -1, 95, math.nan])
def test_a_coverage_that_is_none_is_refused(coverage):
    with pytest.raises(ValueError, match="coverage must lie between 0 and 1"):
        needed(coverage)


def test_folds_hold_every_example_once_and_every_class_in_turn():
    labels = torch.tensor([2, 0, 0, 1, 2, 2, 0, 1, 1, 2])
    parts = held_out_folds(labels, 3)
    assert sorted(torch.cat(parts).tolist()) == list(range(10))
    for part in parts:
        assert set(labels[part].tolist()) == {0, 1, 2}


@pytest.mark.filterwarnings("ignore")  # mapie's own
@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_sets_are_those_of_mapie(coverage):
    """Somebody else's split conformal sets (score 1 - p); a wrong k, planted, differs."""
    mapie = pytest.importorskip("mapie.classification", reason="mapie is not installed")
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Given(ClassifierMixin, BaseEstimator):
        classes_, is_fitted_ = np.arange(4), True

        def fit(self, x, y):
            return self

        def predict_proba(self, x):
            return np.asarray(x)

        def predict(self, x):
            return np.asarray(x).argmax(1)

    generator = torch.Generator().manual_seed(3)
    held, asked = (
        (2 * torch.randn(n, 4, generator=generator, dtype=torch.float64)).softmax(1)
        for n in (41, 200)
    )
    labels = torch.randint(4, (41,), generator=generator)
    theirs = mapie.SplitConformalClassifier(
        estimator=Given(), confidence_level=coverage, conformity_score="lac", prefit=True
    ).conformalize(held.numpy(), labels.numpy())
    sets = torch.from_numpy(theirs.predict_set(asked.numpy())[1][:, :, 0])
    best = asked == asked.max(1, keepdim=True).values  # ours hold the likeliest class besides
    assert torch.equal(split_conformal(held, labels, coverage=coverage).sets(asked), sets | best)
    wrong = split_conformal(held, labels, coverage=coverage - 0.05).sets(asked)
    assert not torch.equal(wrong, sets | best)
