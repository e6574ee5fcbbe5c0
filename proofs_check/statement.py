"""What is on trial: statements with their scope, and the words of a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import sympy as sp

from proofs_check.formula import Formula, text_of

Scope = Literal["for all", "exists", "instance", "limit"]
Cover = Literal["all", "exact", "limit", "samples"]
Strength = Literal["PROVED", "VERIFIED", "ARGUED", "OPEN"]
AsPrinted = Literal["HOLDS", "NEEDS_CONDITIONS", "FALSE", "VERIFIED", "EMPIRICAL", "OPEN"]

SCOPES: dict[Scope, str] = {
    "for all": "the part speaks of every member of a class (functions, maps, numbers of steps)",
    "exists": "the part says that something exists, or that a bound is attained by something",
    "instance": "the part is about one named object, or finitely many",
    "limit": "the part says what a quantity tends to",
}
"""What a part of a statement speaks of."""

COVERS: dict[Cover, str] = {
    "all": "a derivation in symbols that stand for every case, step by step (algebra, multipliers, "
    "an induction whose base and step are checked, a complete list of cases, or a theorem that a "
    "proof assistant's kernel has checked); what it uses besides is a definition or a textbook "
    "inequality named in the proof",
    "exact": "one case decided in exact arithmetic, in balls, or by a margin far above rounding",
    "limit": "a limit taken in symbols, or bounds on both sides that meet there",
    "samples": "cases drawn or chosen, in floating point or by a numerical solver",
}
"""What a passing check covers."""

ENOUGH: dict[Scope, frozenset[Cover]] = {
    "for all": frozenset({"all"}),
    "exists": frozenset({"all", "exact"}),
    "instance": frozenset({"all", "exact"}),
    "limit": frozenset({"all", "limit"}),
}
"""The covers that prove a part of this scope."""

STRENGTHS: dict[Strength, str] = {
    "PROVED": "checks cover the scope of every part",
    "VERIFIED": "some part rests on cases that were computed, or on a cited theorem",
    "ARGUED": "some part rests on prose alone, on the page that is named",
    "OPEN": "not decided here",
}
RANK: dict[Strength, int] = {"OPEN": 0, "ARGUED": 1, "VERIFIED": 2, "PROVED": 3}


@dataclass(frozen=True)
class Verdict:
    """What the claim is as printed, and what the amended statement is."""

    as_printed: AsPrinted
    amended: Strength


@dataclass(frozen=True, kw_only=True)
class Statement:
    """Conditions by name and a conclusion, all LaTeX or :class:`Formula`. ``parts`` splits the
    conclusion; each part needs its own check.

    ``scopes``: what each part speaks of, "for all" where nothing is said; a statement without parts
    has the one part "". ``argued``: the page that argues a part which no check carries.
    """

    then: str | Formula
    given: Mapping[str, str | sp.Basic] = field(default_factory=dict)
    parts: Mapping[str, str | Formula] = field(default_factory=dict)
    scopes: Mapping[str, Scope] = field(default_factory=dict)
    argued: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        strange = (set(self.scopes) | set(self.argued)) - set(self.part_names())
        if strange:
            raise ValueError(
                f"scopes and argued must name parts, one of {self.part_names()}, got "
                f"{sorted(strange)}; correct the name"
            )

    def part_names(self) -> tuple[str, ...]:
        """The parts to establish; a statement without parts is one part, named by the empty
        string.
        """
        return tuple(self.parts) or ("",)

    def scope(self, part: str) -> Scope:
        """What a part speaks of."""
        return self.scopes.get(part, "for all")

    def formula(self, part: str = "") -> Formula | None:
        """The part as a symbolic object, where it is one."""
        found = self.parts[part] if part else self.then
        return found if isinstance(found, Formula) else None

    def texts(self) -> dict[str, object]:
        """The statement for a file: LaTeX only."""
        return {
            "given": {name: text_of(condition) for name, condition in self.given.items()},
            "then": text_of(self.then),
            "parts": {name: text_of(part) for name, part in self.parts.items()},
        }
