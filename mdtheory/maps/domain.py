"""Domains of maps that are not all of R^d: refused with one sentence, also where values cannot be
looked at.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mdtheory.core.types import Params


def require(values: Params, holds: Callable[[Tensor], Tensor], *, what: str, advice: str) -> Params:
    """``values``, or ``ValueError`` where ``holds`` (elementwise) is false; ``what`` says what must
    be what.

    Inside ``vmap`` no value can be looked at: there, entries outside the domain become NaN, never a
    plausible number.
    """
    checked = {}
    for name, value in values.items():
        inside = holds(value)
        checked[name] = torch.where(inside, value, float("nan"))
        if _known_to_fail(inside):
            worst = value.detach()[~inside].reshape(-1)[0]
            raise ValueError(f"{what}, got {float(worst):.6g} in {name!r}; {advice}")
    return checked


def _known_to_fail(inside: Tensor) -> bool:
    try:
        return not bool(inside.all())
    except RuntimeError:  # what vmap raises for a value-dependent branch
        return False
