"""What a check holds in its hand: ways to say what must be true, and a notebook for the numbers it
computes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import sympy

from proofs_check.formula import Formula, size as size_of, value


class CheckFailedError(AssertionError):
    """What had to be true is not. Only this (or a bare ``AssertionError``) counts as a mutant's
    death.
    """


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A constant, rate or threshold of the theory, as the check computed it.

    ``exact`` is the closed form where the check computed one; ``tolerance`` is absolute and says
    how far another computation may lie from ``value``.
    """

    name: str
    value: float
    tolerance: float
    meaning: str
    exact: str = ""


class Run:
    """One execution of one check. Every method raises :class:`CheckFailedError` when the thing is
    not so; NaN is never so.
    """

    def __init__(self) -> None:
        self.quantities: dict[str, Quantity] = {}
        self.comparisons = 0

    def that(self, condition: Any, what: str) -> None:
        """``condition`` must be true."""
        self.comparisons += 1
        if not bool(condition):
            raise CheckFailedError(what)

    def close(self, value: Any, target: Any, *, tolerance: float, what: str) -> None:
        """|value - target| <= tolerance (the largest entry, for arrays and tensors)."""
        self.comparisons += 1
        gap = _largest(value - target)
        if not gap <= tolerance:
            raise CheckFailedError(f"{what}: off by {gap:.3g}, allowed {tolerance:.3g}")

    def at_most(self, value: Any, bound: Any, *, what: str, slack: float = 0.0) -> None:
        """value <= bound + slack, for numbers."""
        self.comparisons += 1
        if not value <= bound + slack:
            raise CheckFailedError(
                f"{what}: {float(value):.17g} exceeds {float(bound):.17g} (slack {slack:.3g})"
            )

    def above(self, value: Any, bound: Any, *, what: str) -> None:
        """value > bound, for numbers."""
        self.comparisons += 1
        if not value > bound:
            raise CheckFailedError(f"{what}: {float(value):.17g} is not above {float(bound):.17g}")

    def zero(self, expression: Any, what: str) -> None:
        """A symbolic expression (or matrix of them) must simplify to exactly zero."""
        self.comparisons += 1
        entries = list(expression) if isinstance(expression, sympy.MatrixBase) else [expression]
        for entry in entries:
            rest = sympy.simplify(entry)
            if rest != 0:
                raise CheckFailedError(f"{what}: {rest} is left over")

    def raises(self, error: type[Exception], action: Any, what: str) -> None:
        """``action()`` must refuse with ``error``."""
        self.comparisons += 1
        try:
            action()
        except error:
            return
        raise CheckFailedError(f"{what}: no {error.__name__} was raised")

    def stands(self, stated: Formula, at: Mapping[Any, Any], *, slack: float = 0.0) -> None:
        """A formula must not be false here: its relation holds wherever its conditions do."""
        self.comparisons += 1
        if stated.applies(at) and not stated.holds(at, slack):
            raise CheckFailedError(
                f"the statement is false at {_said(at)}: right less left is {stated.gap(at)}"
            )

    def attained(self, stated: Formula, at: Mapping[Any, Any], *, tolerance: float) -> None:
        """The conditions of a formula hold here, and its two sides agree to a relative
        tolerance.
        """
        self.comparisons += 1
        gap, size = (float(size_of(one)) for one in (stated.gap(at), value(stated.right, at)))
        if not (stated.applies(at) and stated.holds(at, tolerance * size)):
            raise CheckFailedError(f"the statement does not hold at {_said(at)}")
        if not gap <= tolerance * size:
            raise CheckFailedError(
                f"the two sides of the statement differ by {gap:.3g} at {_said(at)}, allowed "
                f"{tolerance * size:.3g}"
            )

    def decides(self, stated: Formula, at: Mapping[Any, Any], truth: bool) -> None:
        """An equivalence: the formula holds here exactly where ``truth`` says so."""
        self.comparisons += 1
        if stated.holds(at) != truth:
            raise CheckFailedError(f"the statement says {not truth} at {_said(at)}")

    def quantity(
        self, name: str, value: Any, *, meaning: str, tolerance: float = 0.0, theory: Any = None
    ) -> Any:
        """Write ``value`` into the ledger; with ``theory`` it must also lie within ``tolerance`` of
        it. Returns ``value``.

        Integers, fractions and sympy numbers are exact and need no tolerance; a float needs one >
        0.
        """
        exact = isinstance(value, int | Fraction | sympy.Basic)
        if not exact and not tolerance > 0:
            raise ValueError(
                f"quantity {name!r} must have a tolerance > 0, got {tolerance}; floats are never "
                "exact"
            )
        size = abs(float(value if theory is None else theory))
        if size > 0 and tolerance >= size / 4:
            raise ValueError(
                f"the tolerance of {name!r} must be below a quarter of its value {size:g}, "
                f"got {tolerance:g}; it could not fail: narrow it or drop it"
            )
        if name in self.quantities:
            raise ValueError(f"quantity {name!r} is written twice; choose another name")
        number = float(value)
        if not math.isfinite(number):
            raise CheckFailedError(f"{name}: {number} is not a finite number")
        if theory is not None:
            self.close(
                number,
                float(theory),
                tolerance=tolerance or 1e-15 * max(1.0, abs(number)),
                what=name,
            )
        self.quantities[name] = Quantity(
            name=name,
            value=number,
            tolerance=float(tolerance),
            meaning=meaning,
            exact=str(value) if exact else "",
        )
        return value


def _largest(value: Any) -> float:
    """The largest absolute entry; NaN if any entry is."""
    entries = abs(value)
    if hasattr(entries, "detach"):
        entries = entries.detach().cpu().numpy()
    if hasattr(entries, "max"):
        return float(entries.max()) if entries.size else 0.0
    return float(entries)


def _said(at: Mapping[Any, Any]) -> str:
    """Values in words."""
    return ", ".join(f"{name} = {one}" for name, one in at.items())
