"""Run a tier afresh and compare with the records in git: ``python -m experiments.rerun --tier smoke
--out out/smoke --jobs 2``.

On the same machine (processor, torch, numpy, a C++ compiler or none) every compared file and the
tier's page must have the same bytes. On another, the mean accuracies must agree within three
standard errors of the difference of two unpaired tests, and never better than 2 points: a few
training steps already amplify the last bits.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from experiments import tables
from experiments.cells import TIERS, tier
from experiments.provenance import machine
from experiments.records import COMPARED, FOLDER, Record
from experiments.reproduce import work_on
from experiments.result_tables import read
from experiments.status import Work, wanted

LEAST_TOLERANCE = 0.02  # of accuracy
ERRORS = 3.0  # standard errors


def differences(mine: Path, theirs: Path) -> list[str]:
    """What a fresh record has that the one in git has not, in sentences."""
    if not theirs.is_dir():
        return [f"{mine.name} must be in git, got no record; commit it"]
    fresh, kept = Record(mine), Record(theirs)
    if same_machine(kept):
        return [
            f"{mine.name}/{n} must have the same bytes"
            for n in COMPARED
            if (mine / n).read_bytes() != (theirs / n).read_bytes()
        ]
    found = []
    if (
        fresh.result.config_digest != kept.result.config_digest
        or fresh.result.data_digest != kept.result.data_digest
    ):
        found.append(f"{mine.name} must come from the same configuration and data")
    for one, other in zip(fresh.result.protocols, kept.result.protocols, strict=True):
        allowed = max(
            LEAST_TOLERANCE, ERRORS * (one.half_width**2 + other.half_width**2) ** 0.5 / 1.96
        )
        if abs(one.accuracy - other.accuracy) > allowed:
            found.append(
                f"{mine.name} must have an accuracy of {other.accuracy:.4f} ± {allowed:.4f}, got "
                f"{one.accuracy:.4f} "
                f"({one.n_query} per class, {one.norm})"
            )
    return found


def borrow_maml(works: list[Work], records: Path) -> None:
    """Copy the MAML records from git: the common start of one row alone."""
    for work in works:
        name = work.cell.start.record(work.seed)
        if (FOLDER / name).is_dir() and not (records / name).is_dir():
            shutil.copytree(FOLDER / name, records / name)


def same_machine(record: Record) -> bool:
    """Whether this process runs on the processor and the versions of a record, with compiled
    kernels or without as that did.
    """
    here, there = machine("cpu"), record.provenance.machine
    compiled = there.compiled is None or here.compiled == there.compiled
    return (
        (here.cpu, here.torch, here.numpy) == (there.cpu, there.torch, there.numpy)
        and compiled
        and there.gpu is None
    )


def main(arguments: list[str] | None = None) -> int:
    """0 when everything agrees."""
    parser = argparse.ArgumentParser(prog="python -m experiments.rerun", description=__doc__)
    parser.add_argument("--tier", choices=TIERS, default="smoke")
    parser.add_argument("--row", help="only this row; the page is then not compared")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="an empty or half-finished folder for the fresh records",
    )
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument(
        "--accept",
        action="store_true",
        help="after a deliberate change: put the fresh records into git's place",
    )
    given = parser.parse_args(arguments)
    works, records = wanted([given.tier], row=given.row), given.out / "records"
    if {work.cell.start for work in works} - {work.cell for work in works}:
        borrow_maml(works, records)
    if code := work_on(works, records=records, states=given.out / "state", jobs=given.jobs):
        return code
    found = [
        sentence
        for work in works
        for sentence in differences(records / work.name, FOLDER / work.name)
    ]
    page = tables.tier_page(given.tier, read(records))
    (given.out / f"{given.tier}.md").write_text(page, encoding="utf-8")
    exact = all(
        same_machine(Record(FOLDER / work.name)) for work in works if (FOLDER / work.name).is_dir()
    )
    if (
        given.row is None
        and not tier(given.tier).like
        and exact
        and page != (tables.OUT / f"{given.tier}.md").read_text(encoding="utf-8")
    ):
        found.append(f"{given.out / given.tier}.md must equal experiments/results/{given.tier}.md")
    for sentence in found:
        print(sentence)
    kind = "the same bytes" if exact else "within tolerance, as on another machine"
    if given.accept:
        for work in works:
            shutil.rmtree(FOLDER / work.name, ignore_errors=True)
            shutil.copytree(records / work.name, FOLDER / work.name)
    print(
        f"{len(works)} cells of tier {given.tier}: {'they differ' if found else kind}; the page is "
        f"in {given.out}"
    )
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
