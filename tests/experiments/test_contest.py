"""The attempt to win: against every other row, and never won from few seeds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from experiments import contest
from experiments.result_tables import read
from experiments.statistics import compare


@pytest.fixture(scope="module")
def results():
    return read()


def test_every_other_row_is_a_rival(results):
    table = results["glyphs", 1]
    found = contest.against_all(table)
    assert set(found) == set(table.rows) - {contest.OWN}
    gap = [
        table.by_row[contest.OWN][seed].accuracies(15).mean()
        - table.by_row["warpgrad"][seed].accuracies(15).mean()
        for seed in range(3)
    ]
    assert found["warpgrad"].estimate.mean == pytest.approx(np.mean(gap))
    (line,) = contest.lines([table])
    assert "chosen on this tier's validation tasks" in line
    assert sum(line.count(f"`{row}`") for row in found) == len(found)


def differences(seeds, *, undecided=False, worse=False):
    """Clear ones against two rows, by so many seeds."""
    noise = np.random.default_rng(0).normal(0, 0.01, (2, seeds, 200))
    level = np.array([0.1, 0.0 if undecided else -0.1 if worse else 0.1])
    return compare(dict(zip("ab", noise + level[:, None, None], strict=True)))


def test_it_is_won_by_three_seeds_against_every_row_only():
    assert contest.won(differences(3), [])
    assert not contest.won(differences(3), ["c"])
    assert not contest.won(differences(2), [])
    assert not contest.won(differences(3, undecided=True), [])
    assert not contest.won(differences(3, worse=True), [])
    assert not contest.won({}, [])
    words = [contest.standing(differences(3, worse=True)[row]) for row in "ab"]
    assert words == ["better", "worse"]
    few = [contest.standing(differences(2, worse=True)[row]) for row in "ab"]
    assert few == [f"{word} as far as too few seeds tell" for word in words]


def test_a_row_without_a_record_is_named_and_not_beaten(results):
    table = results["glyphs", 1]
    fewer = replace(table, by_row={k: v for k, v in table.by_row.items() if k != "warpgrad"})
    found = contest.against_all(fewer)
    assert contest.unmet(fewer, found) == ["warpgrad"] and not contest.unmet(
        table, found | {"warpgrad": 0}
    )
    assert "no seed in common yet: `warpgrad`" in contest.verdict(fewer, found)


def test_the_pilot_is_a_judge():
    (line,) = contest.of_pilot()
    assert "minus MAML" in line and "1 seed" in line


def test_the_first_page_says_where_it_has_won(results):
    (glyphs,) = contest.tallies([results["glyphs", 1]])
    found = contest.against_all(results["glyphs", 1])
    better = sum(contest.standing(one) == "better" for one in found.values())
    assert f"better than {better} of {len(found)} rows from three seeds" in glyphs
    assert "not won" in glyphs or better == len(found)
    assert contest.tallies([results["cpu", 1]]) == []
