"""What a map between the dual variable and the point owes: a bijection, pure, written for one task;
and what a mirror map owes besides, to its potential.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.func import grad, jacrev, vmap

from mdtheory.contract.check import Finding, findings
from mdtheory.contract.setting import ContractViolation, NotApplicable
from mdtheory.core import tree
from mdtheory.core.seeding import generator
from mdtheory.core.types import Params
from mdtheory.maps.base import DualMap, MirrorMap

SHAPES = {"w": (2, 3), "b": (3,), "s": ()}
"""Names and shapes of the points on which a map is examined."""
SPREAD = 0.3
"""How far its parameters are moved from their start."""


@dataclass(frozen=True)
class MapSetting:
    """A map in float64 with parameters away from its start, and two dual variables of its
    domain.
    """

    make: Callable[[], DualMap]

    @cached_property
    def map(self) -> DualMap:
        """The map, built for :data:`SHAPES`."""
        made = self.make()
        made.build(
            {name: torch.zeros(shape, dtype=torch.float64) for name, shape in SHAPES.items()}
        )
        return made.double()

    @cached_property
    def meta(self) -> Params:
        """The parameters of the map, moved by normal noise of size ``SPREAD``."""
        start = tree.detach(self.map.own())
        moved = _randn({name: tuple(value.shape) for name, value in start.items()}, 0)
        return tree.axpy(SPREAD, moved, start)

    @cached_property
    def z(self) -> Params:
        """A dual variable inside the domain of the map."""
        return inside(self.map, self.meta, _randn(SHAPES, 1))

    @cached_property
    def other(self) -> Params:
        """A second dual variable, independent of ``z``."""
        return inside(self.map, self.meta, _randn(SHAPES, 2))

    @property
    def point(self) -> Params:
        """g(z)."""
        return self.map.point(self.meta, self.z)

    def mirror(self) -> MirrorMap:
        """The map as a mirror map; :class:`NotApplicable` for any other."""
        if not isinstance(self.map, MirrorMap):
            raise NotApplicable("declared: a DualMap, no gradient of a potential")
        return self.map

    def jacobian(self) -> Tensor:
        """dg/dz of the flattened map. shape: (d, d)"""

        def flat(x: Tensor) -> Tensor:
            return tree.flatten(self.map.point(self.meta, tree.unflatten(x, self.z)))

        return jacrev(flat)(tree.flatten(self.z)).detach()


def inside(made: DualMap, meta: Params, z: Params) -> Params:
    """z, or the nearest thing to it whose signs the map accepts; ``ValueError`` where none are."""
    signs: Iterable[Callable[[Tensor], Tensor]] = (
        lambda v: v,
        lambda v: -v.abs() - 0.05,
        lambda v: v.abs() + 0.05,
    )
    said = ""
    for sign in signs:
        moved = {name: sign(value) for name, value in z.items()}
        try:
            made.point(meta, moved)
        except ValueError as error:
            said = said or str(error)
            continue
        return moved
    raise ValueError(f"a map must accept all z, all z < 0 or all z > 0, got: {said}; widen it")


def bijective(setting: MapSetting) -> None:
    """inverse(point(z)) = z and point(inverse(phi)) = phi"""
    back = setting.map.inverse(setting.meta, setting.point)
    gap = max(apart(back, setting.z), apart(setting.map.point(setting.meta, back), setting.point))
    if not gap < 1e-8:
        raise ContractViolation(
            f"inverse must undo point and point inverse, got a difference of {gap:.1e}; correct "
            "either"
        )


def named(setting: MapSetting) -> None:
    """points have the names, shapes, device and precision of z"""
    found = {name: (value.shape, value.dtype) for name, value in setting.point.items()}
    wanted = {name: (value.shape, value.dtype) for name, value in setting.z.items()}
    if list(found.items()) != list(wanted.items()):
        raise ContractViolation(
            f"a point must have the names, shapes and precision of z, got {found}; return a tree "
            "like z"
        )


def pure(setting: MapSetting) -> None:
    """only ``meta`` decides: the module's own parameters are never read"""
    before = setting.point
    with torch.no_grad():
        for parameter in setting.map.parameters():
            parameter.add_(1.0)
    if apart(setting.point, before) > 0:
        raise ContractViolation(
            "a map must read everything learned from meta, got another point after its own "
            'parameters had changed; write meta["name"] for self.name'
        )


def one_task(setting: MapSetting) -> None:
    """vmap over tasks is the loop"""
    both = {name: torch.stack([setting.z[name], setting.other[name]]) for name in setting.z}
    images = vmap(lambda z: setting.map.point(setting.meta, z))(both)
    for i, z in enumerate((setting.z, setting.other)):
        alone = setting.map.point(setting.meta, z)
        if not apart({name: value[i] for name, value in images.items()}, alone) < 1e-12:
            raise ContractViolation(
                "a map vmapped over tasks must give what a loop gives, got another point; write it "
                "for one task, without reading values into Python"
            )


