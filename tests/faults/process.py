"""The command line in a process of its own: forked from this one, which has imported torch, or
started afresh.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE = 60.0 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
"""Seconds after which a command hangs: a minute, or more where others wait for the processors."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended: ``code`` is minus the deadly signal, ``None`` if it had to be killed."""

    code: int | None
    out: str
    err: str

    def fault(self, *, codes: Sequence[int] = (0, 2)) -> str | None:
        """What a user would complain of; ``None`` where there is nothing."""
        if self.code is None:
            return f"hangs longer than {PATIENCE:g} s"
        if "Traceback (most recent call last)" in self.err:
            return "traceback: " + self.err.strip().splitlines()[-1]
        if self.code < 0:
            return f"dies of signal {-self.code}"
        if self.code not in codes:
            return f"ends with {self.code}: {self.err.strip()[-200:]}"
        if self.code != 0 and not (self.err + self.out).strip():
            return f"ends with {self.code} and no word"
        return None


def forked(work: Callable[[], Any], *, patience: float = PATIENCE) -> Outcome:
    """``work()`` in a fork of this process, with streams of its own."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            _live(work, out, err)
        code = _wait(child, patience)
        texts = [path.read_text(errors="replace") if path.exists() else "" for path in (out, err)]
        return Outcome(code, *texts)


def _live(work: Callable[[], Any], out: Path, err: Path) -> None:
    """Never returns."""
    code = 1
    try:
        os.setsid()
        for path, number in ((out, 1), (err, 2)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
        sys.stdin = open(os.devnull)  # noqa: SIM115
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            work()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        except BaseException:
            traceback.print_exc()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    finally:
        os._exit(code)


def _wait(child: int, patience: float) -> int | None:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def command(*arguments: Any, patience: float = PATIENCE, cwd: str | Path | None = None) -> Outcome:
    """The command line in a fork, perhaps in another folder."""

    def work() -> None:
        import torch

        from mdtheory.cli import app

        torch.set_num_threads(1)
        if cwd is not None:
            os.chdir(cwd)
        app([str(argument) for argument in arguments], prog_name="mdtheory")

    return forked(work, patience=patience)


def started(
    *arguments: Any, variables: Mapping[str, str] | None = None, **options: Any
) -> subprocess.Popen[str]:
    """The command line in a fresh process, the leader of a group of its own."""
    line = [sys.executable, "-m", "mdtheory", *map(str, arguments)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "dumb", **(variables or {})}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(line, env=env, text=True, start_new_session=True, **pipes)


def ended(process: subprocess.Popen[str], *, patience: float = PATIENCE) -> Outcome:
    """Wait for a started process; killed when it hangs."""
    try:
        out, err = process.communicate(timeout=patience)
        return Outcome(process.returncode, out or "", err or "")
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        return Outcome(None, out or "", err or "")


def shell(script: str, *arguments: Any, patience: float = PATIENCE) -> Outcome:
    """A line of bash in which ``"$@"`` is the command line's program and arguments."""
    line = ["bash", "-c", script, "bash", sys.executable, "-m", "mdtheory", *map(str, arguments)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "dumb"}
    process = subprocess.Popen(
        line,
        env=env,
        text=True,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    return ended(process, patience=patience)
