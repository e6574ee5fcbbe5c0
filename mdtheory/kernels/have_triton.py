"""Triton where it is installed, so that kernels can be written in files that import without it."""

from __future__ import annotations

import functools
import logging
from typing import Any

import torch

try:
    import triton
    from triton import language as tl

    triton.knobs  # noqa: B018 - since 3.4
except (ImportError, AttributeError):  # an extra: torch brings it along with CUDA only
    triton, tl = None, None

log = logging.getLogger(__name__)
OLDEST = (8, 0)
"""The compute capability from which tensor cores know TF32 and float64."""


OPTIONS = {"enable_fp_fusion": True}
"""Of every compilation, which would otherwise depend on the version of Triton."""


def jit(function: Any) -> Any:
    """A Triton kernel, or the function itself, never to be called, where there is no Triton."""
    return function if triton is None else triton.jit(function)


def inline(function: Any) -> Any:
    """A function of operators alone, for kernels to call; the interpreter takes it as it is."""
    return function if interpreted() else jit(function)


@functools.cache
def why_not(device: torch.device) -> str | None:
    """Why the Triton kernels cannot run on this device, in one sentence, which is logged once;
    ``None`` where they can.
    """
    reason = _reason(device)
    if reason is not None and device.type == "cuda":
        log.warning("the network runs on torch's own operations, several times slower: %s", reason)
    return reason


def _reason(device: torch.device) -> str | None:
    if triton is None:
        return "Triton is not installed, or too old: install the extra mdtheory[gpu]"
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
    """What the driver or the compiler says to the smallest kernel; ``None`` if it runs.

    It takes no tensor: this may be asked inside ``torch.func.grad``, where a new one has no memory.
    """
    try:
        with torch.cuda.device(device):
            _nothing[(1,)](2, **OPTIONS)
            torch.cuda.synchronize()
    except Exception as error:  # noqa: BLE001 - a foreign compiler raises what it likes
        said = " ".join(str(error).split())[:200]
        return f"Triton cannot compile for this card ({type(error).__name__}: {said})"
    return None


@jit
def _nothing(n):  # type: ignore[no-untyped-def]  # Triton evaluates annotations, and refuses most
    tl.program_id(0) + n
