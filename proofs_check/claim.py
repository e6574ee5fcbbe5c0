r'''How to write a claim: one file in ``proofs_check/claims``, named ``c05_implicit_prior.py`` for
the id C05. A long claim goes on in a second file that imports ``claim`` from the first.

The file makes one ``claim`` and hangs checks on it::

    BOUND = Formula(left=gap, relation="<=", right=L * D**2 / 2, given={"rate": alpha <= 1 / L})

    claim = Claim(
        id="C12", title="Quadratic upper bound", source="Prior art, GD recap",
        printed=Statement(then=BOUND),
        amended=Statement(then=BOUND, given={"smooth": r"f\ L\text{-smooth}"}),
        expected=Verdict("NEEDS_CONDITIONS", "PROVED"), uses=("C11",),
    )

    @claim.check("exact", about="printed", drops=("smooth",))
    def needs_smoothness(run, *, stated, gap=gap_of_the_library):
        """One sentence: what this shows."""
        run.stands(stated, {...})
        run.quantity("C12 gap at 1.01/L", ...)

    needs_smoothness.mutant("step a hundredth too long", gap=lambda ...: ...)

**Scope and cover.** Each part of a statement has a *scope* (for all, exists, instance, limit), each
check a *cover* (all, exact, limit, samples); a part is PROVED only where a check covers its scope.
The words stand in :mod:`proofs_check.statement`. The cover follows from the kind unless ``covers``
says otherwise.

**Ingredients and mutants.** A check takes everything that could be wrong (a formula, bound, map,
generator, step) as a keyword with the correct one as default. A mutant replaces exactly one of
them; the check must then fail with ``CheckFailedError``. Any other exception is an error of the
check, not a death. A check without mutants counts for nothing.

**The statement is an ingredient too.** A check with the keyword ``stated`` is given its part's
:class:`~proofs_check.formula.Formula`, and must fail on each of the formula's false variants; one
of a part's checks rejecting a variant is enough. A claim whose statement survives being falsified
is INCONSISTENT.

**Kinds.** Proofs: ``symbolic`` (an identity by algebra), ``exact`` (rational or otherwise exact
arithmetic, or an explicit attaining case), ``certificate`` (multipliers, intervals: checked, not
trusted), ``counterexample``, ``kernel`` (a theorem that a proof assistant's kernel has checked).
Support: ``sdp``, ``property`` (directed sampling), ``statistical``, ``experiment``. ``rests_on``
names a cited theorem or a restriction that the check does not execute: it then covers samples
only.

**What a check is about.** ``about="printed"``, ``"amended"`` or ``"both"``. A counterexample about
the printed statement refutes it; ``drops`` names the conditions of the amended statement which the
example violates. Everything else establishes the named ``part`` of the statement (the whole, where
it has no parts).
'''

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from proofs_check.formula import Formula
from proofs_check.kernel import ALLOWED, theorem as theorem_of
from proofs_check.run import Run
from proofs_check.statement import Cover, Statement, Verdict

__all__ = ["Check", "Claim", "Formula", "Mutant", "Statement", "Verdict"]

Kind = Literal[
    "symbolic",
    "exact",
    "certificate",
    "counterexample",
    "kernel",
    "sdp",
    "property",
    "statistical",
    "experiment",
]
About = Literal["printed", "amended", "both"]

COVER_OF: dict[str, Cover] = {
    "symbolic": "all",
    "certificate": "all",
    "kernel": "all",
    "exact": "exact",
    "counterexample": "exact",
    "sdp": "samples",
    "property": "samples",
    "statistical": "samples",
    "experiment": "samples",
}
"""What a check of each kind covers unless it says otherwise."""


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
    covers: Cover
    stated: Formula | None = None
    theorem: str = ""
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


_ID = re.compile(r"[A-Z]{1,2}\d*[a-z]?")


@dataclass(kw_only=True)
class Claim:
    """One statement on trial. ``amended=None``: nothing to amend, checks about the printed
    statement serve both verdicts.

    ``paper``: the bibliography's key of the paper that prints it. ``uses``: ids of claims that this
    one's proof needs ("C08a"), or of one part of their amended statement ("C07/a").
    """

    id: str
    title: str
    source: str
    printed: Statement
    expected: Verdict
    amended: Statement | None = None
    uses: tuple[str, ...] = ()
    remark: str = ""
    paper: str = "zhang2024metamida"
    checks: list[Check] = field(default_factory=list)

    def __post_init__(self) -> None:
        strange = [name for name in (self.id, *self.used_ids()) if not _ID.fullmatch(name)]
        if strange:
            raise ValueError(
                f"claim ids must be one or two capitals, a number and perhaps a letter, like C08a, "
                f"got {strange}; correct the name"
            )

    def check(
        self,
        kind: Kind,
        *,
        about: About = "amended",
        part: str = "",
        drops: tuple[str, ...] = (),
        rests_on: str = "",
        covers: Cover | None = None,
    ) -> Callable[[Callable[..., None]], Check]:
        """Decorate a function into a check of this claim; see the module's text for the words."""
        if kind not in COVER_OF:
            raise ValueError(f"kind must be one of {sorted(COVER_OF)}, got {kind!r}; correct it")
        if covers and covers != "samples" and (rests_on or COVER_OF[kind] == "samples"):
            raise ValueError(
                f"covers of a check of kind {kind!r} that rests on {rests_on!r} must be samples, "
                f"got {covers!r}; leave it out"
            )
        cover: Cover = covers or ("samples" if rests_on else COVER_OF[kind])
        if self.amended is None and about != "printed":
            raise ValueError(
                f"{self.id} has no amended statement, got about={about!r}; write about='printed'"
            )
        for statement in self._statements(about):
            if part not in statement.part_names():
                raise ValueError(
                    f"part of {self.id} must be one of {statement.part_names()}, got {part!r}; "
                    "name it"
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
                function=function,
                kind=kind,
                about=about,
                part=part,
                drops=drops,
                rests_on=rests_on,
                covers=cover,
                stated=self._stated(function, about, part),
            )
            self.checks.append(check)
            return check

        return add

    def kernel(self, theorem: str, *, part: str, about: About = "amended") -> Check:
        """A check that the kernel of a proof assistant has checked ``theorem`` of
        ``proofs_check/coq`` as it stands there now; see :mod:`proofs_check.kernel`.
        """

        def checked(run: Run, *, asked: str = theorem) -> None:
            found = theorem_of(asked)
            run.that(set(found.axioms) <= ALLOWED, f"{asked} rests on {found.axioms}")

        checked.__name__ = f"kernel_{theorem}"
        checked.__doc__ = f"Theorem `{theorem}`, checked by Coq's kernel."
        check = self.check("kernel", about=about, part=part)(checked)
        check.theorem = theorem
        check.mutant("a theorem that is not there", asked=f"no_{theorem}")
        return check

    def _stated(self, function: Callable[..., None], about: About, part: str) -> Formula | None:
        """The formula that a check with the keyword ``stated`` is given, as its default too."""
        if "stated" not in inspect.signature(function).parameters:
            return None
        formula = self._statements(about)[-1].formula(part)
        if formula is None:
            raise ValueError(
                f"{function.__name__} of {self.id} asks for a formula, and part {part!r} is none; "
                "write the part as a Formula"
            )
        function.__kwdefaults__ = {**(function.__kwdefaults__ or {}), "stated": formula}
        return formula

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
