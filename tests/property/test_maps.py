"""Every registered map, with random options, parameters and shapes, is what its type says. Mutants
are not.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from torch.func import grad, jacrev, vmap

from mdtheory.contract.strategies import MapCase, dual_maps, randn_like
from mdtheory.core import tree
from mdtheory.maps import (
    MLPIAF,
    BlockIAF,
    CertifiedIAF,
    CertifiedMLPIAF,
    ConvexPotential,
    DualMap,
    Hypentropy,
    LogBarrier,
    MirrorMap,
    NegativeEntropy,
    PNorm,
    Quadratic,
)
from mdtheory.maps.iaf.base import Scale
from tests.property.mutants import assert_rejects


def apart(a, b):
    """The largest difference relative to the size of b."""
    a, b = tree.flatten(a), tree.flatten(b)
    return float(((a - b).abs().max() / (1 + b.abs().max())).detach())


def close(a, b, tol=1e-9):
    return bool((a - b).abs() <= tol * (1 + a.abs() + b.abs()))


def jacobian(case: MapCase) -> torch.Tensor:
    """dg/dz of the flattened map. shape: (d, d)"""

    def flat(x):
        return tree.flatten(case.map.point(case.meta, tree.unflatten(x, case.z)))

    return jacrev(flat)(tree.flatten(case.z)).detach()


# -- every DualMap


def bijective(case: MapCase) -> None:
    """g^{-1}(g(z)) = z and g(g^{-1}(phi)) = phi"""
    back = case.map.inverse(case.meta, case.point)
    assert apart(back, case.z) < 1e-8
    assert apart(case.map.point(case.meta, back), case.point) < 1e-8


def volume(case: MapCase) -> None:
    """log |det dg/dz| is the dense Jacobian's"""
    try:
        said = case.map.log_abs_det(case.meta, case.z)
    except NotImplementedError:
        return
    assert close(said, torch.linalg.slogdet(jacobian(case))[1])


def one_task(case: MapCase) -> None:
    """written for one task: vmap over tasks is the loop"""
    both = {name: torch.stack([case.z[name], case.other[name]]) for name in case.z}
    images = vmap(lambda z: case.map.point(case.meta, z))(both)
    for i, z in enumerate((case.z, case.other)):
        alone = case.map.point(case.meta, z)
        assert apart({name: value[i] for name, value in images.items()}, alone) < 1e-12


def pure(case: MapCase) -> None:
    """the module's own parameters are never read: only ``meta`` decides"""
    before = case.point
    with torch.no_grad():
        for parameter in case.map.parameters():
            parameter.add_(1.0)
    assert apart(case.point, before) == 0


# -- every MirrorMap


def monotone(case: MapCase) -> None:
    """<g(z) - g(z'), z - z'> > 0"""
    gap = tree.axpy(-1.0, case.other, case.z)
    moved = tree.axpy(-1.0, case.map.point(case.meta, case.other), case.point)
    assert tree.dot(moved, gap) > 0


def fenchel_young(case: MapCase) -> None:
    """h(phi) + h*(z) >= <phi, z>, with equality at phi = g(z) alone"""
    conjugate = case.map.conjugate(case.meta, case.z)
    assert close(
        case.map.potential(case.meta, case.point) + conjugate, tree.dot(case.point, case.z)
    )
    other = case.map.point(case.meta, case.other)
    assert case.map.potential(case.meta, other) + conjugate > tree.dot(other, case.z)


def divergence(case: MapCase) -> None:
    """D_h(x, y) > 0 for x != y, and D_h(x, x) = 0"""
    x, y = case.point, case.map.point(case.meta, case.other)
    assert case.map.bregman(case.meta, x, y) > 0
    size = 1 + case.map.potential(case.meta, x).abs()
    assert case.map.bregman(case.meta, x, x).abs() < 1e-10 * size


def gradients(case: MapCase) -> None:
    """grad h* = g and grad h = g^{-1}, by central differences along a random direction"""
    for function, at, slope in (
        (case.map.conjugate, case.z, case.point),
        (case.map.potential, case.point, case.map.inverse(case.meta, case.point)),
    ):
        size = float(torch.stack([value.abs().min() for value in at.values()]).min())
        h = 1e-3 * min(1.0, size)  # stays inside an orthant
        v = {name: value.sign() for name, value in randn_like(at, 0).items()}
        low, high = (function(case.meta, tree.axpy(s * h, v, at)) for s in (-1.0, 1.0))
        exact = tree.dot(slope, v)
        noise = 1e-13 * float(high.abs() + low.abs()) / h
        bend = 1e-3 * float(sum(value.abs().sum() for value in slope.values()) + 1)
        assert abs(float((high - low) / (2 * h) - exact)) < bend + noise


def exact_gradients(case: MapCase) -> None:
    """grad h* = g and grad h = g^{-1}, by automatic differentiation, to rounding"""
    by_z = grad(lambda z: case.map.conjugate(case.meta, z))(case.z)
    by_phi = grad(lambda phi: case.map.potential(case.meta, phi))(case.point)
    assert apart(by_z, case.point) < 1e-8
    assert apart(by_phi, case.z) < 1e-8


def curvature(case: MapCase) -> None:
    """mu I <= Hessian of h* <= L I, and the Hessian is the map's symmetric Jacobian"""
    low, high = case.map.curvature(case.meta)
    dense = jacobian(case)
    assert (dense - dense.T).abs().max() <= 1e-9 * dense.abs().max()
    spectrum = torch.linalg.eigvalsh(dense)
    assert spectrum.min() >= low * (1 - 1e-9) - 1e-12
    assert spectrum.max() <= high * (1 + 1e-9)


