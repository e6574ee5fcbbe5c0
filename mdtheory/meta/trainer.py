"""Meta-training: a loop whose every bit follows from its configuration and its last checkpoint."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

import mdtheory
from mdtheory.core import seeding
from mdtheory.core.atomic import make_folder
from mdtheory.core.types import Episode, MetaGradient, Params
from mdtheory.kernels.precision import Precision, precision
from mdtheory.meta import captured, checkpoint, door, restore
from mdtheory.meta.captured import CapturedIterations, Recorder
from mdtheory.meta.clip import Clipping
from mdtheory.meta.distributed import SINGLE_PROCESS, Processes, meta_gradient, scores
from mdtheory.meta.events import Listener
from mdtheory.meta.feed import NotCapturableError
from mdtheory.meta.interrupt import InterruptedRunError, StopRequest
from mdtheory.meta.learner import MetaLearner
from mdtheory.meta.numerics import difference, numerical_path

log = logging.getLogger(__name__)

Stream = Callable[[int], Episode]
"""Task by index; the same index is always the same task."""


class DivergedError(FloatingPointError):
    """A number became NaN or infinite; the message names the iteration and the parameter."""


@dataclass(frozen=True)
class Counters:
    """How far a run is: iterations done, the last one validated (-1: none yet), and the best one
    with its score.

    ``best_score`` is the mean validation accuracy, or minus the mean loss for regression.
    """

    iteration: int = 0
    validated: int = -1
    best_iteration: int = -1
    best_score: float = -math.inf


@dataclass(frozen=True, kw_only=True)
class Validation:
    """``tasks`` tasks of ``stream``, every ``every`` iterations and after the last one."""

    stream: Stream
    every: int = 1000
    tasks: int = 200

    def __post_init__(self) -> None:
        """``ValueError`` for a number that makes no validation."""
        for name in ("every", "tasks"):
            door.at_least(name, getattr(self, name), 1)


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """What a checkpoint says about its run: configuration, digests of it, images and splits."""

    config: str = "{}"
    config_digest: str = ""
    data_digest: str = ""
    pixels_digest: str = ""
    split_digest: str = ""


@dataclass(frozen=True, kw_only=True)
class TrainerOptions:
    """How a run goes: ``iterations`` of ``n_tasks`` tasks each.

    ``clip_value`` bounds every element of the meta-gradient, then ``clip_norm`` the norm of the
    whole. ``checkpoint_every``: iterations between two checkpoints. ``seed``: of the random numbers
    that a network may draw. ``precision``: of float32 products on a GPU
    (:mod:`mdtheory.kernels.precision`). ``info`` is written into the checkpoints.

    units: meta-iterations, and tasks an iteration.

    >>> import mdtheory
    >>> mdtheory.TrainerOptions(iterations=1000, clip_norm=10.0).n_tasks
    4
    """

    iterations: int
    n_tasks: int = 4
    clip_value: float | None = None
    clip_norm: float | None = None
    checkpoint_every: int = 100
    seed: int = 0
    precision: Precision = "float32"
    info: RunInfo = RunInfo()

    def __post_init__(self) -> None:
        """``ValueError`` for a number that makes no run."""
        for name, least in (("iterations", 0), ("n_tasks", 1), ("checkpoint_every", 1)):
            door.at_least(name, getattr(self, name), least)


class MetaTrainer:
    """Meta-train ``learner`` on the tasks ``stream(iteration * n_tasks + j)``, j < n_tasks, of
    iteration 0, 1, ...

    ``optimizer``: over the values of ``learner.meta()``, in that order. ``scheduler``: stepped once
    per iteration (``ReduceLROnPlateau``: once per validation, with 1 - accuracy). ``out``: the
    folder of ``last.pt`` and ``best.pt`` (by validation); without it nothing is written. The global
    random generator, which a network may read, is seeded from (``seed``, iteration) in each
    iteration and put back, so that on a CPU a resumed run is the unbroken one to the bit.
    ``processes``: those that share the tasks out; rank 0 alone writes, and only it should have
    ``listeners``. All must hold the same state at the start and at every checkpoint. ``recorder``:
    records iterations as one graph each (:mod:`mdtheory.meta.captured`); on a GPU the default.

    units: ``fit`` takes minutes.

    >>> import torch, mdtheory
    >>> tasks = mdtheory.data.SinusoidStream(seed=0)
    >>> network = mdtheory.models.MLP(in_features=1, n_way=1, hidden=(8,))
    >>> learner = mdtheory.MetaLearner(network, n_steps=1, loss=torch.nn.functional.mse_loss)
    >>> optimizer = torch.optim.Adam(learner.meta().values())
    >>> options = mdtheory.TrainerOptions(iterations=2, n_tasks=4)
    >>> mdtheory.MetaTrainer(learner, tasks, options, optimizer=optimizer).fit().iteration
    2
    """

    def __init__(
        self,
        learner: MetaLearner,
        stream: Stream,
        options: TrainerOptions,
        *,
        optimizer: Optimizer,
        scheduler: LRScheduler | None = None,
        validation: Validation | None = None,
        out: str | Path | None = None,
        listeners: Sequence[Listener] = (),
        processes: Processes = SINGLE_PROCESS,
        recorder: Recorder | None = None,
    ):
        if processes.size > options.n_tasks:
            raise ValueError(
                f"there must be a task for every process, got n_tasks={options.n_tasks} and "
                f"{processes.size} processes; start fewer, or raise meta.n_tasks (another run)"
            )
        door.demand_stream(stream)
        door.demand_optimizer(learner, optimizer, scheduler)
        self.learner = learner
        self.stream = stream
        self.options = options
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.validation = validation
        self.out = None if out is None else Path(out)
        self.listeners = list(listeners)
        self.processes = processes
        self.counters = Counters()
        self._saved: Counters | None = None
        self._numerics: dict[str, str] = {}
        device = next(iter(learner.meta().values())).device
        self.recorder: Recorder | None = recorder or captured.recorder_for(device)
        self._captured: CapturedIterations | None = None
        self._clipping = Clipping(options.clip_value, options.clip_norm)

    # -- the loop

    def fit(self, *, minutes: float | None = None) -> Counters:
        """Train to the end, or for about ``minutes``; SIGINT and SIGTERM save and raise
        :class:`InterruptedRunError`.

        :class:`DivergedError` when a number is no longer finite; ``last.pt`` is then the last good
        state.
        """
        allowed = math.inf if minutes is None else 60 * door.finite("minutes", minutes)
        deadline = time.monotonic() + allowed
        try:
            if self.out is not None and self.processes.rank == 0:
                make_folder(self.out)
            self._check_replicas()
            for listener in self.listeners:
                listener.start(
                    done=self.counters.iteration,
                    validated=self.counters.validated,
                    total=self.options.iterations,
                )
            with StopRequest() as stop:
                self._loop(lambda: stop.signum is not None or time.monotonic() >= deadline)
                signum = self.processes.all_reduce_max(stop.signum or 0)
            if signum:
                nothing = "nothing was saved, there being no output folder"
                kept = nothing if self.out is None else f"saved in {self.out}"
                raise InterruptedRunError(
                    f"stopped by a signal after iteration {self.counters.iteration}; {kept}", signum
                )
        finally:
            if self._captured is not None:
                self._captured.release()
                self._captured = None
            for listener in self.listeners:
                listener.close()
        return self.counters

    def _loop(self, stopping: Callable[[], bool]) -> None:
        while True:
            with precision(self.options.precision):
                completed = self._validate_if_due(stopping)
            finished = self.counters.iteration >= self.options.iterations
            stopped = not completed or (
                not finished and self.processes.all_reduce_max(stopping()) > 0
            )
            if finished or stopped or self.counters.iteration % self.options.checkpoint_every == 0:
                self.save()
            if finished or stopped:
                return
            with precision(self.options.precision):
                self._advance()

    def _advance(self) -> None:
        """One iteration, or as many recorded ones as fit before the host has something to do.

        The first one of a run is eager: it makes the optimizer's state.
        """
        now = self.counters.iteration
        if now > 0 and self._captured is None and self.recorder is not None:
            self._capture(self.recorder)
        if self._captured is None:
            self.step()
            return
        try:
            rows = self._captured.run(now, self._until_due())
        except NotCapturableError as error:
            self._go_on_eagerly(str(error))
            return
        made = next((k for k, row in enumerate(rows) if row.broken is not None), len(rows))
        try:
            for row in rows[:made]:
                self.counters = replace(self.counters, iteration=self.counters.iteration + 1)
                self._tell("train", {**row.numbers, "meta_lr": row.meta_lr})
        finally:  # a listener may raise, and the weights are those after all of them
            self.counters = replace(self.counters, iteration=now + made)
        if made < len(rows):
            raise self._diverged(str(rows[made].broken))

    def _until_due(self) -> int:
        """Iterations from now to the next checkpoint or validation, or the end."""
        now, every = self.counters.iteration, [self.options.checkpoint_every]
        every += [] if self.validation is None else [self.validation.every]
        return min(self.options.iterations - now, *(n - now % n for n in every))

    def _capture(self, recorder: Recorder) -> None:
        try:
            if self.processes.size > 1:
                raise NotCapturableError("several processes share the tasks of an iteration")
            self._captured = CapturedIterations(
                self.learner,
                self.stream,
                n_tasks=self.options.n_tasks,
                clipping=self._clipping,
                optimizer=self.optimizer,
                scheduler=self.scheduler,
                recorder=recorder,
            )
        except NotCapturableError as error:
            self._go_on_eagerly(str(error))

    def _go_on_eagerly(self, reason: str) -> None:
        log.warning("meta-iterations run one operation after another: %s", reason)
        if self._captured is not None:
            self._captured.release()
        self._captured = self.recorder = None

    def step(self) -> MetaGradient:
        """One meta-iteration: draw tasks, differentiate, clip, step, and check that every number is
        finite.

        The host reads from the device twice: before the optimizer moves anything, and after.
        """
        learner, now = self.learner, self.counters.iteration
        draw = cache(lambda j: self._episode(now * self.options.n_tasks + j))
        self.optimizer.zero_grad(set_to_none=True)
        with self._randomness(now):
            result = meta_gradient(
                learner, draw, n_tasks=self.options.n_tasks, processes=self.processes
            )
            learner.accumulate(result)
            gradients = {
                name: value.grad for name, value in learner.meta().items() if value.grad is not None
            }
            checks = _finite("value", {"the meta-objective": result.value}) | _finite(
                "gradient", gradients
            )
            means = {name.removeprefix("query_"): x.mean() for name, x in result.stats.items()}
            norm = self._clipping(list(learner.meta().values()))
            numbers = self._read({"objective": result.value, **means, "grad_norm": norm}, checks)
            self.optimizer.step()
            if learner.norm == "running":
                learner.update_statistics([draw(j) for j in range(self.options.n_tasks)])
        self._read(
            {}, _finite("value", {name: value.detach() for name, value in learner.meta().items()})
        )
        rate = self.optimizer.param_groups[0]["lr"]
        if self.scheduler is not None and not isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step()
        self.counters = replace(self.counters, iteration=now + 1)
        self._tell("train", {**numbers, "meta_lr": float(rate)})
        return result

    def _episode(self, index: int) -> Episode:
        like = next(iter(self.learner.meta().values()))
        return door.as_episodes([self.stream(index)])[0].to(device=like.device, dtype=like.dtype)

    @contextmanager
    def _randomness(self, now: int) -> Iterator[None]:
        """The global generators seeded for this iteration, and restored."""
        device = next(iter(self.learner.meta().values())).device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            address = seeding.seed("iteration", self.options.seed, now)
            torch.random.default_generator.manual_seed(address)
            if device.type == "cuda":
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(address)
            yield

    def _read(self, numbers: Params, checks: Params) -> dict[str, float]:
        """The numbers as Python's, in one transfer; :class:`DivergedError` with the first check
        that is false.
        """
        like = next(iter({**numbers, **checks}.values()))
        kind = like.dtype if like.is_floating_point() else torch.float32
        read = torch.stack(
            [
                one.to(device=like.device, dtype=kind)
                for one in [*numbers.values(), *checks.values()]
            ]
        ).tolist()
        broken = next(
            (name for name, passed in zip(checks, read[len(numbers) :], strict=True) if not passed),
            None,
        )
        if broken is not None:
            raise self._diverged(broken)
        return dict(zip(numbers, read, strict=False))

    def _diverged(self, broken: str) -> DivergedError:
        good = None if self.out is None else self.out / "last.pt"
        where = f"{good} is the last good state" if good else "there is no output folder"
        return DivergedError(
            f"{broken} is not finite in meta-iteration {self.counters.iteration + 1}; {where}: "
            "lower meta_lr or task_lr, or set clip_norm"
        )

    # -- validation

    def _validate_if_due(self, stopping: Callable[[], bool]) -> bool:
        """Validate where it is due; False if that was cut short (it is then done again after a
        resume).
        """
        here, plan = self.counters.iteration, self.validation
        due = (
            plan is not None
            and here > 0
            and (here % plan.every == 0 or here == self.options.iterations)
        )
        if plan is None or not due or self.counters.validated == here:
            return True
        with self._randomness(-here):
            found = scores(
                self.learner,
                plan.stream,
                n_tasks=plan.tasks,
                processes=self.processes,
                stopping=stopping,
            )
        if found is None:
            return False
        loss, accuracy = (column.mean().item() for column in found)
        score = accuracy if math.isfinite(accuracy) else -loss
        self.counters = replace(self.counters, validated=here)
        if isinstance(self.scheduler, ReduceLROnPlateau):
            with self._plain_optimizer():
                self.scheduler.step(1 - accuracy if math.isfinite(accuracy) else loss)
        better = score > self.counters.best_score
        if better:
            self.counters = replace(self.counters, best_iteration=here, best_score=score)
        self._tell("validation", {"loss": loss, "accuracy": accuracy, "tasks": plan.tasks})
        if better and self.out is not None and self.processes.rank == 0:
            checkpoint.save(self.state(), self.out / "best.pt")
        return True

    def _tell(self, kind: str, numbers: dict[str, Any]) -> None:
        for listener in self.listeners:
            listener.record({"kind": kind, "iteration": self.counters.iteration, **numbers})

    # -- state

    def state(self) -> dict[str, Any]:
        """Everything that a checkpoint holds."""
        with self._plain_optimizer():
            optimizer = self.optimizer.state_dict()
        return {
            "weights": self.learner.state_dict(),
            "optimizer": optimizer,
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "random": {
                "seed": self.options.seed,
                "next": seeding.seed("iteration", self.options.seed, self.counters.iteration),
            },
            "counters": asdict(self.counters),
            "threads": torch.get_num_threads(),
            "numerics": self._numerical_path(),
            "torch": str(torch.__version__),
            "mdtheory": mdtheory.__version__,
            **asdict(self.options.info),
        }

    def _plain_optimizer(self) -> AbstractContextManager[None]:
        return nullcontext() if self._captured is None else self._captured.plain()

    def save(self) -> None:
        """Write ``last.pt`` unless it already holds this very state.

        :class:`ReplicasDivergedError` unless the state is that of all processes.
        """
        if self.out is not None and self._saved != self.counters:
            self._check_replicas()
            if self.processes.rank == 0:
                checkpoint.save(self.state(), self.out / "last.pt")
            self._saved = self.counters

    def _check_replicas(self) -> None:
        if self.processes.size > 1:
            self.processes.check_replicas_equal(checkpoint.digests(self.state()))

    def _numerical_path(self) -> dict[str, str]:
        device = next(iter(self.learner.meta().values())).device
        path = numerical_path(device, self._numerics)
        return path if device.type == "cpu" else {**path, "precision": self.options.precision}

    def resume(self, state: dict[str, Any], *, other_bits: bool = False) -> None:
        """Continue from a checkpoint's state.

        ``ValueError`` if it is of another configuration or other images, or was computed with other
        threads, kernels, device or torch (other bits), unless ``other_bits`` allows the latter.
        """
        mine, theirs = self.options.info.config_digest, state["config_digest"]
        if theirs != mine:
            raise ValueError(
                "the checkpoint must come from this configuration, but its digest is "
                f"{theirs[:12]}, not {mine[:12]}; choose another --out, or the old configuration"
            )
        restore.check_images(state, asdict(self.options.info))
        if not other_bits:
            self._demand_same_bits(state)
        restore.check_counters(state["counters"], self.options.iterations)
        restore.restore_weights(self.learner, state)
        try:
            restore.restore_optimizer(self.optimizer, self.scheduler, state)
            self.counters = Counters(**state["counters"])
        except (ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
            raise ValueError(
                f"the checkpoint must fit this run, but {restore.short(error)}; start again in "
                "another folder"
            ) from error
        self._saved = self.counters
        self._numerics = dict(state["numerics"])

    def _demand_same_bits(self, state: dict[str, Any]) -> None:
        threads = torch.get_num_threads()
        if state["threads"] != threads:
            raise ValueError(
                f"resuming must use the checkpoint's {state['threads']} threads, got {threads}, "
                f"which would change the bits; set threads={state['threads']}, or allow it with "
                "--other-bits"
            )
        self._numerics = dict(state["numerics"])
        changed = difference({"torch": state["torch"], **state["numerics"]}, self._numerical_path())
        if changed is not None:
            raise ValueError(
                "resuming must compute as the checkpoint's process did, but this one would change "
                f"the bits ({changed}); restore that, or allow it with --other-bits"
            )


def _finite(what: str, tensors: Params) -> Params:
    """Whether each tensor is finite, by the sentence's subject. shapes: ()"""
    return {f"the {what} of {name}": torch.isfinite(value).all() for name, value in tensors.items()}
