"""``mdtheory train`` and ``mdtheory checkpoint``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors import safe_open

from mdtheory.config import load
from mdtheory.geometry import geometries as registry
from mdtheory.meta import checkpoint
from mdtheory.meta.events import read_metrics
from tests.commands.runs import call, refused, settings, train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished tiny run and its summary."""
    out = tmp_path_factory.mktemp("runs") / "maml"
    return out, train(out)


def test_a_run_writes_what_it_promises(run):
    out, summary = run
    assert {"last.pt", "best.pt", "metrics.jsonl", "config.toml"} <= {
        path.name for path in out.iterdir()
    }
    assert summary["finished"] and summary["iteration"] == 4
    assert summary["digest"] == checkpoint.digest(checkpoint.load(out / "last.pt"))
    assert len(read_metrics(out / "metrics.jsonl")) == 6


def test_the_written_configuration_is_the_run(run, tmp_path):
    out, summary = run
    again = call("train", "--config", out / "config.toml", "--out", tmp_path / "again", "--json")
    assert json.loads(again.stdout)["digest"] == summary["digest"]
    assert load(out / "config.toml").digest == checkpoint.load(out / "last.pt")["config_digest"]


def test_without_json_it_speaks_in_lines(tmp_path):
    result = call("train", "--out", tmp_path / "r", *settings(meta__iterations=1))
    assert result.exit_code == 0
    assert "digest: " in result.stdout
    assert "maml 1/1: loss" in result.stderr


def test_a_folder_with_a_run_is_not_overwritten(run):
    out, _ = run
    before = (out / "last.pt").read_bytes()
    assert "without a run" in refused(call("train", "--out", out, *settings()))
    assert (out / "last.pt").read_bytes() == before


def test_resuming_a_finished_run_changes_nothing(run):
    out, summary = run
    lines = (out / "metrics.jsonl").read_bytes()
    assert train(out, "--resume") == summary
    assert (out / "metrics.jsonl").read_bytes() == lines


def test_resuming_with_another_configuration_is_refused(run):
    out, _ = run
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    assert "must come from this configuration" in refused(
        call("train", "--out", out, "--resume", *settings(seed=1))
    )
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before


def test_resume_without_a_checkpoint_starts(run, tmp_path):
    _, summary = run
    assert train(tmp_path / "new", "--resume")["digest"] == summary["digest"]


def test_minutes_leave_and_resume_goes_on(run, tmp_path):
    _, summary = run
    short = train(tmp_path / "r", "--minutes", 0)
    assert not short["finished"]
    assert train(tmp_path / "r", "--resume")["digest"] == summary["digest"]


def test_threads_are_recorded_and_compared(tmp_path):
    train(tmp_path / "r", "--minutes", 0, threads=1)
    path = tmp_path / "r" / "last.pt"
    checkpoint.save(checkpoint.load(path) | {"threads": 7}, path)
    assert "7 threads" in refused(
        call("train", "--out", tmp_path / "r", "--resume", *settings(threads=1))
    )
    assert train(tmp_path / "r", "--resume", "--other-bits", threads=1)["finished"]


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("task.n_wya", "5", "n_way"),
        ("geometry.name", "metamidda", "did you mean 'metamida'"),
        ("model.name", "conv5", "did you mean 'conv4'"),
        ("model.options.chanels", "4", "did you mean 'channels'"),
        ("meta.optimizer.name", "Adm", "did you mean 'Adam'"),
        ("meta.optimizer.name", "LBFGS", "meta.optimizer.name must be"),
        ("meta.optimizer.options.momentun", "0.9", "must suit torch's Adam"),
        ("meta.optimizer.options.betas", "[2, 3]", "must suit torch's Adam"),
        ("meta.scheduler.name", "StepLr", "did you mean 'StepLR'"),
        ("meta.estimator", "unroled", "did you mean 'unrolled'"),
        ("model.options.channels", "1000000000", "must fit in memory"),
        ("device", "cuda:77", "with 0 GPUs"),
        ("task.n_way", "500", "n_way must be at most"),
        ("task.n_query", "10000", "lower task.n_shot or task.n_query"),
        ("data.source", "folder", "path must name the image folder"),
        ("data.source", "mini-imagenet", "MDTHEORY_MINI_IMAGENET"),
    ],
)
def test_wrong_settings_are_one_sentence_and_write_nothing(
    tmp_path, monkeypatch, key, value, complaint
):
    monkeypatch.delenv("MDTHEORY_MINI_IMAGENET", raising=False)
    chosen = settings()
    if key == "data.source":
        chosen += ["--set", "data.image_size=28"]
    result = call("train", "--out", tmp_path / "r", *chosen, "--set", f"{key}={value}")
    assert complaint in refused(result)
    assert not (tmp_path / "r").exists()


