"""A run's folder, opened once."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from mdtheory.config import RunConfig, load, parse
from mdtheory.data.glyphs import GlyphSet
from mdtheory.meta import checkpoint
from mdtheory.meta.events import JsonLines, read_metrics
from mdtheory.run.folder import RunFolder, check_belongs
from mdtheory.run.load import find_checkpoint
from mdtheory.run.summary import Summary


def config(**changes) -> RunConfig:
    """A run of three iterations without validation."""
    small = {
        "model": {"options": {"channels": 4}},
        "task": {"n_way": 3, "n_query": 2, "n_steps": 1},
        "meta": {"iterations": 3, "n_tasks": 1},
        "validation": {"enabled": False},
        "checkpoint_every": 1,
    }
    return parse(small | changes)


def train(out: Path, own: RunConfig, *, minutes: float | None = None, **options):
    """Open, go on or begin, and train; the counters."""
    lines = JsonLines(out / "metrics.jsonl")
    with RunFolder(out, **options) as folder:
        return folder.trainer(own, GlyphSet(), listeners=[lines]).fit(minutes=minutes)


def iterations(out: Path) -> list[int]:
    return [row["iteration"] for row in read_metrics(out / "metrics.jsonl")]


def test_a_new_folder_holds_its_configuration_and_goes_on_after_its_last_checkpoint(tmp_path):
    out = tmp_path / "new" / "run"
    assert train(out, config(), minutes=0).iteration == 0
    assert load(out / "config.toml") == config()
    (out / ".last.pt.1.part").write_bytes(b"half")
    assert train(out, config(), resume=True).iteration == 3
    assert iterations(out) == [1, 2, 3]
    assert not list(out.glob(".*.part"))
    assert not (out / "best.pt").exists()


def test_lines_after_the_checkpoint_are_dropped_when_the_run_goes_on(tmp_path):
    out = tmp_path / "run"
    train(out, config(), minutes=0)
    (out / "metrics.jsonl").write_text('{"kind": "train", "iteration": 1}\n{"kind": "tr')
    train(out, config(), resume=True)
    assert iterations(out) == [1, 2, 3]


def test_a_folder_with_a_run_is_opened_to_go_on_only(tmp_path):
    train(tmp_path, config())
    before = checkpoint.load(tmp_path / "last.pt")
    with pytest.raises(ValueError, match="without a run, got"):
        train(tmp_path, config())
    with pytest.raises(ValueError, match="this configuration, but seed was 0 and is 1; choose"):
        train(tmp_path, config(seed=1), resume=True)
    assert checkpoint.digest(checkpoint.load(tmp_path / "last.pt")) == checkpoint.digest(before)
    assert load(tmp_path / "config.toml") == config()


def test_a_folder_whose_settings_are_lost_is_refused_by_digest(tmp_path):
    train(tmp_path, config())
    (tmp_path / "config.toml").unlink()
    with pytest.raises(ValueError, match=f"its digest is {config().digest[:12]}, not"):
        train(tmp_path, config(seed=1), resume=True)


def test_a_lock_of_something_else_stays(tmp_path):
    (tmp_path / ".lock").write_text("mine")
    train(tmp_path, config())
    assert (tmp_path / ".lock").read_text() == "mine"


def test_a_folder_in_use_is_refused_with_its_holder_and_free_afterwards(tmp_path):
    train(tmp_path, config(), minutes=0)
    with RunFolder(tmp_path, resume=True):
        for resume in (True, False):
            with pytest.raises(ValueError, match=f"in use by process {os.getpid()} on "):
                train(tmp_path, config(), resume=resume)
    assert train(tmp_path, config(), resume=True).iteration == 3
    assert not (tmp_path / ".mdtheory.lock").exists()


def test_a_folder_that_cannot_be_written_is_said_in_one_sentence(tmp_path, monkeypatch):
    opened = os.open

    def refuse(path, *rest, **options):
        if str(path).endswith(".mdtheory.lock"):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *rest, **options)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(
        ValueError, match=r"that can be written, but the system says of .*lock: Permission denied"
    ):
        train(tmp_path, config())
    assert [*tmp_path.iterdir()] == []


def test_another_run_that_begins_meanwhile_is_noticed(tmp_path):
    out = tmp_path / "new"
    with RunFolder(out) as folder:
        train(out, config(seed=1))
        with pytest.raises(ValueError, match="another has begun a run"):
            folder.trainer(config(), GlyphSet())
    assert load(out / "config.toml") == config(seed=1)


def test_a_lock_is_gone_with_its_process(tmp_path):
    """A killed process: the file stays, the lock does not."""
    train(tmp_path, config(), minutes=0)
    (tmp_path / ".mdtheory.lock").write_text("process 1 on nowhere")
    assert train(tmp_path, config(), resume=True).iteration == 3


@pytest.mark.parametrize("how", ["hard link", "link", "link to nowhere", "pipe", "folder"])
def test_what_stands_in_the_place_of_the_lock_is_not_written_to(tmp_path, how):
    """A link's target was emptied."""
    out, lock, precious = tmp_path / "run", tmp_path / "run" / ".mdtheory.lock", tmp_path / "mine"
    out.mkdir()
    precious.write_text("precious")
    {
        "hard link": lambda: os.link(precious, lock),
        "link": lambda: lock.symlink_to(precious),
        "link to nowhere": lambda: lock.symlink_to(tmp_path / "nowhere"),
        "pipe": lambda: os.mkfifo(lock),
        "folder": lock.mkdir,
    }[how]()
    with pytest.raises(ValueError, match=r"whose \.mdtheory\.lock is a file of its own"):
        train(out, config())
    assert precious.read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()


