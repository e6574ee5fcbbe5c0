"""The library's learned convex potentials with random parameters, as functions of flat vectors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mdtheory.core import tree
from mdtheory.core.seeding import generator
from mdtheory.maps.potential.base import BoundedPotential
from mdtheory.maps.potential.icnn import InputConvexPotential
from mdtheory.maps.potential.ridge import ConvexPotential
from proofs_check.tools.iaf import Flat

SHAPES = ((2, 2), (3,), ())


def flat_potential(map: BoundedPotential, shapes: Sequence[Sequence[int]]) -> Flat:
    """Built for tensors of these shapes, anchored at a normal point."""
    draw = generator("proofs", "potential")
    like = {
        f"t{i}": torch.randn(tuple(shape), generator=draw, dtype=torch.float64)
        for i, shape in enumerate(shapes)
    }
    map.build(like)
    size = sum(value.numel() for value in like.values())
    return Flat(map, like, tuple((c,) for c in range(size)))


@torch.no_grad()
def disturbed(map: Flat, seed: int, spread: float) -> Flat:
    """Every parameter moved by ``spread`` times normal noise: large values push the bounds to their
    ends.
    """
    draw = generator("proofs", "disturbed", seed)
    for parameter in map.map.parameters():
        parameter.add_(spread * torch.randn(parameter.shape, generator=draw, dtype=torch.float64))
    return map


def ridge(seed: int, spread: float, *, mu: float = 0.2, big_l: float = 5.0) -> Flat:
    """:class:`ConvexPotential` on three small tensors."""
    return disturbed(
        flat_potential(ConvexPotential(mu=mu, L=big_l, rank=2, units=3, seed=seed), SHAPES),
        seed,
        spread,
    )


def icnn(seed: int, spread: float, *, mu: float = 0.2, big_l: float = 5.0, depth: int = 2) -> Flat:
    """:class:`InputConvexPotential` on three small tensors."""
    map = InputConvexPotential(mu=mu, L=big_l, width=4, depth=depth, seed=seed)
    return disturbed(flat_potential(map, SHAPES), seed, spread)


def conjugate(map: Flat, z: Tensor) -> Tensor:
    """h*(z). shape: ()"""
    return map.map.conjugate(map.own(), tree.unflatten(z, map.like))


def certificate(map: Flat) -> tuple[float, float]:
    """(mu, L) of these very parameters, as the library computes it."""
    return map.map.curvature(map.own())


def spectrum(hessian: Tensor) -> tuple[float, float]:
    """The extreme eigenvalues of a symmetric matrix."""
    values = torch.linalg.eigvalsh((hessian + hessian.T) / 2)
    return float(values[0]), float(values[-1])


@torch.no_grad()
def extreme_ridge(sign: float, size: int = 3, *, mu: float = 0.2, big_l: float = 5.0) -> Flat:
    """One vector, projections and mixing orthogonal, no offsets, all amplitudes near one end:
    curvature is extreme at 0.
    """
    map = flat_potential(ConvexPotential(mu=mu, L=big_l, rank=size, units=size), ((size,),))
    own = map.map.own()
    own["offset"].zero_()
    own["amplitude"].fill_(sign * 30.0)
    own["quadratic"].fill_(sign * 30.0)
    own["log_sharpness"].zero_()
    return map
