"""y = relu(maxpool2x2(norm(conv3x3(x)))): one operation with exact first and second derivatives,
all derived by hand.

Notation. u = conv(x, w), without a bias, which batch statistics cancel. Per channel, over the M
values of the first ``counted`` items: mean, and r = 1 / sqrt(var + eps) with the biased variance;
xh = (u - mean) r. In each 2 x 2 window p is the element whose normalised value is largest (the
first one of equals, as in torch): of u where gamma > 0, of -u where gamma < 0. y = relu(gamma r (p
- mean) + beta).

First derivative, for a cotangent gy; g = gy where y > 0, else 0; xp = (p - mean) r; sums over all
windows:

    dbeta = sum g,   dgamma = sum g xp,   du = gamma r (put(g) - [dbeta + xh dgamma] / M)

where put(g) is g at the places of p, and the bracket is there for the counted items only. Then dw,
dx from du by the convolution's own adjoints. Second derivative, for cotangents V of du and vg, vb
of dgamma, dbeta; VS = sum V and VX = sum V xh over the counted items, E = sum g V(p):

    Q = E - (dbeta VS + dgamma VX) / M, c1 = vg - gamma r VX / M, c2 = gamma r dgamma / M to gamma:
    r Q to gy: vb - gamma r VS / M + c1 xp + gamma r V(p) where y > 0, else 0 to u: r c1 put(g) - r
    (c2 V + [c1 dbeta - c2 VS] / M + xh [c1 dgamma - c2 VX + gamma r Q] / M)

with V = conv(x, vw) + conv(vx, w) for cotangents vx, vw of dx, dw, whose own shares go to x, w and
du likewise. Masks and places are constant, as everywhere in autograd. Third derivatives are
refused; :func:`suits` never lets them come to that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import TransformType
from torch._functorch.pyfunctorch import retrieve_all_functorch_interpreters
from torch.autograd import Function, forward_ad

from mdtheory.kernels import cpp
from mdtheory.kernels.compile import library

aten = torch.ops.aten
CHUNK = 2**21
"""Values of du that are made at once: 8 MiB in float32, which a processor's cache holds."""

CONVOLUTION = ((1, 1), (1, 1), (1, 1), False, (0, 0), 1)
"""Stride, padding, dilation, transposed, output padding, groups."""

WORTHWHILE = 2**16
"""Values of u below which ordinary operations are as fast: what is saved there is less than the
calls cost.
"""

_plain: ContextVar[bool] = ContextVar("plain", default=False)


@contextmanager
def plain() -> Iterator[None]:
    """Inside, :func:`suits` is false, so that every block runs on ordinary torch operations (any
    order of derivative).
    """
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def suits(x: Tensor, weight: Tensor, *others: Tensor) -> bool:
    """Whether :func:`conv_norm_pool` can take these here and now, and has enough to do.

    It takes float32 and float64, on a CPU with a compiler, and at most two nested derivatives, all
    of them reverse-mode.
    """
    if (
        torch.compiler.is_compiling() or torch.jit.is_tracing()
    ):  # whoever records the operations must see ordinary ones
        return False
    usable = all(t.device.type == "cpu" and t.dtype == x.dtype for t in (x, weight, *others))
    if (
        not usable
        or x.dtype not in (torch.float32, torch.float64)
        or x.dim() != 4
        or min(x.shape[2:]) < 2
        or _plain.get()
    ):
        return False
    if x.numel() == 0 or x.numel() // x.shape[1] * len(weight) < WORTHWHILE:
        return False
    levels = [interpreter.key() for interpreter in retrieve_all_functorch_interpreters()]
    orders = levels.count(TransformType.Grad)
    forward_mode = TransformType.Jvp in levels or forward_ad._current_level >= 0
    return orders <= 2 and not forward_mode and library() is not None


@dataclass(frozen=True)
class Plan:
    """What is no tensor: eps, and the number of items that give the statistics."""

    eps: float
    counted: int


def conv_norm_pool(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    gamma: Tensor,
    beta: Tensor,
    *,
    eps: float,
    counted: int,
) -> Tensor:
    """relu(maxpool2x2(norm(conv3x3(x)))), padding 1, the statistics being those of the first
    ``counted`` items.

    shapes: x (N, B, H, W), weight (C, B, 3, 3), bias, gamma and beta (C,) -> (N, C, H // 2, W //
    2). The bias cancels: it is not read, and its gradient is exactly 0.
    """
    return _Forward.apply(x, weight, bias, gamma, beta, Plan(eps, counted))[0]


