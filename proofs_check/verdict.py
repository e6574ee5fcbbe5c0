"""How a verdict follows from what the checks found. Nothing here is typed by an author; it is all
computed.

A check is *sound* if it passed, can fail (has a mutant, or rejects a falsified statement) and
failed on every mutant. Only sound checks count.

Amended statement: a part is PROVED if a sound check covers its scope, VERIFIED if sound checks
compute cases of it, ARGUED if only a page carries it, OPEN otherwise. The statement is as strong as
its weakest part, and no stronger than the weakest claim (or part of a claim) it uses.

Printed statement:

1. refuted by a sound counterexample: NEEDS_CONDITIONS if the amendment only adds conditions (the
   conclusion is the same text), each counterexample violates one of the added conditions, and the
   amended statement is not OPEN; FALSE otherwise;
2. otherwise HOLDS if every part is PROVED;
3. otherwise EMPIRICAL if every part is VERIFIED, and all checks about it are statistical or
   experiments; VERIFIED if not all are;
4. otherwise OPEN.

A part whose statement is a formula must reject every false variant of it: a constant halved, an
exponent changed, the relation turned round, a condition dropped.

Status: OK if the verdict is the expected one, every check is sound, every falsified statement is
rejected, nothing is both proved and refuted, a counterexample drops each condition that
NEEDS_CONDITIONS adds, and what the claim uses is OK; NOT_RUN without a file; INCONSISTENT
otherwise, with the reasons.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from proofs_check.claim import Check, Claim
from proofs_check.run import Quantity
from proofs_check.statement import ENOUGH, RANK, AsPrinted, Scope, Statement, Strength, Verdict

Status = Literal["OK", "NOT_RUN", "INCONSISTENT"]


@dataclass(frozen=True)
class MutantResult:
    """``error`` is the message of an exception that is no honest failure; a mutant with one is not
    killed.
    """

    name: str
    killed: bool
    error: str = ""


@dataclass(frozen=True)
class CheckResult:
    """What running one check with its correct ingredients, and with each mutant, gave."""

    name: str
    passed: bool
    error: str
    mutants: tuple[MutantResult, ...]
    quantities: tuple[Quantity, ...]
    seconds: float
    stated: tuple[MutantResult, ...] = ()
    comparisons: int = 0

    @property
    def sound(self) -> bool:
        """Passed, and able to fail."""
        able = bool(self.mutants) or any(variant.killed for variant in self.stated)
        return self.passed and able and all(mutant.killed for mutant in self.mutants)


@dataclass(frozen=True)
class ClaimResult:
    """All checks of one claim; ``error`` if its file could not even be loaded."""

    id: str
    checks: tuple[CheckResult, ...] = ()
    error: str = ""

    @property
    def seconds(self) -> float:
        """Wall time of all checks and mutants."""
        return sum(check.seconds for check in self.checks)


@dataclass(frozen=True)
class Part:
    """How well one part of a statement is established, and by what. ``comparisons``: how many its
    checks made; ``page``: where it is argued; ``variants``: its formula, falsified.
    """

    verdict: Strength
    scope: Scope
    checks: tuple[str, ...] = ()
    comparisons: int = 0
    page: str = ""
    variants: tuple[MutantResult, ...] = ()


@dataclass(frozen=True)
class Row:
    """A line of the ledger."""

    id: str
    claim: Claim | None
    result: ClaimResult
    verdict: Verdict
    status: Status
    reasons: tuple[str, ...]
    parts: Mapping[str, Part] = field(default_factory=dict)

    def strength_of(self, part: str) -> Strength:
        """The verdict on the amended statement, or on one part of it; OPEN unless the whole claim
        is OK.
        """
        if self.status != "OK":
            return "OPEN"
        if part and part not in self.parts:
            raise ValueError(
                f"uses must name a part of {self.id}, one of {sorted(self.parts)}, got {part!r}; "
                "correct it"
            )
        return self.parts[part].verdict if part else self.verdict.amended


def _weakest(values: Iterable[Strength]) -> Strength:
    return min(values, key=RANK.__getitem__)


def variants(results: Sequence[CheckResult]) -> tuple[MutantResult, ...]:
    """The falsified statements of one part: rejected where one of its checks rejects it."""
    found: dict[str, MutantResult] = {}
    for result in results:
        for one in result.stated:
            before = found.get(one.name)
            if before is None or (one.killed and not before.killed):
                found[one.name] = one
    return tuple(found.values())


def established(
    statement: Statement, sound: Sequence[Check], results: Mapping[str, CheckResult]
) -> dict[str, Part]:
    """What the sound checks make of each part."""

    def of_part(name: str) -> Part:
        scope, page = statement.scope(name), statement.argued.get(name, "")
        checks = [check for check in sound if check.part == name]
        covered = any(check.covers in ENOUGH[scope] for check in checks)
        verdict: Strength = "PROVED" if covered else "VERIFIED" if checks else "OPEN"
        if not checks and page:
            verdict = "ARGUED"
        mine = [results[check.name] for check in checks]
        return Part(
            verdict=verdict,
            scope=scope,
            checks=tuple(check.name for check in checks),
            comparisons=sum(result.comparisons for result in mine),
            page=page,
            variants=variants(mine),
        )

    return {name: of_part(name) for name in statement.part_names()}


def as_printed(
    claim: Claim, sound: Sequence[Check], amended: Strength, results: Mapping[str, CheckResult]
) -> AsPrinted:
    """The printed statement's verdict by the rule above."""
    refutations = [check for check in sound if check.refutes]
    if refutations:
        same = claim.amended is not None and claim.amended.then == claim.printed.then
        conditional = all(check.drops for check in refutations)
        return "NEEDS_CONDITIONS" if same and conditional and amended != "OPEN" else "FALSE"
    about_it = [check for check in sound if check.about in ("printed", "both")]
    parts = established(claim.printed, about_it, results).values()
    found = _weakest(part.verdict for part in parts)
    if found == "PROVED":
        return "HOLDS"
    if found != "VERIFIED":
        return "OPEN"
    measured = all(check.kind in ("statistical", "experiment") for check in about_it)
    return "EMPIRICAL" if measured else "VERIFIED"