class Meddling:
    """A listener that does something to the folder after the second iteration."""

    def __init__(self, action):
        self.action = action

    def start(self, *, done, validated, total):
        pass

    def record(self, row):
        if row["iteration"] == 2:
            self.action()

    def close(self):
        pass


@pytest.mark.parametrize("what", ["nothing", "a folder", "another run"])
def test_a_folder_that_is_replaced_during_a_run_is_left_alone(tmp_path, what):
    """The run went on in the new one: over another run's checkpoints, and took its lock away."""
    out, moved, other = tmp_path / "run", tmp_path / "moved", RunFolder(tmp_path / "run")

    def replace():
        out.rename(moved)
        if what == "a folder":
            out.mkdir()
        elif what == "another run":
            train(out, config(seed=1), minutes=0)
            other.resume = True
            other.__enter__()

    with (
        RunFolder(out) as folder,
        pytest.raises(ValueError, match=f"--out must stay in place during a run, but {out} was"),
    ):
        summary = Summary(out, config(), intact=folder.intact)
        folder.trainer(config(), GlyphSet(), listeners=[Meddling(replace), summary]).fit()
    if what == "another run":
        assert checkpoint.load(out / "last.pt")["counters"]["iteration"] == 0
        assert not (out / "summary.md").exists()
        with pytest.raises(ValueError, match="in use by"):
            train(out, config(seed=1), resume=True)
        other.__exit__(None, None, None)
    else:
        assert not out.exists() or not list(out.iterdir())
    assert train(moved, config(), resume=True).iteration == 3


def test_no_event_writes_a_summary_into_another_folder(tmp_path):
    for intact in (True, False):
        summary = Summary(tmp_path, config(), intact=lambda intact=intact: intact)
        summary.start(done=0, validated=0, total=3)
        summary.record(
            {"kind": "validation", "iteration": 1, "loss": 1.0, "accuracy": 0.5, "tasks": 3}
        )
        summary.close()
        assert (tmp_path / "summary.md").exists() is intact
        (tmp_path / "summary.md").unlink(missing_ok=True)


@pytest.mark.parametrize("name", ["config.toml", "metrics.jsonl", "best.pt"])
@pytest.mark.parametrize("resume", [True, False])
def test_a_file_of_something_else_is_not_replaced_without_force(tmp_path, name, resume):
    (tmp_path / name).write_text("mine\n")
    (tmp_path / ".mine.part").write_text("mine too")
    (tmp_path / ".mine.7.part").write_text("mine too")
    with pytest.raises(ValueError, match=f"without a {name} of something else"):
        train(tmp_path, config(), resume=resume)
    assert (tmp_path / name).read_text() == "mine\n"
    assert train(tmp_path, config(), resume=resume, force=True).iteration == 3
    assert iterations(tmp_path) == [1, 2, 3]
    assert (tmp_path / ".mine.part").exists() and (tmp_path / ".mine.7.part").exists()


