"""The block of a convolutional network as one operation with exact first and second derivatives.

The mathematics is in ``formulas.py``; here it meets autograd, for T tasks at once with weights of
their own. The loops over images are a machine's: ``cpp.py`` on a CPU, ``triton.py`` on a GPU. Third
derivatives are refused; :func:`suits` never lets them come to that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from mdtheory.core.torch_private import forward_mode, gradient_levels
from mdtheory.kernels import cpp
from mdtheory.kernels.compile import library
from mdtheory.kernels.formulas import First, Plan
from mdtheory.kernels.have_triton import why_not
from mdtheory.kernels.over_tasks import OverTasks, last

WORTHWHILE = 2**16
"""Values of u below which ordinary operations are as fast on a CPU: what is saved there is less
than the calls cost.
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


def plain_only() -> bool:
    """Whether the block runs as plain operations here: inside :func:`plain`."""
    return _plain.get()


def suits(x: Tensor, weight: Tensor, *others: Tensor, window: int = 2, slope: float = 0.0) -> bool:
    """Whether :func:`conv_norm_pool` can take these here and now, and has enough to do.

    It takes float32 and float64, on a CPU with a compiler or on a GPU with Triton, and at most two
    nested derivatives, all of them reverse-mode. Shapes that do not belong together are left to
    ordinary operations, which refuse them: the loops would read past an end.
    """
    if not traceable() or plain_only():
        return False
    if not all(t.device == x.device and t.dtype == x.dtype for t in (weight, *others)):
        return False
    if (
        x.dtype not in (torch.float32, torch.float64)
        or x.dim() != 4
        or x.shape[1] != weight.shape[1]
        or any(vector.shape != weight.shape[:1] for vector in others)
        or x.numel() == 0
        or min(x.shape[2:]) < window
    ):
        return False
    return gradient_levels() <= 2 and _machine_suits(x, weight, window, slope)


def traceable() -> bool:
    """Whether an operation of our own may stand here: whoever records the operations or, as
    autocast, chooses their types must see ordinary ones, and there is no forward mode.
    """
    recorded = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return not recorded and not _autocast() and not forward_mode()


def _autocast() -> bool:
    return torch.is_autocast_enabled("cuda") or torch.is_autocast_enabled("cpu")


def _machine_suits(x: Tensor, weight: Tensor, window: int, slope: float) -> bool:
    """Whether the machine of x's device has loops for this block."""
    if on_gpu(x):
        return weight.shape[2] == weight.shape[3] in (1, 3) and window in (1, 2)
    return (
        x.device.type == "cpu"
        and weight.shape[2:] == (3, 3)
        and (window, slope) == (2, 0.0)
        and x.numel() // x.shape[1] * len(weight) >= WORTHWHILE
        and library() is not None
    )


def machine(device: torch.device) -> Any:
    """The module with the loops for this device, which has ``conv``, ``normalise``, ``slopes``,
    ``through_conv`` and ``second``.
    """
    if device.type != "cuda" or why_not(device) is not None:
        return cpp
    from mdtheory.kernels import triton

    return triton


def on_gpu(x: Tensor) -> bool:
    """Whether x is where the kernels are Triton's."""
    return machine(x.device) is not cpp


def conv_norm_pool(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    gamma: Tensor,
    beta: Tensor,
    *,
    eps: float,
    counted: int,
    window: int = 2,
    slope: float = 0.0,
) -> Tensor:
    """leaky(maxpool(norm(conv(x)))), padded to keep the size, the statistics being those of the
    first ``counted`` items.

    shapes: x (N, B, H, W), weight (C, B, k, k), bias, gamma and beta (C,) -> (N, C, H // window, W
    // window). The bias cancels: it is not read, and its gradient is exactly 0. ``slope``: of the
    leaky ReLU, 0 for ReLU, 1 for none.
    """
    one = (None if v is None else v.unsqueeze(0) for v in (weight, bias, gamma, beta))
    return _Forward.apply(x, *one, Plan(eps, counted, window, slope))[0]


