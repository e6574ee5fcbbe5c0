r"""W1: the mean of a few squares, a statement that is too strong as printed.

*Proof.* By Jensen's inequality $\frac1n\sum x_i^2\ge(\frac1n\sum x_i)^2$: the difference is the
variance. Equality holds where all $x_i$ are equal.
"""

from __future__ import annotations

from fractions import Fraction

import sympy as sp

from proofs_check.claim import Claim, Formula, Statement, Verdict
from proofs_check.run import Run

MEAN, N = (
    sp.Symbol(r"\bar x", real=True),
    sp.Symbol("n", integer=True, positive=True),
)
SQUARES = Formula(
    left=sp.Symbol(r"\sum_ix_i^2", nonnegative=True),
    relation=">=",
    right=N * MEAN**2,
)

claim = Claim(
    id="W1",
    title="The sum of squares and the mean",
    source="Section 2, equation (3)",
    paper="zhang2024metamida",
    printed=Statement(then=r"\sum_ix_i^2=n\bar x^2"),
    amended=Statement(
        then=r"\sum_ix_i^2\ge n\bar x^2",
        parts={"bound": SQUARES, "equal": r"\text{equality for equal }x_i"},
        scopes={"equal": "exists"},
    ),
    expected=Verdict("FALSE", "PROVED"),
)


@claim.check("counterexample", about="printed")
def zero_and_one(run: Run, *, values: tuple[int, ...] = (0, 1)) -> None:
    """x = (0, 1): the sum of squares is 1, n times the squared mean 1/2."""
    mean = Fraction(sum(values), len(values))
    run.above(
        sum(v * v for v in values),
        len(values) * mean**2,
        what="the sum of squares",
    )


zero_and_one.mutant("equal values", values=(1, 1))


@claim.check("symbolic", part="bound")
def variance(run: Run, *, share: int = 1) -> None:
    """sum (x_i - m)^2 = S - 2 m n m + n m^2 = S - n m^2 with sum x_i = n m: a sum of squares."""
    total = sp.Symbol("S")
    spread = total - 2 * MEAN * (N * MEAN) + share * N * MEAN**2
    run.zero(
        sp.expand(spread - (total - N * MEAN**2)),
        "the sum of squared deviations",
    )


variance.mutant("the last term twice", share=2)


@claim.check("exact", part="bound")
def stated_bound(run: Run, *, stated: Formula) -> None:
    """Equal values attain the printed bound, others lie above it."""
    for values in ((2, 2, 2), (3, 3), (0, 1), (1, 2, 6)):
        at = {stated.left: sum(v * v for v in values), "n": len(values)}
        at[r"\bar x"] = Fraction(sum(values), len(values))
        run.stands(stated, at)
        if len(set(values)) == 1:
            run.attained(stated, at, tolerance=0.0)


@claim.check("exact", part="equal")
def equal_values(run: Run, *, values: tuple[int, ...] = (2, 2, 2)) -> None:
    """Three equal values."""
    mean = Fraction(sum(values), len(values))
    run.that(sum(v * v for v in values) == len(values) * mean**2, "equality")


equal_values.mutant("one differs", values=(2, 2, 3))
