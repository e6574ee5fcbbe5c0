"""Watching a model's buffers in every forward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mdtheory.core.torch_private import is_functorch_wrapped_tensor
from mdtheory.models.norm import BatchStatNorm


class BufferGuard:
    """A pair of forward hooks that refuse a pass which changed one of the model's buffers.

    Identity and version counter are compared in every pass; values too, in the first pass of each
    mode, because torch's native batch norm changes its running statistics without counting it. The
    buffers of :class:`BatchStatNorm` are left out: they change only inside
    ``collecting_statistics``.
    """

    def __init__(self) -> None:
        self._before: dict[str, tuple[Tensor, int]] = {}
        self._values: dict[str, Tensor] = {}
        self._modes_seen: set[bool] = set()

    def before(self, model: nn.Module, args: Any) -> None:
        """Remember each buffer and how often it has been written to."""
        buffers = constants(model)
        self._before = {name: (value, value._version) for name, value in buffers.items()}
        self._values = {}
        if model.training not in self._modes_seen:
            self._values = {
                name: value.clone()
                for name, value in buffers.items()
                if not is_functorch_wrapped_tensor(value)
            }

    def after(self, model: nn.Module, args: Any, output: Any) -> None:
        """Compare; ``ValueError`` with the buffer's name."""
        now, before, values = constants(model), self._before, self._values
        self._before = {}
        self._values = {}
        for name in before.keys() | now.keys():
            old, new = before.get(name), now.get(name)
            same = old is not None and new is old[0] and new._version == old[1]
            if not same or (name in values and not equal(values[name], now[name])):
                raise ValueError(
                    f"buffer {name!r} must stay constant, but the forward pass changed it; "
                    "compute it when the model is built, or keep batch statistics in "
                    "mdtheory.models.BatchStatNorm"
                )
        self._modes_seen.add(model.training)


def equal(one: Tensor, other: Tensor) -> bool:
    """Bit for bit, but NaN equals NaN, and where a sparse tensor has no entry it has a zero."""
    one, other = (v if v.layout is torch.strided else v.to_dense() for v in (one, other))
    return bool(((one == other) | ((one != one) & (other != other))).all())


def constants(model: nn.Module) -> dict[str, Tensor]:
    """The buffers that no forward pass may change, by name."""
    return {
        f"{prefix}.{name}" if prefix else name: value
        for prefix, module in model.named_modules()
        if not isinstance(module, BatchStatNorm)
        for name, value in module.named_buffers(recurse=False)
    }


def guard_buffers(model: nn.Module) -> None:
    """Watch the buffers of ``model`` in every forward pass, if it has any."""
    if constants(model):
        guard = BufferGuard()
        model.register_forward_pre_hook(guard.before)
        model.register_forward_hook(guard.after)
