"""Every record in git is sound, and no digit of it can be changed unseen."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from experiments import records
from experiments.records import FOLDER, KEPT, SUMS, Record, seal, thinned, verify

NAMES = [record.folder.name for record in records.everything()]


@pytest.mark.parametrize("name", NAMES)
def test_every_record_in_git_is_sound(name):
    assert verify(FOLDER / name) == []


def test_nothing_else_lies_among_the_records():
    assert sorted(path.name for path in FOLDER.iterdir() if not path.name.startswith(".")) == NAMES


def test_all_records_together_are_small_enough():
    assert records.verify_total() == []


@pytest.fixture
def copy(tmp_path):
    """A copy of a record to tamper with."""
    name = next(name for name in NAMES if name.startswith("smoke-maml-"))
    return shutil.copytree(FOLDER / name, tmp_path / name)


def test_the_copy_is_sound(copy):
    assert verify(copy) == []


@pytest.mark.parametrize("name", [*KEPT, SUMS])
def test_any_altered_digit_is_found(copy, name):
    text = (copy / name).read_text()
    places = [match.start() for match in re.finditer(r"\d", text)]
    for place in places[:: max(1, len(places) // 7)]:
        altered = text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :]
        (copy / name).write_text(altered)
        assert verify(copy), altered[max(0, place - 30) : place + 30]
    (copy / name).write_text(text)
    assert verify(copy) == []


def alter(copy, name, change):
    """Change a JSON file and forge the digests."""
    data = json.loads((copy / name).read_text())
    change(data)
    (copy / name).write_text(json.dumps(data))
    seal(copy)


def one_more(scores):
    scores["transductive"]["15"][3] += 1 if scores["transductive"]["15"][3] < 75 else -1


def better(result):
    result["protocols"][1]["accuracy"] += 0.01


FORGERIES = [
    ("scores.json", one_more, "means of scores.json"),
    ("scores.json", lambda scores: scores["transductive"]["15"].pop(), "must hold 40 tasks"),
    ("scores.json", lambda scores: scores["transductive"].pop("15"), "protocols"),
    ("result.json", better, "means of scores.json"),
    (
        "result.json",
        lambda result: result["protocols"][0].update(half_width=0.001),
        "means of scores.json",
    ),
    ("result.json", lambda result: result.update(seed=1), "named after its cell"),
    ("result.json", lambda result: result.update(row="metasgd"), "named after its cell"),
    ("result.json", lambda result: result.update(iterations=19), "target must be reached"),
    ("result.json", lambda result: result.update(best_validation=0.99), "best validation"),
    ("result.json", lambda result: result.update(surprise=1), "cannot be read"),
    ("result.json", lambda result: result.update(config_digest="0" * 64), "digest of config.toml"),
    ("paths.json", lambda paths: paths["own"]["correct"].pop(), "tables of 10 tasks"),
    (
        "paths.json",
        lambda paths: paths["own"]["correct"][0].__setitem__(2, 75),
        "scores of the test",
    ),
    ("provenance.json", lambda how: how.pop("code"), "cannot be read"),
    ("provenance.json", lambda how: how.update(finished="yesterday"), "cannot be read"),
]


@pytest.mark.parametrize(("name", "change", "said"), FORGERIES)
def test_a_forgery_with_new_digests_is_found(copy, name, change, said):
    alter(copy, name, change)
    assert any(said in problem for problem in verify(copy)), verify(copy)


def test_another_configuration_is_found(copy):
    text = (copy / "config.toml").read_text()
    (copy / "config.toml").write_text(text.replace("iterations = 20", "iterations = 21"))
    seal(copy)
    assert any("digest of config.toml" in problem for problem in verify(copy))


def test_a_file_too_many_or_too_few_is_found(copy):
    (copy / "notes.txt").write_text("better\n")
    assert any("must be listed" in problem for problem in verify(copy))
    seal(copy)
    assert any("not part of a record" in problem for problem in verify(copy))
    (copy / "notes.txt").unlink()
    (copy / "scores.json").unlink()
    seal(copy)
    assert any("scores.json must exist" in problem for problem in verify(copy))


def test_a_file_that_is_too_large_is_found(copy, monkeypatch):
    monkeypatch.setattr(records, "LARGEST_FILE", 100)
    assert any("at most 100 bytes" in problem for problem in verify(copy))
    monkeypatch.setattr(records, "LARGEST_TOTAL", 100)
    assert records.verify_total(copy.parent)


def test_a_mean_is_that_of_the_counts_by_hand(copy):
    record = Record(copy)
    counts = json.loads((copy / "scores.json").read_text())["transductive"]["15"]
    mean = sum(counts) / len(counts) / 75
    spread = (sum((c / 75 - mean) ** 2 for c in counts) / (len(counts) - 1)) ** 0.5
    one = next(p for p in record.result.protocols if (p.norm, p.n_query) == ("transductive", 15))
    assert one.accuracy == pytest.approx(mean, abs=1e-11)
    assert one.half_width == pytest.approx(1.96 * spread / len(counts) ** 0.5, abs=1e-11)


def test_more_than_600_tasks_also_give_the_poster_s_number():
    scores = {"transductive": {"1": [5] * 600 + [0] * 400}}
    (one,) = records.protocols_of(scores, 5)
    assert (one.accuracy, one.tasks) == (0.6, 1000)
    assert one.first_600 is not None and (one.first_600.accuracy, one.first_600.tasks) == (1.0, 600)


def test_thinned_metrics_keep_the_means_and_every_validation():
    events = [
        {
            "kind": "train",
            "iteration": i,
            "meta_lr": 0.1,
            **dict.fromkeys(("loss", "accuracy", "grad_norm", "objective"), i),
        }
        for i in range(1, 11)
    ]
    events.append({"kind": "validation", "iteration": 10, "loss": 1.0, "accuracy": 0.5, "tasks": 4})
    rows = thinned(events, windows=4)
    assert [(row["iteration"], row["loss"]) for row in rows if row["kind"] == "train"] == [
        (3, 2.0),
        (6, 5.0),
        (9, 8.0),
        (10, 10.0),
    ]
    assert rows[-1] == events[-1]
