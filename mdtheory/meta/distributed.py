"""Several processes, one run: the tasks of an iteration are shared out under ``torchrun``, and
every process steps alike.

Task j belongs to rank j mod size. Each rank differentiates its own tasks one after the other, the
gradients are then added in the order of the tasks, so that on a CPU the sum has the same bits
whatever the number of processes; where tasks are solved at once (vmap) it is the same up to
rounding. Memory in each process: what one process alone needs for as many tasks at once (one, in a
loop), and a gradient per own task. Sent per iteration: ``n_tasks`` gradients.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor

from mdtheory.core.progress import say
from mdtheory.core.types import Episode, MetaGradient
from mdtheory.inner.batching import at_once
from mdtheory.meta.evaluate import evaluate
from mdtheory.meta.learner import MetaLearner

T = TypeVar("T")
TIMEOUT = timedelta(minutes=5)
"""How long a process waits for one that is silent; one that has died is noticed at once."""
PATIENCE = 10.0
"""Seconds of waiting for the others at the start, until that is said."""
OWN_ERRORS = (ValueError, ArithmeticError, OSError, RuntimeError, MemoryError)
"""What can go wrong on one rank alone, and then stops all of them."""


class PeerLostError(ConnectionError):
    """Another process of the run has died or fallen silent."""


class ReplicasDivergedError(ValueError):
    """Two ranks no longer hold the same state."""


class PeerFailedError(ValueError):
    """Another rank failed; the message is its own."""


class Processes:
    """The ``size`` processes of a run, of which this is number ``rank``. This class is a single
    process, for which every collective is the identity.
    """

    rank, size = 0, 1

    def all_reduce_max(self, value: int) -> int:
        """The largest of the numbers that the ranks give."""
        return value

    def all_gather(self, value: T) -> list[T]:
        """What every rank gives, in the order of ranks."""
        return [value]

    def broadcast_object(self, value: T) -> T:
        """The object that rank 0 passes, on every rank."""
        return value

    def broadcast(self, tensor: Tensor, *, source: int) -> None:
        """Overwrite the tensor by that of rank ``source``."""

    def all_or_none(self, compute: Callable[[], T]) -> T:
        """``compute()``; where it fails on one rank, every rank raises: that one its own error, the
        others what it says.
        """
        if self.size == 1:
            return compute()
        failure: BaseException | None = None
        try:
            result = compute()
        except OWN_ERRORS as error:
            failure = error
        if not self.all_reduce_max(failure is not None):
            return result
        said = next(
            text
            for text in self.all_gather(None if failure is None else str(failure))
            if text is not None
        )
        raise PeerFailedError(said) if failure is None else failure

    def check_replicas_equal(self, digests: dict[str, str]) -> None:
        """:class:`ReplicasDivergedError`, naming rank and entry, unless all ranks hold the same."""
        rows = self.all_gather(digests)
        for rank, row in enumerate(rows):
            other = next(
                (name for name in {**rows[0], **row} if row.get(name) != rows[0].get(name)), None
            )
            if other is not None:
                raise ReplicasDivergedError(
                    f"all processes must hold the same state, but rank {rank} has another {other} "
                    "than rank 0; "
                    "resume from the last checkpoint, with the same software on every machine"
                )


class _Group(Processes):
    """Messages by ``torch.distributed``: words and flags by gloo, gradients by gloo or NCCL as
    their device demands.

    ``torch.distributed.nn.functional`` takes the group that there is when it is imported as the
    default of its arguments, and so keeps it for good. Imported first, it keeps none, and
    ``destroy`` ends gloo's threads; one still alive at exit may abort the process ("terminate
    called without an active exception").
    """

    def __init__(self, device: torch.device, timeout: timedelta):
        import torch.distributed as dist
        import torch.distributed.nn.functional  # noqa: F401  before there is a group, see _Group

        self._dist = dist
        self._lost = False
        backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        waiting = threading.Timer(
            PATIENCE, say, [f"waiting for the other processes of this run at {where}"]
        )
        waiting.start()
        try:
            dist.init_process_group(backend, timeout=timeout)
        except (RuntimeError, ValueError) as error:
            raise PeerLostError(
                f"the processes of this run must meet at MASTER_ADDR and MASTER_PORT, got {where}, "
                "where they do not; start all of them, with a port that no other program uses "
                f"(torch says: {_words(error)})"
            ) from error
        finally:
            waiting.cancel()
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()

    def all_reduce_max(self, value: int) -> int:
        flag = torch.tensor(int(value))
        self._send(lambda: self._dist.all_reduce(flag, op=self._dist.ReduceOp.MAX))
        return int(flag)

    def all_gather(self, value: T) -> list[T]:
        rows: list[Any] = [None] * self.size
        self._send(lambda: self._dist.all_gather_object(rows, value))
        return rows

    def broadcast_object(self, value: T) -> T:
        row = [value]
        self._send(lambda: self._dist.broadcast_object_list(row, src=0))
        return row[0]

    def broadcast(self, tensor: Tensor, *, source: int) -> None:
        self._send(lambda: self._dist.broadcast(tensor, src=source))

    def destroy(self) -> None:
        """Destroy the process group, unless a peer was lost (it would wait for that one)."""
        if not self._lost:
            self._dist.destroy_process_group()

    def _send(self, collective: Callable[[], Any]) -> None:
        """Run a collective; :class:`PeerLostError` where a peer does not answer."""
        try:
            collective()
        except RuntimeError as error:
            self._lost = True
            raise PeerLostError(
                "another process of this run has died or does not answer; the last checkpoint is "
                "intact: start again with "
                f"--resume, with any number of processes (torch says: {_words(error)})"
            ) from error


def _words(error: Exception) -> str:
    """The first sentence of torch's message, without the place in its source."""
    said = " ".join(str(error).split())
    return said.removeprefix("[").split("] ", 1)[-1].split(". ")[0][:200]


