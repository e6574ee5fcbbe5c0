"""Faults of a run: killed, asked to stop, out of room, two in one folder, consoles that fail."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mdtheory.meta import checkpoint
from mdtheory.meta.events import read_metrics
from tests.commands.runs import settings
from tests.faults.process import PATIENCE, Outcome, command, ended, shell, started

LONG = settings(meta__iterations=60, validation__every=20, checkpoint_every=3, threads=1)
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Whole:
    """The run that is never disturbed, and the comparison with it."""

    def __init__(self, folder: Path):
        self.folder = folder
        outcome = command("train", "--out", folder, "--json", *LONG, patience=10 * PATIENCE)
        if outcome.code != 0:
            raise RuntimeError(f"the undisturbed run must end, got {outcome.err}")
        self.digest = json.loads(outcome.out)["digest"]

    def difference(self, folder: Path) -> str | None:
        """What another run's folder holds else; ``None`` if nothing."""
        if checkpoint.digest(checkpoint.load(folder / "last.pt")) != self.digest:
            return "another digest"
        mine, theirs = (checkpoint.load(at / "best.pt") for at in (self.folder, folder))
        if checkpoint.digest(mine) != checkpoint.digest(theirs):
            return "another best checkpoint"
        if read_metrics(folder / "metrics.jsonl") != read_metrics(self.folder / "metrics.jsonl"):
            return "other metrics"
        if list(folder.glob(".*")):
            return "leftovers"
        return None

    def finish(self, folder: Path) -> str | None:
        """Resume to the end, and compare."""
        outcome = command("train", "--out", folder, "--resume", *LONG)
        return outcome.fault(codes=(0,)) or self.difference(folder)


def lines(folder: Path) -> int:
    """Of metrics.jsonl."""
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for(process: subprocess.Popen[Any], folder: Path, count: int) -> None:
    """Until the process has written so many lines of metrics, or ended."""
    deadline = time.monotonic() + 60
    while lines(folder) < count and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)


def killed(rng: random.Random, folder: Path, whole: Whole) -> str | None:
    """SIGKILL three times: while it starts, and between any two writes."""
    for _ in range(3):
        process = started("train", "--out", folder, "--resume", *LONG)
        if rng.random() < 0.3:
            time.sleep(rng.uniform(0, 3))
        else:
            wait_for(process, folder, lines(folder) + rng.randrange(1, 25))
            time.sleep(rng.random() * 0.05)
        process.kill()
        process.communicate()
    return whole.finish(folder)


def asked(rng: random.Random, folder: Path, whole: Whole) -> str | None:
    """A signal that asks: nothing that was done is lost."""
    signum = rng.choice(SIGNALS)
    process = started("train", "--out", folder, *LONG, "--set", "checkpoint_every=1000")
    wait_for(process, folder, rng.randrange(1, 50))
    done = lines(folder)
    process.send_signal(signum)
    outcome = ended(process)
    if fault := outcome.fault(codes=(0, 128 + signum)):
        return fault
    saved = checkpoint.load(folder / "last.pt")["counters"]["iteration"]
    if saved < done - done // 20 - 2:
        return f"{signum.name} lost {done - saved} iterations"
    return whole.finish(folder)


def at_start(rng: random.Random, folder: Path, whole: Whole) -> str | None:
    """Ctrl-C while everything is still being imported: a sentence."""
    process = started("train", "--out", folder, *LONG)
    time.sleep(rng.uniform(0.15, 2))
    process.send_signal(signal.SIGINT)
    return ended(process).fault(codes=(0, 130)) or whole.finish(folder)


def two_at_once(rng: random.Random, folder: Path, whole: Whole) -> str | None:
    """Two processes, one folder: one run whole, the other refused; never a mixture."""
    resume = ["--resume"] if rng.random() < 0.5 else []
    both = []
    for seed in (0, 1 if rng.random() < 0.5 else 0):
        both.append(started("train", "--out", folder, *resume, *LONG, "--set", f"seed={seed}"))
        time.sleep(rng.uniform(0, 1.5))
    outcomes = [ended(process) for process in both]
    for outcome in outcomes:
        if fault := outcome.fault():
            return fault
    if not resume and sorted(one.code or 0 for one in outcomes) != [0, 2]:
        return "two runs into one new folder did not end as one and a refusal"
    states = [checkpoint.load(folder / name) for name in ("last.pt", "best.pt")]
    if states[0]["config_digest"] != states[1]["config_digest"]:
        return "a folder holds the files of two runs"
    rows = [row["iteration"] for row in read_metrics(folder / "metrics.jsonl")]
    return None if rows.count(60) == 2 and len(rows) == 63 else "lines of metrics are lost"


