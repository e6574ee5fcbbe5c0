"""The contract is kept by the compiled blocks too, at the small sizes of these tests."""

import pytest

from mdtheory.kernels import block


@pytest.fixture(autouse=True)
def compiled_blocks_at_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block, "WORTHWHILE", 0)