class _Forward(OverTasks):
    """(x, weight, bias, gamma, beta) -> (y, u, code, mean, r); u is given so that both derivatives
    meet in one convolution.
    """

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, bias: Tensor | None, gamma: Tensor, beta: Tensor, plan: Plan
    ) -> Any:
        on = machine(x.device)
        u = on.conv((x, weight))
        y, code, mean, r = on.normalise(u, gamma, beta, plan)
        return y, u, code, mean, r

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, weight, ctx.bias, gamma, _, ctx.plan = inputs
        ctx.bias = ctx.bias is not None
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
        dbias = torch.zeros_like(dbeta) if ctx.bias else None
        return dx if need_x else None, dw, dbias, dgamma, dbeta, None


class _Backward(OverTasks):
    """(gy, gu, x, weight, gamma, u) -> (dx, dw, dgamma, dbeta), gu being a further cotangent of
    u.
    """

    @staticmethod
    def forward(gy: Tensor, *rest: Any) -> Any:
        gu, x, weight, gamma, u, code, mean, r, plan, need_x = rest
        on = machine(u.device)
        gy, gu, gamma, u, code, mean, r = _laid_out(gy, gu, gamma, u, code, mean, r)
        dgamma, dbeta = on.slopes(gy, u, code, mean, r, plan)
        first = First(gy, gu, gamma, u, code, mean, r, dgamma, dbeta, plan)
        dx, dw = on.through_conv(first, x, weight, need_x=need_x, need_w=True)
        return _or_nothing(dx, x), dw, dgamma.to(u.dtype), dbeta.to(u.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        *tensors, ctx.plan, ctx.need_x = inputs
        ctx.save_for_backward(*tensors, output[2], output[3])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(
        ctx: Any, vx: Tensor | None, vw: Tensor | None, vgamma: Tensor | None, vbeta: Tensor | None
    ) -> Any:
        _, need_gu, need_x, *_ = ctx.needs_input_grad
        vx = vx if ctx.need_x else None
        shares = _DoubleBackward.apply(vx, vw, vgamma, vbeta, *ctx.saved_tensors, ctx.plan, need_x)
        to_gy, to_gu, to_x, to_w, *others = shares
        by_x = to_gu if need_gu else None, to_x if need_x else None
        to_w = None if vx is None else to_w
        return to_gy, *by_x, to_w, *others, None, None, None, None, None


class _DoubleBackward(OverTasks):
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
        on = machine(u.device)
        gy, gu, gamma, u, code, mean, r = _laid_out(gy, gu, gamma, u, code, mean, r)
        dgamma, dbeta = _laid_out(dgamma, dbeta)
        first = First(gy, gu, gamma, u, code, mean, r, dgamma, dbeta, plan)
        pairs = [(a, b) for a, b in ((x, vw), (vx, weight)) if a is not None and b is not None]
        v = on.conv(*pairs) if pairs else torch.zeros_like(u)
        to_gy, to_gamma, to_u = on.second(first, v, vgamma, vbeta)
        to_x = (
            on.through_conv(first, x, vw, need_x=True, need_w=False)[0]
            if need_x and vw is not None
            else None
        )
        to_w = (
            None if vx is None else on.through_conv(first, vx, weight, need_x=False, need_w=True)[1]
        )
        to_x = torch.zeros_like(x) if need_x and to_x is None else to_x
        to_gu = _or_nothing(None if gu is None else v, v)
        return to_gy, to_gu, _or_nothing(to_x, x), _or_nothing(to_w, x), to_gamma, to_u

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep nothing: there is no third derivative."""

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Any:
        raise RuntimeError(
            "Conv4's compiled block has two derivatives, a third was asked for; use "
            "mdtheory.kernels.plain()"
        )


def _laid_out(*tensors: Tensor | None) -> Any:
    """As the loops take them, images channels-last and vectors task after task: vmap may have
    stacked them otherwise, or repeated one vector without a copy.
    """
    return [x if x is None else last(x) if x.dim() == 4 else x.contiguous() for x in tensors]


def _or_nothing(x: Tensor | None, like: Tensor) -> Tensor:
    """x, or an empty tensor in its place: an output must be one."""
    return like.new_empty(0) if x is None else x
