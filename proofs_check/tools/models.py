"""Arbitrary functions as task problems, so that claims run the library's own solver, geometries and
estimators on them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mdtheory.core import tree
from mdtheory.core.types import Episode, Params
from mdtheory.geometry.base import Geometry, geometries
from mdtheory.inner.problem import Problem
from mdtheory.inner.solver import solve
from mdtheory.maps.base import DualMap, MirrorMap, maps
from mdtheory.maps.newton import Budget, invert

Function = Callable[..., Tensor]
"""phi -> f(phi), or (phi, theta) -> f(phi, theta) for a landscape with a shared theta. shapes:
(d,), (p,) -> ()
"""

_EMPTY = torch.zeros(1, dtype=torch.float64)
EPISODE = Episode(_EMPTY[:, None], _EMPTY, _EMPTY.repeat(2)[None], _EMPTY)
"""No data: the width of ``x`` tells a :class:`Landscape` whether the task loss or the query loss is
asked for.
"""


def vector(*entries: float) -> Tensor:
    """A float64 vector."""
    return torch.tensor(entries, dtype=torch.float64)


def hessian_of(f: Function) -> Function:
    """x -> Hessian of f at x, by reverse mode twice (torch's own ``hessian`` warns about itself).
    shapes: (d,) -> (d, d)
    """
    return torch.func.jacrev(torch.func.grad(f))


class Landscape(nn.Module):
    """A network whose only output is the loss itself: f at ``phi`` on a support set, l at ``phi``
    on a query set.
    """

    def __init__(
        self,
        phi: Tensor,
        task: Function,
        query: Function | None = None,
        theta: Tensor | None = None,
    ):
        super().__init__()
        self.phi = nn.Parameter(phi)
        self.theta = nn.Parameter(theta) if theta is not None else None
        self.task, self.query = task, query if query is not None else task

    def forward(self, x: Tensor) -> Tensor:
        """f(phi[, theta]) for x of width 1, l(phi[, theta]) for width 2. shape: ()"""
        function = self.task if x.shape[1] == 1 else self.query
        return function(self.phi) if self.theta is None else function(self.phi, self.theta)


def itself(outputs: Tensor, targets: Tensor) -> Tensor:
    """The loss of a :class:`Landscape`: its output."""
    return outputs


def problem_of(
    task: Function,
    start: Tensor,
    *,
    task_lr: float,
    n_steps: int,
    query: Function | None = None,
    theta: Tensor | None = None,
    geometry: Geometry | str = "maml",
) -> tuple[Problem, Params]:
    """The library's problem for the task loss f and query loss l, and its meta-parameters
    (``anchor.phi`` = ``start``).

    ``theta``, if given, is meta-learned and not adapted (``shared.theta``). A ``Geometry`` must
    already be built for ``{"phi": start}``; a slug is built here.
    """
    if isinstance(geometry, str):
        geometry = geometries.get(geometry)()
        geometry.build({"phi": start})
    model = Landscape(start.clone(), task, query, theta)
    problem = Problem(model=model, geometry=geometry, loss=itself, n_steps=n_steps, task_lr=task_lr)
    shared = {} if theta is None else {"shared.theta": theta.clone()}
    own = {name: value.detach().clone() for name, value in geometry.named_parameters()}
    return problem, {"anchor.phi": start.clone(), **shared, **tree.prefixed("geometry.", own)}


def descend(
    task: Function,
    start: Tensor,
    *,
    task_lr: float,
    n_steps: int,
    geometry: Geometry | str = "maml",
) -> Tensor:
    """phi^K by the library's task solver. shape: (d,)"""
    problem, meta = problem_of(task, start, task_lr=task_lr, n_steps=n_steps, geometry=geometry)
    return problem.point(meta, solve(problem, meta, EPISODE))["phi"]


def path(
    task: Function,
    start: Tensor,
    *,
    task_lr: float,
    n_steps: int,
    geometry: Geometry | str = "maml",
) -> Sequence[Tensor]:
    """phi^0, ..., phi^K by the library's steps. shapes: K + 1 of (d,)"""
    problem, meta = problem_of(task, start, task_lr=task_lr, n_steps=n_steps, geometry=geometry)
    state = problem.start(meta, {})
    points = [problem.point(meta, state)["phi"]]
    for k in range(n_steps):
        state = tree.detach(problem.advance(meta, state, EPISODE, k))
        points.append(problem.point(meta, state)["phi"])
    return points


def mirror(map: MirrorMap | DualMap | str, like: Tensor, **options: object) -> Geometry:
    """Mirror descent with this point map, built for ``like``'s shape. What :func:`descend` then
    calls ``start`` is z_0.
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
