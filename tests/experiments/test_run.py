"""A cell from nothing to its record, stopped wherever one likes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
from safetensors.torch import load_file
from typer import Typer
from typer.testing import CliRunner

from experiments import retest, run
from experiments.records import COMPARED, WEIGHTS, Record, verify
from experiments.run import carry_out
from experiments.status import OutOfTimeError, Run
from mdtheory.config import open_data
from mdtheory.meta.events import JsonLines
from mdtheory.run.build import build_trainer
from tests.experiments.tiny import shrink, tiny


@pytest.fixture(autouse=True, scope="module")
def small():
    with pytest.MonkeyPatch.context() as monkeypatch:
        shrink(monkeypatch)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """MAML, never stopped."""
    own = tiny(tmp_path_factory.mktemp("whole"), "maml")
    assert carry_out(own)
    return own


def stopped_after(iterations: int, own: Run) -> None:
    """Train so many iterations, save, and leave."""
    own.state.mkdir(parents=True)
    config = own.cell.config(own.seed)
    lines = JsonLines(own.state / "metrics.jsonl")
    trainer = build_trainer(config, open_data(config.data), out=own.state, listeners=[lines])
    lines.start(done=0, validated=-1, total=iterations)
    for _ in range(iterations):
        trainer.step()
    trainer.save()
    lines.close()


def same(first: Run, second: Run) -> bool:
    return all(
        (first.record / name).read_bytes() == (second.record / name).read_bytes()
        for name in COMPARED
    )


def test_a_finished_cell_has_a_sound_record_and_no_state(whole):
    assert verify(whole.record) == []
    assert not whole.state.exists()
    record = Record(whole.record)
    assert record.result.iterations == 4 and record.provenance.sittings == 1
    assert set(record.scores) == {"transductive", "support"}
    assert carry_out(whole)  # nothing left to do


def test_a_cell_stopped_while_training_ends_with_the_same_bytes(whole, tmp_path):
    broken = tiny(tmp_path / "broken", "maml")
    stopped_after(1, broken)
    assert carry_out(broken)
    assert same(whole, broken)


def test_another_seed_ends_with_other_bytes(whole, tmp_path):
    """Negative control of the test above."""
    other = tiny(tmp_path / "other", "maml")
    other = replace(other, seed=1)
    assert carry_out(other)
    assert (whole.record / "scores.json").read_bytes() != (
        other.record / "scores.json"
    ).read_bytes()


def test_a_cell_stopped_between_tests_ends_with_the_same_bytes(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "TEST_SHARD", 2)
    broken, sittings = tiny(tmp_path / "broken", "maml"), 0
    while not broken.record.exists():
        sittings += 1
        left = iter([True, True])

        def check(self, left=left):
            if not next(left, False):
                raise OutOfTimeError

        monkeypatch.setattr(Run, "check_time", check)
        carry_out(broken)
    assert sittings > 3 and Record(broken.record).provenance.sittings == sittings
    assert same(whole, broken)


def test_out_of_time_saves_and_is_no_record(tmp_path):
    own = tiny(tmp_path, "metasgd", until=0.0)
    assert not carry_out(own)
    assert (own.state / "last.pt").is_file() and not own.record.exists()


def test_the_common_start_needs_maml_s_record(whole, tmp_path):
    alone, beside = (
        tiny(tmp_path / "alone", "metasgd"),
        tiny(tmp_path / "beside", "metasgd", records=whole.records),
    )
    assert carry_out(alone) and carry_out(beside)
    assert json.loads((alone.record / "paths.json").read_text())["common"] is None
    common, own = Record(beside.record).adaptation.common, Record(whole.record).adaptation.own
    assert common is not None
    assert [row[0] for row in common.support_loss] == [row[0] for row in own.support_loss]


def test_kept_weights_give_the_recorded_answers(whole, tmp_path):
    copy = shutil.copytree(whole.record, tmp_path / "copy")
    assert retest.changed(Record(copy), 6) == 0
    assert "network.classifier.weight" in load_file(copy / WEIGHTS)
    scores = json.loads((copy / "scores.json").read_text())
    scores["transductive"]["2"] = [10 - count for count in scores["transductive"]["2"]]
    (copy / "scores.json").write_text(json.dumps(scores))
    assert retest.changed(Record(copy), 6) > retest.ALLOWED


def test_divergence_is_noted_and_has_its_own_exit_code(tmp_path, monkeypatch):
    from mdtheory.meta.trainer import DivergedError

    def diverge(*args, **kwargs):
        raise DivergedError("the gradient of x is not finite")

    monkeypatch.setattr(run, "train", diverge)
    monkeypatch.setattr(run.controls, "register", lambda: None)
    folders = ["--records", str(tmp_path / "records"), "--states", str(tmp_path / "state")]
    app = Typer()
    app.command()(run.main)
    words = ["--tier", "smoke", "--row", "maml", "--shot", "1", "--seed", "0", *folders]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 3 and "not finite" in done.output
    assert (tmp_path / "state/smoke-maml-1shot-seed0/diverged.txt").is_file()
