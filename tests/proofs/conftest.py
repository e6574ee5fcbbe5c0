"""One run of every claim serves all its items: the first item that asks for a claim runs it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from proofs_check.engine import closure, load, run_claim
from proofs_check.verdict import ClaimResult, Row, judge


@pytest.fixture(scope="session")
def result_of() -> Callable[[str], ClaimResult]:
    kept: dict[str, ClaimResult] = {}

    def get(name: str) -> ClaimResult:
        if name not in kept:
            kept[name] = run_claim(name)
        return kept[name]

    return get


@pytest.fixture(scope="session")
def row_of(result_of: Callable[[str], ClaimResult]) -> Callable[[str], Row]:
    def get(name: str) -> Row:
        wanted = closure([name])
        return judge({other: load(other) for other in wanted}, {other: result_of(other) for other in wanted})[name]

    return get
