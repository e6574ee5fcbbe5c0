"""``torchrun -m mdtheory train``: one run, one voice, and a sentence when a process dies."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main

from mdtheory.cli import app
from tests.commands.runs import settings, train
from tests.docs.pages import DOCS, commands
from tests.meta.processes import PATIENCE

SUICIDE = """
import os, pathlib, signal, threading, time

def wait_and_die():
    while not METRICS.exists() or METRICS.read_bytes().count(b"\\n") < 4:
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGKILL)

if os.environ["RANK"] == "1":
    threading.Thread(target=wait_and_die, daemon=True).start()
"""


def torchrun(*arguments: Any, **changes: Any) -> subprocess.CompletedProcess[str]:
    """``torchrun --nproc-per-node 2 -m mdtheory train`` with tiny settings."""
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "mdtheory",
    ]
    command = [*launcher, "train", *map(str, arguments), *settings(**changes)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "dumb"}
    return subprocess.run(command, env=env, text=True, capture_output=True, timeout=PATIENCE)


def own_words(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The complaints of our processes, among those of ``torchrun``."""
    return [line for line in done.stderr.splitlines() if line.startswith("mdtheory: ")]


@pytest.mark.slow
def test_two_processes_are_one_run_with_one_voice(tmp_path: Path):
    alone = train(tmp_path / "alone", meta__n_tasks=3)
    done = torchrun("--out", tmp_path / "two", "--json", meta__n_tasks=3)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == alone | {"out": str(tmp_path / "two")}
    assert (tmp_path / "two/metrics.jsonl").read_bytes() == (
        tmp_path / "alone/metrics.jsonl"
    ).read_bytes()
    assert done.stderr.count("maml 4/4: loss") == 1
    again = torchrun("--out", tmp_path / "two", "--resume", meta__n_tasks=3, seed=1)
    assert again.returncode != 0
    (sentence,) = own_words(again)
    assert "must come from this configuration" in sentence


@pytest.mark.slow
def test_a_killed_process_is_said_and_one_process_goes_on(tmp_path: Path):
    out, plugin = tmp_path / "two", tmp_path / "suicide.py"
    plugin.write_text(SUICIDE.replace("METRICS", f"pathlib.Path({str(out / 'metrics.jsonl')!r})"))
    done = torchrun("--out", out, "--plugin", plugin, meta__iterations=60)
    assert done.returncode != 0
    (sentence,) = own_words(done)
    assert sentence.startswith("mdtheory: another process of this run has died")
    assert (
        train(out, "--resume", meta__iterations=60)["digest"]
        == train(tmp_path / "alone", meta__iterations=60)["digest"]
    )


def test_the_commands_of_the_guide_are_understood():
    typed = [
        line
        for line in commands(DOCS / "how-to/several-processes.md")
        if line.startswith("torchrun ")
    ]
    assert len(typed) >= 2
    for line in typed:
        launcher, _, own = line.partition(" -m mdtheory train ")
        assert launcher.startswith("torchrun --standalone --nproc-per-node ")
        found = (
            typer.main.get_command(app)
            .commands["train"]
            .make_context("train", shlex.split(own))
            .params
        )
        assert found["config"] is None or (DOCS.parent / found["config"]).is_file()