def volume(setting: MapSetting) -> None:
    """log_abs_det is log |det dg/dz| of the dense Jacobian"""
    try:
        said = setting.map.log_abs_det(setting.meta, setting.z)
    except NotImplementedError as error:
        raise NotApplicable("declared: no closed log-determinant") from error
    dense = torch.linalg.slogdet(setting.jacobian())[1]
    if not _close(said, dense, 1e-8):
        raise ContractViolation(
            f"log_abs_det must be {float(dense):.9g}, got {float(said.detach()):.9g}; correct "
            "it or leave it out"
        )


def learns(setting: MapSetting) -> None:
    """every parameter moves some point"""
    weights = _randn(SHAPES, 3)

    def total(meta: Params) -> Tensor:
        points = (setting.map.point(meta, z) for z in (setting.z, setting.other))
        return torch.stack([tree.dot(point, weights) for point in points]).sum()

    slopes = grad(total)(setting.meta) if setting.meta else {}
    idle = [name for name, slope in slopes.items() if not bool(slope.any())]
    declared = getattr(setting.map, "never_trained", lambda: ())()
    if set(idle) - set(declared):
        raise ContractViolation(
            f"every parameter must move some point, got none from {idle[0]!r}; use it, or name it "
            "in never_trained()"
        )


def gradients(setting: MapSetting) -> None:
    """point is the gradient of the conjugate, inverse that of the potential"""
    mirror, own = setting.mirror(), setting.meta
    by_z = grad(lambda z: mirror.conjugate(own, z))(setting.z)
    by_phi = grad(lambda phi: mirror.potential(own, phi))(setting.point)
    for said, gap in (
        ("point must be the gradient of conjugate", apart(by_z, setting.point)),
        ("inverse must be the gradient of potential", apart(by_phi, setting.z)),
    ):
        if not gap < 1e-8:
            raise ContractViolation(f"{said}, got a difference of {gap:.1e}; correct either")


def fenchel_young(setting: MapSetting) -> None:
    """h(phi) + h*(z) >= <phi, z>, with equality at phi = g(z) alone; the divergence is >= 0"""
    mirror, own = setting.mirror(), setting.meta
    conjugate = mirror.conjugate(own, setting.z)
    here, there = setting.point, mirror.point(own, setting.other)
    equal = _close(mirror.potential(own, here) + conjugate, tree.dot(here, setting.z), 1e-9)
    above = mirror.potential(own, there) + conjugate > tree.dot(there, setting.z)
    positive = mirror.bregman(own, here, there) > 0 and mirror.bregman(own, there, here) > 0
    if not (equal and bool(above) and bool(positive)):
        raise ContractViolation(
            "potential and conjugate must be each other's conjugates (Fenchel-Young), got an "
            "inequality that fails; check signs and constants of both"
        )


def curvature(setting: MapSetting) -> None:
    """the Jacobian is symmetric, with eigenvalues in curvature()"""
    mirror = setting.mirror()
    low, high = mirror.curvature(setting.meta)
    dense = setting.jacobian()
    skew = float((dense - dense.T).abs().max() / dense.abs().max())
    spectrum = torch.linalg.eigvalsh(dense)
    least, largest = float(spectrum.min()), float(spectrum.max())
    if skew > 1e-9 or least < low * (1 - 1e-9) - 1e-12 or largest > high * (1 + 1e-9):
        raise ContractViolation(
            f"the Jacobian must be symmetric with eigenvalues in [{low:.6g}, {high:.6g}], got an "
            f"asymmetry of {skew:.1e} and eigenvalues in [{least:.6g}, {largest:.6g}]; correct "
            "curvature(), or call it a DualMap"
        )


PROPERTIES: dict[str, Callable[[MapSetting], None]] = {
    each.__name__: each
    for each in (
        named,
        bijective,
        pure,
        one_task,
        volume,
        learns,
        gradients,
        fenchel_young,
        curvature,
    )
}
"""Every property of a map by name; the last three for mirror maps alone."""


def check_map(make: Callable[[], DualMap]) -> Iterator[Finding]:
    """One finding for every property of a map, in their order."""
    return findings(lambda: [MapSetting(make)], PROPERTIES)


def apart(a: Params, b: Params) -> float:
    """The largest difference relative to the size of b."""
    first, second = tree.flatten(a), tree.flatten(b)
    return float(((first - second).abs().max() / (1 + second.abs().max())).detach())


def _close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    a, b = a.detach(), b.detach()
    return bool((a - b).abs() <= tolerance * (1 + a.abs() + b.abs()))


def _randn(shapes: dict[str, tuple[int, ...]], *address: int) -> Params:
    rng = generator("contract", "map", *address)
    return {
        name: torch.randn(shape, generator=rng, dtype=torch.float64)
        for name, shape in shapes.items()
    }
