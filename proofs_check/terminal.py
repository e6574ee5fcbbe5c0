"""The ledger and one claim on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from proofs_check.engine import paths
from proofs_check.formula import text_of
from proofs_check.statement import STRENGTHS, Statement
from proofs_check.verdict import Row, false_variants

_COLOUR = {"OK": "green", "NOT_RUN": "yellow", "INCONSISTENT": "red"}


def table(rows: Mapping[str, Row]) -> Table:
    """The ledger."""
    drawn = Table(
        title="The referee's ledger",
        caption="killed: mutants that their check rejected; false: falsified statements rejected",
        box=SIMPLE_HEAD,
    )
    headings = ("id", "claim", "as printed", "amended", "checks", "killed", "false", "s", "status")
    for heading in headings:
        drawn.add_column(heading, no_wrap=True, max_width=44)
    for row in rows.values():
        mutants = [mutant for check in row.result.checks for mutant in check.mutants]
        false = false_variants(row)
        numbers = (
            str(len(row.result.checks)),
            f"{sum(one.killed for one in mutants)}/{len(mutants)}",
            f"{sum(one.killed for one in false)}/{len(false)}",
            f"{row.result.seconds:.1f}",
        )
        title = row.claim.title if row.claim else ""
        status = f"[{_COLOUR[row.status]}]{row.status}[/]"
        verdict = row.verdict
        drawn.add_row(row.id, title, verdict.as_printed, verdict.amended, *numbers, status)
    return drawn


def story(row: Row) -> str:
    """One claim in words: statements, verdicts by part, counterexamples, where the proof is."""
    claim = row.claim
    if claim is None:
        return f"{row.id}: no file holds it"
    lines = [f"{row.id}: {claim.title}", f"Source: {claim.source}.", ""]
    lines += ["As printed:", *_statement(claim.printed), f"Verdict: {row.verdict.as_printed}", ""]
    if claim.amended is not None:
        lines += ["Amended:", *_statement(claim.amended)]
        lines += [f"Verdict: {row.verdict.amended} ({STRENGTHS[row.verdict.amended]})", ""]
    lines += ["Part by part:"]
    for name, part in row.parts.items():
        by = ", ".join(part.checks) or part.page or "nothing"
        count = "" if part.verdict == "PROVED" else f", {part.comparisons} comparisons"
        lines.append(f"  {name or 'the statement'}: {part.verdict} ({part.scope}{count}) by {by}")
    refutations = [check for check in claim.checks if check.kind == "counterexample"]
    if refutations:
        lines += ["", "Counterexamples:"]
        lines += [f"  {check.name}: {_first(check.function.__doc__)}" for check in refutations]
    files = ", ".join(
        str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
        for path in paths(row.id)
    )
    lines += ["", f"The proof stands at the head of {files}."]
    lines += [f"Remark: {claim.remark}"] if claim.remark else []
    return "\n".join(lines)


def _statement(statement: Statement) -> list[str]:
    lines = [f"  given ({name}) {text_of(text)}" for name, text in statement.given.items()]
    lines.append(f"  {text_of(statement.then)}")
    return lines + [f"  ({name}) {text_of(text)}" for name, text in statement.parts.items()]


def _first(text: str | None) -> str:
    return " ".join((text or "").split())
