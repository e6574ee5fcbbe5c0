"""One task problem: a model, a loss, a geometry and a solver budget, as pure functions of the
meta-parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.func import grad_and_value

from mdtheory.core import tree
from mdtheory.core.functional import functional_call
from mdtheory.core.inputs import Inputs, arguments, joined, n_items
from mdtheory.core.objectives import Objective
from mdtheory.core.types import Episode, LossFunction, Params, State
from mdtheory.geometry.base import Geometry
from mdtheory.models.norm import statistics_over_first


def joint_outputs(forward: Callable[[Inputs], Tensor], episode: Episode) -> Tensor:
    """The outputs on the query set, normalised by the support set's statistics (policy "support").
    shape: (n_query, ...)
    """
    n_support = n_items(episode.support_x)
    with statistics_over_first(n_support):
        return forward(joined(episode.support_x, episode.query_x))[n_support:]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Everything about a task but its data and the meta-parameters.

    ``meta`` in every method holds ``anchor.<name>`` (adapted by the task solver), ``shared.<name>``
    (meta-learned, not adapted) and ``geometry.<name>``. ``constants`` are the model's frozen
    parameters. ``joint_query``: the query set is passed behind the support set, whose statistics
    then normalise both (norm policy "support").
    """

    model: nn.Module
    geometry: Geometry
    loss: LossFunction
    n_steps: int
    task_lr: float
    inner_loss_scale: float = 1.0
    objective: Objective = field(default_factory=Objective)
    constants: Params = field(default_factory=dict)
    joint_query: bool = False

    def outputs(self, meta: Params, point: Params, x: Inputs) -> Tensor:
        """The model's outputs at a point. shape: (n_items, ...)"""
        weights = self.geometry.weights(tree.sub(meta, "geometry."), point)
        replaced = {**self.constants, **tree.sub(meta, "shared."), **weights}
        return functional_call(self.model, replaced, *arguments(self.model, x))

    def support_loss(self, meta: Params, point: Params, episode: Episode) -> Tensor:
        """The mean loss over the support set, without penalty or scale. shape: ()"""
        return self.loss(self.outputs(meta, point, episode.support_x), episode.support_y)

    def query_outputs(self, meta: Params, point: Params, episode: Episode) -> Tensor:
        """The model's outputs on the query set. shape: (n_way * n_query, ...)"""
        if not self.joint_query:
            return self.outputs(meta, point, episode.query_x)
        return joint_outputs(lambda x: self.outputs(meta, point, x), episode)

    def task_objective(
        self, meta: Params, point: Params, episode: Episode
    ) -> tuple[Tensor, Tensor]:
        """What the task solver descends, ``inner_loss_scale * support_loss + task_penalty``, and
        the bare support loss.
        """
        loss = self.support_loss(meta, point, episode)
        total = self.inner_loss_scale * loss if self.inner_loss_scale != 1.0 else loss
        penalty = self.geometry.task_penalty(
            tree.sub(meta, "geometry."), tree.sub(meta, "anchor."), point
        )
        return (total if penalty is None else total + penalty), loss

    def start(self, meta: Params, noise: Params) -> State:
        """The state z_0."""
        return self.geometry.init(tree.sub(meta, "geometry."), tree.sub(meta, "anchor."), noise)

    def point(self, meta: Params, state: State) -> Params:
        """phi = g(z)."""
        return self.geometry.point(tree.sub(meta, "geometry."), state)

    def task_gradient(self, meta: Params, point: Params, episode: Episode) -> tuple[Params, Tensor]:
        """The gradient of the task objective at a point, and the bare support loss there."""
        gradient, (_, loss) = grad_and_value(
            lambda p: self.task_objective(meta, p, episode), has_aux=True
        )(point)
        return gradient, loss

    def move(self, meta: Params, state: State, gradient: Params, k: int) -> State:
        """The state after step k (from z_k to z_{k+1}) with this task gradient."""
        return self.geometry.step(
            tree.sub(meta, "geometry."), state, gradient, task_lr=self.task_lr, k=k
        )

    def advance(self, meta: Params, state: State, episode: Episode, k: int) -> State:
        """z_{k+1} from z_k: point, gradient, step."""
        gradient, _ = self.task_gradient(meta, self.point(meta, state), episode)
        return self.move(meta, state, gradient, k)

    def query_loss(self, meta: Params, state: State, episode: Episode) -> tuple[Tensor, Tensor]:
        """The mean query loss at g(z), and the outputs. shapes: (), (n_way * n_query, ...)"""
        outputs = self.query_outputs(meta, self.point(meta, state), episode)
        return self.loss(outputs, episode.query_y), outputs

    def meta_penalty(self, meta: Params, state: State, episode: Episode, k: int) -> Tensor | None:
        """The geometry's own term of the meta-objective at phi_k."""
        return self.geometry.meta_penalty(
            tree.sub(meta, "geometry."),
            self.point(meta, state),
            lambda point: self.outputs(meta, point, episode.support_x),
            episode.support_y,
            k,
        )