def test_a_link_to_nowhere_is_not_written_through(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "best.pt").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"without a best\.pt"):
        train(tmp_path / "run", config())
    assert not (tmp_path / "elsewhere").exists()


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(tmp_path):
    with RunFolder(tmp_path) as folder:
        folder.trainer(config(), GlyphSet())
    (tmp_path / "metrics.jsonl").touch()
    assert not (tmp_path / "last.pt").exists()
    assert train(tmp_path, config(), resume=True).iteration == 3


def test_force_starts_over(tmp_path):
    train(tmp_path, config())
    assert train(tmp_path, config(seed=1), force=True).iteration == 3
    assert load(tmp_path / "config.toml") == config(seed=1)
    assert iterations(tmp_path) == [1, 2, 3]


VALIDATED = {"validation": {"every": 1, "tasks": 2}}


def exchange(folder: Path, other: Path, name: str) -> None:
    shutil.copy(other / name, folder / name)


@pytest.mark.parametrize("name", ["config.toml", "best.pt", "last.pt", "metrics.jsonl"])
def test_files_of_several_runs_are_refused(tmp_path, name):
    for seed in (0, 1):
        train(tmp_path / str(seed), config(seed=seed, **VALIDATED))
    folder = tmp_path / "0"
    exchange(folder, tmp_path / "1", name)
    with pytest.raises(ValueError, match="must"):
        train(folder, config(seed=0, **VALIDATED), resume=True)
    if name != "metrics.jsonl":
        with pytest.raises(ValueError, match="must hold the files of one run"):
            check_belongs(folder)
    exchange(folder, tmp_path / "1", name)


def test_a_best_checkpoint_of_another_moment_is_refused(tmp_path):
    train(tmp_path, config(**VALIDATED))
    state = checkpoint.load(tmp_path / "best.pt")
    done = state["counters"]["iteration"]
    other = state["counters"] | {"iteration": done - 1, "validated": -1, "best_iteration": -1}
    last = checkpoint.load(tmp_path / "last.pt")
    checkpoint.save(last | {"counters": last["counters"] | {"iteration": 9}}, tmp_path / "last.pt")
    check_belongs(tmp_path)  # negative control
    checkpoint.save(state | {"counters": other}, tmp_path / "best.pt")
    with pytest.raises(ValueError, match=rf"best\.pt is of iteration {done - 1} and last\.pt says"):
        check_belongs(tmp_path)


def test_lost_lines_of_metrics_are_said_and_end_no_run(tmp_path, capsys):
    train(tmp_path, config())
    (tmp_path / "metrics.jsonl").write_text("damaged\n")
    assert train(tmp_path, config(), resume=True).iteration == 3
    assert "metrics.jsonl lacks 3 of the first 3 iterations" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["best.pt", "config.toml"])
@pytest.mark.parametrize("kind", ["a link to nothing", "a named pipe", "a folder"])
def test_a_file_of_a_run_that_is_none_is_not_passed_over(tmp_path, name, kind):
    """Without best.pt it would be last.pt that is evaluated."""
    train(tmp_path, config(**VALIDATED))
    assert find_checkpoint(tmp_path) == tmp_path / "best.pt"
    (tmp_path / name).unlink()
    if kind == "a folder":
        (tmp_path / name).mkdir()
    elif kind == "a named pipe":
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=f"{name}' must be a regular file, got {kind}; "):
        find_checkpoint(tmp_path)


@pytest.mark.parametrize("change", [{"loss": None, "accuracy": None}, {"accuracy": 0.125}])
def test_a_validation_with_another_score_is_refused(tmp_path, change):
    train(tmp_path, config(**VALIDATED))
    best = checkpoint.load(tmp_path / "last.pt")["counters"]["best_iteration"]
    rows = read_metrics(tmp_path / "metrics.jsonl")
    for row in rows:
        if row["kind"] == "validation" and row["iteration"] == best:
            row.update(change)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(ValueError, match=f"its validation after iteration {best} is another"):
        train(tmp_path, config(**VALIDATED), resume=True)