CONSOLES = {
    "closed error stream": '"$@" 2>&-',
    "full error stream": '"$@" 2>/dev/full',
    "a reader that leaves": '"$@" 2>&1 | head -1; exit ${PIPESTATUS[0]}',
    "everything closed": '"$@" <&- >&- 2>&-',
    "ASCII": 'PYTHONIOENCODING=ascii "$@"',
    "no locale": 'LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 "$@"',
    "no home": 'env -u HOME "$@"',
    "narrow": 'COLUMNS=1 "$@"',
}


def consoles(rng: random.Random, folder: Path, whole: Whole) -> str | None:
    """No console ends a run."""
    name = rng.choice(list(CONSOLES))
    outcome = shell(CONSOLES[name], "train", "--out", folder, *LONG)
    fault = outcome.fault(codes=(0,)) or whole.difference(folder)
    return None if fault is None else f"{name}: {fault}"


def results(rng: random.Random, folder: Path, whole: Whole) -> str | None:
    """No console loses a result: the numbers of an evaluation are written."""
    arguments = ["evaluate", whole.folder, "--tasks", 2]
    for name, script in {
        "ASCII": 'PYTHONIOENCODING=ascii "$@"',
        "full output": '"$@" 2>&1 >/dev/full',
        "closed output": '"$@" 2>&1 >&-',
    }.items():
        outcome = shell(script, *arguments)
        if fault := outcome.fault():
            return f"{name}: {fault}"
        if "+/-" not in outcome.out and "±" not in outcome.out:
            return f"{name}: the numbers are lost"
    return None


@contextmanager
def small_disk(folder: Path, kibibytes: int) -> Iterator[bool]:
    """The folder on a disk of its own, where this process may mount one."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def full_disk(rng: random.Random, folder: Path, whole: Whole) -> str | None:
    """No room left: a sentence that names a file, the last checkpoint intact, the same digest."""
    needed = sum(path.stat().st_size for path in whole.folder.iterdir() if path.is_file()) // 1024
    kibibytes = rng.randrange(needed // 3, needed + 8)
    with small_disk(folder, kibibytes) as mounted:
        if mounted:
            outcome = command("train", "--out", folder / "run", *LONG)
        else:
            limit = rng.randrange(1, needed // 2)
            outcome = shell(
                f'ulimit -f {limit}; exec "$@"', "train", "--out", folder / "run", *LONG
            )
        if fault := outcome.fault():
            return fault
        if outcome.code and str(folder) not in outcome.err.splitlines()[-1]:
            return f"names no file: {outcome.err.splitlines()[-1]}"
        moved = folder.with_name(folder.name + "-moved")
        if (folder / "run").exists():
            shutil.copytree(folder / "run", moved)
    if not (moved / "last.pt").exists():
        return None
    try:
        return whole.finish(moved)
    finally:
        shutil.rmtree(moved)


def several(rng: random.Random, folder: Path, whole: Whole) -> str | None:
    """torchrun: a worker is killed; the others end with a sentence, and the run goes on alone."""
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    line += ["-m", "mdtheory", "train", "--out", str(folder), *LONG]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "dumb"}
    process = subprocess.Popen(
        line,
        env=env,
        text=True,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    wait_for(process, folder, rng.randrange(1, 30))
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True)
    workers = [int(word) for word in found.stdout.split()]
    if workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(rng.choice(workers), signal.SIGKILL)
    outcome = ended(process)
    if outcome.code is None:
        return "hangs"
    return whole.finish(folder) if (folder / "last.pt").exists() else None


def stopped_worker(rng: random.Random, folder: Path, whole: Whole) -> str | None:
    """A worker that is stopped (SIGSTOP) is not waited for for ever."""
    from tests.meta.processes import run

    answers = run(2, _stop_second, timeout=rng.uniform(1, 3))
    said = str(answers[0])
    return None if said.startswith("PeerLostError: ") else f"the other says {said[:100]!r}"


def _stop_second(processes: Any) -> None:
    if processes.rank == 1:
        time.sleep(0.2)
        subprocess.Popen(["bash", "-c", f"sleep 5; kill -CONT {os.getpid()}"])
        os.kill(os.getpid(), signal.SIGSTOP)
    processes.all_reduce_max(0)


RUNS = {
    "killed three times": killed,
    "asked to stop": asked,
    "Ctrl-C at the start": at_start,
    "two runs, one folder": two_at_once,
    "consoles": consoles,
    "results": results,
    "full disk": full_disk,
    "torchrun, a worker killed": several,
    "torchrun, a worker stopped": stopped_worker,
}

__all__ = ["RUNS", "Outcome", "Whole"]
