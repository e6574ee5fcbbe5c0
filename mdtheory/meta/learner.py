"""User API: any ``nn.Module`` with any geometry, as an ordinary module that learns to adapt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mdtheory.core import tree
from mdtheory.core.objectives import Objective
from mdtheory.core.registry import unknown
from mdtheory.core.types import Episode, LossFunction, MetaGradient, Params
from mdtheory.geometry.base import Geometry
from mdtheory.inner.estimators import Estimator, estimators
from mdtheory.inner.problem import Problem
from mdtheory.inner.solver import Trace, solve, trace
from mdtheory.inner.task import EpisodeTask, is_binary
from mdtheory.meta.accumulate import accumulate, refuse_wrapped
from mdtheory.meta.adapted import AdaptedModel
from mdtheory.meta.door import (
    Fitting,
    as_episodes,
    as_geometry,
    demand_instance,
    finite,
    floating_type,
    only_support,
    patterns,
    positive,
    whole,
)
from mdtheory.meta.finite import demand_finite
from mdtheory.models.conv_block import fuse
from mdtheory.models.norm import collecting_statistics
from mdtheory.models.user.case import FAILURES
from mdtheory.models.user.gate import PROBE, Gate, Lock, demand_uncached
from mdtheory.models.user.modes import set_mode
from mdtheory.models.user.prepare import prepare
from mdtheory.models.user.probe import explain, refuse_second
from mdtheory.models.user.verdict import Verdict


class LearnerOptions(TypedDict, total=False):
    """What a :class:`MetaLearner` takes besides model, geometry and budget, with its defaults.

    ``eval_steps`` (as in training): steps after training; ``adapt`` ("*"): patterns of the
    parameter names that the task solver may move (all others are meta-learned but shared; those
    with ``requires_grad=False`` stay constant); ``loss(outputs, targets)`` (cross-entropy): a mean;
    ``inner_loss_scale`` (1) multiplies it in the task solver only; ``norm`` ("transductive"): the
    policy of batch normalisation; ``estimator`` ("unrolled"): a slug or an :class:`Estimator`;
    ``objective``: by default the geometry's own; ``dropout`` ("refuse"): refuse a model that draws
    dropout, or switch all of it "off"; ``probe`` ("on"): whether the model is judged by a few
    passes on copies (:func:`~mdtheory.models.user.probe.probe`) at the first call and whenever it
    has changed, or "off".
    """

    eval_steps: int | None
    adapt: str | Sequence[str]
    loss: LossFunction
    inner_loss_scale: float
    norm: str
    estimator: str | Estimator
    objective: Objective | None
    dropout: str
    probe: str


class MetaLearner(nn.Module):
    """Learns, over many tasks, a start and a geometry from which a few gradient steps solve a new
    task.

    ``model``: any ``nn.Module`` (copied, never changed); ``geometry``: a slug or a
    :class:`Geometry` (copied too: what is trained is ``learner.geometry``); ``n_steps``: steps of
    the task solver; ``task_lr``: its rate. All further keywords are the fields of
    :class:`LearnerOptions`.

    Several threads may use one learner: they wait for each other.

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
        n_steps = whole("n_steps", n_steps)
        probe = options.get("probe", "on")
        if probe not in PROBE:
            raise unknown("probe", probe, list(PROBE))
        self.gate = Gate(on=probe == "on")
        self._lock = Lock()
        self._n_backward = 0
        self.n_steps = n_steps
        self.eval_steps = n_steps if eval_steps is None else whole("eval_steps", eval_steps)
        self.task_lr = positive("task_lr", task_lr)
        self.loss = options.get("loss", cross_entropy)
        self.inner_loss_scale = positive("inner_loss_scale", options.get("inner_loss_scale", 1.0))
        self.norm = options.get("norm", "transductive")
        self.geometry = as_geometry(geometry)
        prepared = prepare(model, norm=self.norm, dropout=options.get("dropout", "refuse"))
        self.network = fuse(self.geometry.wrap(prepared))
        estimator = options.get("estimator", "unrolled")
        self.estimator: Estimator = (
            estimators.get(estimator)() if isinstance(estimator, str) else estimator
        )
        demand_instance("estimator", self.estimator, Estimator)
        self.objective = options.get("objective") or self.geometry.objective
        demand_instance("objective", self.objective, Objective)
        self._adapted = self._select(patterns("adapt", options.get("adapt", "*")))
        live = dict(self.network.named_parameters())
        self._frozen_then = {name for name, value in live.items() if not value.requires_grad}
        self._build({name: live[name].detach() for name in self._adapted})
        self._moving = frozenset(name for name in self.meta() if not name.startswith("shared."))
        self._thawed: list[Tensor] = []

    def _build(self, anchor: Params) -> None:
        """The geometry's parameters, of the adapted tensors' device and type, name by name."""
        kinds = {value.dtype for value in anchor.values()}
        apart = len(kinds) < 2
        try:
            self.geometry.build(anchor)
            apart = apart or _keeps_types(self.geometry, anchor)
        except RuntimeError:
            if apart:
                raise
        if not apart:
            raise ValueError(
                f"the adapted tensors must be of one type for {type(self.geometry).__name__}, "
                f"which couples them, got {', '.join(sorted(map(str, kinds)))}; cast the model, or "
                "adapt a part of one type (adapt=...)"
            )
        device = next(self.network.parameters()).device
        self.geometry.to(device, kinds.pop() if len(kinds) == 1 else None)

    def _select(self, patterns: list[str]) -> list[str]:
        """The first name of every parameter that a pattern matches under any name it is tied to."""
        named = list(self.network.named_parameters(remove_duplicate=False))
        first = {id(value): name for name, value in reversed(named)}
        trainable = [name for name, value in named if value.requires_grad and value.numel()]
        for pattern in patterns or [""]:
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
        ``geometry.*``, without those that are frozen (``requires_grad=False``): these are not
        meta-learned, and tasks are solved with them as before.
        """
        with self._lock:  # while a task is solved, its own weights are in the network
            return {name: value for name, value in self._all_meta().items() if value.requires_grad}

    def _all_meta(self) -> Params:
        adapted = set(self._adapted)
        named = list(self.network.named_parameters())
        return {
            **{f"anchor.{name}": value for name, value in named if name in adapted},
            **{f"shared.{name}": value for name, value in named if name not in adapted},
            **tree.prefixed("geometry.", dict(self.geometry.named_parameters())),
        }

    def problem(self, *, n_steps: int | None = None) -> Problem:
        """How a task is solved, as pure functions of :meth:`meta`."""
        return Problem(
            geometry=self.geometry,
            n_steps=self.n_steps if n_steps is None else whole("n_steps", n_steps),
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

    def meta_gradient(self, episodes: Any) -> MetaGradient:
        """Value and gradient of the meta-objective over these tasks, without touching ``.grad``.

        ``episodes``: an :class:`Episode`, its four parts as a tuple, or any iterable of these;
        tensors or arrays. The first call, here or in :meth:`adapt`, probes the network.
        """
        with self._at_work():
            return self._gradient(self.fitted(episodes))

    def backward(self, episodes: Any, *, scale: Any = None) -> MetaGradient:
        """:meth:`meta_gradient`, added into every parameter's ``.grad`` as autograd does it, so
        that hooks run and any ``torch.optim`` can step. ``FloatingPointError`` for a nan or inf,
        with every ``.grad`` as it was.

        ``scale``: a ``torch.amp.GradScaler``, or a number that multiplies what is added. In
        training mode the running statistics of norm policy "running" move too
        (:meth:`update_statistics`).
        """
        if scale is not None and not hasattr(scale, "unscale_"):
            finite("scale", scale)
        self._n_backward += 1
        if self._n_backward.bit_count() == 1:  # 1, 2, 4, 8, ...: it takes 60 ms
            refuse_wrapped(self)
        with self._at_work():
            tasks = self.fitted(episodes)
            result = self._gradient(tasks)
            if not hasattr(scale, "unscale_"):  # a GradScaler skips such a step by itself
                demand_finite("the meta-gradient", [result.value, *result.grads.values()], tasks)
            self.accumulate(result, scale=scale)
            if self.training:
                self.update_statistics(tasks)
        return result

    def accumulate(self, result: MetaGradient, *, scale: Any = None) -> None:
        """Add a meta-gradient into every parameter's ``.grad`` as autograd does it: hooks run.

        Errors: ``ValueError`` where every meta-parameter is frozen.
        """
        meta = self._unfrozen(self.meta())
        if not meta:
            raise ValueError(
                "a meta-parameter must require a gradient, got a learner whose are all frozen; "
                "call requires_grad_() on it, or meta_gradient for the value alone"
            )
        accumulate(meta, result.grads, scale)

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
        for kind, rate in rates.items():
            if rate is not None and finite(f"{kind}_lr", rate) != 0:
                positive(f"{kind}_lr", rate)
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
        parameters of what is returned do not require gradients. ``FloatingPointError`` where they
        are not finite.
        """
        with self._at_work():
            fitting = self._fitting()
            episode = fitting.episode(
                only_support(fitting.inputs(x), fitting.targets(y)), queries=False
            )
            self.admit(episode, order=1)
            problem = self.problem(n_steps=self.eval_steps if n_steps is None else n_steps)
            meta, task = tree.detach(self.meta()), self.task(episode)
            with self.explained([episode]), torch.no_grad():
                weights = problem.weights(meta, problem.point(meta, solve(problem, meta, task)))
            demand_finite("the adapted weights", weights.values(), [episode])
            support = episode.support_x if task.joint_query else None
            return AdaptedModel(self.network, weights, support=support)

    def trace(self, episode: Any, *, n_steps: int | None = None) -> Trace:
        """Task loss, gradient norm, query loss and accuracy at every step of one adaptation."""
        with self._at_work():
            (one,) = self.fitted(episode)
            self.admit(one, order=1)
            problem = self.problem(n_steps=self.eval_steps if n_steps is None else n_steps)
            with self.explained([one]):
                return trace(problem, self.meta(), self.task(one))

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

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """As of any module, but not while another thread is at work."""
        with self._lock:
            return super().state_dict(*args, **kwargs)

    def update_statistics(self, episodes: Any) -> None:
        """Norm policy "running": move the running statistics by one forward pass per task at the
        unadapted point. :meth:`backward` does so by itself.
        """
        if self.norm != "running":
            return
        with self._at_work(), collecting_statistics():
            problem, meta = self.problem(), tree.detach(self.meta())
            for episode in self.fitted(episodes):
                task = self.task(episode)
                start = problem.start(meta, problem.noise(meta, task))
                task.support_outputs(meta, problem.weights(meta, problem.point(meta, start)))

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Inside, every submodule is in evaluation mode, and no other thread at work."""
        with self._at_work():
            before = [(part, part.training) for part in self.modules()]
            self.eval()
            try:
                yield
            finally:
                for part, training in before:
                    part.training = training

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """One thread at a time, with gradients possible, and with everything in :meth:`meta` that a
        task is solved by, though it was frozen since the learner was built.
        """
        with self._lock, torch.inference_mode(False):
            demand_uncached(self.network)
            whole = all(value.requires_grad for value in self.parameters())
            named = {} if whole else self._all_meta()
            frozen = [v for n, v in named.items() if n in self._moving and not v.requires_grad]
            before, self._thawed = self._thawed, self._thawed + frozen
            try:
                for value in frozen:
                    value.requires_grad_(True)
                yield
            finally:
                self._thawed = before
                for value in frozen:
                    value.requires_grad_(False)

    def _unfrozen(self, meta: Params) -> Params:
        """Those that are to be meta-learned."""
        thawed = {id(value) for value in self._thawed}
        return {name: value for name, value in meta.items() if id(value) not in thawed}

    def _fitting(self) -> Fitting:
        return Fitting(
            next(self.network.parameters()).device,
            floating_type(self.network),
            floating=is_binary(self.loss),
        )

    def fitted(self, episodes: Any) -> list[Episode]:
        """Tasks of any form as episodes of the network's device and type."""
        fitting = self._fitting()
        return [fitting.episode(episode) for episode in as_episodes(episodes)]

    def admit(self, episode: Episode, *, order: int) -> Verdict:
        """Have the network judged, and say what has become of its parameters since the start."""
        live = dict(self.network.named_parameters()) if self._frozen_then else {}
        late = [name for name, v in live.items() if v.requires_grad and name in self._frozen_then]
        if late:
            self.gate.say(
                f"{late[0]!r} was frozen when the learner was built: it is meta-learned now but "
                "not adapted; unfreeze it before building the learner"
            )
        return self.gate.admit(
            self.network, episode.support_x, episode.support_y, loss=self.loss, order=order
        )

    def _gradient(self, tasks: list[Episode]) -> MetaGradient:
        second = self.objective.penalty > 0 or not self.estimator.first_order
        if not tasks:
            raise ValueError(
                "episodes must hold at least one task, got none; draw n_tasks >= 1 from a stream"
            )
        verdict = self.admit(tasks[0], order=2 if second else 1)
        meta = self.meta()
        with verdict.kernels(), self.explained(tasks, verdict if second else None):
            result = self.estimator(self.problem(), meta, [self.task(one) for one in tasks])
        if self.gate.is_new(verdict) and second and not tree.finite(result.grads):
            refuse_second(self.network, self.loss, tasks, verdict)
        if self._thawed:
            grads = {name: result.grads[name] for name in self._unfrozen(meta)}
            return replace(result, grads=grads)
        return result

    @contextmanager
    def explained(self, tasks: list[Episode], second: Verdict | None = None) -> Iterator[None]:
        """What goes wrong in foreign code inside is said in one sentence that names the task, or
        the ``second`` derivatives where such are taken; targets that the loss would broadcast are
        refused before.
        """
        self.gate.demand_pairs(self.network, tasks, loss=self.loss)
        try:
            yield
        except FAILURES as error:
            explain(self.network, self.loss, tasks, second, error)
            raise


def _check_options(options: Mapping[str, object]) -> None:
    known = list(LearnerOptions.__annotations__)
    for name in options:
        if name not in known:
            every = ["model", "geometry", "n_steps", "task_lr", *known]
            raise TypeError(str(unknown("a keyword of MetaLearner", name, every)))


@torch.no_grad()
def _keeps_types(geometry: Geometry, anchor: Params) -> bool:
    """Whether every tensor comes back from the geometry in the type that it has in the model."""
    own = {name: value.detach() for name, value in geometry.named_parameters()}
    state = geometry.init(own, anchor, geometry.draw(0))
    weights = geometry.weights(own, geometry.point(own, state))
    return all(weights[name].dtype == value.dtype for name, value in anchor.items())
