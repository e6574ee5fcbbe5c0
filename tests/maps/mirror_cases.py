"""What must hold of every mirror map, as functions that name what does not; and points of each
map's dual domain.
"""

from __future__ import annotations

import torch
from torch.func import grad, jacrev

from mdtheory.core import tree
from mdtheory.core.seeding import generator
from mdtheory.maps import MirrorMap
from mdtheory.maps.base import maps

SHAPES = {"w": (2, 3), "b": (3,), "s": ()}
DUAL_DOMAIN = {"barrier": lambda z: -z.abs() - 0.05}  # all other maps: every z


def spd(n, *address):
    root = torch.randn(n, n, generator=generator("spd", n, *address), dtype=torch.float64)
    return root @ root.T / n + 0.3 * torch.eye(n, dtype=torch.float64)


VARIANTS = {
    "quadratic": [
        {},
        {"matrix": 2.5},
        {"matrix": {"w": spd(6), "b": torch.tensor([0.5, 1.0, 3.0]), "s": torch.tensor(2.0)}},
    ],
    "pnorm": [{}, {"p": 1.1}, {"p": 2.0}, {"p": 4.0}],
    "hypentropy": [{}, {"beta": 0.1}],
}


def mirror_maps():
    """(slug, options) of every registered mirror map, the classical ones with several options."""
    slugs = [
        slug
        for slug in maps.names()
        if isinstance(maps.get(slug), type) and issubclass(maps.get(slug), MirrorMap)
    ]
    return [(slug, options) for slug in slugs for options in VARIANTS.get(slug, [{}])]


def label(case):
    slug, options = case
    return slug + "".join(
        f"-{key}-{value if isinstance(value, float) else 'blocks'}"
        for key, value in options.items()
    )


def build(case):
    slug, options = case
    made = maps.get(slug)(**options)
    made.build({name: torch.zeros(shape, dtype=torch.float64) for name, shape in SHAPES.items()})
    return made.double()


def dual_point(slug, *address, scale=1.0):
    draw = generator("mirror", *address)
    free = {
        name: scale * torch.randn(shape, generator=draw, dtype=torch.float64)
        for name, shape in SHAPES.items()
    }
    return {name: DUAL_DOMAIN.get(slug, lambda z: z)(value) for name, value in free.items()}


def apart(a, b):
    """The largest difference relative to the size of b."""
    return float(
        (
            (tree.flatten(a) - tree.flatten(b)).abs().max() / (1 + tree.flatten(b).abs().max())
        ).detach()
    )


def close(a, b, tol=1e-10):
    a, b = a.detach(), b.detach()
    return bool((a - b).abs() <= tol * (1 + a.abs() + b.abs()))


def defects(mirror, z, other):
    """Names of the properties of a mirror map that do not hold at the dual points z and other."""
    own = {name: value.detach() for name, value in mirror.own().items()}
    phi, psi = mirror.point(own, z), mirror.point(own, other)
    potential, conjugate = (
        (lambda x: mirror.potential(own, x)),
        (lambda x: mirror.conjugate(own, x)),
    )
    wrong = []
    if (
        apart(mirror.inverse(own, phi), z) > 1e-10
        or apart(mirror.point(own, mirror.inverse(own, phi)), phi) > 1e-10
    ):
        wrong.append("round trip")
    if apart(grad(conjugate)(z), phi) > 1e-9:
        wrong.append("point = grad h*")
    if apart(grad(potential)(phi), z) > 1e-9:
        wrong.append("inverse = grad h")
    if not close(potential(phi) + conjugate(z), tree.dot(phi, z)):
        wrong.append("Fenchel-Young equality")
    if not float(potential(psi) + conjugate(z) - tree.dot(psi, z)) > 0:
        wrong.append("Fenchel-Young inequality")
    there, back = mirror.bregman(own, phi, psi), mirror.bregman(own, psi, phi)
    if not (there > 0 and back > 0 and abs(float(mirror.bregman(own, phi, phi))) < 1e-10):
        wrong.append("Bregman >= 0")
    dual = conjugate(other) - conjugate(z) - tree.dot(phi, tree.axpy(-1.0, z, other))
    if not close(there, dual, 1e-9):
        wrong.append("duality")
    return wrong + second_order_defects(mirror, own, z)


def second_order_defects(mirror, own, z):
    """Curvature bounds and the log-determinant against the dense Hessian of h* and the dense
    Jacobian of the map.
    """
    flat, wrong = tree.flatten(z), []
    dense = hessian_of_conjugate(mirror, own, z)
    eigenvalues = torch.linalg.eigvalsh(dense)
    low, high = mirror.curvature(own)
    if eigenvalues.min() < low * (1 - 1e-9) - 1e-12 or eigenvalues.max() > high * (1 + 1e-9):
        wrong.append("curvature")
    jacobian = jacrev(lambda x: tree.flatten(mirror.point(own, tree.unflatten(x, z))))(flat)
    if float((jacobian - jacobian.T).abs().max()) > 1e-9 * float(jacobian.abs().max()):
        wrong.append("symmetric Jacobian")
    if type(mirror).log_abs_det is not MirrorMap.log_abs_det and not close(
        mirror.log_abs_det(own, z), torch.linalg.slogdet(jacobian)[1], 1e-9
    ):
        wrong.append("log-determinant")
    return wrong


def hessian_of_conjugate(mirror, own, z):
    flat = tree.flatten(z)
    return jacrev(grad(lambda x: mirror.conjugate(own, tree.unflatten(x, z))))(flat)
