"""Arbitrary functions as task problems, so that claims run the library's own solver, geometries and
estimators on them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mdtheory.core import tree
from mdtheory.core.types import Params
from mdtheory.geometry.base import Geometry, geometries
from mdtheory.inner.problem import Problem
from mdtheory.inner.task import FunctionTask
from mdtheory.maps.base import DualMap, MirrorMap, maps
from mdtheory.maps.newton import Budget, invert

Function = Callable[..., Tensor]
"""phi -> f(phi), or (phi, theta) -> f(phi, theta) for a landscape with a shared theta. shapes:
(d,), (p,) -> ()
"""


def vector(*entries: float) -> Tensor:
    """A float64 vector."""
    return torch.tensor(entries, dtype=torch.float64)


def hessian_of(f: Function) -> Function:
    """x -> Hessian of f at x, by reverse mode twice (torch's own ``hessian`` warns about itself).
    shapes: (d,) -> (d, d)
    """
    return torch.func.jacrev(torch.func.grad(f))


def problem_of(
    task: Function,
    start: Tensor,
    *,
    task_lr: float,
    n_steps: int,
    query: Function | None = None,
    theta: Tensor | None = None,
    geometry: Geometry | str = "maml",
    strongly_convex: bool = False,
) -> tuple[Problem, Params, FunctionTask]:
    """The library's problem for the task loss f and query loss l, its meta-parameters
    (``anchor.phi`` = ``start``), and f and l as a task.

    ``theta``, if given, is meta-learned and not adapted (``shared.theta``). A ``Geometry`` must
    already be built for ``{"phi": start}``; a slug is built here.
    """
    if isinstance(geometry, str):
        geometry = geometries.get(geometry)()
        geometry.build({"phi": start})
    problem = Problem(geometry=geometry, n_steps=n_steps, task_lr=task_lr)
    shared = {} if theta is None else {"shared.theta": theta.clone()}
    own = {name: value.detach().clone() for name, value in geometry.named_parameters()}
    meta = {"anchor.phi": start.clone(), **shared, **tree.prefixed("geometry.", own)}
    return problem, meta, FunctionTask(task, query, strongly_convex)


def mirror(map: MirrorMap | DualMap | str, like: Tensor, **options: object) -> Geometry:
    """Mirror descent with this point map, built for ``like``'s shape. What
    :func:`mdtheory.descend` then calls ``start`` is z_0.
    """
    chosen = maps.get(map)(**options) if isinstance(map, str) else map
    geometry = Geometry(map=chosen)
    geometry.build({"phi": like})
    return geometry


def built(slug: str, like: Tensor, **options: object) -> MirrorMap:
    """A mirror map of the library, built for ``like``'s shape."""
    chosen: MirrorMap = maps.get(slug)(**options)
    chosen.build({"phi": like})
    return chosen


def point(map: DualMap, z: Tensor) -> Tensor:
    """phi = g(z) for a map with its own parameters. shape: (d,)"""
    return map.point(map.own(), {"phi": z})["phi"]


def dual(map: DualMap, phi: Tensor) -> Tensor:
    """z = g^{-1}(phi). shape: (d,)"""
    return map.inverse(map.own(), {"phi": phi})["phi"]


class FromPotential(MirrorMap):
    """The mirror map of a given smooth strongly convex h: grad h by autograd, grad h* by the
    library's numeric inverse.
    """

    def __init__(self, potential: Function):
        super().__init__()
        self.h = potential

    def point(self, meta: Params, z: Params) -> Params:
        return {"phi": invert(torch.func.grad(self.h), z["phi"], budget=Budget(tol=1e-13))}

    def inverse(self, meta: Params, phi: Params) -> Params:
        return {"phi": torch.func.grad(self.h)(phi["phi"])}

    def potential(self, meta: Params, phi: Params) -> Tensor:
        return self.h(phi["phi"])

    def conjugate(self, meta: Params, z: Params) -> Tensor:
        phi = self.point(meta, z)
        return tree.dot(phi, z) - self.potential(meta, phi)
