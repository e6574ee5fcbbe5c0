"""The ledger on disk against a table typed by hand: the verdicts of somebody who did not run it."""

from __future__ import annotations

import json

import pytest

from proofs_check.ids import IDS
from proofs_check.report import LEDGER

# T true, T+ true under added conditions, F false, E empirical; theorems and repairs are printed
# here, and true as printed
REFEREES = """
C01 T   C02 T+  C03 T+  C04 F   C05 F   C06 T+  C07 F   C08a T+ C08b F  C09 T+
C10 T   C11 T   C12 T   C13 T   C14 T+  C15 T   C16 T+  C17 T   C18 T+  C19 T+
C20 T   C21 T+  C22 T   C23 T   C24a T  C24b F  C25 T   C26 F   C27 F   C28 F
C29 F   C30 T+  C31 E   C32 E
T1 T    T2 T    T3 T    T4 T    T5 T    T6 T    T7 T
RA1 T   RA2 T   RB T    RC T    RD T
"""
WORDS = {"T": "HOLDS", "T+": "NEEDS_CONDITIONS", "F": "FALSE", "E": "EMPIRICAL"}
CITED = {
    "C07",
    "C22",
}  # rest on literature for every K (Drori and Teboulle), so they are supported, not proved
MEASURED = {"C31", "C32"}  # a table of results, and curves

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
    words = REFEREES.split()
    return {name: WORDS[code] for name, code in zip(words[::2], words[1::2], strict=True)}


def test_there_are_46_claims():
    assert len(IDS) == 46
    assert list(ENTRIES) == list(IDS)
    assert sorted(table()) == sorted(IDS)


@pytest.mark.parametrize("name", IDS)
def test_the_verdict_is_the_independent_one(name):
    assert ENTRIES[name]["as_printed"] == table()[name]
    assert ENTRIES[name]["amended"] == ("SUPPORTED" if name in CITED | MEASURED else "PROVED")
    assert ENTRIES[name]["status"] == "OK"


@pytest.mark.parametrize("name", IDS)
def test_every_check_rejects_all_its_mutants(name):
    entry = ENTRIES[name]
    assert set(entry) >= KEYS
    assert entry["checks"]
    for check in entry["checks"]:
        assert check["passed"], check["name"]
        assert check["mutants_killed"] == check["mutants"] >= 1, check["name"]
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