class _Looped(Function):
    """An operation whose vmap is a loop: the tensors of one task are large enough by themselves."""

    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> Any:
        """Apply to every slice; every output gets its batch axis in front."""
        rows = []
        for i in range(info.batch_size):
            rows.append(
                cls.apply(
                    *(
                        x if dim is None else x.select(dim, i)
                        for x, dim in zip(inputs, in_dims, strict=True)
                    )
                )
            )
        return tuple(torch.stack(column) for column in zip(*rows, strict=True)), (0,) * len(rows[0])


class _Forward(_Looped):
    """(x, weight, bias, gamma, beta) -> (y, u, code, mean, r); u is given so that both derivatives
    meet in one convolution.
    """

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, bias: Tensor, gamma: Tensor, beta: Tensor, plan: Plan
    ) -> Any:
        u = _conv(x, weight)
        shift = u[0, :, 0, 0].contiguous()
        first, second = cpp.moments(u[: plan.counted], shift) / (
            plan.counted * u.shape[2] * u.shape[3]
        )
        mean = (first + shift).to(u.dtype)
        r = (second - first.square()).clamp(min=0).add(plan.eps).rsqrt().to(u.dtype)
        y, code = cpp.pool(u, sign=gamma.sign(), scale=gamma * r, mean=mean, beta=beta.contiguous())
        return y, u, code, mean, r

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, weight, _, gamma, _, ctx.plan = inputs
        _, u, code, mean, r = output
        ctx.mark_non_differentiable(code, mean, r)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight, gamma, u, code, mean, r)

    @staticmethod
    def backward(ctx: Any, gy: Tensor | None, gu: Tensor | None, *_: None) -> Any:
        x, weight, gamma, u, code, mean, r = ctx.saved_tensors
        gy = torch.zeros_like(code, dtype=u.dtype) if gy is None else gy
        need_x = ctx.needs_input_grad[0]
        dx, dw, dgamma, dbeta = _Backward.apply(
            gy, gu, x, weight, gamma, u, code, mean, r, ctx.plan, need_x
        )
        return dx if need_x else None, dw, torch.zeros_like(dbeta), dgamma, dbeta, None


