"""The mutation score in the repository is what its rows say, every survivor is explained, and the
tool can tell.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from tests.mutation import score
from tests.mutation.hand import ROOT, hand_made
from tests.mutation.worker import KILLED

PROBE = """
from tests.mutation.worker import judge, preload
preload()
path = "mdtheory/maps/identity.py"
test = "tests/maps/test_mirror_maps.py::test_mirror_map_properties[1.0-identity]"
text = open(path).read()
doubled = text.replace("0.5 * tree.dot(z, z)", "tree.dot(z, z)")
for changed in (text, text + "\\n# nothing", doubled, text + "\\n1 / 0\\n"):
    print(judge(path, changed, [test], cpu_seconds=60).verdict)
"""


@pytest.fixture(scope="module")
def sampled():
    return json.loads(score.SCORE.read_text())


def test_the_score_follows_from_its_rows(sampled):
    computed = score.counts(sampled["rows"]) | score.rates(sampled["rows"])
    assert {name: sampled[name] for name in computed} == computed
    assert len({row["key"] for row in sampled["rows"]}) == sampled["size"] == 400
    assert {row["verdict"] for row in sampled["rows"]} <= {*KILLED, "survived"}
    assert all((row["verdict"] == "failed") <= bool(row["test"]) for row in sampled["rows"])


def test_the_bar_is_met(sampled):
    assert sampled["lower_95"] >= 0.85


def test_the_bound_is_that_of_the_binomial_distribution():
    from scipy.stats import binom

    for killed, size in ((354, 400), (1, 3), (400, 400)):
        at = score.lower_bound(killed, size)
        assert binom.sf(killed - 1, size, at) == pytest.approx(0.05)
    assert score.lower_bound(0, 10) == 0.0


def test_every_survivor_is_explained_and_no_other_mutant(sampled):
    explained = score.explanations()
    assert set(explained) == {row["key"] for row in score.survivors(sampled["rows"])}
    assert all(len(group["why"]) > 20 and group["cause"] for group in explained.values())
    assert score.SURVIVORS.read_text() == score.report(sampled, explained)


def test_a_survivor_without_explanation_is_refused(sampled):
    rows = [{**sampled["rows"][0], "verdict": "survived", "key": "0" * 12}]
    with pytest.raises(ValueError, match="every survivor must be explained, got none for"):
        score.report({**sampled, "rows": rows}, {})


def test_all_mutants_made_by_hand_fit_the_source_and_are_killed():
    kept, listed = json.loads(score.HAND.read_text()), hand_made()
    assert [row["key"] for row in kept["rows"]] == [mutant.key for mutant in listed]
    computed = score.counts(kept["rows"])
    assert {name: kept[name] for name in computed} == computed
    assert kept["killed"] == kept["size"] >= 40
    for mutant in listed:
        assert mutant.planted() != (ROOT / mutant.path).read_text()


def test_a_replacement_that_does_not_fit_is_refused():
    from dataclasses import replace

    for old in ("no such line", "self"):
        with pytest.raises(ValueError, match="old must occur exactly once"):
            replace(hand_made()[0], old=old).planted()


@pytest.mark.slow
def test_the_tool_tells_a_planted_mutant_from_none():
    """In a process of its own, which has not imported the library."""
    done = subprocess.run([sys.executable, "-c", PROBE], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["survived", "survived", "failed", "import"], done.stderr


def test_results_survive_a_kill(tmp_path):
    kept = score.Results(tmp_path / "results.jsonl")
    kept.add({"key": "a", "verdict": "failed"})
    kept.add({"key": "b", "verdict": "survived"})
    kept.path.write_text(kept.path.read_text()[:-5])
    again = score.Results(kept.path)
    assert set(again.rows) == {"a"}
    again.add({"key": "b", "verdict": "failed"})
    assert score.Results(kept.path).rows["b"]["verdict"] == "failed"


def test_the_sample_is_stable_under_edits_and_has_no_text_of_errors():
    """Needs mutmut (extra dev): the same seed draws the same mutants, and dropping some of all
    leaves the others drawn.
    """
    pytest.importorskip("mutmut", reason="mutmut is in the extra dev")
    from tests.mutation.mutants import Source, sample

    found = Source("mdtheory/maps/pnorm.py").mutants
    drawn = sample(found, size=20, seed=0)
    assert drawn == sample(reversed(found), size=20, seed=0) != sample(found, size=20, seed=1)
    fewer = [mutant for mutant in found if mutant is not drawn[3]]
    assert sample(fewer, size=19, seed=0) == drawn[:3] + drawn[4:]
    assert len({mutant.key for mutant in found}) == len(found) > 100
    text = " ".join(mutant.before for mutant in found)
    assert "must be in (1, inf)" not in text
    assert not re.search("grove2001general|sparse points", text)
