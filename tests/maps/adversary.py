"""Search for points at which a certificate fails: dense Jacobians, directed starts, ascent on
extreme Rayleigh quotients.
"""

from __future__ import annotations

import torch
from torch.func import grad, jacrev, vjp

from mdtheory.core import tree
from mdtheory.core.seeding import generator


def flat_map(built, meta, like):
    """g on flattened vectors."""
    return lambda z: tree.flatten(built.point(meta, tree.unflatten(z, like)))


def jacobian(built, meta, z):
    return jacrev(flat_map(built, meta, z))(tree.flatten(z)).detach()


def starts(like, *address, n=6, scales=(1e-2, 1e2)):
    """Points whose sizes are log-uniform, so that every unit is met on its linear, bending and
    saturated part.
    """
    draw = generator("beyond", "starts", *address)
    low, high = (torch.tensor(scale).log() for scale in scales)
    size = sum(value.numel() for value in like.values())
    for _ in range(n):
        scale = float((low + (high - low) * torch.rand((), generator=draw)).exp())
        yield scale * torch.randn(size, generator=draw, dtype=torch.float64)


def _climb(quotient, z, *, steps, rate, on):
    """Adam ascent of ``on(z, v)`` with v what ``quotient`` found at the current z; the best value
    of ``quotient`` seen.
    """
    scale = float(z.norm()) / z.numel() ** 0.5 + 1e-3
    first, second, best = torch.zeros_like(z), torch.zeros_like(z), -float("inf")
    for k in range(1, steps + 1):
        value, v = quotient(z)
        best = max(best, value)
        slope = grad(on)(z, v)
        first, second = 0.9 * first + 0.1 * slope, 0.99 * second + 0.01 * slope**2
        z = z + rate * scale * (first / (1 - 0.9**k)) / ((second / (1 - 0.99**k)).sqrt() + 1e-300)
    return max(best, quotient(z)[0])


def extreme_modulus(built, meta, like, *, sign=1, extra=(), steps=60, rate=0.1, n=6):
    """The largest (sign = 1) or smallest (-1) eigenvalue of sym J_g that ascent over z finds."""
    g = flat_map(built, meta, like)

    def quotient(z):
        own = jacrev(g)(z).detach()
        values, vectors = torch.linalg.eigh(sign * (own + own.T) / 2)
        return float(values[-1]), vectors[:, -1]

    def on(z, v):
        return sign * torch.dot(v, vjp(g, z)[1](v)[0])

    found = [
        _climb(quotient, z, steps=steps, rate=rate, on=on)
        for z in [*extra, *starts(like, sign, n=n)]
    ]
    return sign * max(found)


def extreme_slope(built, meta, like, *, extra=(), steps=60, rate=0.1, n=6):
    """The largest singular value of J_g that ascent over z finds: a lower bound of the Lipschitz
    constant.
    """
    g = flat_map(built, meta, like)

    def quotient(z):
        left, values, right = torch.linalg.svd(jacrev(g)(z).detach())
        return float(values[0]), torch.stack([left[:, 0], right[0]])

    def on(z, v):
        return torch.dot(v[1], vjp(g, z)[1](v[0])[0])

    return max(
        _climb(quotient, z, steps=steps, rate=rate, on=on)
        for z in [*extra, *starts(like, "slope", n=n)]
    )
