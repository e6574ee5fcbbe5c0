"""The task problem: a geometry and a solver budget, as pure functions of the meta-parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from torch import Tensor
from torch.func import grad_and_value

from mdtheory.core import tree
from mdtheory.core.objectives import Objective
from mdtheory.core.types import Params, State
from mdtheory.geometry.base import Geometry
from mdtheory.inner.task import Task

_draw: ContextVar[Callable[[int], Params] | None] = ContextVar("draw", default=None)


@contextmanager
def noise_from(draw: Callable[[int], Params]) -> Iterator[None]:
    """Inside, the noise of a task is draw(seed) and not the geometry's own draw: where that cannot
    be called, it is given.
    """
    token = _draw.set(draw)
    try:
        yield
    finally:
        _draw.reset(token)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """How any task is solved: geometry, number of steps, rate, and the meta-objective.

    ``meta`` in every method holds ``anchor.<name>`` (adapted by the task solver), ``shared.<name>``
    (meta-learned, not adapted) and ``geometry.<name>``. ``inner_loss_scale`` multiplies the task
    loss in the solver only.

    shapes: losses ().

    >>> import torch, mdtheory
    >>> learner = mdtheory.MetaLearner(torch.nn.Linear(2, 2), n_steps=3)
    >>> problem = learner.problem()
    >>> problem.n_steps, problem.geometry is learner.geometry
    (3, True)
    """

    geometry: Geometry
    n_steps: int
    task_lr: float
    inner_loss_scale: float = 1.0
    objective: Objective = field(default_factory=Objective)

    def noise(self, meta: Params, task: Task) -> Params:
        """The method's own draw for this task, with the anchor's device and precision."""
        like = _anchored(meta)
        if getattr(self.geometry.draw, "__func__", None) is Geometry.draw:
            return {}  # no address has to be made
        drawn = (_draw.get() or self.geometry.draw)(task.seed)
        return {name: value.to(like.device, like.dtype) for name, value in drawn.items()}

    def zero(self, meta: Params) -> Tensor:
        """0 with the anchor's device and precision. shape: ()"""
        return _anchored(meta).new_zeros(())

    def prepared(self, meta: Params) -> Params:
        """``meta`` with the geometry's part in the form that is cheapest for a task's steps."""
        others = {name: v for name, v in meta.items() if not name.startswith("geometry.")}
        own = self.geometry.prepared(tree.sub(meta, "geometry."))
        return {**others, **tree.prefixed("geometry.", own)}

    def start(self, meta: Params, noise: Params) -> State:
        """The state z_0."""
        own, anchor = tree.sub(meta, "geometry."), tree.sub(meta, "anchor.")
        return self.geometry.init(own, anchor, noise)

    def point(self, meta: Params, state: State) -> Params:
        """phi = g(z)."""
        return self.geometry.point(tree.sub(meta, "geometry."), state)

    def weights(self, meta: Params, point: Params) -> Params:
        """What a task consumes at a point."""
        return self.geometry.weights(tree.sub(meta, "geometry."), point)

    def task_objective(self, meta: Params, point: Params, task: Task) -> tuple[Tensor, Tensor]:
        """What the task solver descends, ``inner_loss_scale * task_loss + task_penalty``, and the
        bare task loss.
        """
        loss = task.task_loss(meta, self.weights(meta, point))
        total = self.inner_loss_scale * loss if self.inner_loss_scale != 1.0 else loss
        own, anchor = tree.sub(meta, "geometry."), tree.sub(meta, "anchor.")
        penalty = self.geometry.task_penalty(own, anchor, point)
        return (total if penalty is None else total + penalty), loss

    def task_gradient(self, meta: Params, point: Params, task: Task) -> tuple[Params, Tensor]:
        """The gradient of the task objective at a point, and the bare task loss there."""
        of_point = grad_and_value(lambda p: self.task_objective(meta, p, task), has_aux=True)
        gradient, (_, loss) = of_point(point)
        return gradient, loss

    def move(self, meta: Params, state: State, gradient: Params, k: int) -> State:
        """The state after step k (from z_k to z_{k+1}) with this task gradient."""
        own = tree.sub(meta, "geometry.")
        return self.geometry.step(own, state, gradient, task_lr=self.task_lr, k=k)

    def advance(self, meta: Params, state: State, task: Task, k: int) -> State:
        """z_{k+1} from z_k: point, gradient, step."""
        gradient, _ = self.task_gradient(meta, self.point(meta, state), task)
        return self.move(meta, state, gradient, k)

    def score(self, meta: Params, state: State, task: Task) -> tuple[Tensor, Tensor]:
        """The query loss at g(z), and the accuracy (NaN where there are no classes). shapes: (),
        ()
        """
        return task.score(meta, self.weights(meta, self.point(meta, state)))

    def meta_penalty(self, meta: Params, state: State, task: Task, k: int) -> Tensor | None:
        """The geometry's own term of the meta-objective at phi_k.

        Errors: ``ValueError`` where the geometry has one and the task has no items.
        """
        targets = task.targets
        if targets is None:
            if type(self.geometry).meta_penalty is Geometry.meta_penalty:
                return None
            raise ValueError(
                f"the penalty of {type(self.geometry).__name__} needs a task with outputs and "
                f"targets, got {type(task).__name__}; use an EpisodeTask or another geometry"
            )
        return self.geometry.meta_penalty(
            tree.sub(meta, "geometry."),
            self.point(meta, state),
            lambda point: task.support_outputs(meta, self.weights(meta, point)),
            targets,
            k,
        )


def _anchored(meta: Params) -> Tensor:
    """The first adapted tensor. shape: as the model's"""
    for name, value in meta.items():
        if name.startswith("anchor."):
            return value
    raise ValueError(
        f"meta must hold what a task adapts under anchor.<name>, got {list(meta)[:3]}; a frozen "
        "parameter is not in MetaLearner.meta(): call requires_grad_() on the network"
    )
