"""Who computes which number. An independent computation is a function without arguments, filed
under claim and quantity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

Number = int | float | Fraction


@dataclass(frozen=True)
class Computation:
    """``within``: the error of the independent method itself, used where the ledger's value is
    exact.
    """

    claim: str
    quantity: str
    compute: Callable[[], Number]
    within: float


FOUND: dict[tuple[str, str], Computation] = {}


def file(claim: str, quantity: str, compute: Callable[[], Number], *, within: float = 0.0) -> None:
    """File one computation; a name can be taken once."""
    if (claim, quantity) in FOUND:
        raise ValueError(f"{claim} {quantity!r} is computed twice; remove one")
    FOUND[claim, quantity] = Computation(claim, quantity, compute, within)


def computes(
    claim: str, quantity: str, *, within: float = 0.0
) -> Callable[[Callable[[], Number]], Callable[[], Number]]:
    """``@computes("C04", "global minimum of f")`` on a function of no arguments."""

    def add(function: Callable[[], Number]) -> Callable[[], Number]:
        file(claim, quantity, function, within=within)
        return function

    return add


def for_each(
    claim: str, quantity: str, keys: list, *, within: float = 0.0
) -> Callable[[Callable[..., Number]], Callable[..., Number]]:
    """The same for a family: ``{k}`` in the name is replaced by each key, which is also the
    function's argument.
    """

    def add(function: Callable[..., Number]) -> Callable[..., Number]:
        for key in keys:
            file(claim, quantity.format(k=key), lambda key=key: function(key), within=within)
        return function

    return add


def agrees(value: Number, entry: dict, within: float) -> bool:
    """Equal to a ledger's exact value if ``value`` is exact, else within the larger of the two
    tolerances; NaN never is.
    """
    allowed = max(entry["tolerance"], within, 1e-12 * abs(entry["value"]))
    if isinstance(value, int | Fraction) and entry["exact"] and not within:
        return abs(value - Fraction(entry["value"])) <= Fraction(1, 10**12) * max(1, abs(value))
    return abs(float(value) - entry["value"]) <= allowed
