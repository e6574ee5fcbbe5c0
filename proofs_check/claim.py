r'''How to write a claim: one file in ``proofs_check/claims``, named ``c05_implicit_prior.py`` for
the id C05.

The file makes one ``claim`` and hangs checks on it::

    claim = Claim(
        id="C12", title="Quadratic upper bound", source="Prior art, GD recap",
        printed=Statement(then=r"Q_\alpha \ge f", given={"rate": r"0<\alpha\le 1/L"}),
        amended=Statement(then=r"Q_\alpha \ge f", given={"rate": r"0<\alpha\le 1/L", "smooth": r"f$
        is $L$-smooth$"}), expected=Verdict("NEEDS_CONDITIONS", "PROVED"), uses=("C11",),
    )

    @claim.check("exact", about="printed", drops=("smooth",), ...) def needs_smoothness(run, *,
    gap=gap_of_the_library): # ingredients: keywords with the correct thing as default
        """One sentence: what this shows."""
        run.above(...); run.quantity("C12 gap at 1.01/L", ...)

    needs_smoothness.mutant("step a hundredth too long", gap=lambda ...: ...)

**Ingredients and mutants.** A check takes everything that could be wrong (a formula, bound, map,
generator, step) as a keyword with the correct one as default. A mutant replaces exactly one of
them; the check must then fail with ``CheckFailed``. Any other exception is an error of the check,
not a death. A check without mutants counts for nothing.

**Kinds.** Proofs: ``symbolic`` (an identity by algebra), ``exact`` (rational or otherwise exact
arithmetic, or an explicit attaining case), ``certificate`` (multipliers, intervals: checked, not
trusted), ``counterexample``. Support: ``sdp``, ``property`` (directed sampling), ``statistical``,
``experiment``. ``rests_on`` names a cited theorem or a restriction that the check does not execute:
it gives at most support.

**What a check is about.** ``about="printed"``, ``"amended"`` or ``"both"``. A counterexample about
the printed statement refutes it; ``drops`` names the conditions of the amended statement which the
example violates. Everything else establishes the named ``part`` of the statement (the whole, where
it has no parts).
'''

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from proofs_check.ids import IDS

Kind = Literal[
    "symbolic",
    "exact",
    "certificate",
    "counterexample",
    "sdp",
    "property",
    "statistical",
    "experiment",
]
About = Literal["printed", "amended", "both"]
AsPrinted = Literal["HOLDS", "NEEDS_CONDITIONS", "FALSE", "EMPIRICAL", "OPEN"]
Amended = Literal["PROVED", "SUPPORTED", "OPEN"]

PROOFS = frozenset({"symbolic", "exact", "certificate", "counterexample"})
SUPPORTS = frozenset({"sdp", "property", "statistical", "experiment"})


@dataclass(frozen=True)
class Verdict:
    """What the claim is as printed, and what the amended statement is."""

    as_printed: AsPrinted
    amended: Amended


@dataclass(frozen=True, kw_only=True)
class Statement:
    """Conditions by name and a conclusion, all LaTeX. ``parts`` splits the conclusion; each part
    needs its own check.
    """

    then: str
    given: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)

    def part_names(self) -> tuple[str, ...]:
        """The parts to establish; a statement without parts is one part, named by the empty
        string.
        """
        return tuple(self.parts) or ("",)


@dataclass(frozen=True)
class Mutant:
    """One ingredient replaced by a wrong one."""

    name: str
    ingredient: str
    replacement: Any


