"""Clipping of the meta-gradient, without reading it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn.utils import clip_grad_norm_, clip_grad_value_, get_total_norm

from mdtheory.meta.door import positive


@dataclass(frozen=True)
class Clipping:
    """``value`` bounds every element of the gradient, then ``norm`` the norm of the whole."""

    value: float | None = None
    norm: float | None = None

    def __post_init__(self) -> None:
        """``ValueError`` for a bound that is none: a negative one would turn the gradient round."""
        for name in ("value", "norm"):
            if getattr(self, name) is not None:
                positive(f"clip_{name}", getattr(self, name), usual="10")

    def __call__(self, parameters: Sequence[Tensor]) -> Tensor:
        """Clip every ``.grad``; the norm of the whole before that. shape: ()"""
        total = get_total_norm([own.grad for own in parameters if own.grad is not None])
        if self.value is not None:
            clip_grad_value_(parameters, self.value)
        if self.norm is not None:
            clip_grad_norm_(parameters, self.norm)
        return total
