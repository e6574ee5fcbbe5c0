"""The face for people: any ``nn.Module`` with any geometry, as an ordinary module that learns to
adapt.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mdtheory.core import tree
from mdtheory.core.inputs import call, n_items
from mdtheory.core.objectives import Objective
from mdtheory.core.registry import unknown
from mdtheory.core.types import Episode, LossFunction, MetaGradient, Params
from mdtheory.geometry.base import Geometry, geometries
from mdtheory.inner.estimators import Estimator, estimators
from mdtheory.inner.problem import Problem, joint_outputs
from mdtheory.inner.solver import Trace, noise_of, solve, trace
from mdtheory.meta.accumulate import accumulate, refuse_wrapped
from mdtheory.meta.door import Fitting, as_episodes, floating_type, only_support
from mdtheory.models.norm import collecting_statistics
from mdtheory.models.user.attributes import unwatched
from mdtheory.models.user.case import FAILURES
from mdtheory.models.user.gate import PROBE, Gate, Lock
from mdtheory.models.user.modes import set_mode
from mdtheory.models.user.prepare import prepare
from mdtheory.models.user.probe import Verdict, explain


class AdaptedModel(nn.Module):
    """A network with a task's own weights, to call on new inputs. ``support`` is kept where its
    statistics normalise them.
    """

    def __init__(
        self, network: nn.Module, problem: Problem, meta: Params, episode: Episode, point: Params
    ):
        super().__init__()
        self.network = unwatched(copy.deepcopy(network))
        weights = problem.geometry.weights(tree.sub(meta, "geometry."), point)
        own = dict(self.network.named_parameters())
        with torch.no_grad():
            for name, value in weights.items():
                own[name].copy_(value)
        self.network.requires_grad_(False)
        self.support: Tensor | None
        self.register_buffer("support", episode.support_x if problem.joint_query else None)

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """The outputs for inputs of shape (n_items, ...), given as the network takes them, or as
        one tuple or dictionary.
        """
        x = named or (inputs[0] if len(inputs) == 1 else inputs)
        own = next(self.network.parameters())
        x = Fitting(own.device, floating_type(self.network)).inputs(x)
        if self.support is None:
            return call(self.network, x)
        nothing = torch.zeros(n_items(x), dtype=torch.int64, device=own.device)
        return joint_outputs(
            lambda joint: call(self.network, joint), Episode(self.support, nothing, x, nothing)
        )


class MetaLearner(nn.Module):
    """Learns, over many tasks, a start and a geometry from which a few gradient steps solve a new
    task.

    Parameters: ``model``, any ``nn.Module`` (copied, never changed); ``geometry``, a slug or a
    :class:`Geometry`; ``n_steps`` at training and ``eval_steps`` afterwards (default the same);
    ``task_lr``, the task solver's rate; ``adapt``, patterns of the parameter names that the task
    solver may move (all others are meta-learned but shared; those with ``requires_grad=False`` stay
    constant); ``loss(outputs, targets)``, a mean (default cross-entropy); ``inner_loss_scale``
    multiplies it in the task solver only; ``norm``, the policy of batch normalisation;
    ``estimator``, a slug or an :class:`Estimator`; ``objective``, by default the geometry's own;
    ``dropout``, "refuse" a model that draws at random or switch all dropout "off"; ``probe``, "on"
    or "off": whether the model is judged by a few passes on copies
    (:func:`~mdtheory.models.user.probe.probe`) at the first call and whenever it has changed.

    Several threads may use one learner: they wait for each other.
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
        dropout: str = "refuse",
        probe: str = "on",
    ):
        super().__init__()
        _check_budget(n_steps, eval_steps, task_lr)
        if probe not in PROBE:
            raise unknown("probe", probe, list(PROBE))
        self.gate, self._lock = Gate(on=probe == "on"), Lock()
        self.geometry: Geometry = (
            geometries.get(geometry)() if isinstance(geometry, str) else geometry
        )
        self.network = self.geometry.wrap(prepare(model, norm=norm, dropout=dropout))
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
        self._adapted = self._select([adapt] if isinstance(adapt, str) else list(adapt))
        live = dict(self.network.named_parameters())
        self._frozen_then = {name for name, value in live.items() if not value.requires_grad}
        self.geometry.build({name: live[name].detach() for name in self._adapted})
        self.geometry.to(next(iter(live.values())).device, _common([live[n] for n in self._adapted]))

    def _select(self, patterns: list[str]) -> list[str]:
        """The first name of every parameter that a pattern matches under any name it is tied to."""
        named = list(self.network.named_parameters(remove_duplicate=False))
        first = {id(value): name for name, value in reversed(named)}
        trainable = [name for name, value in named if value.requires_grad and value.numel()]
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in trainable):
                raise ValueError(
                    f"adapt must match trainable parameters, got {pattern!r}, which matches none; "
                    f"there are {trainable[:3]}..."
                )
        matched = {
            first[id(value)]
            for name, value in named
            if any(fnmatchcase(name, pattern) for pattern in patterns)
        }
        return [
            name
            for name, value in self.network.named_parameters()
            if value.requires_grad
            and value.numel()
            and name in matched
            and self.geometry.adapts(name)
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

    def meta_gradient(self, episodes: Any) -> MetaGradient:
        """Value and gradient of the meta-objective over these tasks, without touching ``.grad``.

        ``episodes``: an :class:`Episode`, its four parts as a tuple, or any iterable of these;
        tensors or arrays. The first call, here or in :meth:`adapt`, probes the network.
        """
        with self._at_work():
            return self._gradient(self._tasks(episodes))

    def backward(self, episodes: Any, *, scale: Any = None) -> MetaGradient:
        """:meth:`meta_gradient`, added into every parameter's ``.grad`` as autograd does it, so
        that hooks run and any ``torch.optim`` can step.

        ``scale``: a ``torch.amp.GradScaler``, or a number that multiplies what is added. In
        training mode the running statistics of norm policy "running" move too
        (:meth:`update_statistics`).
        """
        refuse_wrapped(self)
        with self._at_work():
            tasks = self._tasks(episodes)
            result = self._gradient(tasks)
            accumulate(self.meta(), result.grads, scale)
            if self.training:
                self.update_statistics(tasks)
        return result

    def parameter_groups(
        self,
        *,
        anchor_lr: float | None = None,
        shared_lr: float | None = None,
        geometry_lr: float | None = None,
    ) -> list[dict[str, Any]]:
        """The meta-parameters as groups "anchor", "shared" and "geometry" for a ``torch.optim``;
        a rate that is left out is the optimizer's own.
        """
        rates = {"anchor": anchor_lr, "shared": shared_lr, "geometry": geometry_lr}
        groups: list[dict[str, Any]] = []
        for kind, rate in rates.items():
            values = [v for name, v in self.meta().items() if name.startswith(f"{kind}.")]
            if values:
                own = {} if rate is None else {"lr": rate}
                groups.append({"params": values, "name": kind, **own})
        return groups

    def adapt(self, x: Any, y: Any, *, n_steps: int | None = None) -> AdaptedModel:
        """Solve one task from its support set; returns an ordinary module. shapes: (n_items, ...),
        (n_items,)

        ``x``: a tensor or array, or a tuple or dictionary of them for a network of several inputs.
        Under the transductive policy a prediction depends on the batch that it is made in. The
        parameters of what is returned do not require gradients.
        """
        with self._at_work():
            fitting = self._fitting()
            episode = fitting.episode(
                only_support(fitting.inputs(x), fitting.inputs(y)), queries=False
            )
            self._admit(episode, order=1)
            problem = self.problem(n_steps=self.eval_steps if n_steps is None else n_steps)
            meta = tree.detach(self.meta())
            with self._explained([episode]):
                state = solve(problem, meta, episode)
                with torch.no_grad():
                    point = problem.point(meta, state)
                    return AdaptedModel(self.network, problem, meta, episode, point)

    def trace(self, episode: Any, *, n_steps: int | None = None) -> Trace:
        """Task loss, gradient norm, query loss and accuracy at every step of one adaptation."""
        with self._at_work():
            (task,) = self._tasks(episode)
            self._admit(task, order=1)
            problem = self.problem(n_steps=self.eval_steps if n_steps is None else n_steps)
            with self._explained([task]):
                return trace(problem, self.meta(), task)

    def forward(self, support_x: Any, support_y: Any, query_x: Any) -> Tensor:
        """Outputs on the query set after adaptation. shapes: (n_support, ...), (n_support,),
        (n_query, ...)
        """
        return self.adapt(support_x, support_y)(query_x)

    def train(self, mode: bool = True) -> MetaLearner:
        """Training or evaluation mode; a submodule whose own ``train`` rewrites weights is left as
        it is.
        """
        self.training = mode
        for child in self.children():
            set_mode(child, mode)
        return self

    def update_statistics(self, episodes: Any) -> None:
        """Norm policy "running": move the running statistics by one forward pass per task at the
        unadapted point. :meth:`backward` does so by itself.
        """
        if self.norm != "running":
            return
        with self._at_work(), torch.no_grad(), collecting_statistics():
            problem, meta = self.problem(), tree.detach(self.meta())
            for episode in self._tasks(episodes):
                point = problem.point(meta, problem.start(meta, noise_of(problem, episode)))
                problem.outputs(meta, point, episode.support_x)

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """One thread at a time, with gradients possible."""
        with self._lock, torch.inference_mode(False):
            yield

    def _fitting(self) -> Fitting:
        return Fitting(next(self.network.parameters()).device, floating_type(self.network))

    def _tasks(self, episodes: Any) -> list[Episode]:
        fitting = self._fitting()
        return [fitting.episode(episode) for episode in as_episodes(episodes)]

    def _admit(self, episode: Episode, *, order: int) -> Verdict:
        """Have the network judged, and say what has become of its parameters since the start."""
        late = [
            name
            for name, value in self.network.named_parameters()
            if value.requires_grad and name in self._frozen_then
        ]
        if late:
            self.gate.say(
                f"{late[0]!r} was frozen when the learner was built: it is meta-learned now but "
                "not adapted; unfreeze it before building the learner"
            )
        return self.gate.admit(
            self.network, episode.support_x, episode.support_y, loss=self.loss, order=order
        )

    def _gradient(self, tasks: list[Episode]) -> MetaGradient:
        second = self.objective.penalty > 0 or not getattr(self.estimator, "first_order", False)
        if not tasks:
            return self.estimator(self.problem(), self.meta(), tasks)
        verdict = self._admit(tasks[0], order=2 if second else 1)
        with verdict.kernels(), self._explained(tasks):
            return self.estimator(self.problem(), self.meta(), tasks)

    @contextmanager
    def _explained(self, tasks: list[Episode]) -> Iterator[None]:
        """What goes wrong in foreign code inside is said in one sentence that names the task."""
        try:
            yield
        except FAILURES as error:
            explain(self.network, self.loss, tasks, error)
            raise


def _common(values: list[Tensor]) -> torch.dtype | None:
    """The one type of all of them; ``None`` where there are several, or none."""
    kinds = {value.dtype for value in values}
    return kinds.pop() if len(kinds) == 1 else None


def _check_budget(n_steps: int, eval_steps: int | None, task_lr: float) -> None:
    for name, value in (("n_steps", n_steps), ("eval_steps", eval_steps)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise ValueError(f"{name} must be a whole number, got {value!r}; 5 is the usual number")
    if n_steps < 0 or (eval_steps is not None and eval_steps < 0):
        raise ValueError(
            f"n_steps and eval_steps must be >= 0, got {n_steps} and {eval_steps}; 5 is the usual "
            "number"
        )
    if not 0 < task_lr < float("inf"):
        raise ValueError(
            f"task_lr must be positive and finite, got {task_lr}; 0.01 is the usual rate"
        )
