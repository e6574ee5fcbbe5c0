"""The fault campaign: ``python -m tests.faults --minutes 10``.

Runs are killed, stopped and starved, files damaged, inputs made up, processes set against each
other, all at random from a seed; every case must be survived: nothing lost, nothing silent, no
traceback, no hang. Prints the table tried / survived / lost and every case that was not survived.
"""

from __future__ import annotations

import itertools
import random
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Annotated

import typer

from tests.faults.inputs import INPUTS
from tests.faults.runs import RUNS, Whole

KINDS = {**INPUTS, **RUNS}


def attempt(kind: str, seed: int, root: Path, whole: Whole) -> str | None:
    """One case; what was lost, or ``None``. The same seed makes the same case."""
    folder = root / f"case-{kind.replace(' ', '-').replace(',', '')}-{seed}"
    try:
        return KINDS[kind](random.Random(f"{kind} {seed}"), folder, whole)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def campaign(
    minutes: float, *, seed: int, kinds: list[str], at_most: int | None = None
) -> tuple[dict[str, int], list[tuple[str, int, str]]]:
    """Cases of all kinds in turn until the time is up; how many were tried, and what was lost."""
    tried, lost = dict.fromkeys(kinds, 0), []
    deadline = time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory(prefix="mdtheory-faults-") as folder:
        whole = Whole(Path(folder) / "whole")
        for number in itertools.count(seed):
            for kind in kinds:
                if time.monotonic() >= deadline or tried[kind] == at_most:
                    continue
                found = attempt(kind, number, Path(folder), whole)
                tried[kind] += 1
                if found is not None:
                    lost.append((kind, number, found))
            if time.monotonic() >= deadline or all(n == at_most for n in tried.values()):
                return tried, lost
    raise AssertionError("the count never ends")


def table(tried: dict[str, int], lost: list[tuple[str, int, str]]) -> str:
    """Tried, survived and lost by kind, and the cases that were lost."""
    rows = [f"{'kind':28} {'tried':>6} {'survived':>9} {'lost':>5}"]
    counts = {kind: sum(one == kind for one, _, _ in lost) for kind in tried}
    for kind, n in {**tried, "all": sum(tried.values())}.items():
        bad = counts.get(kind, len(lost))
        rows.append(f"{kind:28} {n:6} {n - bad:9} {bad:5}")
    rows += [f"{kind}, --seed {seed}: {found}" for kind, seed, found in lost]
    return "\n".join(rows)


def main(
    minutes: Annotated[float, typer.Option(help="How long.")] = 10.0,
    seed: Annotated[int, typer.Option(help="The first case's number.")] = 0,
    only: Annotated[list[str] | None, typer.Option(help="These kinds; repeat it.")] = None,
    at_most: Annotated[int | None, typer.Option(help="Cases of each kind.")] = None,
) -> None:
    """Disturb it in every way, and count what survives; exit code 1 if anything was lost."""
    if unknown := set(only or ()) - set(KINDS):
        raise typer.BadParameter(f"must be among {', '.join(KINDS)}, got {', '.join(unknown)}")
    tried, lost = campaign(minutes, seed=seed, kinds=only or list(KINDS), at_most=at_most)
    print(table(tried, lost))
    sys.exit(bool(lost))


if __name__ == "__main__":
    typer.run(main)
