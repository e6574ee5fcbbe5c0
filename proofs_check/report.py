"""The ledger as a table, as JSON and as the file that CI compares; ``python -m proofs_check``."""

from __future__ import annotations

import json
import math
import os
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from proofs_check.claim import Claim, Statement
from proofs_check.engine import run_all
from proofs_check.ids import IDS
from proofs_check.run import Quantity
from proofs_check.verdict import CheckResult, Row

LEDGER = Path(__file__).with_name("ledger.json")
TIMES = Path("out/ledger_times.json")
_COLOUR = {"OK": "green", "NOT_RUN": "yellow", "INCONSISTENT": "red"}


def counts(row: Row) -> tuple[int, int]:
    """(mutants, mutants killed) of a claim."""
    mutants = [mutant for check in row.result.checks for mutant in check.mutants]
    return len(mutants), sum(mutant.killed for mutant in mutants)


def rounded(quantity: Quantity) -> float:
    """The value to a tenth of its tolerance, so that another machine's last digits do not change
    the file.
    """
    if quantity.tolerance == 0.0:
        return quantity.value
    return round(quantity.value, max(0, 1 - math.floor(math.log10(quantity.tolerance))))


def _check(result: CheckResult, claim: Claim) -> dict[str, Any]:
    check = next(check for check in claim.checks if check.name == result.name)
    return {
        "name": result.name,
        "kind": check.kind,
        "about": check.about,
        "part": check.part,
        "effect": "refutes" if check.refutes else "proves" if check.is_proof else "supports",
        "drops": list(check.drops),
        "rests_on": check.rests_on,
        "what": " ".join((check.function.__doc__ or "").split()),
        "passed": result.passed,
        "mutants": len(result.mutants),
        "mutants_killed": sum(mutant.killed for mutant in result.mutants),
        "mutant_names": [mutant.name for mutant in result.mutants],
    }


def entry(row: Row) -> dict[str, Any]:
    """A claim for ``--json``: everything but its text."""
    mutants, killed = counts(row)
    quantities = [quantity for check in row.result.checks for quantity in check.quantities]
    return {
        "id": row.id,
        "as_printed": row.verdict.as_printed,
        "amended": row.verdict.amended,
        "status": row.status,
        "reasons": list(row.reasons),
        "parts": dict(row.parts),
        "checks": [_check(result, row.claim) for result in row.result.checks] if row.claim else [],
        "mutants": mutants,
        "mutants_killed": killed,
        "quantities": {
            q.name: {
                "value": rounded(q),
                "exact": q.exact,
                "tolerance": q.tolerance,
                "meaning": q.meaning,
            }
            for q in quantities
        },
        "seconds": round(row.result.seconds, 3),
    }


def _statement(statement: Statement | None) -> dict[str, Any] | None:
    if statement is None:
        return None
    return {"given": dict(statement.given), "then": statement.then, "parts": dict(statement.parts)}


def ledger(rows: Mapping[str, Row]) -> str:
    """The file that CI compares: text and findings of every claim, no times, no versions."""
    lines = []
    for row in rows.values():
        found = entry(row)
        del found["seconds"]
        claim = row.claim
        text: dict[str, Any] = {}
        if claim is not None:
            text = {
                "title": claim.title,
                "source": claim.source,
                "uses": list(claim.uses),
                "remark": claim.remark,
            }
            text |= {
                "printed": _statement(claim.printed),
                "amended_statement": _statement(claim.amended),
            }
        lines.append({**found, **text})
    return json.dumps(lines, indent=1, ensure_ascii=False) + "\n"


def times(rows: Mapping[str, Row]) -> str:
    """What changes on every run."""
    packages = (
        "torch",
        "numpy",
        "scipy",
        "sympy",
        "PEPit",
        "cvxpy",
        "clarabel",
        "scs",
        "python-flint",
        "hypothesis",
    )
    seconds = {
        row.id: {
            "total": round(row.result.seconds, 3),
            **{c.name: round(c.seconds, 3) for c in row.result.checks},
        }
        for row in rows.values()
    }
    versions = {"python": platform.python_version(), **{name: version(name) for name in packages}}
    return json.dumps({"seconds": seconds, "versions": versions}, indent=1) + "\n"


