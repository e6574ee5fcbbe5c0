"""Every registered geometry, with random options, keeps the contract: first step, purity, noise by
address, exact gradients. The planted faults of the contract's own tests do not.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from mdtheory.contract import Setting, examine
from mdtheory.contract.geometry import PROPERTIES
from mdtheory.contract.strategies import makers
from tests.contract.test_broken import FAULTS
from tests.property.mutants import assert_rejects

SLOW = {"differentiable", "stepwise", "batched", "resident", "learns"}
"""Each takes a tenth of a second and more, so that they get a fifth of the examples."""


def keeps(property):
    """The check of one property of the contract, on a small smooth network."""

    def check(make):
        found = examine(Setting(make, "mlp"), property)
        assert found.verdict != "broken", found.said

    return check


@pytest.mark.parametrize("property", PROPERTIES)
def test_geometries_keep_their_contract_with_any_options(property):
    check = keeps(property)
    examples = settings().max_examples

    @settings(max_examples=max(5, examples // 5) if property in SLOW else examples)
    @given(makers())
    def holds(make):
        check(make)

    holds()


@pytest.mark.parametrize("fault", FAULTS)
def test_mutants_are_rejected(fault):
    make, property, _ = FAULTS[fault]
    assert_rejects(keeps(property), st.just(make))
