"""Faults planted in the Triton code: the comparison with ordinary operations must see every one."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from mdtheory.kernels import have_triton
from tests.kernels.blocks import Size, along, at_once, distance, inputs, looped, ordinary, ours

pytestmark = pytest.mark.skipif(
    have_triton.triton is None or torch.cuda.is_available(),
    reason="the faults are planted in Triton's interpreter, without a card",
)

BLOCK = {
    "the square left out": ("square += tl.sum(d * d, 0)", "square += tl.sum(d, 0)"),
    "the shift left out": ("a - shift[None, :], 0.0)", "a, 0.0)"),
    "one tile of many": ("tl.num_programs(0) + program) * BM", "tl.num_programs(0)) * BM"),
    "later partial sums forgotten": ("range(0, programs, BP)", "range(0, BP, BP)"),
    "eps twice": ("variance, 0.0) + EPS", "variance, 0.0) + 2 * EPS"),
    "the sign of gamma": ("better = (sign * a > best)", "better = (a > best)"),
    "the last of the window": ("tl.static_range(1, WIN * WIN)", "tl.static_range(1, WIN)"),
    "the wrong side of zero": ("below = z <= 0", "below = z > 0"),
    "the mean in dgamma": ("tl.sum(g * (p - mu), 0)", "tl.sum(g * p, 0)"),
    "the place of p": ("tl.where(q == e, g, 0.0)", "tl.where(q == 0, g, 0.0)"),
    "items that do not count": (
        "value = tl.where((item < counted)[:, None]",
        "value = tl.where((item < n)[:, None]",
    ),
    "gu forgotten": ("if WITH_GU:", "if False:"),
    "the mean in VX": ("tl.sum(b * (a - mu), 0)", "tl.sum(b * a, 0)"),
    "items that do not count, in VS": (
        "b = tl.where(live & (item < counted)[:, None], b, 0.0)",
        "b = tl.where(live, b, 0.0)",
    ),
    "r forgotten in VX": ("C, c, BP) * root", "C, c, BP)"),
    "by_v forgotten": ("+ by_v * b, 0.0)", ", 0.0)"),
    "V at p forgotten": ("+ gy_by_v * b, share", ", share"),
    "the slope of to gy": ("share * factor", "share"),
    "the remainder of a row": ("rest // columns, rest % columns", "rest // columns, rest % rows"),
}
CONVOLUTION = {
    "taps not turned round": ("taps - 1 - tap)[:, None]", "tap)[:, None]"),
    "padding that hides the first row": ("inside = (row >= 0)", "inside = (row >= 1)"),
    "a tap to the right": ("dx = tap % KS - KS // 2", "dx = tap % KS"),
    "the second pair forgotten": ("if TWO:", "if False:"),
    "one split of many": ("for s in range(0, splits)", "for s in range(0, 1)"),
    "one task's weights for all": ("kernel = t * KS", "kernel = 0 * t * KS"),
}
SIZE = Size(3, 2, 3, 5, 4, counted=2, slope=0.1)
LARGER = Size(4, 1, 2, 5, 4, counted=4)  # two splits of a weight gradient
SEEN = 1e-9


def mutated(name: str, old: str, new: str, folder: Path) -> ModuleType:
    """The module with every ``old`` replaced, from a file of its own, which Triton reads again."""
    source = Path(str(importlib.util.find_spec(name).origin)).read_text()
    assert old in source, f"{old!r} is no longer in {name}: write the mutant anew"
    path = folder / "mutant.py"
    path.write_text(source.replace(old, new))
    spec = importlib.util.spec_from_file_location(f"mutant_{abs(hash(old))}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def error(tasks: int = 1) -> float:
    size = SIZE if tasks == 1 else LARGER
    data = inputs(size, tasks=tasks), along(size, tasks=tasks)
    return distance(at_once(ours, size, *data), looped(ordinary, size, *data))


def test_without_a_fault_there_is_no_error(small_tiles: torch.device) -> None:
    assert error() < 1e-12


@pytest.mark.parametrize("fault", BLOCK)
def test_a_fault_in_the_block_is_seen(
    fault: str, small_tiles: torch.device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from mdtheory.kernels import triton

    module = mutated("mdtheory.kernels.triton_kernels", *BLOCK[fault], tmp_path)
    monkeypatch.setattr(triton, "kernels", module)
    assert not error() < SEEN


@pytest.mark.parametrize("fault", CONVOLUTION)
def test_a_fault_in_the_convolution_is_seen(
    fault: str, small_tiles: torch.device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from mdtheory.kernels import triton, triton_convolution

    module = mutated("mdtheory.kernels.triton_convolution", *CONVOLUTION[fault], tmp_path)
    for name in ("POSITIONS", "SPLITS"):
        monkeypatch.setattr(module, name, getattr(triton_convolution, name))
    for name in ("conv", "input_gradient", "weight_gradient"):
        monkeypatch.setattr(triton, name, getattr(module, name))
    assert not error(tasks=2) < SEEN