def judge(claims: Mapping[str, Claim | None], results: Mapping[str, ClaimResult]) -> dict[str, Row]:
    """The ledger's rows. Whatever a claim uses must be among ``results``, else it counts as not
    run.
    """
    rows: dict[str, Row] = {}

    def row_of(name: str, above: tuple[str, ...]) -> Row:
        if name in above:
            raise ValueError(
                f"uses must not run in a circle, got {' -> '.join((*above, name))}; break it"
            )
        if name not in rows:
            claim, result = claims.get(name), results.get(name, ClaimResult(name))
            used = {
                other: row_of(other.split("/")[0], (*above, name))
                for other in (claim.uses if claim else ())
            }
            rows[name] = _row(name, claim, result, used)
        return rows[name]

    for name in results:
        row_of(name, ())
    return rows


def _row(name: str, claim: Claim | None, result: ClaimResult, used: Mapping[str, Row]) -> Row:
    open_verdict = Verdict("OPEN", "OPEN")
    if result.error:
        return Row(name, claim, result, open_verdict, "INCONSISTENT", (result.error,))
    if claim is None or not result.checks:
        return Row(name, claim, result, open_verdict, "NOT_RUN", ())
    passed = {check.name for check in result.checks if check.sound}
    sound = [check for check in claim.checks if check.name in passed]
    statement, about = (
        (claim.amended, ("amended", "both"))
        if claim.amended is not None
        else (claim.printed, ("printed",))
    )
    by_name = {check.name: check for check in result.checks}
    serving = [check for check in sound if check.about in about and not check.refutes]
    parts = established(statement, serving, by_name)
    below = [row.strength_of(other.partition("/")[2]) for other, row in used.items()]
    parts = {
        name: replace(part, verdict=_weakest([part.verdict, *below]))
        for name, part in parts.items()
    }
    amended = _weakest(part.verdict for part in parts.values())
    verdict = Verdict(as_printed(claim, sound, amended, by_name), amended)
    reasons = _reasons(claim, result, sound, verdict, list(used.values()))
    return Row(name, claim, result, verdict, "INCONSISTENT" if reasons else "OK", reasons, parts)


def _reasons(
    claim: Claim, result: ClaimResult, sound: Sequence[Check], verdict: Verdict, used: Sequence[Row]
) -> tuple[str, ...]:
    """Every surprise, in words."""
    found = [f"{check.name}: failed: {check.error}" for check in result.checks if not check.passed]
    found += [
        f"{check.name}: has no mutant"
        for check in result.checks
        if not check.mutants and not check.stated
    ]
    for check in result.checks:
        for mutant in check.mutants:
            if not mutant.killed:
                found.append(f"{check.name}: mutant {mutant.name!r} {mutant.error or 'survived'}")
    found += _false_statements(claim, result)
    refuted = {check.part for check in sound if check.refutes}
    proved = {
        check.part
        for check in sound
        if not check.refutes
        and check.about in ("printed", "both")
        and check.covers in ENOUGH[claim.printed.scope(check.part)]
    }
    found += [
        f"part {part!r} of the printed statement is both proved and refuted"
        for part in sorted(refuted & proved)
    ]
    found += [f"uses {row.id}, which is {row.status}" for row in used if row.status != "OK"]
    if verdict.as_printed == "NEEDS_CONDITIONS":
        idle = claim.added_conditions() - {
            name for check in sound if check.refutes for name in check.drops
        }
        found += [
            f"condition {name!r} is added, and no counterexample shows that it is needed"
            for name in sorted(idle)
        ]
    if verdict != claim.expected:
        found.append(f"expected {claim.expected}, computed {verdict}")
    return tuple(found)


def _false_statements(claim: Claim, result: ClaimResult) -> list[str]:
    """Formulas that no check reads, and false variants of a formula that no check rejects."""
    found, by_name = [], {check.name: check for check in result.checks}
    for about in ("printed", "amended"):
        statement = claim.printed if about == "printed" else claim.amended
        if statement is None:
            continue
        for part in {*statement.part_names(), ""}:
            if part not in statement.part_names() or statement.formula(part) is None:
                continue
            readers = [
                by_name[check.name]
                for check in claim.checks
                if check.stated == statement.formula(part) and by_name[check.name].passed
            ]
            name = f"part {part!r}" if part else "the statement"
            if not readers:
                found.append(f"{name} ({about}) is a formula that no check reads")
            found += [
                f"{name} ({about}): {one.name}: {one.error or 'survived'}"
                for one in variants(readers)
                if not one.killed
            ]
    return found


def false_variants(row: Row) -> tuple[MutantResult, ...]:
    """All falsified statements of a claim, each once."""
    if row.claim is None:
        return ()
    by_part: dict[tuple[str, str], list[CheckResult]] = {}
    for check, result in zip(row.claim.checks, row.result.checks, strict=False):
        if check.stated is not None:
            by_part.setdefault((check.part, check.stated.latex), []).append(result)
    return tuple(one for results in by_part.values() for one in variants(results))
