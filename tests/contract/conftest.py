"""The contract is kept by the compiled blocks too, at the small sizes of these tests."""

import pytest

from mdtheory.kernels import conv_norm_pool


@pytest.fixture(autouse=True)
def compiled_blocks_at_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conv_norm_pool, "WORTHWHILE", 0)