def test_other_wrong_arguments_are_one_sentence(tmp_path):
    assert "no file there" in refused(
        call("train", "--out", tmp_path / "r", "--config", tmp_path / "none.toml")
    )
    assert "key.sub=value" in refused(call("train", "--out", tmp_path / "r", "--set", "nonsense"))
    assert "--plugin must name" in refused(
        call("train", "--out", tmp_path / "r", "--plugin", tmp_path / "none.py")
    )
    (tmp_path / "broken.py").write_text("def (")
    (tmp_path / "lacking.py").write_text("import no_such_module")
    for name in ("broken.py", "lacking.py"):
        assert "can be imported" in refused(
            call("train", "--out", tmp_path / "r", "--plugin", tmp_path / name)
        )
    (tmp_path / "file").write_text("x")
    message = refused(
        call("train", "--out", tmp_path / "file" / "r", *settings(meta__iterations=0))
    )
    assert str(tmp_path / "file") in message


def test_a_diverging_run_stops_with_one_sentence(tmp_path):
    result = call("train", "--out", tmp_path / "r", *settings(task__task_lr=1e30, task__n_steps=3))
    assert result.exit_code == 2
    last = result.stderr.strip().splitlines()[-1]
    assert "is not finite in meta-iteration 1" in last and "last good state" in last
    assert checkpoint.load(tmp_path / "r" / "last.pt")["counters"]["iteration"] == 0


PLUGIN = '''
from mdtheory.geometry import Geometry, geometries

@geometries.register("from-outside")
class Mine(Geometry):
    """Half of the gradient."""
    source = "own design"
'''


def test_a_plugin_is_trained_evaluated_and_listed(tmp_path, monkeypatch):
    def fresh() -> Path:
        """The registry of a new process, and the plug-in that is given to it."""
        monkeypatch.setattr(registry, "_factories", dict(known))
        return plugin

    registry.names()
    known, plugin = dict(registry._factories), tmp_path / "mine.py"
    plugin.write_text(PLUGIN)
    train(tmp_path / "r", "--plugin", fresh(), geometry__name="from-outside")
    tested = call("evaluate", tmp_path / "r", "--tasks", 2, "--plugin", fresh(), "--json")
    assert json.loads(tested.stdout)["results"][0]["geometry"] == "from-outside"
    listed = json.loads(call("geometries", "--plugin", fresh(), "--time", "--json").stdout)
    mine = next(one for one in listed if one["name"] == "from-outside")
    assert mine["source"] == "own design" and mine["parameters"] == 0
    monkeypatch.setattr(registry, "_factories", dict(known))
    assert "geometry must be one of" in refused(call("evaluate", tmp_path / "r", "--tasks", 2))


def test_checkpoint_digest_show_and_export(run, tmp_path):
    out, summary = run
    assert call("checkpoint", "digest", out / "last.pt").stdout == summary["digest"] + "\n"
    shown = json.loads(call("checkpoint", "show", out / "last.pt", "--json").stdout)
    assert (
        shown["iteration"] == 4
        and shown["norm"] == "transductive"
        and shown["config"]["task"]["n_way"] == 3
    )
    assert "[geometry]" in call("checkpoint", "show", out / "last.pt").stdout
    target = tmp_path / "w.safetensors"
    assert call("checkpoint", "export", out / "last.pt", target).exit_code == 0
    with safe_open(target, framework="pt") as file:
        assert file.metadata()["digest"] == summary["digest"]
    assert "must be a new file" in refused(call("checkpoint", "export", out / "last.pt", target))
    assert "must end in .safetensors" in refused(
        call("checkpoint", "export", out / "last.pt", tmp_path / "w.bin")
    )


@pytest.mark.parametrize("command", ["digest", "show"])
def test_broken_checkpoints_are_one_sentence(run, tmp_path, command):
    out, _ = run
    whole = (out / "last.pt").read_bytes()
    for name, content in {"half": whole[: len(whole) // 2], "text": b"hello", "none": None}.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        assert "must be a checkpoint" in refused(call("checkpoint", command, tmp_path / name))


def test_a_checkpoint_with_a_wrong_configuration_is_one_sentence(run, tmp_path):
    out, _ = run
    state = checkpoint.load(out / "last.pt")
    for text in ("{", "[]", '{"task": {"n_way": "five"}}', '{"no_such": 1}'):
        checkpoint.save(state | {"config": text}, tmp_path / "odd.pt")
        assert str(tmp_path / "odd.pt") in refused(call("checkpoint", "show", tmp_path / "odd.pt"))


def test_resuming_from_a_broken_checkpoint_is_refused_and_keeps_it(run, tmp_path):
    out, _ = run
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "last.pt").write_bytes((out / "last.pt").read_bytes()[:999])
    assert "truncated, damaged" in refused(
        call("train", "--out", tmp_path / "r", "--resume", *settings())
    )
    assert (tmp_path / "r" / "last.pt").stat().st_size == 999
    assert [path.name for path in (tmp_path / "r").iterdir()] == ["last.pt"]
