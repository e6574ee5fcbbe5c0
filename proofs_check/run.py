"""What a check holds in its hand: ways to say what must be true, and a notebook for the numbers it
computes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import sympy


class CheckFailed(AssertionError):
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
    """One execution of one check. Every method raises :class:`CheckFailed` when the thing is not
    so; NaN is never so.
    """

    def __init__(self) -> None:
        self.quantities: dict[str, Quantity] = {}

    def that(self, condition: Any, what: str) -> None:
        """``condition`` must be true."""
        if not bool(condition):
            raise CheckFailed(what)

    def close(self, value: Any, target: Any, *, tolerance: float, what: str) -> None:
        """|value - target| <= tolerance (the largest entry, for arrays and tensors)."""
        gap = _largest(value - target)
        if not gap <= tolerance:
            raise CheckFailed(f"{what}: off by {gap:.3g}, allowed {tolerance:.3g}")

    def at_most(self, value: Any, bound: Any, *, what: str, slack: float = 0.0) -> None:
        """value <= bound + slack, for numbers."""
        if not value <= bound + slack:
            raise CheckFailed(
                f"{what}: {float(value):.17g} exceeds {float(bound):.17g} (slack {slack:.3g})"
            )

    def above(self, value: Any, bound: Any, *, what: str) -> None:
        """value > bound, for numbers."""
        if not value > bound:
            raise CheckFailed(f"{what}: {float(value):.17g} is not above {float(bound):.17g}")

    def zero(self, expression: Any, what: str) -> None:
        """A symbolic expression (or matrix of them) must simplify to exactly zero."""
        entries = list(expression) if isinstance(expression, sympy.MatrixBase) else [expression]
        for entry in entries:
            rest = sympy.simplify(entry)
            if rest != 0:
                raise CheckFailed(f"{what}: {rest} is left over")

    def raises(self, error: type[Exception], action: Any, what: str) -> None:
        """``action()`` must refuse with ``error``."""
        try:
            action()
        except error:
            return
        raise CheckFailed(f"{what}: no {error.__name__} was raised")

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
        if name in self.quantities:
            raise ValueError(f"quantity {name!r} is written twice; choose another name")
        number = float(value)
        if not math.isfinite(number):
            raise CheckFailed(f"{name}: {number} is not a finite number")
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