SINGLE_PROCESS = Processes()


@contextmanager
def process_group(device: torch.device, *, timeout: timedelta = TIMEOUT) -> Iterator[Processes]:
    """The processes that ``torchrun`` describes by RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and
    MASTER_PORT, or :data:`SINGLE_PROCESS`.

    Every process of a machine takes its own GPU where ``device`` is one. ``ValueError`` if it
    cannot, and for variables that make no sense; :class:`PeerLostError` if the others are not to be
    found.
    """
    if "RANK" not in os.environ or _whole("WORLD_SIZE", 1, 2**20) == 1:
        yield SINGLE_PROCESS
        return
    _whole("RANK", 0, _whole("WORLD_SIZE", 1, 2**20) - 1)
    _whole("MASTER_PORT", 0, 2**16 - 1)
    if not os.environ.get("MASTER_ADDR"):
        raise ValueError("MASTER_ADDR must name rank 0's machine, got none; start with torchrun")
    if device.type == "cuda":
        _take_own_gpu(device)
    processes = _Group(device, timeout)
    try:
        yield processes
    finally:
        processes.destroy()


def _whole(variable: str, least: int, most: int) -> int:
    """The whole number in an environment variable; an unset WORLD_SIZE is 1."""
    said = os.environ.get(variable, "1" if variable == "WORLD_SIZE" else "")
    if not re.fullmatch(r"[0-9]{1,9}", said) or not least <= int(said) <= most:
        raise ValueError(
            f"{variable} must be a whole number from {least} to {most}, got {said!r}; unset it, or "
            "start with torchrun"
        )
    return int(said)


def _take_own_gpu(device: torch.device) -> None:
    local, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if device.index is not None:
        raise ValueError(
            f"device must be cuda with several processes, each on its own GPU, got {device}; leave "
            "out the number"
        )
    if local >= there:
        raise ValueError(
            f"there must be a GPU for every process on a machine, got {there} GPUs and process "
            f"{local + 1}; "
            "lower --nproc-per-node, or set device=cpu"
        )
    torch.cuda.set_device(local)


