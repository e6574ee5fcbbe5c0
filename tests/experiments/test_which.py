"""The page that says which geometry to choose says what the records say, and types no number."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from experiments import which
from experiments.records import FOLDER
from experiments.result_tables import read
from experiments.statistics import Difference
from experiments.tables import GUIDE
from mdtheory.core.estimate import Estimate
from mdtheory.geometry import geometries

TEXT = GUIDE.read_text(encoding="utf-8")
BEFORE, _, REST = TEXT.partition("<!-- which:begin -->")
BLOCK, _, AFTER = REST.partition("<!-- which:end -->")


def test_no_number_is_typed():
    prose = re.sub(r"^\d+\. |\(\S+\)", "", BEFORE + AFTER, flags=re.MULTILINE)
    assert re.findall(r"\d+", prose) == []


def test_every_geometry_of_the_second_table_can_be_named():
    rows = re.findall(r"^\| [^|]+ \| ([^|]+) \| [^|]+ \|$", AFTER, flags=re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([a-z-]+)`", row)}
    assert len(named) > 10 and named <= set(geometries.names())


def counts(name: str) -> list[int]:
    return json.loads((FOLDER / name / "scores.json").read_text())["transductive"]["15"]


def test_a_difference_is_that_of_the_raw_counts():
    gaps = [
        mine - maml
        for seed in range(3)
        for mine, maml in zip(
            counts(f"cpu-metakfo-1shot-seed{seed}"),
            counts(f"cpu-maml-1shot-seed{seed}"),
            strict=True,
        )
    ]
    mean = 100 * sum(gaps) / len(gaps) / 75
    line = next(line for line in BLOCK.splitlines() if line.startswith("| `metakfo` |"))
    assert line.split("|")[2].strip().startswith(f"**{mean:+.2f} ±")


def test_the_numbers_learned_are_those_of_the_geometry_for_each_of_the_start():
    kept = json.loads((FOLDER / "glyphs-metakfo-1shot-seed0/result.json").read_text())
    start = json.loads((FOLDER / "glyphs-maml-1shot-seed0/result.json").read_text())["parameters"]
    assert kept["parameters"] == start + kept["geometry_parameters"]
    told = which.numbers([which.Setting(read()["glyphs", 1], {})], "metakfo")
    assert told == f"{kept['geometry_parameters'] / start:.1f}"


def test_the_time_of_a_row_is_its_own_over_maml_s():
    seconds = {
        one.work.method: one.seconds
        for one in which.everything()[which.TIMED].measured
        if (one.work.implementation, one.work.estimator) == (which.OURS, "unrolled")
    }
    assert seconds["metamida"] > seconds["maml"]
    assert which.relative_times()["metamida"] == seconds["metamida"] / seconds["maml"]


@pytest.fixture
def setting():
    """Two rows that are surely better, one that only suggests it, and one that is surely worse."""

    def gap(points: float, seeds: int = 3) -> Difference:
        return Difference(Estimate(points / 100, 0.001, 400), 0.001, 0.01, 0.01, seeds)

    table = read()["glyphs", 1]
    gaps = {"metasgd": gap(1), "warpgrad": gap(3), "ecml": gap(9, seeds=2), "mtnet": gap(-5)}
    return which.Setting(table, gaps)


def test_only_what_holds_from_three_seeds_is_advised(setting):
    assert setting.settled(better=True) == ["warpgrad", "metasgd"]
    assert setting.settled(better=False) == ["mtnet"]
    assert which.leading([setting]) == {"`warpgrad`": 1, "`metasgd`": 1}


def test_what_is_worse_anywhere_is_not_advised(setting):
    better = setting.gaps["warpgrad"]
    worse = replace(better, estimate=Estimate(-0.02, 0.001, 400))
    elsewhere = replace(setting, gaps={"warpgrad": worse, "metasgd": better, "ecml": better})
    assert which.leading([setting, elsewhere]) == {"`metasgd`": 2, "`ecml`": 1}
    del elsewhere.gaps["metasgd"]  # of the settings that have a row's record
    assert "`ecml` (1 of 2), `metasgd` (1 of 1)." in which.sentences([setting, elsewhere])[-1]


def test_what_one_seed_shows_to_be_worse_is_not_advised(setting):
    """It is not sure, but no reason to try it first."""
    suggested = replace(setting.gaps["mtnet"], seeds=1)
    elsewhere = replace(setting, gaps={"warpgrad": suggested})
    assert which.leading([setting, elsewhere]) == {"`metasgd`": 1}
    assert elsewhere.settled(better=False) == []


def test_a_setting_without_three_seeds_settles_nothing(setting):
    few = {row: replace(gap, seeds=1) for row, gap in setting.gaps.items()}
    (line,) = which.sentences([replace(setting, gaps=few)])
    assert "no row has three seeds yet" in line and "none." not in line.replace("so none is", "")


def test_without_records_nothing_is_advised(tmp_path):
    assert which.block(read(tmp_path)) == "No record is here yet.\n"
