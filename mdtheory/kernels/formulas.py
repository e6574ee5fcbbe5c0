"""y = leaky(maxpool(norm(conv(x)))): its first and second derivatives, all derived by hand.

Notation. u = conv(x, w), without a bias, which batch statistics cancel. Per channel, over the M
values of the first ``counted`` items: mean, and r = 1 / sqrt(var + eps) with the biased variance;
xh = (u - mean) r. In each window of ``window`` x ``window`` values, p is the element whose
normalised value is largest (the first one of equals, as in torch): of u where gamma > 0, of -u
where gamma < 0. z = gamma r (p - mean) + beta, and y = s z with s = 1 where z > 0, else ``slope``
(0 for ReLU, 1 for no activation).

First derivative, for a cotangent gy; g = s gy; xp = (p - mean) r; sums over all windows:

    dbeta = sum g,   dgamma = sum g xp,   du = gamma r (put(g) - [dbeta + xh dgamma] / M)

where put(g) is g at the places of p, and the bracket is there for the counted items only. Then dw,
dx from du by the convolution's own adjoints. Second derivative, for cotangents V of du and vg, vb
of dgamma, dbeta; VS = sum V and VX = sum V xh over the counted items, E = sum g V(p):

    Q = E - (dbeta VS + dgamma VX) / M,  c1 = vg - gamma r VX / M,  c2 = gamma r dgamma / M
    to gamma: r Q
    to gy:    s (vb - gamma r VS / M + c1 xp + gamma r V(p))
    to u:     r c1 put(g) - r (c2 V + [c1 dbeta - c2 VS] / M + xh [c1 dgamma - c2 VX + gamma r Q] /
              M)

with V = conv(x, vw) + conv(vx, w) for cotangents vx, vw of dx, dw, whose own shares go to x, w and
du likewise. Masks and places are constant, as everywhere in autograd.

The functions below are the arithmetic of one channel. They hold nothing but operators, without
types, so that torch tensors go through them and Triton compiles them into its kernels: on a CPU and
on a GPU only the loops over images differ (``cpp.py``, ``triton.py``).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Plan:
    """What is no tensor: eps, the number of items that give the statistics, the window's edge, and
    the slope below 0.
    """

    eps: float
    counted: int
    window: int = 2
    slope: float = 0.0


@dataclass(frozen=True)
class First:
    """The first derivatives of one block at one input, and all that they are made of.

    ``gu`` is a further cotangent of u. shapes, for T tasks of N items: images (T * N, C, ...),
    vectors (T, C).
    """

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


def moments(first, second, shift):
    """Mean and biased variance of u, from the means of u - shift and of its square."""
    return first + shift, second - first * first


def first_coefficients(gamma, r, dgamma, dbeta, m):
    """du = by_g put(g) + [level + slope (u - mean)]: level, slope, by_g."""
    scale = gamma * r
    return -scale * dbeta / m, -scale * r * dgamma / m, scale


def quadratic(vs, vx, e, vgamma, gamma, r, dgamma, dbeta, m):
    """Q, c1 and c2; ``vx`` here is VX itself."""
    q = e - (dbeta * vs + dgamma * vx) / m
    return q, vgamma - gamma * r * vx / m, gamma * r * dgamma / m


def of_gy(vs, vbeta, gamma, r, c1, m):
    """To gy: s (level + slope (p - mean) + scale V(p)): level, slope, scale."""
    return vbeta - gamma * r * vs / m, c1 * r, gamma * r


def of_u(vs, vx, gamma, r, dgamma, dbeta, q, c1, c2, m):
    """To u: by_g put(g) + [level + slope (u - mean) + by_v V]: level, slope, by_v, by_g."""
    level = -r * (c1 * dbeta - c2 * vs) / m
    slope = -r * r * (c1 * dgamma - c2 * vx + gamma * r * q) / m
    return level, slope, -r * c2, r * c1