@dataclass(kw_only=True)
class Check:
    """A function ``check(run, *, ingredients...)`` and what its success says about the claim."""

    function: Callable[..., None]
    kind: Kind
    about: About
    part: str
    drops: tuple[str, ...]
    rests_on: str
    mutants: list[Mutant] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function.__name__

    @property
    def refutes(self) -> bool:
        """A counterexample to the printed statement; every other check establishes what it is
        about.
        """
        return self.kind == "counterexample" and self.about == "printed"

    @property
    def is_proof(self) -> bool:
        """Whether success proves its part, rather than supports it."""
        return self.kind in PROOFS and not self.rests_on

    def mutant(self, name: str, **replacement: Any) -> None:
        """Add a mutant: ``name`` says what is broken, the one keyword gives the ingredient and its
        wrong value.
        """
        ingredients = [
            p.name
            for p in inspect.signature(self.function).parameters.values()
            if p.kind is p.KEYWORD_ONLY
        ]
        if len(replacement) != 1 or not set(replacement) <= set(ingredients):
            raise ValueError(
                f"a mutant of {self.name!r} must replace exactly one of {ingredients}, got "
                f"{sorted(replacement)}; "
                "make what is to be broken a keyword of the check"
            )
        if any(other.name == name for other in self.mutants):
            raise ValueError(
                f"mutant {name!r} of {self.name!r} is there twice; say what else is broken"
            )
        ((ingredient, value),) = replacement.items()
        self.mutants.append(Mutant(name, ingredient, value))


@dataclass(kw_only=True)
class Claim:
    """One statement on trial. ``amended=None``: nothing to amend, checks about the printed
    statement serve both verdicts.

    ``uses``: ids of claims that this one's proof needs ("C08a"), or of one part of their amended
    statement ("C07/a").
    """

    id: str
    title: str
    source: str
    printed: Statement
    expected: Verdict
    amended: Statement | None = None
    uses: tuple[str, ...] = ()
    remark: str = ""
    checks: list[Check] = field(default_factory=list)

    def __post_init__(self) -> None:
        strange = [name for name in (self.id, *self.used_ids()) if name not in IDS]
        if strange:
            raise ValueError(
                f"claim ids must be among the 46 of proofs_check/ids.py, got {strange}; correct "
                "the "
                "name"
            )

    def check(
        self,
        kind: Kind,
        *,
        about: About = "amended",
        part: str = "",
        drops: tuple[str, ...] = (),
        rests_on: str = "",
    ) -> Callable[[Callable[..., None]], Check]:
        """Decorate a function into a check of this claim; see the module's text for the words."""
        if kind not in PROOFS | SUPPORTS:
            raise ValueError(
                f"kind must be one of {sorted(PROOFS | SUPPORTS)}, got {kind!r}; correct the name"
            )
        if self.amended is None and about != "printed":
            raise ValueError(
                f"{self.id} has no amended statement, got about={about!r}; write about='printed'"
            )
        for statement in self._statements(about):
            if part not in statement.part_names():
                raise ValueError(
                    f"part of {self.id} must be one of {statement.part_names()}, got {part!r}; "
                    "name "
                    "it"
                )
        unknown = set(drops) - self.added_conditions()
        if unknown:
            raise ValueError(
                f"drops of {self.id} must name conditions that the amendment adds, got "
                f"{sorted(unknown)}"
            )

        def add(function: Callable[..., None]) -> Check:
            if any(other.name == function.__name__ for other in self.checks):
                raise ValueError(
                    f"{self.id} has two checks named {function.__name__!r}; rename one"
                )
            check = Check(
                function=function, kind=kind, about=about, part=part, drops=drops, rests_on=rests_on
            )
            self.checks.append(check)
            return check

        return add

    def used_ids(self) -> tuple[str, ...]:
        """The claims that this one uses, without the part that ``uses`` may name ("C07/a")."""
        return tuple(name.split("/")[0] for name in self.uses)

    def added_conditions(self) -> set[str]:
        """Names of the conditions that the amended statement has and the printed one has not."""
        return set() if self.amended is None else set(self.amended.given) - set(self.printed.given)

    def _statements(self, about: About) -> list[Statement]:
        printed = [self.printed] if about in ("printed", "both") else []
        amended = (
            [self.amended] if about in ("amended", "both") and self.amended is not None else []
        )
        return printed + amended
