"""Every random draw has an address, and the address alone decides it."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Iterable

import torch
from torch import Tensor


def seed(*parts: str | int) -> int:
    """A 63-bit seed from sha256 of the parts; ("a", "bc") and ("ab", "c") differ, 5 and numpy's or
    torch's 5 do not, nor do numpy's texts and Python's. ``ValueError`` for a part that is neither
    text nor a whole number.
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in map(_plain, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def _plain(part: str | int) -> str | int:
    if isinstance(part, str):
        return str.__str__(part)
    if isinstance(part, int):
        return part
    try:
        return operator.index(part)
    except TypeError:
        raise ValueError(
            f"a seed must be a whole number or a text, got {part!r}; give the task an address of "
            "its own"
        ) from None


def address_of(tensors: Iterable[Tensor]) -> int:
    """A 63-bit seed from the numbers in tensors, the same on every device and in every floating
    type that holds them. shapes: any
    """
    found = hashlib.sha256()
    for value in tensors:
        real = torch.view_as_real(value) if value.is_complex() else value
        numbers = real.detach().to("cpu", torch.float64).contiguous().numpy()
        found.update(f"{tuple(real.shape)}".encode() + numbers.tobytes())
    return int.from_bytes(found.digest()[:8], "big") >> 1


def generator(*parts: str | int) -> torch.Generator:
    """A CPU generator started at :func:`seed` of the parts."""
    return torch.Generator().manual_seed(seed(*parts))
