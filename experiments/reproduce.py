"""Rerun the cells of the tables: ``python -m experiments.reproduce --tier cpu --row metamida --shot
1``.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from experiments import factorial, shards, tuned
from experiments.cells import TIERS, tier
from experiments.generated import ROOT
from experiments.records import FOLDER, Record
from experiments.status import STATES, UNFINISHED, Run, describe, lines, wanted

# glibc gives every freed block back to the system, and convolutions free large ones all the time:
# up to half of their time
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_TOP_PAD_": str(2**26),
}
STARTED = 2.0  # seconds between two looks at the processes
OUT_OF_TIME, DIVERGED = 75, 3  # exit codes of experiments.run
CARRIED = ("last.pt", "best.pt", "metrics.jsonl", "scores.json", "paths.json", "clock.json")


Tier = Annotated[
    str | None, typer.Option("--tier", help=f"{', '.join(TIERS)}; needed unless --status.")
]
Row = Annotated[
    str | None, typer.Option("--row", help="Only this row of the table, e.g. metamida.")
]
Shot = Annotated[int | None, typer.Option("--shot", help="Only this many images per class.")]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Instead of the tier's seeds.")]
Minutes = Annotated[
    float | None, typer.Option("--minutes", min=0, help="Stop in time; the next call goes on.")
]
Jobs = Annotated[
    int, typer.Option("--jobs", min=1, help="Cells at once, each in a process of its own.")
]
Device = Annotated[
    str | None, typer.Option("--device", help="auto, cpu, cuda or cuda:N: not the cell's own.")
]
Status = Annotated[
    bool, typer.Option("--status", help="Only say what is done and what is missing.")
]
Json = Annotated[
    bool, typer.Option("--json", help="Write the status as JSON, and nothing else, to stdout.")
]
Into = Annotated[
    Path | None, typer.Option("--into", metavar="DIR", help="Keep records and states there.")
]
Pack = Annotated[
    bool,
    typer.Option(
        "--pack",
        help="Also leave what is unfinished in experiments/unfinished, in pieces for git.",
    ),
]


def main(
    tier_: Tier = None,
    row: Row = None,
    shot: Shot = None,
    seed: Seed = None,
    minutes: Minutes = None,
    jobs: Jobs = 1,
    device: Device = None,
    status: Status = False,
    json_: Json = False,
    into: Into = None,
    pack: Pack = False,
) -> None:
    """Train and test the cells asked for that have no record yet, and write their records.

    Every cell is stopped and resumed without a trace in its numbers: Ctrl-C,
    SIGTERM and --minutes all save first. Cells of one tier see the same tasks.

    Examples:

      python -m experiments.reproduce --tier smoke --jobs 2

      python -m experiments.reproduce --tier cpu --row metamida --shot 1 --minutes 25

      python -m experiments.reproduce --tier omniglot-b --device cuda --minutes 25

      python -m experiments.reproduce --status --json

    --json: a list of objects with row, shot, tier, seed, iterations, target,
    protocol, accuracy (a share of 1), interval (the half-width of its 95%
    interval), record, state; one object for each test protocol of a cell.
    """
    if not status and tier_ is None:
        raise typer.BadParameter(f"--tier must be one of {', '.join(TIERS)}; --status needs none")
    records = FOLDER if into is None else into / "records"
    states = STATES if into is None else into / "state"
    try:
        names = TIERS if tier_ is None else [tier(tier_).name]
        runs = wanted(names, row=row, shot=shot, seed=seed, records=records, states=states)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if device is not None and not status:
        require(device)
        runs = [replace(run, device=device) for run in runs]
    code = 0 if status else work_on(runs, minutes=minutes, jobs=jobs, pack=pack)
    objects = [one for run in runs for one in describe(run)]
    told = lines(objects) + not_taken_apart(runs) + not_tuned(names)
    typer.echo(json.dumps(objects, indent=1) if json_ else "\n".join(told))
    raise typer.Exit(code)


def not_taken_apart(runs: list[Run]) -> list[str]:
    """A line for every finished run with kept weights whose start and geometry have not been
    separated, one for every tier where that was done on fewer test tasks than the tier has, and
    one for every tier with finished runs whose weights were not kept.
    """
    names = {run.name for run in runs if run.records == FOLDER}
    found = [
        f"start or geometry: {name} is missing; python -m experiments.factorial tests it"
        for name in factorial.missing()
        if name in names
    ]
    found += fewer_tasks(names)
    lost: dict[str, dict[str, None]] = {}
    for record in factorial.without_weights():
        if record.folder.name in names and record.result.tier != "smoke":
            lost.setdefault(record.result.tier, {})[record.result.row] = None
    return found + [
        f"start or geometry: tier {name} kept no weights of {', '.join(its)}; without its folder "
        "in records/ a cell is trained again, and keeps what its tier now names"
        for name, its in lost.items()
    ]


def fewer_tasks(names: set[str]) -> list[str]:
    """A line for every tier with runs that were taken apart on fewer tasks than it tests."""
    few: dict[tuple[str, int], list[int]] = {}
    for one in factorial.read():
        record = Record(FOLDER / one.record)
        whole = record.config.test.tasks
        if one.record in names and one.tasks < whole:
            few.setdefault((record.result.tier, whole), []).append(one.tasks)
    return [
        f"start or geometry: {len(those)} of tier {name} on {min(those)} or more of its "
        f"{whole:,} test tasks; python -m experiments.factorial --tier {name} goes on"
        for (name, whole), those in few.items()
    ]


def not_tuned(names: Sequence[str]) -> list[str]:
    """A line for every row that has no rates of its own."""
    return [
        f"own rates: {cell.tier} {cell.row} is missing; "
        f"python -m experiments.tuned --tier {cell.tier} --row {cell.row} tunes it"
        for cell in tuned.missing()
        if cell.tier in names
    ]


def require(device: str) -> None:
    """One sentence and exit code 2 where there is no such device."""
    from mdtheory.run.build import pick_device

    try:
        pick_device(device)
    except ValueError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None


def work_on(
    runs: list[Run], *, minutes: float | None = None, jobs: int = 1, pack: bool = False
) -> int:
    """Carry out every run without a record; 0 unless one failed or a signal came (then 128 + its
    number).
    """
    until = time.time() + 60 * minutes if minutes is not None else float("inf")
    queue = [replace(run, until=until) for run in runs if not run.record.is_dir()]
    for run in queue:
        unpack(run)
    running: dict[Run, subprocess.Popen[bytes]] = {}
    failed: list[str] = []
    with forwarded_signals(running) as caught:
        while running or (queue and not caught and time.time() < until):
            ready = [run for run in queue if _may_start(run, running)]
            while ready and len(running) < jobs and not caught and time.time() < until:
                run = ready.pop(0)
                queue.remove(run)
                running[run] = start(run)
                ready = [run for run in ready if _may_start(run, running)]
            time.sleep(STARTED / 10 if len(running) < jobs else STARTED / 4)
            failed += _ended(running, silent=bool(caught))
    for run in runs:
        if run.record.is_dir():
            shutil.rmtree(UNFINISHED / run.name, ignore_errors=True)
        elif pack:
            pack_up(run)
    for sentence in failed:
        typer.echo(sentence, err=True)
    return 128 + caught[0] if caught else int(bool(failed))


def _ended(running: dict[Run, subprocess.Popen[bytes]], *, silent: bool) -> list[str]:
    """Take the processes that have ended out of ``running``; a sentence for each that failed."""
    failed = []
    for run in [run for run, process in running.items() if process.poll() is not None]:
        code = running.pop(run).returncode
        if code not in (0, OUT_OF_TIME) and not silent:
            failed.append(f"{run.name}: {'diverged' if code == DIVERGED else f'exit code {code}'}")
    return failed


def _may_start(run: Run, running: dict[Run, Any]) -> bool:
    """Not while the MAML cell of the same kind runs, whose weights are the common start."""
    return not any((other.cell, other.seed) == (run.cell.start, run.seed) for other in running)


def start(run: Run) -> subprocess.Popen[bytes]:
    """One cell in a process of its own."""
    cell = run.cell
    command = [sys.executable, "-m", "experiments.run", "--tier", cell.tier, "--row", cell.row]
    command += ["--shot", str(cell.shot), "--seed", str(run.seed), "--until", str(run.until)]
    command += ["--records", str(run.records.absolute()), "--states", str(run.states.absolute())]
    command += [] if run.device is None else ["--device", run.device]
    threads = str(run.config.threads or 1)
    return subprocess.Popen(
        command, cwd=ROOT, env={**MALLOC, **os.environ, "OMP_NUM_THREADS": threads}
    )


@contextmanager
def forwarded_signals(running: dict[Run, subprocess.Popen[bytes]]) -> Iterator[list[int]]:
    """Inside, SIGINT and SIGTERM are noted in the list and handed on to every process once."""
    caught: list[int] = []

    def note(signum: int, frame: object) -> None:
        caught.append(signum)
        for process in running.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)

    before = {signum: signal.signal(signum, note) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def pack_up(run: Run, *, target: Path = UNFINISHED) -> None:
    """Copy a cell's state to where git sees it, in pieces."""
    if not (run.state / "last.pt").is_file():
        return
    (target / run.name).mkdir(parents=True, exist_ok=True)
    for name in CARRIED:
        if (run.state / name).is_file():
            shards.write((run.state / name).read_bytes(), target / run.name / name)


def unpack(run: Run, *, origin: Path = UNFINISHED) -> None:
    """Put a packed state back, unless there is one already."""
    if (run.state / "last.pt").is_file() or not shards.pieces(origin / run.name / "last.pt"):
        return
    (run.state).mkdir(parents=True, exist_ok=True)
    for name in CARRIED:
        if shards.pieces(origin / run.name / name):
            (run.state / name).write_bytes(shards.read(origin / run.name / name))


if __name__ == "__main__":
    typer.run(main)
