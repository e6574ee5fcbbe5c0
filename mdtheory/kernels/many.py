"""Arithmetic on many tensors in a few launches on a GPU: one operation for all of them, where a
graph would otherwise hold one a tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.autograd import Function

from mdtheory.core.torch_private import foreach_add, foreach_mul
from mdtheory.core.types import Params
from mdtheory.kernels.conv_norm_pool import on_gpu, plain_only, traceable


def moved(x: Sequence[Tensor], by: Sequence[Tensor], scale: float) -> list[Tensor]:
    """x + scale * by, tensor by tensor, any number of times differentiable. shapes: as x"""
    if x and all(map(_suits, (*x, *by))) and traceable() and not plain_only():
        return list(_Moved.apply(scale, *x, *by))
    return [one + scale * other for one, other in zip(x, by, strict=True)]


def means(stacked: Params) -> Params:
    """The mean over the first axis of each. shapes: (T, ...) -> (...)"""
    if not all(map(_suits, stacked.values())):
        return {name: value.mean(0) for name, value in stacked.items()}
    total, *rows = zip(*(value.unbind() for value in stacked.values()), strict=True)
    for row in rows:
        total = foreach_add(total, row)
    return dict(zip(stacked, foreach_mul(total, 1 / (1 + len(rows))), strict=True))


def _suits(x: Tensor) -> bool:
    return on_gpu(x) and x.is_floating_point()


class _Elementwise(Function):
    """Its vmap rule: the same on tensors with an axis more, the first one."""

    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> Any:
        b = info.batch_size
        outputs = cls.apply(*(_in_front(x, at, b) for x, at in zip(inputs, in_dims, strict=True)))
        return outputs, (0,) * len(outputs)


def _in_front(x: Any, at: int | None, b: int) -> Any:
    if not isinstance(x, Tensor):
        return x
    return x.expand(b, *x.shape) if at is None else x.movedim(at, 0)


class _Moved(_Elementwise):
    """(scale, x, by) -> x + scale * by"""

    @staticmethod
    def forward(scale: float, *tensors: Tensor) -> tuple[Tensor, ...]:
        half = len(tensors) // 2
        return tuple(foreach_add(tensors[:half], tensors[half:], alpha=scale))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.scale = inputs[0]

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> Any:
        return None, *g, *_Scaled.apply(ctx.scale, *g)


class _Scaled(_Elementwise):
    """(scale, x) -> scale * x"""

    @staticmethod
    def forward(scale: float, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(foreach_mul(tensors, scale))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.scale = inputs[0]

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> Any:
        return None, *_Scaled.apply(ctx.scale, *g)