class _Backward(_Looped):
    """(gy, gu, x, weight, gamma, u) -> (dx, dw, dgamma, dbeta), gu being a further cotangent of
    u.
    """

    @staticmethod
    def forward(gy: Tensor, *rest: Any) -> Any:
        gu, x, weight, gamma, u, code, mean, r, plan, need_x = rest
        gy = _last(gy)
        dbeta, dgamma = cpp.reduce(gy, u, code, mean)
        dgamma = dgamma * r
        slopes = _Slopes(gy, gu, gamma, u, code, mean, r, dgamma, dbeta, plan)
        dx, dw = slopes.through_conv(x, weight, need_x)
        return dx, dw, dgamma.to(u.dtype), dbeta.to(u.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        *tensors, ctx.plan, ctx.need_x = inputs
        ctx.save_for_backward(*tensors, output[2], output[3])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(
        ctx: Any, vx: Tensor | None, vw: Tensor | None, vgamma: Tensor | None, vbeta: Tensor | None
    ) -> Any:
        need_x = ctx.needs_input_grad[2]
        vx = vx if ctx.need_x else None
        shares = _DoubleBackward.apply(vx, vw, vgamma, vbeta, *ctx.saved_tensors, ctx.plan, need_x)
        to_gy, to_gu, to_x, to_w, to_gamma, to_u = shares
        has_gu = ctx.needs_input_grad[1]
        return (
            to_gy,
            to_gu if has_gu else None,
            to_x if need_x else None,
            to_w,
            to_gamma,
            to_u,
            None,
            None,
            None,
            None,
            None,
        )


class _DoubleBackward(_Looped):
    """The cotangents of what :class:`_Backward` takes, from those of what it gives."""

    @staticmethod
    def forward(
        vx: Tensor | None,
        vw: Tensor | None,
        vgamma: Tensor | None,
        vbeta: Tensor | None,
        *rest: Any,
    ) -> Any:
        gy, gu, x, weight, gamma, u, code, mean, r, dgamma, dbeta, plan, need_x = rest
        slopes = _Slopes(_last(gy), gu, gamma, u, code, mean, r, dgamma, dbeta, plan)
        v = torch.zeros_like(u) if vw is None else _conv(x, vw)
        v = v if vx is None else v.add_(_conv(vx, weight))
        to_gy, to_gamma, to_u = slopes.second(v, _zeros(vgamma, gamma), _zeros(vbeta, gamma))
        to_x = (
            x.new_empty(0)
            if not need_x
            else torch.zeros_like(x)
            if vw is None
            else slopes.through_conv(x, vw, True)[0]
        )
        to_w = torch.zeros_like(weight) if vx is None else slopes.through_conv(vx, weight, False)[1]
        return to_gy, v if gu is not None else v.new_empty(0), to_x, to_w, to_gamma, to_u

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is kept."""

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Any:
        raise RuntimeError(
            "Conv4's compiled block has two derivatives, a third was asked for; use "
            "mdtheory.kernels.plain()"
        )


@dataclass(frozen=True)
class _Slopes:
    """The first derivatives of one block at one input, and everything that they are made of."""

    gy: Tensor
    gu: Tensor | None
    gamma: Tensor
    u: Tensor
    code: Tensor
    mean: Tensor
    r: Tensor
    dgamma: Tensor
    dbeta: Tensor
    plan: Plan

    def values(self) -> int:
        """M of the module's formulas."""
        return self.plan.counted * self.u.shape[2] * self.u.shape[3]

    def through_conv(self, x: Tensor, weight: Tensor, need_x: bool) -> tuple[Tensor, Tensor]:
        """The convolution's adjoints of du at (x, weight), some items at a time: du as a whole is
        the largest tensor of all.
        """
        weights = _last(weight)
        chunks = math.ceil(self.u.numel() / CHUNK)
        per = math.ceil(len(x) / chunks)
        parts, dw = [], torch.zeros_like(weight)
        for start in range(0, len(x), per):
            items = slice(start, start + per)
            dx_part, dw_part, _ = aten.convolution_backward(
                self._du(items), _last(x[items]), weights, None, *CONVOLUTION, (need_x, True, False)
            )
            dw += dw_part
            parts.append(dx_part)
        return torch.cat(parts) if need_x else x.new_empty(0), dw

    def _du(self, items: slice) -> Tensor:
        counted = min(max(self.plan.counted - items.start, 0), len(self.u[items]))
        r, scale = self.r.double(), self.gamma.double() * self.r.double()
        level, slope = -scale * self.dbeta / self.values(), -scale * r * self.dgamma / self.values()
        kind = self.u.dtype
        return cpp.scatter(
            self.u[items],
            None if self.gu is None else _last(self.gu[items]),
            self.gy[items],
            self.code[items],
            self.mean,
            level=level.to(kind),
            slope=slope.to(kind),
            by_g=scale.to(kind),
            counted=counted,
        )

    def second(self, v: Tensor, vgamma: Tensor, vbeta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The shares of gy, gamma and u. shapes: as y, (C,), as u"""
        gy, u, code, mean, counted, kind, m = (
            self.gy,
            self.u,
            self.code,
            self.mean,
            self.plan.counted,
            self.u.dtype,
            self.values(),
        )
        r, gamma, dgamma, dbeta = (
            t.double() for t in (self.r, self.gamma, self.dgamma, self.dbeta)
        )
        vs, vx, e = cpp.reduce_v(v, gy, u, code, mean, counted=counted)
        vx = vx * r
        q, c1, c2 = (
            e - (dbeta * vs + dgamma * vx) / m,
            vgamma - gamma * r * vx / m,
            gamma * r * dgamma / m,
        )
        of_gy = {"level": vbeta - gamma * r * vs / m, "slope": c1 * r, "scale": gamma * r}
        of_u = {
            "level": -r * (c1 * dbeta - c2 * vs) / m,
            "slope": -r * r * (c1 * dgamma - c2 * vx + gamma * r * q) / m,
            "by_v": -r * c2,
            "by_g": r * c1,
        }
        to_gy = cpp.sparse(
            v, u, code, mean, **{name: value.to(kind) for name, value in of_gy.items()}
        )
        to_u = cpp.scatter_v(
            u,
            v,
            gy,
            code,
            mean,
            counted=counted,
            **{name: value.to(kind) for name, value in of_u.items()},
        )
        return to_gy, (r * q).to(kind), to_u


def _conv(x: Tensor, weight: Tensor) -> Tensor:
    """conv3x3 with padding 1. shape: (N, C, H, W)"""
    return _last(aten.convolution(_last(x), _last(weight), None, *CONVOLUTION))


def _last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _zeros(v: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if v is None else v
