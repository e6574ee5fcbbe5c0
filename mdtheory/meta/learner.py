"""The face for people: any ``nn.Module`` with any geometry, as an ordinary module that learns to
adapt.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mdtheory.core import tree
from mdtheory.core.objectives import Objective
from mdtheory.core.types import Episode, LossFunction, MetaGradient, Params
from mdtheory.geometry.base import Geometry, geometries
from mdtheory.inner.estimators import Estimator, estimators
from mdtheory.inner.problem import Problem, joint_outputs
from mdtheory.inner.solver import Trace, noise_of, solve, trace
from mdtheory.models.norm import collecting_statistics
from mdtheory.models.user.gate import PROBE, Gate, Lock
from mdtheory.models.user.modes import set_mode
from mdtheory.models.user.prepare import prepare


class AdaptedModel(nn.Module):
    """A network with a task's own weights, to call on new inputs. ``support`` is kept where its
    statistics normalise them.
    """

    def __init__(
        self, network: nn.Module, problem: Problem, meta: Params, episode: Episode, point: Params
    ):
        super().__init__()
        self.network = copy.deepcopy(network)
        weights = problem.geometry.weights(tree.sub(meta, "geometry."), point)
        with torch.no_grad():
            for name, value in weights.items():
                self.network.get_parameter(name).copy_(value)
        self.network.requires_grad_(False)
        self.support: Tensor | None
        self.register_buffer("support", episode.support_x if problem.joint_query else None)

    def forward(self, x: Tensor) -> Tensor:
        """The outputs for inputs of shape (n_items, ...)."""
        if self.support is None:
            return self.network(x)
        nothing = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        return joint_outputs(self.network, Episode(self.support, nothing, x, nothing))


class MetaLearner(nn.Module):
    """Learns, over many tasks, a start and a geometry from which a few gradient steps solve a new
    task.

    Parameters: ``model``, any ``nn.Module`` (copied, never changed); ``geometry``, a slug or a
    :class:`Geometry`; ``n_steps`` at training and ``eval_steps`` afterwards (default the same);
    ``task_lr``, the task solver's rate; ``adapt``, patterns of the parameter names that the task
    solver may move (all others are meta-learned but shared; those with ``requires_grad=False`` stay
    constant); ``loss(outputs, targets)``, a mean (default cross-entropy); ``inner_loss_scale``
    multiplies it in the task solver only; ``norm``, the policy of batch normalisation;
    ``estimator``, a slug or an :class:`Estimator`; ``objective``, by default the geometry's own.
    """

    def __init__(
        self,
        model: nn.Module,
        geometry: str | Geometry = "maml",
        *,
        n_steps: int = 5,
        eval_steps: int | None = None,
        task_lr: float = 0.01,
        adapt: str | Sequence[str] = "*",
        loss: LossFunction = cross_entropy,
        inner_loss_scale: float = 1.0,
        norm: str = "transductive",
        estimator: str | Estimator = "unrolled",
        objective: Objective | None = None,
    ):
        super().__init__()
        _check_budget(n_steps, eval_steps, task_lr)
        self.geometry: Geometry = (
            geometries.get(geometry)() if isinstance(geometry, str) else geometry
        )
        self.network = self.geometry.wrap(prepare(model, norm=norm))
        self.estimator: Estimator = (
            estimators.get(estimator)() if isinstance(estimator, str) else estimator
        )
        self.n_steps, self.eval_steps, self.task_lr = (
            n_steps,
            n_steps if eval_steps is None else eval_steps,
            task_lr,
        )
        self.loss, self.inner_loss_scale, self.norm = loss, inner_loss_scale, norm
        self.objective = self.geometry.objective if objective is None else objective
        self._probed = False
        self._adapted = self._select([adapt] if isinstance(adapt, str) else list(adapt))
        live = dict(self.network.named_parameters())
        self.geometry.build({name: live[name].detach() for name in self._adapted})
        like = next(value for value in live.values() if value.is_floating_point())
        self.geometry.to(like.device, like.dtype)

    def _select(self, patterns: list[str]) -> list[str]:
        trainable = [name for name, value in self.network.named_parameters() if value.requires_grad]
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in trainable):
                raise ValueError(
                    f"adapt must match trainable parameters, got {pattern!r}, which matches none; "
                    f"there are {trainable[:3]}..."
                )
        return [
            n
            for n in trainable
            if self.geometry.adapts(n) and any(fnmatchcase(n, pattern) for pattern in patterns)
        ]

    def meta(self) -> Params:
        """The live meta-parameters: ``anchor.*`` (adapted), ``shared.*`` (not adapted) and
        ``geometry.*``.
        """
        adapted = set(self._adapted)
        named = [
            (name, value) for name, value in self.network.named_parameters() if value.requires_grad
        ]
        return {
            **{f"anchor.{name}": value for name, value in named if name in adapted},
            **{f"shared.{name}": value for name, value in named if name not in adapted},
            **{
                f"geometry.{name}": value
                for name, value in self.geometry.named_parameters()
                if value.requires_grad
            },
        }

    def problem(self, *, n_steps: int | None = None) -> Problem:
        """The task problem as pure functions of :meth:`meta`."""
        return Problem(
            model=self.network,
            geometry=self.geometry,
            loss=self.loss,
            n_steps=self.n_steps if n_steps is None else n_steps,
            task_lr=self.task_lr,
            inner_loss_scale=self.inner_loss_scale,
            objective=self.objective,
            constants={
                name: value
                for name, value in self.network.named_parameters()
                if not value.requires_grad
            },
            joint_query=self.norm == "support",
        )

    def meta_gradient(self, episodes: Sequence[Episode]) -> MetaGradient:
        """Value and gradient of the meta-objective over these tasks, without touching ``.grad``.

        The first call, here or in :meth:`adapt`, probes the network and refuses one that cannot be
        differentiated twice.
        """
        if episodes:
            self._probe(episodes[0].support_x)
        return self.estimator(self.problem(), self.meta(), episodes)

    def backward(self, episodes: Sequence[Episode]) -> MetaGradient:
        """:meth:`meta_gradient`, added into every parameter's ``.grad`` so that any ``torch.optim``
        can step.
        """
        result = self.meta_gradient(episodes)
        for name, parameter in self.meta().items():
            gradient = result.grads[name]
            parameter.grad = (
                gradient.clone() if parameter.grad is None else parameter.grad + gradient
            )
        return result

    def adapt(self, x: Tensor, y: Tensor, *, n_steps: int | None = None) -> AdaptedModel:
        """Solve one task from its support set; returns an ordinary module. shapes: (n_items, ...),
        (n_items,)

        Under the transductive policy a prediction depends on the batch that it is made in.
        """
        if len(x) != len(y) or len(x) == 0:
            raise ValueError(
                f"x and y must hold the same number >= 1 of items, got {len(x)} and {len(y)}; give "
                "one label per input"
            )
        self._probe(x)
        problem = self.problem(n_steps=self.eval_steps if n_steps is None else n_steps)
        meta, episode = tree.detach(self.meta()), Episode(x, y, x[:0], y[:0])
        state = solve(problem, meta, episode)
        with torch.no_grad():
            return AdaptedModel(self.network, problem, meta, episode, problem.point(meta, state))

    def trace(self, episode: Episode, *, n_steps: int | None = None) -> Trace:
        """Task loss, gradient norm, query loss and accuracy at every step of one adaptation."""
        return trace(
            self.problem(n_steps=self.eval_steps if n_steps is None else n_steps),
            self.meta(),
            episode,
        )

    def forward(self, support_x: Tensor, support_y: Tensor, query_x: Tensor) -> Tensor:
        """Outputs on the query set after adaptation. shapes: (n_support, ...), (n_support,),
        (n_query, ...)
        """
        return self.adapt(support_x, support_y)(query_x)

    def _probe(self, x: Tensor) -> None:
        if not self._probed:
            probe(self.network, x)
            self._probed = True

    @torch.no_grad()
    def update_statistics(self, episodes: Sequence[Episode]) -> None:
        """Norm policy "running": move the running statistics by one forward pass per task at the
        unadapted point.
        """
        if self.norm != "running":
            return
        problem, meta = self.problem(), tree.detach(self.meta())
        with collecting_statistics():
            for episode in episodes:
                point = problem.point(meta, problem.start(meta, noise_of(problem, episode)))
                problem.outputs(meta, point, episode.support_x)


def _check_budget(n_steps: int, eval_steps: int | None, task_lr: float) -> None:
    if n_steps < 0 or (eval_steps is not None and eval_steps < 0):
        raise ValueError(
            f"n_steps and eval_steps must be >= 0, got {n_steps} and {eval_steps}; 5 is the usual "
            "number"
        )
    if not 0 < task_lr < float("inf"):
        raise ValueError(
            f"task_lr must be positive and finite, got {task_lr}; 0.01 is the usual rate"
        )
