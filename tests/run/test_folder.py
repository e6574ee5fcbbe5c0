"""A run's folder, opened once."""

from __future__ import annotations

from pathlib import Path

import pytest

from mdtheory.config import RunConfig, load, parse
from mdtheory.data.glyphs import GlyphSet
from mdtheory.meta import checkpoint
from mdtheory.meta.events import JsonLines, read_metrics
from mdtheory.run.folder import RunFolder


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


def opened(out: Path, own: RunConfig, *, resume: bool = False):
    lines = JsonLines(out / "metrics.jsonl")
    return RunFolder(out, resume=resume).trainer(own, GlyphSet(), listeners=[lines])


def iterations(out: Path) -> list[int]:
    return [row["iteration"] for row in read_metrics(out / "metrics.jsonl")]


def test_a_new_folder_holds_its_configuration_and_goes_on_after_its_last_checkpoint(tmp_path):
    out = tmp_path / "new" / "run"
    assert opened(out, config()).fit(minutes=0).iteration == 0
    assert load(out / "config.toml") == config()
    (out / ".last.pt.1.part").write_bytes(b"half")
    assert opened(out, config(), resume=True).fit().iteration == 3
    assert iterations(out) == [1, 2, 3]
    assert not list(out.glob(".*.part"))
    assert not (out / "best.pt").exists()


def test_lines_after_the_checkpoint_are_dropped_when_the_run_goes_on(tmp_path):
    out = tmp_path / "run"
    opened(out, config()).fit(minutes=0)
    (out / "metrics.jsonl").write_text('{"kind": "train", "iteration": 1}\n{"kind": "tr')
    opened(out, config(), resume=True).fit()
    assert iterations(out) == [1, 2, 3]


def test_a_folder_with_a_run_is_opened_to_go_on_only(tmp_path):
    opened(tmp_path, config()).fit()
    before = checkpoint.load(tmp_path / "last.pt")
    with pytest.raises(ValueError, match="without a run, got"):
        RunFolder(tmp_path)
    with pytest.raises(ValueError, match="must come from this configuration"):
        opened(tmp_path, config(seed=1), resume=True)
    assert checkpoint.digest(checkpoint.load(tmp_path / "last.pt")) == checkpoint.digest(before)
    assert load(tmp_path / "config.toml") == config()
