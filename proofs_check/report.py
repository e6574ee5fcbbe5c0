"""The ledger as a table, as JSON and as the file that CI compares; ``python -m proofs_check``."""

from __future__ import annotations

import json
import math
import os
import platform
import sys
from collections.abc import Mapping
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from mdtheory.core.progress import PATIENCE, ProgressBar
from proofs_check import kernel
from proofs_check.claim import Claim, Statement
from proofs_check.engine import modules, plug_in, run_all
from proofs_check.ids import by_order
from proofs_check.run import Quantity
from proofs_check.terminal import story, table
from proofs_check.verdict import CheckResult, Part, Row, false_variants

LEDGER = Path(__file__).with_name("ledger.json")
TIMES = Path("out/ledger_times.json")


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
        "covers": check.covers,
        "refutes": check.refutes,
        "drops": list(check.drops),
        "rests_on": check.rests_on,
        "what": " ".join((check.function.__doc__ or "").split()),
        "passed": result.passed,
        "mutants": len(result.mutants),
        "mutants_killed": sum(mutant.killed for mutant in result.mutants),
        "mutant_names": [mutant.name for mutant in result.mutants],
        "comparisons": result.comparisons,
        "theorem": _theorem(check.theorem),
    }


def _theorem(name: str) -> dict[str, Any] | None:
    if not name:
        return None
    found = kernel.theorem(name)
    return {"name": name, "file": found.file, "axioms": list(found.axioms)}


def _part(part: Part) -> dict[str, Any]:
    return {
        "verdict": part.verdict,
        "scope": part.scope,
        "checks": list(part.checks),
        "comparisons": part.comparisons,
        "page": part.page,
    }


def entry(row: Row) -> dict[str, Any]:
    """A claim for ``--json``: everything but its text."""
    mutants, killed = counts(row)
    false = false_variants(row)
    quantities = [quantity for check in row.result.checks for quantity in check.quantities]
    return {
        "id": row.id,
        "as_printed": row.verdict.as_printed,
        "amended": row.verdict.amended,
        "status": row.status,
        "reasons": list(row.reasons),
        "parts": {name: _part(part) for name, part in row.parts.items()},
        "checks": [_check(result, row.claim) for result in row.result.checks] if row.claim else [],
        "mutants": mutants,
        "mutants_killed": killed,
        "false_statements": len(false),
        "false_statements_rejected": sum(one.killed for one in false),
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
    return statement.texts()


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
    before, after = ({c["id"]: _without_counts(c) for c in json.loads(text)} for text in (old, new))
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


def _without_counts(claim: dict[str, Any]) -> dict[str, Any]:
    """How many comparisons a check made depends on the profile of the sampling, and says nothing
    about the claim.
    """
    for found in (*claim["checks"], *claim["parts"].values()):
        found.pop("comparisons", None)
    return claim


def _same(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    same_words = all(a[key] == b[key] for key in ("exact", "tolerance", "meaning"))
    return same_words and math.isclose(
        a["value"], b["value"], rel_tol=1e-12, abs_tol=1.2 * a["tolerance"]
    )


def _run(names: list[str], jobs: int) -> dict[str, Row]:
    finished, whole = 0, len(names)
    with closing(ProgressBar("claims", patience=PATIENCE)) as bar:

        def start(total: int) -> None:
            nonlocal whole
            whole = total

        def done(name: str) -> None:
            nonlocal finished
            finished += 1
            bar.update(finished, whole, note=name)

        return run_all(names, jobs=jobs, started=start, done=done)


def main(
    ids: Annotated[
        list[str] | None, typer.Argument(help="Claims to run and to tell; all without any.")
    ] = None,
    plugin: Annotated[
        list[Path] | None, typer.Option("--plugin", help="A file with a claim of your own.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON instead of the table.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail where ledger.json differs.")
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = min(2, os.cpu_count() or 1),
) -> None:
    """Run claims and print their verdicts, statements and counterexamples; exit 1 on any surprise.

    A run of all claims also writes ledger.json beside this package and out/ledger_times.json.
    """
    try:
        own = plug_in(plugin or [])
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    known = {name.lower(): name for name in (*modules(), *own)}
    unknown = [name for name in ids or () if name.lower() not in known]
    if unknown:
        raise typer.BadParameter(
            f"ids must be among {', '.join(known.values())}; got {', '.join(unknown)}"
        )
    wanted = [known[name.lower()] for name in ids or ()] or own or list(modules())
    rows = _run(wanted, jobs)
    shown = {name: rows[name] for name in sorted(set(wanted), key=by_order)}
    surprises = [
        f"{row.id}: {reason}"
        for row in shown.values()
        for reason in row.reasons or (row.status,)
        if row.status != "OK"
    ]
    if not ids and not own:
        surprises += _keep(shown, check)
    if as_json:
        sys.stdout.write(
            json.dumps([entry(row) for row in shown.values()], indent=1, ensure_ascii=False) + "\n"
        )
    else:
        out = Console(width=max(Console().width, 132))
        for row in shown.values() if ids or own else ():
            out.print(story(row), markup=False, highlight=False)
            out.print()
        out.print(table(shown))
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
