"""Meta-iterations as one recorded graph: the host replays, and reads what came of it now and then.

Everything of an iteration is inside: images gathered by a table of the next tasks' rows, the
method's noise from another, adaptation, meta-gradient, clipping, optimizer, and one row of a
history that holds the numbers of the iteration and the largest entry of every gradient and
parameter, by which the host sees what stopped being finite. The scheduler stays on the host, whose
rate is written into the graph's before each replay. What is recorded is the trainer's eager
iteration itself.
"""

from __future__ import annotations

import gc
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from mdtheory.core.torch_private import foreach_copy_, foreach_norm
from mdtheory.core.types import Episode
from mdtheory.inner.problem import noise_from
from mdtheory.meta.clip import Clipping
from mdtheory.meta.feed import Feed, NotCapturableError, feed_for
from mdtheory.meta.learner import MetaLearner
from mdtheory.meta.restore import short

log = logging.getLogger(__name__)
MOST = 1000
"""Iterations that the history holds."""

SECONDS = 2.0
"""Between two readings, about: how soon a signal or a number that is not finite is noticed."""

WARM_UPS = 2


def recorder_for(device: torch.device) -> Recorder | None:
    """What records there; ``None`` on a CPU."""
    return CudaRecorder(device) if device.type == "cuda" else None


class Recorder(Protocol):
    """Turns a procedure without host reads into one that repeats it."""

    def record(self, body: Callable[[], None]) -> Callable[[], None]:
        """Run ``body`` some times, then give what repeats its operations on the same tensors.

        Errors: whatever ``body`` raises when it is run; ``RuntimeError`` where it reads from the
        device.
        """
        ...


class CudaRecorder:
    """A CUDA graph, captured on a stream of its own after :data:`WARM_UPS` runs there.

    The last of these refuses host reads, as the capture would: one that breaks off leaves torch's
    random generator and allocator believing that it still goes on.
    """

    def __init__(self, device: torch.device):
        self.device = device

    def record(self, body: Callable[[], None]) -> Callable[[], None]:
        """The graph's replay; ``body`` has run :data:`WARM_UPS` times before it is captured."""
        with torch.cuda.device(self.device), warnings.catch_warnings():
            # a warm-up is no capture, which Adam's remarks on
            warnings.filterwarnings("ignore", message=".*capturable=True")
            stream, current = torch.cuda.Stream(), torch.cuda.current_stream()
            try:
                stream.wait_stream(current)
                with torch.cuda.stream(stream):
                    for _ in range(WARM_UPS - 1):
                        body()
                    with _refusing_host_reads():
                        body()
                torch.cuda.synchronize()
                gc.collect()
                torch.cuda.empty_cache()
                graph = torch.cuda.CUDAGraph()
                # other threads, of a progress bar say, may do as they like meanwhile
                with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                    body()
            finally:
                torch.cuda.set_stream(current)  # a capture that breaks off does not
                current.wait_stream(stream)
        return graph.replay


@contextmanager
def _refusing_host_reads() -> Iterator[None]:
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this mode is a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def recorded(
    recorder: Recorder, body: Callable[[], None], device: torch.device
) -> Callable[[], None]:
    """What ``recorder`` makes of ``body``.

    Errors: :class:`NotCapturableError` with the first thing that went wrong;
    ``torch.OutOfMemoryError``.
    """
    random = _random_states(device)
    try:
        replay = recorder.record(body)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # eager iterations go on, or raise it again
        said = short(_first(error))
        raise NotCapturableError(f"its operations cannot be recorded ({said})") from error
    if not all(map(torch.equal, random, _random_states(device))):
        raise NotCapturableError("the network draws random numbers, anew in each iteration")
    return replay


def _first(error: BaseException) -> BaseException:
    """What others were raised upon."""
    while (before := error.__cause__ or error.__context__) is not None:
        error = before
    return error


@dataclass(frozen=True)
class Row:
    """One iteration as the history has it: its numbers, its rate, and the first thing in it that is
    not finite.
    """

    numbers: dict[str, float]
    meta_lr: float
    broken: str | None


