"""Run a tier afresh and compare with the records in git: ``python -m experiments.rerun --tier smoke
--out out/smoke --jobs 2``.

On the same machine (processor, torch, numpy, a C++ compiler or none) every compared file and the
tier's page must have the same bytes. On another, the mean accuracies must agree within three
standard errors of the difference of two unpaired tests, and never better than 2 points: a few
training steps already amplify the last bits.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from experiments import tables
from experiments.cells import TIERS, tier
from experiments.provenance import machine
from experiments.records import COMPARED, FOLDER, Record
from experiments.reproduce import work_on
from experiments.result_tables import read
from experiments.status import Run, wanted
from mdtheory.core.estimate import Z95

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
            LEAST_TOLERANCE, ERRORS * (one.half_width**2 + other.half_width**2) ** 0.5 / Z95
        )
        if abs(one.accuracy - other.accuracy) > allowed:
            found.append(
                f"{mine.name} must have an accuracy of {other.accuracy:.4f} ± {allowed:.4f}, got "
                f"{one.accuracy:.4f} "
                f"({one.n_query} per class, {one.norm})"
            )
    return found


def borrow_maml(runs: list[Run], records: Path) -> None:
    """Copy the MAML records from git: the common start of one row alone."""
    for run in runs:
        name = run.cell.start.record(run.seed)
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


def main(
    out: Annotated[Path, typer.Option(help="An empty or half-finished folder for the records.")],
    tier_: Annotated[str, typer.Option("--tier", help=", ".join(TIERS))] = "smoke",
    row: Annotated[
        str | None, typer.Option(help="Only this row; the page is then not compared.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Cells at once.")] = 1,
    accept: Annotated[
        bool, typer.Option("--accept", help="Put the fresh records into git's place.")
    ] = False,
) -> None:
    """Run a tier afresh; exit code 0 when everything agrees with the records in git."""
    name, records = tier(tier_).name, out / "records"
    runs = wanted([name], row=row, records=records, states=out / "state")
    if {run.cell.start for run in runs} - {run.cell for run in runs}:
        borrow_maml(runs, records)
    if code := work_on(runs, jobs=jobs):
        raise typer.Exit(code)
    found = [line for run in runs for line in differences(run.record, FOLDER / run.name)]
    page = tables.tier_page(name, read(records))
    (out / f"{name}.md").write_text(page, encoding="utf-8")
    kept = [Record(FOLDER / run.name) for run in runs if (FOLDER / run.name).is_dir()]
    exact, whole = all(map(same_machine, kept)), row is None and not tier(name).like
    if whole and exact and page != (tables.OUT / f"{name}.md").read_text(encoding="utf-8"):
        found.append(f"{out / name}.md must equal experiments/results/{name}.md")
    for sentence in found:
        typer.echo(sentence)
    if accept:
        for run in runs:
            shutil.rmtree(FOLDER / run.name, ignore_errors=True)
            shutil.copytree(run.record, FOLDER / run.name)
    kind = "the same bytes" if exact else "within tolerance, as on another machine"
    verdict = "they differ" if found else kind
    cells = f"{len(runs)} cell{'s' * (len(runs) != 1)}"
    typer.echo(f"{cells} of tier {name}: {verdict}; the page is in {out}")
    raise typer.Exit(int(bool(found)))


if __name__ == "__main__":
    typer.run(main)
