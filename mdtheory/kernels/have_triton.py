"""Triton where it is installed, so that kernels can be written in files that import without it."""

from __future__ import annotations

import functools
from typing import Any

import torch

try:
    import triton
    from triton import language as tl
except ImportError:  # an extra: torch brings it along with CUDA only
    triton, tl = None, None

OLDEST = (8, 0)
"""The compute capability from which tensor cores know TF32 and float64."""


def jit(function: Any) -> Any:
    """A Triton kernel, or the function itself, never to be called, where there is no Triton."""
    return function if triton is None else triton.jit(function)


def inline(function: Any) -> Any:
    """A function of operators alone, for kernels to call; the interpreter takes it as it is."""
    return function if interpreted() else jit(function)


@functools.cache
def why_not(device: torch.device) -> str | None:
    """Why the Triton kernels cannot run on this device, in one sentence; ``None`` where they
    can.
    """
    if triton is None:
        return "Triton is not installed: install the extra mdtheory[gpu]"
    if device.type == "cpu":
        return None if interpreted() else "Triton's interpreter is off: set TRITON_INTERPRET=1"
    found = torch.cuda.get_device_capability(device)
    if found < OLDEST:
        return (
            f"the card must have compute capability {OLDEST[0]}.{OLDEST[1]} or newer, got "
            f"{found[0]}.{found[1]}: use a newer one"
        )
    return _trial(device)


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, on CPU tensors."""
    return triton is not None and bool(triton.knobs.runtime.interpret)


def _trial(device: torch.device) -> str | None:
    """What the driver or the compiler says to the smallest kernel; ``None`` if it runs."""
    try:
        with torch.cuda.device(device):
            _nothing[(1,)](torch.zeros(1, device=device))
            torch.cuda.synchronize()
    except Exception as error:  # noqa: BLE001 - a foreign compiler raises what it likes
        said = " ".join(str(error).split())[:200]
        return f"Triton cannot compile for this card ({type(error).__name__}: {said})"
    return None


@jit
def _nothing(x: Any) -> None:
    tl.store(x, 0.0)