def meta_gradient(
    learner: MetaLearner, draw: Callable[[int], Episode], *, n_tasks: int, processes: Processes
) -> MetaGradient:
    """``learner.meta_gradient`` on the tasks draw(0) .. draw(n_tasks - 1), of which this rank draws
    and solves only its own.

    Value, gradient and statistics are those of all tasks, and equal on every rank.
    """
    if processes.size == 1:
        return learner.meta_gradient([draw(j) for j in range(n_tasks)])
    shared = at_once(learner.problem(), asked=learner.estimator.batched)
    shares = (
        [range(r, n_tasks, processes.size) for r in range(processes.size)]
        if shared
        else [range(j, j + 1) for j in range(n_tasks)]
    )
    mine = processes.all_or_none(
        lambda: {
            index: learner.meta_gradient([draw(j) for j in shares[index]])
            for index in range(processes.rank, len(shares), processes.size)
        }
    )
    return _sum(mine, shares, n_tasks, processes)


def _sum(
    mine: dict[int, MetaGradient], shares: list[range], n_tasks: int, processes: Processes
) -> MetaGradient:
    """The mean over tasks of all ranks' shares, added in the order of ``shares``."""
    like = next(iter(mine.values()))
    total = {name: torch.zeros_like(value) for name, value in like.grads.items()}
    values: list[Tensor] = []
    columns: dict[str, list[Tensor]] = {name: [] for name in like.stats}
    numbers, blank = sum(gradient.numel() for gradient in total.values()) + 1, _packed(like)
    for index, share in enumerate(shares):
        own = mine.get(index)
        row = (
            blank.new_empty(numbers + len(share) * len(like.stats)) if own is None else _packed(own)
        )
        processes.broadcast(row, source=index % processes.size)
        part = _unpacked(row, like, len(share))
        for name, gradient in part.grads.items():
            total[name] += gradient / (n_tasks / len(share))
        values += [part.value] * len(share)
        for name, column in part.stats.items():
            columns[name].append(column)
    order = torch.tensor([j for share in shares for j in share]).argsort()
    stats = {name: torch.cat(parts)[order.to(parts[0].device)] for name, parts in columns.items()}
    return MetaGradient(torch.stack(values).mean(), total, stats)


def _packed(result: MetaGradient) -> Tensor:
    """All numbers of a result as one vector, in the widest type that occurs. shape: (n,)"""
    parts = [*result.grads.values(), result.value, *result.stats.values()]
    return torch.cat([part.reshape(-1).to(result.value.device) for part in parts])


def _unpacked(row: Tensor, like: MetaGradient, n: int) -> MetaGradient:
    """Undo :func:`_packed` for a result over ``n`` tasks with the names, shapes and types of
    ``like``.
    """
    sizes = [gradient.numel() for gradient in like.grads.values()]
    pieces = iter(row.split([*sizes, 1, *[n] * len(like.stats)]))
    grads = {
        name: next(pieces).reshape(own.shape).to(own.dtype) for name, own in like.grads.items()
    }
    value = next(pieces).reshape(()).to(like.value.dtype)
    return MetaGradient(
        value, grads, {name: next(pieces).to(own.dtype) for name, own in like.stats.items()}
    )


def scores(
    learner: MetaLearner,
    stream: Callable[[int], Episode],
    *,
    n_tasks: int,
    processes: Processes,
    stopping: Callable[[], bool] = lambda: False,
) -> tuple[Tensor, Tensor] | None:
    """Query loss and accuracy of tasks 0 .. n_tasks - 1, each adapted to by one rank; equal on
    every rank, in task order.

    ``None`` where ``stopping`` became true on any rank. shapes: (n_tasks,), float64
    """
    own = range(processes.rank, n_tasks, processes.size)

    def measure() -> Tensor | None:
        if not own:
            return torch.empty(2, 0, dtype=torch.float64)
        mine = stream if processes.size == 1 else lambda i: stream(own[i])
        found = evaluate(learner, mine, n_tasks=len(own), stopping=stopping)
        return None if found is None else torch.stack([found[0].loss, found[0].accuracy])

    table = torch.empty(2, n_tasks, dtype=torch.float64)
    for rank, part in enumerate(processes.all_gather(processes.all_or_none(measure))):
        if part is None:
            return None
        table[:, rank :: processes.size] = part
    return table[0], table[1]
