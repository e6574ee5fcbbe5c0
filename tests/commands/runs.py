"""Tiny runs from the command line: four channels, few tasks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from mdtheory.cli import app

TINY = {
    "model.options.channels": 4,
    "task.n_way": 3,
    "task.n_query": 2,
    "task.eval_n_query": "[1, 2]",
    "task.n_steps": 1,
    "task.task_lr": 0.1,
    "meta.n_tasks": 2,
    "meta.iterations": 4,
    "meta.optimizer.meta_lr": 0.01,
    "validation.every": 2,
    "validation.tasks": 3,
    "test.tasks": 4,
    "checkpoint_every": 1,
}


def settings(**changes: Any) -> list[str]:
    """--set arguments of a tiny run; in ``changes`` a double underscore stands for a dot."""
    values = TINY | {key.replace("__", "."): value for key, value in changes.items()}
    return [part for key, value in values.items() for part in ("--set", f"{key}={value}")]


def call(*arguments: Any) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="mdtheory")


def train(out: Path, *arguments: Any, **changes: Any) -> dict[str, Any]:
    """Train a tiny run to its end; the JSON of its summary."""
    result = call("train", "--out", out, "--json", *settings(**changes), *arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refused(result: Result) -> str:
    """The one sentence of an expected error."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("mdtheory: ")
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    return lines[0]


def process(*arguments: Any, **options: Any) -> subprocess.Popen[str]:
    """The command line in a process of its own, with one thread."""
    command = [sys.executable, "-m", "mdtheory", *map(str, arguments)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "dumb"}
    return subprocess.Popen(
        command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )
