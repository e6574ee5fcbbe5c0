"""plot and compare: figures from any runs, and whether they differ."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from mdtheory.commands.compare import comparison
from tests.commands.runs import call, refused, train


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two finished tiny runs."""
    folder = tmp_path_factory.mktemp("runs")
    train(folder / "maml")
    train(folder / "metasgd", geometry__name="metasgd")
    return folder


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_plot_draws_every_figure_of_two_runs(runs, tmp_path):
    result = call("plot", runs / "maml", runs / "metasgd", "--tasks", 3, "--out", tmp_path / "f")
    assert result.exit_code == 0, result.output
    names = [
        f"{n}.{kind}" for n in ("adaptation", "comparison", "training") for kind in ("png", "svg")
    ]
    assert files(tmp_path / "f") == names
    assert sorted(result.stdout.split()) == [str(tmp_path / "f" / name) for name in names]
    for name in names[::2]:
        with Image.open(tmp_path / "f" / name) as picture:
            assert picture.width > 1000


def test_one_run_has_nothing_to_be_compared_with(runs, tmp_path):
    result = call("plot", runs / "maml" / "last.pt", "--tasks", 2, "--out", tmp_path, "--json")
    assert result.exit_code == 0, result.output
    assert files(tmp_path) == ["adaptation.png", "adaptation.svg", "training.png", "training.svg"]
    assert len(json.loads(result.stdout)) == 4


def test_what_cannot_be_drawn_is_said_and_the_rest_is_drawn(runs, tmp_path):
    shutil.copytree(runs / "maml", tmp_path / "no-metrics")
    (tmp_path / "no-metrics" / "metrics.jsonl").unlink()
    (tmp_path / "only-metrics").mkdir()
    shutil.copy(runs / "maml" / "metrics.jsonl", tmp_path / "only-metrics")
    first = call("plot", tmp_path / "no-metrics", "--tasks", 2, "--out", tmp_path / "a")
    assert first.exit_code == 1 and "metrics.jsonl holds none" in first.stderr
    assert files(tmp_path / "a") == ["adaptation.png", "adaptation.svg"]
    second = call("plot", tmp_path / "only-metrics", "--out", tmp_path / "b")
    assert second.exit_code == 1 and "best.pt or last.pt" in second.stderr
    assert files(tmp_path / "b") == ["training.png", "training.svg"]


def test_figures_are_not_replaced_unless_asked(runs, tmp_path):
    ask = ("plot", runs / "maml", "--tasks", 2, "--out", tmp_path)
    (tmp_path / "training.png").write_text("mine")
    assert "without these figures" in refused(call(*ask))
    assert (tmp_path / "training.png").read_text() == "mine"
    assert call(*ask, "--force").exit_code == 0
    (tmp_path / "file").write_text("")
    assert "must be a folder" in refused(call(*ask[:-1], tmp_path / "file"))
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "training.svg").symlink_to(tmp_path / "elsewhere.svg")
    assert "without these figures" in refused(call(*ask[:-1], tmp_path / "links"))


def test_the_comparison_figure_and_the_table_have_one_accuracy(runs, tmp_path, monkeypatch):
    """The accuracy after eval_steps along the trace is what evaluate measures."""
    drawn = {}
    from mdtheory.figures import plots

    monkeypatch.setattr(
        "mdtheory.figures.comparison_figure",
        lambda own, gaps, *, tasks: drawn.update(own=own, gaps=gaps) or plots._figure(2)[0],
        raising=False,
    )
    pair = (runs / "maml", runs / "metasgd")
    assert call("plot", *pair, "--tasks", 4, "--out", tmp_path).exit_code == 0
    table = json.loads(call("compare", *pair, "--tasks", 4, "--json").stdout)["protocols"][-1]
    assert drawn["own"]["maml"].mean == pytest.approx(table["reference"]["mean"])
    assert drawn["gaps"]["metasgd"].mean == pytest.approx(table["runs"][0]["difference"]["mean"])


def test_compare_is_the_paired_difference_by_hand(runs):
    result = call("compare", runs / "maml", runs / "metasgd", "--tasks", 6, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["reference"] == "maml" and report["tasks"] == 6
    assert [one["n_query"] for one in report["protocols"]] == [1, 2]
    (row,) = report["protocols"][1]["runs"]
    assert row["run"] == "metasgd" and row["better"] + row["equal"] + row["worse"] == 6
    shown = call("compare", runs / "maml", runs / "metasgd", "--tasks", 6)
    assert shown.exit_code == 0
    for words in ("minus maml", "2 queries per class", "Training seed: 0", row["verdict"]):
        assert words in shown.stdout


def measured(*scores):
    results = [{"scores": {"15": list(one)}, "seed": 0} for one in scores]
    head = {"n_way": 5, "n_shot": 1, "tasks": len(scores[0]), "split": "test", "data": "d"}
    return {**head, "results": results}


def test_verdicts_are_those_of_the_paired_test():
    rng = np.random.default_rng(0)
    base = rng.uniform(0.3, 0.9, 200)
    better, noise = base + 0.02 + rng.normal(0, 0.02, 200), base + rng.normal(0, 0.02, 200)
    report = comparison(measured(base, better, base - 0.02 + noise - base, noise, base), "abcde")
    rows = {row["run"]: row for row in report["protocols"][0]["runs"]}
    assert [rows[name]["verdict"] for name in "bcde"] == [
        "better",
        "worse",
        "undecided",
        "the same",
    ]
    gaps = better - base
    assert rows["b"]["difference"]["half_width"] == pytest.approx(
        1.96 * gaps.std(ddof=1) / 200**0.5
    )
    # unpaired, the interval of this difference would hold zero: the pairing is what decides
    unpaired = 1.96 * np.sqrt((base.var(ddof=1) + better.var(ddof=1)) / 200)
    assert rows["b"]["difference"]["mean"] < unpaired


def test_a_family_of_comparisons_is_corrected():
    rng = np.random.default_rng(1)
    base = rng.uniform(0.3, 0.9, 100)
    others = [base + rng.normal(0, 0.05, 100) for _ in range(20)]
    gaps = rng.normal(0, 1, 100)
    near = base + 0.0105 + 0.05 * (gaps - gaps.mean()) / gaps.std(ddof=1)  # 2.1 standard errors
    alone = comparison(measured(base, near), "ab")["protocols"][0]["runs"][0]
    among = comparison(measured(base, near, *others), [str(k) for k in range(22)])
    row = among["protocols"][0]["runs"][0]
    assert alone["p"] == row["p"] < 0.05 and alone["verdict"] != "undecided"
    assert row["p_corrected"] > 0.05 and row["verdict"] == "undecided"


def test_compare_refuses_one_run_and_other_problems(runs, tmp_path):
    assert "at least two runs" in refused(call("compare", runs / "maml"))
    train(tmp_path / "r", task__n_way=2)
    assert "one problem" in refused(call("compare", runs / "maml", tmp_path / "r", "--tasks", 2))
