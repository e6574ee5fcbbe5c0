"""Operations on the stacked data of several tasks, each with weights of its own, and their one vmap
rule.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


class OverTasks(Function):
    """An operation whose tensors all begin with the axis of tasks: (T * N, ...) where every task
    has N items, (T, ...) where it has one set of numbers, task after task.

    ``vmap`` therefore is the operation itself on B * T tasks, whatever it computes and however
    often it is nested. A tensor without a batch axis is repeated.
    """

    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> Any:
        """Fold the batch axis into that of tasks, apply, and unfold; the batch axis comes first."""
        b = info.batch_size
        outputs = cls.apply(*(fold(x, dim, b) for x, dim in zip(inputs, in_dims, strict=True)))
        if isinstance(outputs, Tensor):
            return unfold(outputs, b), 0
        return tuple(unfold(x, b) for x in outputs), (0,) * len(outputs)


def fold(x: Any, dim: int | None, b: int) -> Any:
    """The batch axis ``dim`` of size b in front of the first axis, and one with it; no tensor: as
    it is.
    """
    if not isinstance(x, Tensor):
        return x
    stacked = x.unsqueeze(0).expand(b, *x.shape) if dim is None else x.movedim(dim, 0)
    return stacked.flatten(0, 1)


def unfold(x: Tensor, b: int) -> Tensor:
    """The batch axis out of the first one again. shape: (b, first / b, ...)"""
    return x.unflatten(0, (b, x.shape[0] // b))


def last(x: Tensor) -> Tensor:
    """Channels-last. shape: (N, C, H, W)"""
    return x.contiguous(memory_format=torch.channels_last)


def cut(x: Tensor, tasks: int, t: int) -> Tensor:
    """Task t of the stacked ones. shape: (n / tasks, ...)"""
    per = x.shape[0] // tasks
    return x[t * per : (t + 1) * per]