def differences(old: str, new: str) -> list[str]:
    """What differs between two ledgers: numbers within their tolerance are equal, all else must be
    the same.
    """
    before, after = ({claim["id"]: claim for claim in json.loads(text)} for text in (old, new))
    found = [f"{name}: only in one of the two" for name in sorted(set(before) ^ set(after))]
    for name in after:
        if name not in before:
            continue
        a, b = before[name], after[name]
        found += [
            f"{name}: {key} differs" for key in b if key != "quantities" and a.get(key) != b[key]
        ]
        p, q = a["quantities"], b["quantities"]
        found += [f"{name}: quantity {key!r} only in one" for key in sorted(set(p) ^ set(q))]
        found += [
            f"{name}: quantity {key!r} differs"
            for key in p
            if key in q and not _same(p[key], q[key])
        ]
    return found


def _same(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    same_words = all(a[key] == b[key] for key in ("exact", "tolerance", "meaning"))
    return same_words and math.isclose(
        a["value"], b["value"], rel_tol=1e-12, abs_tol=1.2 * a["tolerance"]
    )


def table(rows: Mapping[str, Row]) -> Table:
    """The ledger for a terminal."""
    drawn = Table(
        title="The referee's ledger",
        caption="killed: mutants that their check rejected",
        box=SIMPLE_HEAD,
    )
    for heading in (
        "id",
        "claim",
        "as printed",
        "amended",
        "checks",
        "killed",
        "seconds",
        "status",
    ):
        drawn.add_column(heading, no_wrap=True, max_width=46)
    for row in rows.values():
        mutants, killed = counts(row)
        verdict, title = row.verdict, row.claim.title if row.claim else ""
        numbers = (str(len(row.result.checks)), f"{killed}/{mutants}", f"{row.result.seconds:.1f}")
        status = f"[{_COLOUR[row.status]}]{row.status}[/]"
        drawn.add_row(row.id, title, verdict.as_printed, verdict.amended, *numbers, status)
    return drawn


def _run(names: list[str], jobs: int) -> dict[str, Row]:
    columns = (
        TextColumn("{task.description:>12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("running", total=None)

        def start(total: int) -> None:
            progress.update(task, total=total)

        return run_all(
            names,
            jobs=jobs,
            started=start,
            done=lambda name: progress.update(task, description=name, advance=1),
        )


def main(
    ids: Annotated[
        list[str] | None, typer.Argument(help="Claims to run; all 46 without any.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON instead of the table.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail where ledger.json differs.")
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = min(2, os.cpu_count() or 1),
) -> None:
    """Run claims of the poster and print their verdicts; exit 1 on any surprise.

    A run of all claims also writes ledger.json beside this package and out/ledger_times.json.
    """
    wanted = ids or list(IDS)
    unknown = [name for name in wanted if name not in IDS]
    if unknown:
        raise typer.BadParameter(f"ids must be among {', '.join(IDS)}; got {', '.join(unknown)}")
    rows = _run(wanted, jobs)
    shown = {name: rows[name] for name in sorted(set(wanted), key=IDS.index)}
    surprises = [
        f"{row.id}: {reason}"
        for row in shown.values()
        for reason in row.reasons or (row.status,)
        if row.status != "OK"
    ]
    if not ids:
        surprises += _keep(shown, check)
    if as_json:
        sys.stdout.write(
            json.dumps([entry(row) for row in shown.values()], indent=1, ensure_ascii=False) + "\n"
        )
    else:
        Console(width=max(Console().width, 128)).print(table(shown))
    for line in surprises:
        Console(stderr=True).print(line, style="red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(1 if surprises else 0)


def _keep(rows: Mapping[str, Row], check: bool) -> list[str]:
    """Write the two files, or with ``check`` only compare; what differs is a surprise."""
    text = ledger(rows)
    if check:
        if not LEDGER.exists():
            return ["ledger.json does not exist; run python -m proofs_check and commit it"]
        return [
            f"ledger.json: {line}; run python -m proofs_check"
            for line in differences(LEDGER.read_text(), text)
        ]
    LEDGER.write_text(text)
    TIMES.parent.mkdir(parents=True, exist_ok=True)
    TIMES.write_text(times(rows))
    return []