class CapturedIterations:
    """The meta-iterations of a trainer, recorded by ``recorder``.

    The learner's parameters, the optimizer's state and the gradients are those objects themselves,
    changed in place: checkpoints, validation and listeners find them where they are. Inside
    :meth:`plain`, and after :meth:`release`, the optimizer is an eager one again.

    Errors: :class:`NotCapturableError`.
    """

    def __init__(
        self,
        learner: MetaLearner,
        stream: Callable[[int], Episode],
        *,
        n_tasks: int,
        clipping: Clipping,
        optimizer: Optimizer,
        scheduler: LRScheduler | None,
        recorder: Recorder,
    ):
        reason = why_not(learner, optimizer, scheduler)
        if reason is not None:
            raise NotCapturableError(reason)
        self.learner = learner
        self.clipping = clipping
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.meta = learner.meta()
        self.n_tasks = n_tasks
        self.gradients = {name: torch.zeros_like(value) for name, value in self.meta.items()}
        like = next(iter(self.meta.values()))
        self.cursor = torch.zeros(1, dtype=torch.int64, device=like.device)
        self.feed: Feed = feed_for(learner, stream, n_tasks=n_tasks, most=MOST, cursor=self.cursor)
        self.history = like.detach().new_zeros(0, 0)
        self.names: list[str] = []
        self.per_reading = 1
        self.rate = like.detach().new_zeros(())
        self._before = [dict(group) for group in optimizer.param_groups]
        self._moved: list[tuple[dict[str, Any], str]] = []
        self._hold()
        try:
            self._replay = self._recorded(recorder)
        except BaseException:
            self.release()
            raise

    # -- the graph

    def _body(self) -> None:
        """One meta-iteration, of operations alone."""
        episodes = self.feed.episodes()
        with noise_from(self.feed.noise):
            result = self.learner.meta_gradient(episodes)
            foreach_copy_(
                list(self.gradients.values()), [result.grads[name] for name in self.gradients]
            )
            means = {n.removeprefix("query_"): v.mean() for n, v in result.stats.items()}
            largest = _largest(self.gradients.values())
            norm = self.clipping(list(self.meta.values()))
            numbers = {"objective": result.value, **means, "grad_norm": norm}
            self.optimizer.step()
            if self.learner.norm == "running":
                self.learner.update_statistics(episodes)
        row = torch.stack([*numbers.values(), *largest, *_largest(self.meta.values())])
        if not self.names:
            self.names = list(numbers)
            self.history = row.new_zeros(MOST, len(row))
        self.history.index_copy_(0, self.cursor, row[None])
        self.cursor += 1

    def _recorded(self, recorder: Recorder) -> Callable[[], None]:
        """The replay, with everything that recording moved put back."""
        kept = [(value, value.detach().clone()) for value in self._state()]
        self.feed.load(0)
        estimator = self.learner.estimator
        chunk = estimator.chunk
        while True:
            try:
                return recorded(recorder, self._body, self.cursor.device)
            except torch.OutOfMemoryError as error:
                size = min(estimator.chunk or self.n_tasks, self.n_tasks)
                if size == 1:
                    estimator.chunk = chunk
                    raise NotCapturableError("the memory does not suffice for a graph") from error
            finally:
                with torch.no_grad():
                    for value, before in kept:
                        value.copy_(before)
                    self.cursor.zero_()
            estimator.chunk = size // 2
            log.warning("not enough memory to record %d tasks at once: %d", size, estimator.chunk)

    def _state(self) -> Iterator[Tensor]:
        """Every tensor that an iteration moves."""
        yield from self.meta.values()
        yield from self.learner.buffers()
        for kept in self.optimizer.state.values():
            yield from (value for value in kept.values() if isinstance(value, Tensor))

    # -- running it

    def run(self, first: int, count: int) -> list[Row]:
        """Iterations first, first + 1, ..., at most ``count`` and as many as fit between two
        readings.
        """
        count, since = min(count, self.per_reading, MOST), time.monotonic()
        self._take_rates()
        self.feed.prepare(first, count)
        rates: list[float] = []
        for iteration in range(first, first + count):
            try:
                self.feed.load(iteration)
                if self._of_groups() != self._constants:
                    raise NotCapturableError("the scheduler changes more than the learning rate")
            except Exception:  # of the stream too: what was replayed must be counted
                if not rates:
                    raise
                break  # said again when it is the first one
            rates.append(self.rates[0])
            self._replay()
            self._step_scheduler()
        table = self.history[: len(rates)].tolist()
        self.cursor.zero_()
        spent = max(time.monotonic() - since, 1e-6)
        self.per_reading = max(1, min(MOST, int(SECONDS * len(rates) / spent)))
        return [self._row(numbers, rate) for numbers, rate in zip(table, rates, strict=True)]

    def _row(self, values: list[float], rate: float) -> Row:
        n = len(self.names)
        numbers = dict(zip(self.names, values[:n], strict=True))
        checks = {"the value of the meta-objective": numbers["objective"]}
        tensors = [f"the gradient of {name}" for name in self.meta]
        tensors += [f"the value of {name}" for name in self.meta]
        checks |= dict(zip(tensors, values[n:], strict=True))
        broken = next((name for name, value in checks.items() if not _is_finite(value)), None)
        return Row(numbers, rate, broken)

    # -- the optimizer

    def _hold(self) -> None:
        """Gradients, rate and step counts where the graph finds them."""
        for name, value in self.meta.items():
            value.grad = self.gradients[name]
        self.rates = [_rate(group) for group in self.optimizer.param_groups]
        for group in self.optimizer.param_groups:
            if "capturable" in group:
                group["capturable"] = True
                group["lr"] = self.rate.clone().fill_(_rate(group))
        self._graph_rates = [group["lr"] for group in self.optimizer.param_groups]
        self._moved = self._bring(self.optimizer)
        self._constants = self._of_groups()

    @staticmethod
    def _bring(optimizer: Optimizer) -> list[tuple[dict[str, Any], str]]:
        """Its counts, which are kept on the host, to their parameters' device; which they were."""
        moved = []
        for value, own in optimizer.state.items():
            for key, count in own.items():
                if isinstance(count, Tensor) and not count.dim() and count.device != value.device:
                    own[key] = count.to(value.device)
                    moved.append((own, key))
        return moved

    def _of_groups(self) -> list[dict[str, Any]]:
        """What a replay does not read again of the optimizer's groups."""
        return [
            {k: v for k, v in group.items() if k != "params" and not isinstance(v, Tensor)}
            for group in self.optimizer.param_groups
        ]

    def _take_rates(self) -> None:
        """What somebody has set since, a listener say, is the rate from now on."""
        for i, group in enumerate(self.optimizer.param_groups):
            now, ours = _rate(group), self.rates[i]
            if now not in (ours, torch.tensor(ours, dtype=self.rate.dtype).item()):
                self.rates[i] = now
            if "capturable" in group:
                group["lr"] = self._graph_rates[i]
        self._write_rates()

    @contextmanager
    def plain(self) -> Iterator[None]:
        """The optimizer's groups as they were given, with the rates of now."""
        self._take_rates()
        with self._eager():
            yield

    @contextmanager
    def _eager(self) -> Iterator[None]:
        held = [dict(group) for group in self.optimizer.param_groups]
        pairs = zip(self.optimizer.param_groups, self._before, self.rates, strict=True)
        for group, before, rate in pairs:
            group["lr"] = rate
            if "capturable" in group:
                group["capturable"] = before["capturable"]
        try:
            yield
        finally:
            self.rates = [_rate(group) for group in self.optimizer.param_groups]
            for group, own in zip(self.optimizer.param_groups, held, strict=True):
                for key in ("lr", "capturable"):
                    if key in own:
                        group[key] = own[key]
            self._write_rates()

    def _step_scheduler(self) -> None:
        if self.scheduler is not None and not isinstance(self.scheduler, ReduceLROnPlateau):
            with self._eager():
                self.scheduler.step()

    def _write_rates(self) -> None:
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)

    def release(self) -> None:
        """Give the optimizer back to eager iterations."""
        self._take_rates()
        pairs = zip(self.optimizer.param_groups, self._before, self.rates, strict=True)
        for group, before, rate in pairs:
            group["lr"] = rate
            if "capturable" in group:
                group["capturable"] = before["capturable"]
        for own, key in self._moved:
            own[key] = own[key].cpu()
        self._moved.clear()


