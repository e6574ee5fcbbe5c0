"""Triton's kernels on whatever is here: a card, or the interpreter with tiles of a few values."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from mdtheory.kernels import conv_norm_pool, have_triton

CARD = torch.cuda.is_available()


@pytest.fixture
def triton_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """Inside, every tensor is a GPU's for the library; the device to put them on."""
    if have_triton.triton is None:
        pytest.skip("Triton is not installed: there is nothing to test")
    from mdtheory.kernels import triton, triton_convolution

    monkeypatch.setattr(conv_norm_pool, "machine", lambda device: triton)
    from mdtheory.kernels import convolution

    monkeypatch.setattr(convolution, "machine", lambda device: triton)
    if not CARD:  # several tiles, programs and partial sums at the sizes of these tests
        monkeypatch.setattr(triton, "VALUES", 64)
        monkeypatch.setattr(triton, "PROGRAMS", 3)
        monkeypatch.setattr(triton, "PART", 2)
        monkeypatch.setattr(triton_convolution, "POSITIONS", 16)
        monkeypatch.setattr(triton_convolution, "SPLITS", 2)
    yield torch.device("cuda" if CARD else "cpu")
