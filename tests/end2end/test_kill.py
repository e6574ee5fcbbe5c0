"""A run that is killed with SIGKILL at random moments and resumed ends with the bits of one that
never was.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mdtheory.meta import checkpoint
from mdtheory.meta.events import read_metrics
from tests.commands.runs import call, process, settings, train

LONG = {"meta__iterations": 60, "validation__every": 20, "threads": 1}


def lines(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def start(folder: Path, *arguments: object, **changes: object):
    return process(
        "train", "--out", folder, "--resume", "--json", *settings(**{**LONG, **changes}), *arguments
    )


def wait_for_lines(one, folder: Path, n: int) -> None:
    """Until the process wrote ``n`` lines of metrics, which it does in a fraction of a minute, or
    ended.
    """
    deadline = time.monotonic() + 60
    while lines(folder) < n and one.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    assert lines(folder) >= n


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that is never stopped."""
    folder = tmp_path_factory.mktemp("kill") / "whole"
    return folder, train(folder, **LONG)["digest"]


def test_killed_three_times_at_random_moments(whole, tmp_path):
    folder, rng = tmp_path / "killed", random.Random(0)
    for n in (rng.randrange(1, 15), rng.randrange(20, 35), rng.randrange(45, 58)):
        one = start(folder, checkpoint_every=3)
        wait_for_lines(one, folder, n)
        time.sleep(rng.random() * 0.02)
        one.kill()
        one.communicate()
        assert one.returncode == -signal.SIGKILL
    assert train(folder, "--resume", **LONG)["digest"] == whole[1]
    assert read_metrics(folder / "metrics.jsonl") == read_metrics(whole[0] / "metrics.jsonl")
    best = [checkpoint.digest(checkpoint.load(place / "best.pt")) for place in (folder, whole[0])]
    assert best[0] == best[1]
    assert not list(folder.glob(".*.part"))


@pytest.mark.parametrize(
    ("signum", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGQUIT, 131)],
)
def test_asked_to_stop_it_saves_and_leaves_with_the_shells_code(whole, tmp_path, signum, code):
    folder = tmp_path / "asked"
    one = start(folder, checkpoint_every=1000)
    wait_for_lines(one, folder, 10)
    os.kill(one.pid, signum)
    out, errors = one.communicate(timeout=60)
    assert one.returncode == code
    assert out == ""
    assert "--resume goes on" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    done = checkpoint.load(folder / "last.pt")["counters"]["iteration"]
    assert 9 <= done < 60
    assert train(folder, "--resume", **LONG)["digest"] == whole[1]


def test_the_digest_would_see_a_different_run(whole, tmp_path):
    """Negative control: the same command with other tasks."""
    assert train(tmp_path / "other", **LONG, seed=1)["digest"] != whole[1]


def test_a_full_disk_ends_with_one_sentence_and_the_old_checkpoint(whole, tmp_path):
    """The system refuses files above a size that the first checkpoint just fits in."""
    folder = tmp_path / "full"
    train(folder, "--minutes", 0, **LONG)
    before = (folder / "last.pt").read_bytes()
    limit = len(before) // 1024 + 1
    command = f'ulimit -f {limit}; exec "$0" -m mdtheory train --out "$1" --resume "${{@:2}}"'
    done = subprocess.run(
        ["bash", "-c", command, sys.executable, str(folder), *settings(**LONG)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TERM": "dumb"},
    )
    assert done.returncode == 2, done.stderr
    assert "must be written" in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert (folder / "last.pt").read_bytes() == before
    assert call("checkpoint", "digest", folder / "last.pt").exit_code == 0
    assert train(folder, "--resume", **LONG)["digest"] == whole[1]
