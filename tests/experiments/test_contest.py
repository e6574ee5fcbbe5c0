"""The attempt to win: against every other row, and never won from few seeds."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from experiments import contest, headline, pilot, pilot_page
from experiments.result_tables import read
from experiments.start_or_geometry import contrasts
from experiments.statistics import compare
from mdtheory.core.estimate import holm

MAML = "common start, identity"


@pytest.fixture(scope="module")
def results():
    return read()


def test_every_other_row_is_a_rival(results):
    table = results["glyphs", 1]
    found = contest.against_all([table])[1]
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
    found = contest.against_all([fewer])[1]
    assert contest.unmet(fewer, found) == ["warpgrad"] and not contest.unmet(
        table, found | {"warpgrad": 0}
    )
    assert "no seed in common yet: `warpgrad`" in contest.verdict(fewer, found)


def test_both_numbers_of_shots_of_a_tier_are_one_family(results):
    """As QUESTIONS.md says, and as question (g) corrects the same differences."""
    tables = [results["own", shot] for shot in (1, 5)]
    found = contest.against_all(tables)
    every = [one for by_row in found.values() for one in by_row.values()]
    assert [one.corrected for one in every] == holm([one.p for one in every])
    alone = contest.against_all(tables[:1])[1]
    assert alone["maml"].corrected < found[1]["maml"].corrected
    told = "; ".join(contest.tallies(tables))
    better = [
        [contest.standing(one) for one in of.values()].count("better") for of in found.values()
    ]
    assert [f"better than {count} of" in told for count in better] == [True, True]


def test_the_pilot_is_a_judge(monkeypatch):
    """By one correction with the pilot's page, over all of its rows."""
    (line,) = contest.of_pilot()
    assert "minus MAML" in line and "1 seed" in line
    asked = []
    monkeypatch.setattr(contest, "contrasts", lambda own: asked.append(len(own)) or contrasts(own))
    assert contest.of_pilot() == [line] and asked == [len(contest.pilot_subjects())] == [2]


def test_the_pilot_is_judged_at_the_rate_of_training_by_many_queries():
    kept = json.loads((pilot.FACTORIAL / f"{contest.OWN}.json").read_text())["cells"]
    names = ("own start, learned", "common start, identity")
    mine, maml = (kept[name]["correct"]["1"]["15"] for name in names)
    assert (
        f"minus MAML: {100 * np.subtract(mine, maml).mean() / 75:+.2f} ±" in contest.of_pilot()[0]
    )


def test_the_pilot_s_page_and_sentence_are_those_of_the_raw_counts():
    text, sentence = pilot_page.accuracy_table(pilot_page.subjects()), headline.pilot_sentence()
    for row in pilot.ROWS:
        kept = json.loads((pilot.FACTORIAL / f"{row}.json").read_text())["cells"]
        right = {name: cell["correct"]["1"] for name, cell in kept.items()}
        mine, maml = (right[one]["15"] for one in ("own start, learned", MAML))
        gap = f"minus MAML {100 * np.subtract(mine, maml).mean() / 75:+.2f} ±"
        assert (f"`{row}` {gap}" in sentence.replace("*", "")) == (row == headline.POSTERS)
        for name, by_query in right.items():
            if name == MAML and row != pilot.ROWS[0]:
                continue  # one line, of the first row's file, for all rows
            title = "| `maml` |" if name == MAML else f"| `{row}`: {name} |"
            (line,) = [one for one in text.splitlines() if one.startswith(title)]
            for cell, n in zip(line.split(" | ")[1:3], ("1", "15"), strict=True):
                assert cell.startswith(f"{20 * np.mean(by_query[n]) / int(n):.2f} ±")


def test_the_first_page_says_where_it_has_won(results):
    (glyphs,) = contest.tallies([results["glyphs", 1]])
    found = contest.against_all([results["glyphs", 1]])[1]
    better = sum(contest.standing(one) == "better" for one in found.values())
    assert f"better than {better} of {len(found)} rows from three seeds" in glyphs
    assert "not won" in glyphs or better == len(found)
    assert contest.tallies([results["cpu", 1]]) == []
