"""The ledger's numbers, computed a second time without the library and without the referee."""

from __future__ import annotations

import ast
import json
from fractions import Fraction
from pathlib import Path

import pytest

from proofs_check.report import LEDGER
from tests.proofs_check.independent import maps, priors, rates, repairs, tables
from tests.proofs_check.independent.registry import FOUND, agrees

MODULES = (maps, priors, rates, repairs, tables)
QUANTITIES = {
    (entry["id"], name): quantity
    for entry in json.loads(LEDGER.read_text(encoding="utf-8"))
    for name, quantity in entry["quantities"].items()
}
CASES = [pytest.param(one, id=f"{one.claim}-{one.quantity}") for one in FOUND.values()]


@pytest.mark.parametrize("one", CASES)
def test_the_second_computation_agrees(one):
    """And it would not with a value shifted by little more than both tolerances: the comparison can
    fail.
    """
    entry = QUANTITIES[one.claim, one.quantity]
    value = one.compute()
    assert agrees(value, entry, one.within), f"{float(value)!r} against {entry['value']!r}"
    gap = 2.5 * max(entry["tolerance"], one.within, 1e-10 * max(1.0, abs(entry["value"])))
    for shift in (gap, -gap):
        assert not agrees(
            value, {**entry, "value": entry["value"] + shift, "exact": ""}, one.within
        )


def test_at_least_sixty_are_computed_twice_in_most_claims():
    assert len(FOUND) >= 60
    with_numbers = {claim for claim, _ in QUANTITIES}
    assert len({one.claim for one in FOUND.values()}) >= 0.8 * len(with_numbers)


def test_the_methods_are_sharper_than_what_they_check():
    """An independent method whose own error were large would agree with anything."""
    for one in FOUND.values():
        entry = QUANTITIES[one.claim, one.quantity]
        assert one.within <= max(entry["tolerance"], 1e-3 * max(1.0, abs(entry["value"])), 2e-3), (
            one
        )
        assert not (one.within and entry["tolerance"]), f"{one}: the ledger's tolerance stands"


@pytest.mark.parametrize(
    "path", sorted(Path(maps.__file__).parent.glob("*.py")), ids=lambda path: path.stem
)
def test_they_import_neither_the_library_nor_the_referee(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = [
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    ]
    names += [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    allowed = ("__future__", "tests.proofs_check.independent")
    outside = {name.split(".")[0] for name in names if not name.startswith(allowed)}
    assert outside.isdisjoint(
        {"mdtheory", "proofs_check", "torch", "sympy", "PEPit", "flint", "tests"}
    )


@pytest.mark.parametrize("value", [float("nan"), 0.5001, Fraction(1, 3), 0])
def test_what_is_not_the_number_does_not_agree(value):
    assert not agrees(value, {"value": 0.5, "exact": "1/2", "tolerance": 0.0}, 0.0)


@pytest.mark.parametrize("value", [0.5, Fraction(1, 2)])
def test_the_number_agrees(value):
    assert agrees(value, {"value": 0.5, "exact": "1/2", "tolerance": 0.0}, 0.0)
