"""Convolutions that are differentiated as often as one likes without ever leaving three operations.

    F(x, w) = conv(x, w);  <g, F(x, w)> = <X(g, w), x> = <W(g, x), w>

is linear in each of g, x and w, so that every derivative of F, X and W is one of F, X and W again.
torch's own double backward computes W as a convolution whose kernel is the image, which on a GPU is
several times slower, and its vmap makes one grouped convolution out of those of several tasks;
here all tasks are one launch where ``triton_convolution.py`` can, or one call after another. On a
CPU torch's own stays: it measured 5 to 21 % faster (six sizes, 28 to 84 pixels, 5 to 75 images).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mdtheory.kernels.conv_norm_pool import machine, on_gpu, plain_only, traceable
from mdtheory.kernels.over_tasks import OverTasks, cut

aten = torch.ops.aten


@dataclass(frozen=True)
class Layout:
    """Stride, padding, dilation and groups; the input's height and width."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    size: tuple[int, int]

    def arguments(self) -> Any:
        """The last six arguments of ``aten.convolution``."""
        return self.stride, self.padding, self.dilation, False, (0, 0), self.groups

    def keeps_size(self, k: tuple[int, ...]) -> bool:
        """Whether it is what ``triton_convolution.py`` computes."""
        same = self.padding == (k[0] // 2,) * 2 and self.stride == self.dilation == (1, 1)
        return same and k[0] == k[1] and k[0] % 2 == 1 and self.groups == 1


def suits(x: Tensor, layer: nn.Conv2d) -> bool:
    """Whether :func:`conv2d` can stand for this layer here and now, and is worth it: on a GPU, in
    reverse mode.
    """
    return (
        on_gpu(x)
        and x.dim() == 4
        and x.shape[1] == layer.weight.shape[1] * layer.groups
        and x.numel() > 0
        and x.dtype == layer.weight.dtype
        and x.dtype in (torch.float32, torch.float64)
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
        and traceable()
        and not plain_only()
    )


def conv2d(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """What the layer computes. shapes: (N, B, H, W) -> (N, C, H', W')"""
    padding = tuple(int(each) for each in layer.padding)
    size = (x.shape[2], x.shape[3])
    layout = Layout(layer.stride, padding, layer.dilation, layer.groups, size)
    y = _Forward.apply(x, layer.weight.unsqueeze(0), layout)
    return y if layer.bias is None else y + layer.bias.view(-1, 1, 1)


class _Forward(OverTasks):
    """F. shapes: x (T * N, B, H, W), w (T, C, B, k, k) -> (T * N, C, H', W')"""

    @staticmethod
    def forward(x: Tensor, w: Tensor, layout: Layout) -> Tensor:
        if _in_one_launch(x, w, layout):
            return machine(x.device).conv((x, w))
        return torch.cat(
            [
                aten.convolution(cut(x, len(w), t), w[t], None, *layout.arguments())
                for t in range(len(w))
            ]
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, w, ctx.layout = inputs
        ctx.save_for_backward(x, w)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, w = ctx.saved_tensors
        need_x, need_w, _ = ctx.needs_input_grad
        return (
            _InputGradient.apply(g, w, ctx.layout) if need_x else None,
            _WeightGradient.apply(g, x, w, ctx.layout) if need_w else None,
            None,
        )


class _InputGradient(OverTasks):
    """X. shapes: g (T * N, C, H', W'), w (T, C, B, k, k) -> (T * N, B, H, W)"""

    @staticmethod
    def forward(g: Tensor, w: Tensor, layout: Layout) -> Tensor:
        if _in_one_launch(g, w, layout):
            return machine(g.device).input_gradient(g, w)
        tasks = len(w)
        shape = (len(g) // tasks, w.shape[2] * layout.groups, *layout.size)
        like = g.new_empty(shape)  # read for its shape only
        mask = (True, False, False)
        rows = [
            aten.convolution_backward(
                cut(g, tasks, t), like, w[t], None, *layout.arguments(), mask
            )[0]
            for t in range(tasks)
        ]
        return torch.cat(rows)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        g, w, ctx.layout = inputs
        ctx.save_for_backward(g, w)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Any:
        g, w = ctx.saved_tensors
        need_g, need_w, _ = ctx.needs_input_grad
        return (
            _Forward.apply(v, w, ctx.layout) if need_g else None,
            _WeightGradient.apply(g, v, w, ctx.layout) if need_w else None,
            None,
        )


class _WeightGradient(OverTasks):
    """W; of ``like`` only the shape is read. shapes: g (T * N, C, H', W'), x (T * N, B, H, W) -> as
    like
    """

    @staticmethod
    def forward(g: Tensor, x: Tensor, like: Tensor, layout: Layout) -> Tensor:
        if _in_one_launch(x, like, layout):
            return machine(g.device).weight_gradient(g, x, like)
        mask, tasks = (False, True, False), len(like)
        rows = [
            aten.convolution_backward(
                cut(g, tasks, t), cut(x, tasks, t), like[t], None, *layout.arguments(), mask
            )[1]
            for t in range(tasks)
        ]
        return torch.stack(rows)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        g, x, _, ctx.layout = inputs
        ctx.save_for_backward(g, x)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Any:
        g, x = ctx.saved_tensors
        need_g, need_x, _, _ = ctx.needs_input_grad
        return (
            _Forward.apply(x, v, ctx.layout) if need_g else None,
            _InputGradient.apply(g, v, ctx.layout) if need_x else None,
            None,
            None,
        )


def _in_one_launch(x: Tensor, w: Tensor, layout: Layout) -> bool:
    return on_gpu(x) and layout.keeps_size(tuple(w.shape[3:]))
