"""The block on a GPU: what it asks of a machine, for all tasks at once, in Triton.

The arithmetic of a channel inside the kernels is compiled from ``formulas.py``. All images are
channels-last. Partial sums are dealt out by the task's own size and finished in float64: neither
the number of tasks nor the card moves a result. A code is p's place in its window, plus
4 where z <= 0.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mdtheory.kernels import triton_convolution, triton_kernels as kernels
from mdtheory.kernels.formulas import First, Plan
from mdtheory.kernels.have_triton import triton
from mdtheory.kernels.over_tasks import last
from mdtheory.kernels.triton_convolution import launch

PROGRAMS = 264
"""At most so many partial sums of a task: two for every multiprocessor of a large card."""

VALUES = 1024
"""Values of one tile."""

PART = 32
"""Partial sums that a finishing kernel reads at once."""

conv = triton_convolution.conv
input_gradient = triton_convolution.input_gradient
weight_gradient = triton_convolution.weight_gradient


class _Sizes:
    """The sizes of T tasks' images, and the tiles that they are cut into."""

    def __init__(self, u: Tensor, tasks: int, plan: Plan):
        items, self.c, self.h, self.w = u.shape
        self.tasks = tasks
        self.n = items // tasks
        self.plan = plan
        self.like = u
        self.channels = min(64, triton.next_power_of_2(self.c))
        self.windows = VALUES // self.channels
        self.blocks = triton.cdiv(self.c, self.channels)
        self.values = plan.counted * self.h * self.w

    def args(self) -> tuple[int, ...]:
        return self.n, self.h, self.w, self.c

    def meta(self) -> dict[str, Any]:
        return {
            "WIN": self.plan.window,
            "SLOPE": float(self.plan.slope),
            "BJ": self.windows,
            "BC": self.channels,
        }

    def tiles(self, *, halves: bool) -> int:
        """Of windows; with ``halves``, those that are cut off at the edge too."""
        window = self.plan.window
        rows, columns = (
            (triton.cdiv(self.h, window), triton.cdiv(self.w, window))
            if halves
            else (self.h // window, self.w // window)
        )
        return triton.cdiv(self.n * rows * columns, self.windows)

    def grid(self, tiles: int) -> tuple[int, int, int]:
        return tiles, self.tasks, self.blocks

    def parts(self, tiles: int, sums: int) -> tuple[Tensor, int]:
        """Room for the partial sums, and how many tiles each program has."""
        programs = min(tiles, PROGRAMS)
        part = self.vectors(programs, sums, dtype=torch.float64)
        return part, triton.cdiv(tiles, programs)

    def vectors(self, *rows: int, dtype: torch.dtype | None = None) -> Tensor:
        return torch.empty(
            self.tasks, *rows, self.c, dtype=dtype or self.like.dtype, device=self.like.device
        )

    def pooled(self, dtype: torch.dtype | None = None) -> Tensor:
        window = self.plan.window
        return torch.empty(
            self.tasks * self.n,
            self.c,
            self.h // window,
            self.w // window,
            dtype=dtype or self.like.dtype,
            device=self.like.device,
            memory_format=torch.channels_last,
        )

    def images(self) -> Tensor:
        return torch.empty_like(self.like, memory_format=torch.channels_last)


def normalise(
    u: Tensor, gamma: Tensor, beta: Tensor, plan: Plan
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y, code, mean and r of the formulas."""
    size = _Sizes(u, len(gamma), plan)
    part, steps = size.parts(triton.cdiv(size.values, size.windows), 2)
    gamma, beta = gamma.contiguous(), beta.contiguous()
    stride = size.n * size.h * size.w * size.c
    launch(
        kernels.moments, size.grid(part.shape[1]), u, part, steps, size.values, stride, size.c,
        BM=size.windows, BC=size.channels,
    )  # fmt: skip
    mean, r = size.vectors(), size.vectors()
    launch(
        kernels.finish_moments, (size.blocks, size.tasks), part, u, mean, r, part.shape[1],
        size.values, stride, size.c, EPS=plan.eps, BP=PART, BC=size.channels,
    )  # fmt: skip
    y, code = size.pooled(), size.pooled(torch.uint8)
    tiles = size.tiles(halves=False)
    launch(
        kernels.pool,
        size.grid(tiles),
        u,
        gamma,
        r,
        mean,
        beta,
        y,
        code,
        *size.args(),
        **size.meta(),
    )
    return y, code, mean, r


def slopes(
    gy: Tensor, u: Tensor, code: Tensor, mean: Tensor, r: Tensor, plan: Plan
) -> tuple[Tensor, Tensor]:
    """dgamma and dbeta. shapes: (T, C)"""
    size = _Sizes(u, len(mean), plan)
    tiles = size.tiles(halves=False)
    part, steps = size.parts(tiles, 2)
    launch(
        kernels.sum_first, size.grid(part.shape[1]), gy, u, code, mean, part, steps, *size.args(),
        **size.meta(),
    )  # fmt: skip
    dgamma, dbeta = size.vectors(), size.vectors()
    launch(
        kernels.finish_first, (size.blocks, size.tasks), part, r, dgamma, dbeta, part.shape[1],
        size.c, BP=PART, BC=size.channels,
    )  # fmt: skip
    return dgamma, dbeta


def through_conv(
    first: First, x: Tensor, weight: Tensor, *, need_x: bool, need_w: bool
) -> tuple[Tensor | None, Tensor | None]:
    """The convolution's adjoints of du at (x, weight). shapes: as x, as weight"""
    size = _Sizes(first.u, len(first.gamma), first.plan)
    du = size.images()
    launch(
        kernels.du, size.grid(size.tiles(halves=True)), first.u,
        first.u if first.gu is None else first.gu, first.gy, first.code, first.mean, first.r,
        first.gamma.contiguous(), first.dgamma.contiguous(), first.dbeta.contiguous(), du,
        size.values, first.plan.counted, *size.args(), WITH_GU=first.gu is not None, **size.meta(),
    )  # fmt: skip
    dx = input_gradient(du, weight) if need_x else None
    dw = weight_gradient(du, x, weight) if need_w else None
    return dx, dw


def second(
    first: First, v: Tensor, vgamma: Tensor | None, vbeta: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The shares of gy, gamma and u. shapes: as y, (T, C), as u"""
    size = _Sizes(first.u, len(first.gamma), first.plan)
    v, tiles = last(v), size.tiles(halves=True)
    part, steps = size.parts(tiles, 3)
    launch(
        kernels.sum_second, size.grid(part.shape[1]), v, first.gy, first.u, first.code, first.mean,
        part, steps, first.plan.counted, *size.args(), **size.meta(),
    )  # fmt: skip
    coefficients, to_gamma = size.vectors(7), size.vectors()
    vectors = [
        x.contiguous() for x in (first.mean, first.r, first.gamma, first.dgamma, first.dbeta)
    ]
    mean, r, gamma, dgamma, dbeta = vectors
    launch(
        kernels.finish_second, (size.blocks, size.tasks), part, r, gamma, dgamma, dbeta,
        gamma if vgamma is None else vgamma.contiguous(),
        gamma if vbeta is None else vbeta.contiguous(),
        coefficients, to_gamma, part.shape[1], size.values, size.c,
        VGAMMA=vgamma is not None, VBETA=vbeta is not None, BP=PART, BC=size.channels,
    )  # fmt: skip
    to_gy, to_u = size.pooled(), size.images()
    launch(
        kernels.second, size.grid(tiles), first.u, v, first.gy, first.code, mean, coefficients,
        to_gy, to_u, first.plan.counted, *size.args(), **size.meta(),
    )  # fmt: skip
    return to_gy, to_gamma, to_u
