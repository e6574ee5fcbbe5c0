"""User API: any ``nn.Module`` with any geometry, as an ordinary module that learns to adapt."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TypedDict, Unpack

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mdtheory.core import tree
from mdtheory.core.objectives import Objective
from mdtheory.core.registry import unknown
from mdtheory.core.types import Episode, LossFunction, MetaGradient, Params
from mdtheory.geometry.base import Geometry, geometries
from mdtheory.inner.estimators import Estimator, estimators
from mdtheory.inner.problem import Problem
from mdtheory.inner.solver import Trace, solve, trace
from mdtheory.inner.task import EpisodeTask, joint_outputs
from mdtheory.models.norm import collecting_statistics
from mdtheory.models.user.prepare import prepare
from mdtheory.models.user.probe import probe


class AdaptedModel(nn.Module):
    """A network with a task's own weights, to call on new inputs. ``support`` is kept where its
    statistics normalise them.

    shapes: those of the network, (n_items, ...) -> (n_items, ...).

    >>> import torch, mdtheory
    >>> learner = mdtheory.MetaLearner(torch.nn.Linear(2, 3), n_steps=1)
    >>> adapted = learner.adapt(torch.eye(2), torch.tensor([0, 2]))
    >>> adapted(torch.eye(2)).shape
    torch.Size([2, 3])
    """

    def __init__(self, network: nn.Module, weights: Params, *, support: Tensor | None = None):
        super().__init__()
        self.network = copy.deepcopy(network)
        with torch.no_grad():
            for name, value in weights.items():
                self.network.get_parameter(name).copy_(value)
        self.network.requires_grad_(False)
        self.support: Tensor | None
        self.register_buffer("support", support)

    def forward(self, x: Tensor) -> Tensor:
        """The outputs for inputs of shape (n_items, ...)."""
        if self.support is None:
            return self.network(x)
        nothing = torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)
        return joint_outputs(self.network, Episode(self.support, nothing, x, nothing))


class LearnerOptions(TypedDict, total=False):
    """What a :class:`MetaLearner` takes besides model, geometry and budget, with its defaults.

    ``eval_steps`` (as in training): steps after training; ``adapt`` ("*"): patterns of the
    parameter names that the task solver may move (all others are meta-learned but shared; those
    with ``requires_grad=False`` stay constant); ``loss(outputs, targets)`` (cross-entropy): a mean;
    ``inner_loss_scale`` (1) multiplies it in the task solver only; ``norm`` ("transductive"): the
    policy of batch normalisation; ``estimator`` ("unrolled"): a slug or an :class:`Estimator`;
    ``objective``: by default the geometry's own.
    """

    eval_steps: int | None
    adapt: str | Sequence[str]
    loss: LossFunction
    inner_loss_scale: float
    norm: str
    estimator: str | Estimator
    objective: Objective | None


class MetaLearner(nn.Module):
    """Learns, over many tasks, a start and a geometry from which a few gradient steps solve a new
    task.

    ``model``: any ``nn.Module`` (copied, never changed); ``geometry``: a slug or a
    :class:`Geometry`; ``n_steps``: steps of the task solver; ``task_lr``: its rate. All further
    keywords are the fields of :class:`LearnerOptions`.

    shapes: a support set (n_support, ...) with labels (n_support,), a query set (n_query, ...);
    outputs as the model's, (n_query, ...).

    >>> import torch, mdtheory
    >>> network = torch.nn.Linear(2, 2)
    >>> learner = mdtheory.MetaLearner(network, mdtheory.geometry.MetaSGD(), n_steps=3, task_lr=0.1)
    >>> x, y = torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1])
    >>> result = learner.backward([mdtheory.Episode(x, y, x, y)])  # fills every .grad
    >>> sorted(result.grads)[:2]
    ['anchor.bias', 'anchor.weight']
    >>> learner.adapt(x, y, n_steps=100)(x).argmax(-1)
    tensor([0, 1])
    """

    def __init__(
        self,
        model: nn.Module,
        geometry: str | Geometry = "maml",
        *,
        n_steps: int = 5,
        task_lr: float = 0.01,
        **options: Unpack[LearnerOptions],
    ):
        super().__init__()
        _check_options(options)
        eval_steps = options.get("eval_steps")
        _check_budget(n_steps, eval_steps, task_lr)
        self.n_steps = n_steps
        self.eval_steps = n_steps if eval_steps is None else eval_steps
        self.task_lr = task_lr
        self.loss = options.get("loss", cross_entropy)
        self.inner_loss_scale = options.get("inner_loss_scale", 1.0)
        self.norm = options.get("norm", "transductive")
        self.geometry: Geometry = (
            geometries.get(geometry)() if isinstance(geometry, str) else geometry
        )
        self.network = self.geometry.wrap(prepare(model, norm=self.norm))
        estimator = options.get("estimator", "unrolled")
        self.estimator: Estimator = (
            estimators.get(estimator)() if isinstance(estimator, str) else estimator
        )
        self.objective = options.get("objective") or self.geometry.objective
        self._probed = False
        patterns = options.get("adapt", "*")
        self._adapted = self._select([patterns] if isinstance(patterns, str) else list(patterns))
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
        """How a task is solved, as pure functions of :meth:`meta`."""
        return Problem(
            geometry=self.geometry,
            n_steps=self.n_steps if n_steps is None else n_steps,
            task_lr=self.task_lr,
            inner_loss_scale=self.inner_loss_scale,
            objective=self.objective,
        )

    def task(self, episode: Episode) -> EpisodeTask:
        """The network on an episode, as a task."""
        named = self.network.named_parameters()
        constants: Params = {n: v for n, v in named if not v.requires_grad}
        return EpisodeTask(
            model=self.network,
            loss=self.loss,
            episode=episode,
            constants=constants,
            joint_query=self.norm == "support",
        )

    def meta_gradient(self, episodes: Sequence[Episode]) -> MetaGradient:
        """Value and gradient of the meta-objective over these tasks, without touching ``.grad``.

        The first call, here or in :meth:`adapt`, probes the network and refuses one that cannot be
        differentiated twice.
        """
        if episodes:
            self._probe(episodes[0].support_x)
        tasks = [self.task(episode) for episode in episodes]
        return self.estimator(self.problem(), self.meta(), tasks)

    def accumulate(self, result: MetaGradient) -> None:
        """Add a meta-gradient into every parameter's ``.grad``, so that any ``torch.optim`` can
        step.
        """
        for name, parameter in self.meta().items():
            gradient = result.grads[name]
            parameter.grad = (
                gradient.clone() if parameter.grad is None else parameter.grad + gradient
            )

    def backward(self, episodes: Sequence[Episode]) -> MetaGradient:
        """:meth:`meta_gradient`, accumulated into every parameter's ``.grad``."""
        result = self.meta_gradient(episodes)
        self.accumulate(result)
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
        meta, task = tree.detach(self.meta()), self.task(Episode(x, y, x[:0], y[:0]))
        with torch.no_grad():
            weights = problem.weights(meta, problem.point(meta, solve(problem, meta, task)))
        return AdaptedModel(self.network, weights, support=x if task.joint_query else None)

    def trace(self, episode: Episode, *, n_steps: int | None = None) -> Trace:
        """Task loss, gradient norm, query loss and accuracy at every step of one adaptation."""
        problem = self.problem(n_steps=self.eval_steps if n_steps is None else n_steps)
        return trace(problem, self.meta(), self.task(episode))

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
                task = self.task(episode)
                start = problem.start(meta, problem.noise(meta, task))
                task.support_outputs(meta, problem.weights(meta, problem.point(meta, start)))


def _check_options(options: Mapping[str, object]) -> None:
    known = list(LearnerOptions.__annotations__)
    for name in options:
        if name not in known:
            raise TypeError(str(unknown("a keyword of MetaLearner", name, known)))


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
