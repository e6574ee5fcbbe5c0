"""The task solver: the one loop over K steps, and the trace that the poster's figures draw."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mdtheory.core import tree
from mdtheory.core.types import Params, State
from mdtheory.geometry.base import Geometry, geometries
from mdtheory.inner.problem import Problem
from mdtheory.inner.task import FunctionTask, Task


def _kept(tensors: Params) -> Params:
    return tensors


class Visit:
    """One place on the way: the state z_k, its point, and the task gradient there, computed once
    and only when asked for.
    """

    def __init__(self, problem: Problem, meta: Params, task: Task, state: State, k: int):
        self.problem = problem
        self.meta = meta
        self.task = task
        self.state = state
        self.k = k

    @cached_property
    def point(self) -> Params:
        """phi_k = g(z_k)."""
        return self.problem.point(self.meta, self.state)

    @cached_property
    def _slope(self) -> tuple[Params, Tensor]:
        return self.problem.task_gradient(self.meta, self.point, self.task)

    @property
    def gradient(self) -> Params:
        """The gradient of the task objective at the point."""
        return self._slope[0]

    @property
    def loss(self) -> Tensor:
        """The bare task loss at the point. shape: ()"""
        return self._slope[1]


def visits(
    problem: Problem,
    meta: Params,
    task: Task,
    noise: Params,
    *,
    n_steps: int | None = None,
    hold: Callable[[Params], Params] = _kept,
    hold_gradient: Callable[[Params], Params] = _kept,
) -> Iterator[Visit]:
    """The visits k = 0 .. K, K = ``n_steps`` or the problem's. The loop that everything runs.

    ``hold`` is applied to every new state (``tree.detach`` where nothing is differentiated through
    it), ``hold_gradient`` to every gradient before the step. No gradient is computed at the last
    visit unless asked for.
    """
    state = hold(problem.start(meta, noise))
    last = problem.n_steps if n_steps is None else n_steps
    for k in range(last):
        here = Visit(problem, meta, task, state, k)
        yield here
        state = hold(problem.move(meta, state, hold_gradient(here.gradient), k))
    yield Visit(problem, meta, task, state, last)


def states(
    problem: Problem,
    meta: Params,
    task: Task,
    noise: Params | None = None,
    *,
    n_steps: int | None = None,
) -> Iterator[State]:
    """z_0, ..., z_K of one task, each cut from its graph; ``noise`` by default the task's own.
    shapes: as the anchor's.

    Cost: K gradients; one state is held at a time. shapes: ``z.<name>`` as the anchor's <name>.

    >>> import torch
    >>> from mdtheory import FunctionTask, Problem, states
    >>> from mdtheory.geometry import MAML
    >>> problem = Problem(geometry=MAML(), n_steps=2, task_lr=0.5)
    >>> bowl = FunctionTask(lambda phi: 0.5 * phi.square().sum())
    >>> [z["z.phi"].item() for z in states(problem, {"anchor.phi": torch.tensor(4.0)}, bowl)]
    [4.0, 2.0, 1.0]
    """
    meta = tree.detach(meta)
    drawn = problem.noise(meta, task) if noise is None else noise
    way = visits(problem, meta, task, drawn, n_steps=n_steps, hold=tree.detach)
    while True:
        with torch.no_grad():
            here = next(way, None)
        if here is None:
            return
        yield here.state


def solve(problem: Problem, meta: Params, task: Task, *, n_steps: int | None = None) -> State:
    """z_K for one task, with nothing kept for differentiation. Cost: K gradients."""
    *_, last = states(problem, meta, task, n_steps=n_steps)
    return last


def descend(
    f: Callable[[Tensor], Tensor],
    start: Tensor,
    *,
    geometry: Geometry | str = "maml",
    n_steps: int,
    task_lr: float,
) -> Tensor:
    """The points phi_0, ..., phi_K of K steps on f with any geometry. shape: (K + 1, *start.shape)

    ``start`` is z_0: the first point is g(z_0), which is z_0 itself unless the geometry has a map.
    ``geometry``: a slug, or a :class:`~mdtheory.geometry.Geometry`; one whose parameters do not
    exist yet is built for the name ``phi`` and the shape of ``start``.

    >>> import torch
    >>> from mdtheory import descend
    >>> descend(lambda x: 0.5 * x**2, torch.tensor(4.0), n_steps=2, task_lr=0.5)
    tensor([4., 2., 1.])

    Mirror descent with the entropy keeps every coordinate positive:

    >>> from mdtheory.geometry import Geometry
    >>> from mdtheory.maps import NegativeEntropy
    >>> entropy = Geometry(map=NegativeEntropy())
    >>> path = descend(lambda x: x.sum(), torch.zeros(2), geometry=entropy, n_steps=2, task_lr=1.0)
    >>> torch.allclose(path[:, 0].log(), torch.tensor([0.0, -1.0, -2.0]))
    True
    """
    chosen: Geometry = geometries.get(geometry)() if isinstance(geometry, str) else geometry
    start = start.detach()
    if not any(True for _ in chosen.parameters()):
        chosen.build({"phi": start})
    problem = Problem(geometry=chosen, n_steps=n_steps, task_lr=task_lr)
    own = tree.prefixed("geometry.", dict(chosen.named_parameters()))
    meta = tree.detach({"anchor.phi": start, **own})
    with torch.no_grad():
        points = [problem.point(meta, z)["phi"] for z in states(problem, meta, FunctionTask(f))]
    return torch.stack(points)


@dataclass(frozen=True)
class Trace:
    """Along one adaptation, at k = 0..K. shapes: (K + 1,); ``query_accuracy`` is NaN where there
    are no classes.

    >>> import torch, mdtheory
    >>> learner = mdtheory.MetaLearner(torch.nn.Linear(2, 2), n_steps=3)
    >>> x, y = torch.eye(2), torch.tensor([0, 1])
    >>> learner.trace(mdtheory.Episode(x, y, x, y)).support_loss.shape
    torch.Size([4])
    """

    support_loss: Tensor
    grad_norm: Tensor
    query_loss: Tensor
    query_accuracy: Tensor


def trace(problem: Problem, meta: Params, task: Task, *, n_steps: int | None = None) -> Trace:
    """Task loss, norm of the task gradient (at the point phi_k), query loss and accuracy at every
    k.
    """
    meta, rows = tree.detach(meta), []
    with torch.no_grad():
        noise = problem.noise(meta, task)
        for here in visits(problem, meta, task, noise, n_steps=n_steps, hold=tree.detach):
            scores = problem.score(meta, here.state, task)
            rows.append(torch.stack([here.loss, tree.norm(here.gradient), *scores]))
    return Trace(*torch.stack(rows, dim=1))
