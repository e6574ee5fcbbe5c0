"""The ledger as pytest items: each check, each of its mutants, each verdict, and the line on
disk.
"""

from __future__ import annotations

import json

import pytest

from proofs_check.engine import load, modules
from proofs_check.formula import Formula, tex
from proofs_check.report import LEDGER, differences, ledger
from proofs_check.verdict import false_variants

CLAIMS = {name: load(name) for name in modules()}
CHECKS = [
    pytest.param(name, check.name, id=f"{name}-{check.name}", marks=pytest.mark.xdist_group(name))
    for name, claim in CLAIMS.items()
    for check in claim.checks
]
MUTANTS = [
    pytest.param(
        name,
        check.name,
        mutant.name,
        id=f"{name}-{check.name}-{mutant.name}",
        marks=pytest.mark.xdist_group(name),
    )
    for name, claim in CLAIMS.items()
    for check in claim.checks
    for mutant in check.mutants
]
NAMES = [pytest.param(name, id=name, marks=pytest.mark.xdist_group(name)) for name in CLAIMS]


def found(result, check):
    assert not result.error, result.error
    return next(one for one in result.checks if one.name == check)


@pytest.mark.parametrize(("name", "check"), CHECKS)
def test_check_passes(result_of, name, check):
    result = found(result_of(name), check)
    assert result.passed, result.error
    able = result.mutants or any(one.killed for one in result.stated)
    assert able, "a check without mutants counts for nothing"


@pytest.mark.parametrize(("name", "check", "mutant"), MUTANTS)
def test_mutant_is_killed(result_of, name, check, mutant):
    result = next(one for one in found(result_of(name), check).mutants if one.name == mutant)
    assert result.killed, result.error or "survived"


@pytest.mark.parametrize("name", NAMES)
def test_a_falsified_statement_is_rejected(row_of, name):
    """A constant halved, an exponent changed, a relation turned round, a condition dropped: at
    least three for each claim, and the text is made from the same object.
    """
    found = false_variants(row_of(name))
    assert len(found) >= 3
    assert [one.name for one in found if not one.killed] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_formula_s_text_holds_no_mathematics_of_its_own_relation(name):
    claim = CLAIMS[name]
    for statement in (claim.printed, claim.amended):
        for part in (statement.then, *statement.parts.values()) if statement else ():
            if isinstance(part, Formula):
                assert "{formula}" in part.text or "{right}" in part.text
                assert tex(part.right) in part.latex


@pytest.mark.parametrize("name", NAMES)
def test_verdict_is_the_expected_one(row_of, name):
    row = row_of(name)
    assert row.status == "OK", "; ".join(row.reasons)


@pytest.mark.parametrize("name", NAMES)
def test_ledger_on_disk_says_the_same(row_of, name):
    kept = [line for line in json.loads(LEDGER.read_text(encoding="utf-8")) if line["id"] == name]
    assert not differences(json.dumps(kept), ledger({name: row_of(name)}))