def why_not(
    learner: MetaLearner, optimizer: Optimizer, scheduler: LRScheduler | None
) -> str | None:
    """What keeps these from being recorded; ``None`` if nothing is known to."""
    if not learner.geometry.capturable:
        return f"the geometry {type(learner.geometry).__name__} reads values in its steps"
    if not learner.estimator.can_batch:
        return f"the estimator {type(learner.estimator).__name__} reads values in its steps"
    fixed = type(optimizer) is SGD and scheduler is None
    if not fixed and any("capturable" not in group for group in optimizer.param_groups):
        return f"the optimizer {type(optimizer).__name__} reads its rate on the host"
    if optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks:
        return f"the optimizer {type(optimizer).__name__} has a hook on its steps"
    hooked = [
        name
        for name, value in learner.meta().items()
        if value._backward_hooks or getattr(value, "_post_accumulate_grad_hooks", None)
    ]
    if hooked:
        return f"{hooked[0]} has a hook on its gradient"
    return None


def _largest(tensors: Any) -> list[Tensor]:
    """The largest absolute entry of each, which is finite where all of them are. shapes: ()"""
    return list(foreach_norm([value.detach() for value in tensors], float("inf")))


def _is_finite(value: float) -> bool:
    return abs(value) < float("inf")


def _rate(group: dict[str, Any]) -> float:
    return float(group["lr"])


def _random_states(device: torch.device) -> list[Tensor]:
    states = [torch.random.default_generator.get_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states