# -- every BlockIAF


def triangular(case: MapCase) -> None:
    """block lower triangular, in a block diagonal, with a positive diagonal (T1)"""
    made, pieces = case.map, case.map.split(case.z)
    number = torch.cat(
        [
            torch.full((pieces[name].numel(),), i)
            for name in pieces
            for i, block in enumerate(made.blocks)
            if name in block
        ]
    )

    def flat(x):
        z = made.join(tree.unflatten(x, pieces))
        return tree.flatten(made.split(made.point(case.meta, z)))

    dense = jacrev(flat)(tree.flatten(pieces))
    off = ~torch.eye(len(number), dtype=torch.bool)
    assert not dense[(number[:, None] <= number[None, :]) & off].any()
    assert (dense.diagonal() > 0).all()


def certified(case: MapCase) -> None:
    """m I <= symmetric part of the Jacobian, ||Jacobian|| <= M, inside what was promised"""
    made = case.map
    low, high = made.certificate(case.meta)
    assert made.m * (1 - 1e-9) <= low <= high <= made.M * (1 + 1e-9)
    dense = jacobian(case)
    assert torch.linalg.eigvalsh((dense + dense.T) / 2).min() >= low * (1 - 1e-9)
    assert torch.linalg.matrix_norm(dense, ord=2) <= high * (1 + 1e-9)


PROPERTIES = {
    DualMap: [bijective, volume, one_task, pure],
    MirrorMap: [monotone, fenchel_young, divergence, gradients, exact_gradients, curvature],
    BlockIAF: [triangular],
    CertifiedIAF: [certified],
}
ALL = [(kind, check) for kind, checks in PROPERTIES.items() for check in checks]


@pytest.mark.parametrize(("kind", "check"), ALL, ids=lambda one: one.__name__)
def test_maps_keep_what_their_type_promises(kind, check):
    spread = 3.0 if kind is CertifiedIAF else 0.5

    @given(dual_maps(kind, spread=spread))
    def holds(case):
        check(case)

    holds()


# -- mutants


class SwappedGradients(Hypentropy):
    def point(self, meta, z):
        return {name: -value for name, value in super().point(meta, z).items()}


class ForgottenMass(NegativeEntropy):
    def potential(self, meta, phi):
        return torch.stack([(v * v.log()).sum() for v in phi.values()]).sum()


class FlippedSign(LogBarrier):
    def bregman(self, meta, x, y):
        return -super().bregman(meta, x, y)


class HalvedConstant(Hypentropy):
    def conjugate(self, meta, z):
        return 0.5 * super().conjugate(meta, z)


class SlightlyOff(Hypentropy):
    def conjugate(self, meta, z):
        return (1 + 1e-6) * super().conjugate(meta, z)


class TooTight(PNorm):
    def curvature(self, meta):
        low, high = super().curvature(meta)
        return low, high / 2


class TooSure(ConvexPotential):
    def curvature(self, meta):
        low, high = super().curvature(meta)
        return low + 0.5 * (high - low), high


class Inexact(NegativeEntropy):
    def inverse(self, meta, phi):
        return {name: value * (1 + 1e-6) for name, value in super().inverse(meta, phi).items()}


class WrongVolume(LogBarrier):
    def log_abs_det(self, meta, z):
        return -super().log_abs_det(meta, z)


class Counts(Quadratic):
    """Remembers how often it was called."""

    calls = 0

    def point(self, meta, z):
        self.calls += 1
        return {name: value * (1 + 1e-3 * self.calls) for name, value in z.items()}


class ReadsItself(ConvexPotential):
    def point(self, meta, z):
        return super().point(self.own(), z)


class PeeksAtItself(MLPIAF):
    def conditioners(self, meta, pieces):
        scales, shifts = super().conditioners(meta, pieces)
        return scales, {n: shift + torch.tanh(pieces[n].sum()) for n, shift in shifts.items()}


class PeeksAhead(MLPIAF):
    def conditioners(self, meta, pieces):
        scales, shifts = super().conditioners(meta, pieces)
        first, last = self.blocks[0][0], self.blocks[-1][0]
        return scales, {**shifts, first: shifts[first] + 0.5 * torch.tanh(pieces[last].sum())}


class Signed(Scale):
    def __call__(self, a):
        return a - 0.5


class Negative(MLPIAF):
    def __init__(self, **options):
        super().__init__(1, **options)
        self.scale = Signed("exp")


class NeverContracted(CertifiedMLPIAF):
    def enforced(self, meta):
        return meta


class Boasts(CertifiedMLPIAF):
    def certificate(self, meta):
        low, high = super().certificate(meta)
        return math.sqrt(low * high), high


@pytest.mark.parametrize(
    ("mutant", "check"),
    [
        (Inexact, bijective),
        (WrongVolume, volume),
        (ReadsItself, pure),
        (Counts, one_task),
        (SwappedGradients, monotone),
        (ForgottenMass, fenchel_young),
        (HalvedConstant, fenchel_young),
        (FlippedSign, divergence),
        (HalvedConstant, gradients),
        (SlightlyOff, exact_gradients),
        (TooTight, curvature),
        (TooSure, curvature),
        (PeeksAtItself, triangular),
        (PeeksAhead, triangular),
        (Negative, triangular),
        (NeverContracted, certified),
        (Boasts, certified),
    ],
    ids=lambda one: one.__name__,
)
def test_mutants_are_rejected(mutant, check):
    kind = next(kind for kind, checks in PROPERTIES.items() if check in checks)
    assert_rejects(check, dual_maps(kind, mutant, spread=3.0))
