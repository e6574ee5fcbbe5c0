r"""Do the certified bounds of a map survive a search, and how near does it come? For thousands of
coordinates.

A certificate says $m\|v\|^2\le\langle v,J_g(z)v\rangle$ and $\|J_g(z)\|\le M$ for *all* z. The
search ascends $\langle u,J_g(z)v\rangle$ in z (Adam) with u, v the extreme vectors at the current z
(Lanczos), from points of very different sizes, from states that adaptation visits, and for a ridge
potential from where all units of one sign bend at once. It finds inner bounds: a value beyond a
certificate refutes it, and none proves nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor
from torch.func import grad, jacrev, vjp

from mdtheory.core import seeding, tree
from mdtheory.core.types import Params
from mdtheory.maps.base import DualMap
from mdtheory.maps.iaf.certified import CertifiedIAF
from mdtheory.maps.potential.base import BoundedPotential
from mdtheory.maps.potential.ridge import ConvexPotential

Extreme = Literal["least", "largest", "slope"]
"""The least or largest eigenvalue of the symmetric part of J_g, or the largest singular value of
J_g.
"""


@dataclass(frozen=True)
class Searched:
    """What one map promises and what the search found: numbers around 1, the value of every bound
    at the start.
    """

    certified: tuple[float, float]
    found: tuple[float, float]

    @property
    def holds(self) -> bool:
        """Whether the search broke nothing (up to rounding and the tolerance of Lanczos, both
        relative 1e-6).
        """
        return (
            self.certified[0] - 1e-6 <= self.found[0] and self.found[1] <= self.certified[1] + 1e-6
        )

    @property
    def ratios(self) -> tuple[float, float]:
        """Certified over found distance from 1, below and above: 1 is tight, NaN where the
        certificate itself is 1.
        """
        pairs = zip(self.certified, self.found, strict=True)
        below, above = (
            abs(bound - 1) / max(abs(value - 1), 1e-300) if abs(bound - 1) > 1e-9 else math.nan
            for bound, value in pairs
        )
        return below, above


def search(
    map: DualMap,
    meta: Params,
    like: Params,
    visited: Iterable[Params],
    *,
    n: int = 3,
    steps: int = 15,
) -> Searched:
    """The certificate of these parameters against the search, both ends."""
    upper: Extreme = "largest" if isinstance(map, BoundedPotential) else "slope"
    certified = (
        map.curvature(meta) if isinstance(map, BoundedPotential) else _certificate(map, meta)
    )
    points = [tree.flatten(z) for z in visited]
    ends: tuple[tuple[Extreme, int], ...] = (("least", -1), (upper, 1))
    found = []
    for extreme, sign in ends:
        starts = [*points, *sizes(like, extreme, n=n)]
        if isinstance(map, ConvexPotential):
            starts.append(unit_centres(map, meta, like, sign=sign))
        found.append(sign * max(_climb(map, meta, like, z, extreme, steps=steps) for z in starts))
    return Searched(certified, (found[0], found[1]))


def _certificate(map: DualMap, meta: Params) -> tuple[float, float]:
    if not isinstance(map, CertifiedIAF):
        raise ValueError(
            f"map must have a certificate, got {type(map).__name__}; give a potential or a "
            "certified map"
        )
    return map.certificate(meta)


def sizes(like: Params, *address: str | int, n: int) -> Iterator[Tensor]:
    """Normal points whose sizes are log-uniform in (1e-2, 1e2): units are met on linear, bending
    and saturated parts.
    """
    draw = seeding.generator("proofs", "adversary", *address)
    dim = sum(value.numel() for value in like.values())
    for _ in range(n):
        scale = 10 ** float(4 * torch.rand((), generator=draw, dtype=torch.float64) - 2)
        yield scale * torch.randn(dim, generator=draw, dtype=torch.float64)


def _climb(
    map: DualMap,
    meta: Params,
    like: Params,
    z: Tensor,
    extreme: Extreme,
    *,
    steps: int,
    rate: float = 0.1,
) -> float:
    """The best value seen along Adam's ascent from z; of minus the eigenvalue for "least"."""

    def g(x: Tensor) -> Tensor:
        return tree.flatten(map.point(meta, tree.unflatten(x, like)))

    sign = -1.0 if extreme == "least" else 1.0
    start = np.random.default_rng(seeding.seed("proofs", "adversary", "start")).normal(
        size=z.numel()
    )
    scale = float(z.norm()) / z.numel() ** 0.5 + 1e-3
    first, second, best = torch.zeros_like(z), torch.zeros_like(z), -math.inf
    for k in range(1, steps + 2):
        value, left, right = _extreme(g, z, extreme, start)
        best, start = max(best, value), right.numpy()
        slope = grad(
            lambda x, left=left, right=right: sign * torch.dot(right, vjp(g, x)[1](left)[0])
        )(z)
        first, second = 0.9 * first + 0.1 * slope, 0.99 * second + 0.01 * slope**2
        z = z + rate * scale * (first / (1 - 0.9**k)) / ((second / (1 - 0.99**k)).sqrt() + 1e-300)
    return best


def _extreme(
    g: Callable[[Tensor], Tensor], z: Tensor, extreme: Extreme, start: np.ndarray
) -> tuple[float, Tensor, Tensor]:
    """The value at z (its negative for "least"), and the left and right vectors that attain it."""
    back = vjp(g, z)[1]
    twice = vjp(lambda w: back(w)[0], torch.zeros_like(z))[1]

    def product(x: np.ndarray) -> np.ndarray:
        v = torch.from_numpy(np.ascontiguousarray(x.reshape(-1)))
        forward = twice(v)[0]
        if extreme == "slope":
            return back(forward)[0].detach().numpy()
        return ((0.5 if extreme == "largest" else -0.5) * (forward + back(v)[0])).detach().numpy()

    operator = LinearOperator((z.numel(), z.numel()), matvec=product, dtype=np.float64)
    values, vectors = eigsh(operator, k=1, which="LA", v0=start, tol=1e-4)
    right = torch.from_numpy(vectors[:, 0].copy())
    if extreme != "slope":
        return float(values[0]), right, right
    image = twice(right)[0].detach()
    return float(image.norm()), image / image.norm(), right


def unit_centres(map: ConvexPotential, meta: Params, like: Params, *, sign: int) -> Tensor:
    """The z at which units with amplitudes of this sign are as near to the middle of their bend as
    can be. shape: (d,)
    """
    factors, scale = map._projections(meta)
    mixing, amplitudes = map._mixing(meta), map._amplitudes(meta)
    sharpness = meta["log_sharpness"].exp()

    def arguments(z: Tensor) -> Tensor:
        codes = map._encode(tree.unflatten(z, like), factors, scale)
        return sharpness * torch.cat([codes, mixing @ codes]) + meta["offset"]

    zero = torch.zeros(sum(value.numel() for value in like.values()), dtype=torch.float64)
    matrix, constant = jacrev(arguments)(zero).detach(), arguments(zero).detach()
    weight = (sign * amplitudes).clamp(min=0).sqrt().detach()
    return torch.linalg.lstsq(weight[:, None] * matrix, -weight * constant, driver="gelsd").solution
