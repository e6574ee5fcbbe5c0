"""The ledger on disk against a table typed by hand: the developers' own reading of every claim, so
that a changed verdict is a changed line here, too.
"""

from __future__ import annotations

import json

import pytest

from proofs_check.ids import IDS
from proofs_check.report import LEDGER

# T true, T+ true under added conditions, F false, V true on the cases computed, E a statement about
# measurements, O open; theorems and repairs are printed here
READING = """
C01 T   C02 T+  C03 T+  C04 F   C05 F   C06 T+  C07 F   C08a T+ C08b F  C09 T+
C10 V   C11 T   C12 T   C13 T   C14 T+  C15 T   C16 T+  C17 T   C18 T+  C19 T+
C20 T   C21 T+  C22 T+  C23 T   C24a T  C24b F  C25 T   C26 F   C27 F   C28 F
C29 F   C30 T   C31 O   C32 E
T1 T    T2 T    T3 T    T4 T    T5 T    T6 T    T7 T
RA1 T   RA2 V   RB T    RC T    RD T    RE V
F1 T+   M1 T+
"""
WORDS = {
    "T": "HOLDS",
    "T+": "NEEDS_CONDITIONS",
    "F": "FALSE",
    "V": "VERIFIED",
    "E": "EMPIRICAL",
    "O": "OPEN",
}
VERIFIED = {
    "C07": {"b"},  # cited for every K; exact certificates for K = 1..5 and 12
    "C09": {"truncated"},
    "C10": {"work", "memory", "others", "recursion"},  # counted at some K
    "C22": {"worst"},  # rests on C07 b
    "C23": {"subgradient", "bijection"},
    "C31": {"scores", "tasks", "protocols", "cause"},  # published figures and records
    "C32": {"common", "far"},  # curves
    "RE": {"library"},  # L_J is measured
    "RA2": {"curvature", "sharp", "loose", "dense"},
}
"""The parts that no check covers in full."""

ENTRIES = {entry["id"]: entry for entry in json.loads(LEDGER.read_text(encoding="utf-8"))}
KEYS = {
    "id",
    "as_printed",
    "amended",
    "status",
    "checks",
    "mutants",
    "mutants_killed",
    "quantities",
}


def table() -> dict[str, str]:
    words = READING.split()
    return {name: WORDS[code] for name, code in zip(words[::2], words[1::2], strict=True)}


def test_every_claim_has_its_line():
    assert list(ENTRIES) == list(IDS)
    assert sorted(table()) == sorted(IDS)


@pytest.mark.parametrize("name", IDS)
def test_the_verdict_is_the_one_of_the_reading(name):
    entry = ENTRIES[name]
    assert entry["as_printed"] == table()[name]
    assert entry["amended"] == ("VERIFIED" if name in VERIFIED else "PROVED")
    found = {part for part, one in entry["parts"].items() if one["verdict"] != "PROVED"}
    assert found == VERIFIED.get(name, set())
    assert entry["status"] == "OK"


@pytest.mark.parametrize("name", IDS)
def test_every_statement_is_falsified_in_three_ways_at_least(name):
    entry = ENTRIES[name]
    assert entry["false_statements"] == entry["false_statements_rejected"] >= 3


@pytest.mark.parametrize("name", IDS)
def test_every_check_rejects_all_its_mutants(name):
    entry = ENTRIES[name]
    assert set(entry) >= KEYS
    assert entry["checks"]
    for check in entry["checks"]:
        assert check["passed"], check["name"]
        assert check["mutants_killed"] == check["mutants"], check["name"]
        assert check["mutants"] or check["name"].startswith("stated"), check["name"]
    assert entry["mutants"] == sum(check["mutants"] for check in entry["checks"])
    assert entry["mutants_killed"] == entry["mutants"]


def test_no_check_stands_for_another_and_every_quantity_is_described():
    for entry in ENTRIES.values():
        names = [check["name"] for check in entry["checks"]]
        assert len(names) == len(set(names))
        assert all(check["what"] for check in entry["checks"])
        for quantity in entry["quantities"].values():
            assert quantity["meaning"]
            assert quantity["exact"] or quantity["tolerance"] > 0
            assert not quantity["value"] or quantity["tolerance"] < 1e-9 + abs(quantity["value"])
