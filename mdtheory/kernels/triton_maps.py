"""Elementwise steps of a learned map on a GPU, one launch each: the unit u(t) = p t + q sqrt(1 +
t^2) of its conditioners, the affine step e^a z + m, and the derivatives of both.

The arithmetic of the unit stands in two functions of operators, which torch tensors go through as
well as Triton's compiler.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mdtheory.kernels.have_triton import inline, jit, tl, triton
from mdtheory.kernels.triton_convolution import launch

VALUES = 1024
"""Values of one program."""

Form = tuple[float, float] | None
"""p and q of a unit; ``None`` is ReLU."""


def value_of_unit(t, root, p, q):
    """u, with root = sqrt(1 + t^2)"""
    return p * t + q * root


def slope_of_unit(t, root, p, q):
    """u'"""
    return p + q * t / root


_value_of_unit = inline(value_of_unit)
_slope_of_unit = inline(slope_of_unit)


def unit(t: Tensor, form: Form, gain: float = 1.0) -> Tensor:
    """gain * u(t). shape: as t"""
    if form is None:
        return torch.relu(t) if gain == 1.0 else gain * torch.relu(t)
    t = t.contiguous()
    y = torch.empty_like(t)
    p, q = form
    launch(_unit, _grid(t), t, y, t.numel(), P=p, Q=q, GAIN=gain, BN=VALUES)
    return y


def unit_slope(g: Tensor, t: Tensor, form: Form, gain: float = 1.0) -> Tensor:
    """gain * g * u'(t). shape: as t"""
    if form is None:
        own = torch.where(t > 0, g.reshape(t.shape), 0.0)
        return own if gain == 1.0 else gain * own
    g, t = g.contiguous(), t.contiguous()
    result = torch.empty_like(t)
    p, q = form
    launch(_unit_slope, _grid(t), g, t, result, t.numel(), P=p, Q=q, GAIN=gain, BN=VALUES)
    return result


def affine(z: Tensor, a: Tensor, m: Tensor) -> Tensor:
    """e^a z + m. shapes: as many values each; as z"""
    z, a, m = z.contiguous(), a.contiguous(), m.contiguous()
    y = torch.empty_like(z)
    launch(_affine, _grid(z), z, a, m, y, z.numel(), BN=VALUES)
    return y


def affine_slopes(g: Tensor, z: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """g e^a and g z e^a: to z and to a. shapes: as z"""
    g, z, a = g.contiguous(), z.contiguous(), a.contiguous()
    to_z, to_a = torch.empty_like(z), torch.empty_like(z)
    launch(_affine_slopes, _grid(z), g, z, a, to_z, to_a, z.numel(), BN=VALUES)
    return to_z, to_a


def _grid(x: Tensor) -> tuple[int]:
    return (triton.cdiv(x.numel(), VALUES),)


@jit
def _place(BN: tl.constexpr):
    """The program's values. shape: (BN,)"""
    return tl.program_id(0).to(tl.int64) * BN + tl.arange(0, BN)


@jit
def _unit(t, y, n, P: tl.constexpr, Q: tl.constexpr, GAIN: tl.constexpr, BN: tl.constexpr):
    i = _place(BN)
    x = tl.load(t + i, mask=i < n, other=0.0)
    tl.store(y + i, GAIN * _value_of_unit(x, tl.sqrt(1 + x * x), P, Q), mask=i < n)


@jit
def _unit_slope(
    g, t, result, n, P: tl.constexpr, Q: tl.constexpr, GAIN: tl.constexpr, BN: tl.constexpr
):
    i = _place(BN)
    x = tl.load(t + i, mask=i < n, other=0.0)
    slope = GAIN * _slope_of_unit(x, tl.sqrt(1 + x * x), P, Q)
    tl.store(result + i, tl.load(g + i, mask=i < n, other=0.0) * slope, mask=i < n)


@jit
def _affine(z, a, m, y, n, BN: tl.constexpr):
    i = _place(BN)
    s = tl.exp(tl.load(a + i, mask=i < n, other=0.0))
    shift = tl.load(m + i, mask=i < n, other=0.0)
    tl.store(y + i, s * tl.load(z + i, mask=i < n, other=0.0) + shift, mask=i < n)


@jit
def _affine_slopes(g, z, a, to_z, to_a, n, BN: tl.constexpr):
    i = _place(BN)
    s = tl.exp(tl.load(a + i, mask=i < n, other=0.0))
    to = s * tl.load(g + i, mask=i < n, other=0.0)
    tl.store(to_z + i, to, mask=i < n)
    tl.store(to_a + i, to * tl.load(z + i, mask=i < n, other=0.0), mask=i < n)
