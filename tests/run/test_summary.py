"""summary.md: true, up to date, and never in the way."""

from __future__ import annotations

import pytest

from mdtheory.config import parse
from mdtheory.meta import events
from mdtheory.run.summary import MARK, NAME, Summary, is_ours
from tests.commands.runs import call, settings, train
from tests.docs.pages import DOCS


def row(kind, iteration, accuracy, **more):
    return {"kind": kind, "iteration": iteration, "loss": 1.0, "accuracy": accuracy, **more}


def test_a_finished_run_says_what_it_is_and_how_good(tmp_path):
    train(tmp_path / "r", geometry__name="metasgd")
    text = (tmp_path / "r" / NAME).read_text()
    for words in ("# 3-way 1-shot on glyphs: metasgd", "4 of 4 meta-iterations are done: finished"):
        assert words in text
    assert "Guessing would give 33.3%" in text and "on 3 tasks" in text
    there = {path.name for path in (tmp_path / "r").iterdir()}
    named = {line.split("`")[1] for line in text.splitlines() if line.startswith("| `")}
    assert there - named - {NAME} == set()


def test_a_stopped_run_says_that_it_is_not_finished_and_a_resumed_one_forgets_nothing(tmp_path):
    assert call("train", "--out", tmp_path / "r", "--minutes", 0, *settings()).exit_code == 0
    assert "0 of 4 meta-iterations are done: not finished" in (tmp_path / "r" / NAME).read_text()
    train(tmp_path / "r", "--resume")
    train(tmp_path / "whole")
    resumed, whole = ((tmp_path / name / NAME).read_text() for name in ("r", "whole"))
    assert resumed == whole.replace(str(tmp_path / "whole"), str(tmp_path / "r"))


@pytest.mark.parametrize(("accuracy", "warned"), [(0.21, True), (0.5, False)])
def test_no_better_than_guessing_is_said(tmp_path, accuracy, warned):
    listener = Summary(tmp_path, parse({}))
    listener.start(done=0, validated=-1, total=9)
    assert "Not validated yet" in (tmp_path / NAME).read_text()
    listener.record(row("train", 1, 0.4))
    listener.record(row("validation", 1, accuracy, tasks=20))
    text = (tmp_path / NAME).read_text()
    assert ("No better than guessing" in text) == warned
    assert f"accuracy {accuracy:.1%}" in text and "accuracy 40.0%" in text


def test_numbers_that_are_none_or_nan_are_left_out(tmp_path):
    listener = Summary(tmp_path, parse({}))
    listener.start(done=0, validated=-1, total=9)
    listener.record({"kind": "train", "iteration": 1, "loss": None, "accuracy": float("nan")})
    listener.record(row("validation", 1, None, tasks=2))
    assert "no finite number" in (tmp_path / NAME).read_text()


def test_a_file_of_yours_stays_and_a_failure_to_write_ends_nothing(tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / NAME).write_text("notes")
    for folder in ("mine", "missing"):
        listener = Summary(tmp_path / folder, parse({}))
        listener.start(done=0, validated=-1, total=9)
        listener.close()
    assert (tmp_path / "mine" / NAME).read_text() == "notes"
    assert capsys.readouterr().err.count("no summary of the run") == 2
    (tmp_path / NAME).write_text(MARK + "old")
    assert is_ours(tmp_path / NAME) and not is_ours(tmp_path / "mine" / NAME)


def test_the_tracker_of_the_guide_hears_everything_and_is_ten_lines(tmp_path):
    file = DOCS / "how-to" / "tracker.py"
    body = file.read_text().split("class Csv")[1].splitlines()[2:]
    assert len([line for line in body if line.strip()]) <= 10
    assert events.listeners.names() == []
    try:
        train(tmp_path / "r", "--plugin", file)
    finally:
        events.listeners._factories.clear()
    lines = [line.split(",") for line in (tmp_path / "r" / "metrics.csv").read_text().splitlines()]
    heard = [(kind, int(iteration)) for kind, iteration, *_ in lines]
    train_and_check = [("train", 1), ("train", 2), ("validation", 2)]
    assert heard == train_and_check + [(kind, k + 2) for kind, k in train_and_check]
