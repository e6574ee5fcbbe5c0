"""One run of every claim serves all its items, in every worker: the first that asks runs it and
leaves the result behind.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable

import pytest

from proofs_check.engine import closure, load, run_claim
from proofs_check.verdict import ClaimResult, Row, judge


@pytest.fixture(scope="session")
def result_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ClaimResult]:
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "claims"
    folder.mkdir(exist_ok=True)

    def get(name: str) -> ClaimResult:
        kept = folder / f"{name}.pickle"
        if not kept.exists():
            fresh = folder / f"{name}.{os.getpid()}"
            fresh.write_bytes(pickle.dumps(run_claim(name)))
            fresh.replace(kept)
        result = pickle.loads(kept.read_bytes())
        assert isinstance(result, ClaimResult)
        return result

    return get


@pytest.fixture(scope="session")
def row_of(result_of: Callable[[str], ClaimResult]) -> Callable[[str], Row]:
    def get(name: str) -> Row:
        wanted = closure([name])
        return judge(
            {other: load(other) for other in wanted}, {other: result_of(other) for other in wanted}
        )[name]

    return get
