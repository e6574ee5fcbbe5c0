"""Triton's kernels on whatever is here: a card, or the interpreter."""

from __future__ import annotations

import pytest
import torch

from mdtheory.kernels import conv_norm_pool, convolution, have_triton

CARD = torch.cuda.is_available()


@pytest.fixture
def triton_machine(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """Inside, every tensor is a GPU's for the library; the device to put them on."""
    if have_triton.triton is None:
        pytest.skip("Triton is not installed: there is nothing to test")
    from mdtheory.kernels import triton

    for module in (conv_norm_pool, convolution):
        monkeypatch.setattr(module, "machine", lambda device: triton)
    return torch.device("cuda" if CARD else "cpu")


@pytest.fixture
def small_tiles(triton_machine: torch.device, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """The same with several tiles, programs and partial sums at the sizes of a test."""
    from mdtheory.kernels import triton, triton_convolution

    if not CARD:
        monkeypatch.setattr(triton, "VALUES", 64)
        monkeypatch.setattr(triton, "PROGRAMS", 3)
        monkeypatch.setattr(triton, "PART", 2)
        monkeypatch.setattr(triton_convolution, "POSITIONS", 16)
        monkeypatch.setattr(triton_convolution, "SPLITS", 2)
    return triton_machine
