"""How a verdict follows from what the checks found. Nothing here is typed by an author; it is all
computed.

A check is *sound* if it passed, has at least one mutant and failed on every mutant. Only sound
checks count.

Amended statement: each part is as strong as its strongest sound check (PROVED for a proof,
SUPPORTED otherwise, OPEN for none); the statement is as strong as its weakest part, and no stronger
than the weakest claim (or part of a claim) it uses.

Printed statement:

1. refuted by a sound counterexample: NEEDS_CONDITIONS if the amendment only adds conditions (the
   conclusion is the same text), each counterexample violates one of the added conditions, and the
   amended statement is PROVED or SUPPORTED; FALSE otherwise;
2. otherwise HOLDS if every part has a sound proof;
3. otherwise EMPIRICAL if every part has a sound check, and all checks about it are statistical or
   experiments;
4. otherwise OPEN.

Status: OK if the verdict is the expected one, every check is sound, nothing is both proved and
refuted, a counterexample drops each condition that NEEDS_CONDITIONS adds, and what the claim uses
is OK; NOT_RUN without a file; INCONSISTENT otherwise, with the reasons.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from proofs_check.claim import Amended, AsPrinted, Check, Claim, Statement, Verdict
from proofs_check.run import Quantity

Status = Literal["OK", "NOT_RUN", "INCONSISTENT"]
_STRENGTH: dict[Amended, int] = {"OPEN": 0, "SUPPORTED": 1, "PROVED": 2}


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

    @property
    def sound(self) -> bool:
        """Passed, and able to fail."""
        return self.passed and bool(self.mutants) and all(mutant.killed for mutant in self.mutants)


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
class Row:
    """A line of the ledger."""

    id: str
    claim: Claim | None
    result: ClaimResult
    verdict: Verdict
    status: Status
    reasons: tuple[str, ...]
    parts: Mapping[str, Amended] = field(default_factory=dict)

    def strength_of(self, part: str) -> Amended:
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
        return self.parts[part] if part else self.verdict.amended


def _weakest(values: Iterable[Amended]) -> Amended:
    return min(values, key=_STRENGTH.__getitem__)


def strengths(statement: Statement, sound: Sequence[Check]) -> dict[str, Amended]:
    """The strongest check of each part."""

    def of_part(name: str) -> Amended:
        found: list[Amended] = [
            "PROVED" if check.is_proof else "SUPPORTED" for check in sound if check.part == name
        ]
        return max(found, key=_STRENGTH.__getitem__, default="OPEN")

    return {name: of_part(name) for name in statement.part_names()}


def as_printed(claim: Claim, sound: Sequence[Check], amended: Amended) -> AsPrinted:
    """The printed statement's verdict by the rule above."""
    refutations = [check for check in sound if check.refutes]
    if refutations:
        same = claim.amended is not None and claim.amended.then == claim.printed.then
        conditional = all(check.drops for check in refutations)
        return "NEEDS_CONDITIONS" if same and conditional and amended != "OPEN" else "FALSE"
    about_it = [check for check in sound if check.about in ("printed", "both")]
    found = _weakest(strengths(claim.printed, about_it).values())
    if found == "PROVED":
        return "HOLDS"
    measured = all(check.kind in ("statistical", "experiment") for check in about_it)
    return "EMPIRICAL" if found == "SUPPORTED" and measured else "OPEN"


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
    parts = strengths(
        statement, [check for check in sound if check.about in about and not check.refutes]
    )
    below = [row.strength_of(other.partition("/")[2]) for other, row in used.items()]
    parts = {part: _weakest([own, *below]) for part, own in parts.items()}
    amended = _weakest(parts.values())
    verdict = Verdict(as_printed(claim, sound, amended), amended)
    reasons = _reasons(claim, result, sound, verdict, list(used.values()))
    return Row(name, claim, result, verdict, "INCONSISTENT" if reasons else "OK", reasons, parts)


def _reasons(
    claim: Claim, result: ClaimResult, sound: Sequence[Check], verdict: Verdict, used: Sequence[Row]
) -> tuple[str, ...]:
    """Every surprise, in words."""
    found = [f"{check.name}: failed: {check.error}" for check in result.checks if not check.passed]
    found += [f"{check.name}: has no mutant" for check in result.checks if not check.mutants]
    for check in result.checks:
        for mutant in check.mutants:
            if not mutant.killed:
                found.append(f"{check.name}: mutant {mutant.name!r} {mutant.error or 'survived'}")
    refuted = {check.part for check in sound if check.refutes}
    proved = {
        check.part
        for check in sound
        if check.is_proof and not check.refutes and check.about in ("printed", "both")
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
