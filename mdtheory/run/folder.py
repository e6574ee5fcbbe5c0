"""The folder of a run, opened once and locked: new, or where its last checkpoint left it."""

from __future__ import annotations

import contextlib
import math
import os
import socket
import stat
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from mdtheory.config import RunConfig, load
from mdtheory.core.atomic import make_folder, write_atomically
from mdtheory.core.foreign import demand_state, state
from mdtheory.core.progress import say
from mdtheory.data.episodes import Source
from mdtheory.data.files import is_regular
from mdtheory.meta import checkpoint
from mdtheory.meta.distributed import SINGLE_PROCESS, Processes
from mdtheory.meta.events import Listener, Row, metrics_up_to
from mdtheory.meta.trainer import MetaTrainer
from mdtheory.run.build import build_trainer
from mdtheory.run.summary import NAME as SUMMARY

CONFIG, METRICS, BEST, LAST = "config.toml", "metrics.jsonl", "best.pt", "last.pt"
LOCK = ".mdtheory.lock"


class RunFolder:
    """The folder ``path``, from whose ``last.pt`` a run goes on if there is one; a context, inside
    which no other process can open it.

    Rank 0 alone reads and writes in it, and tells the others what it read. ``ValueError`` for a
    folder that another process uses, a ``last.pt`` without ``resume``, and one that is no sound
    checkpoint; for a new run also for files that it would replace, unless ``force`` allows it.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        resume: bool = False,
        force: bool = False,
        processes: Processes = SINGLE_PROCESS,
    ):
        self.path = Path(path)
        self.resume = resume
        self.force = force
        self.processes = processes
        self.state: dict[str, Any] | None = None
        self._lock: FileLock | None = None
        self._locked: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        try:
            self.state = self.processes.broadcast_object(
                self.processes.all_or_none(self._read_last if self._first else lambda: None)
            )
        except BaseException:
            self._unlock()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._unlock()

    def trainer(
        self,
        config: RunConfig,
        source: Source,
        *,
        listeners: Sequence[Listener] = (),
        other_bits: bool = False,
    ) -> MetaTrainer:
        """The trainer of a configuration, at the checkpoint's iteration; ``listeners`` hear rank 0.

        The folder is made, without what killed processes left in it; a new one gets
        ``config.toml``. ``ValueError`` if checkpoint, configuration and metrics are not of one run,
        and that run this one: see :meth:`MetaTrainer.resume`, also for ``other_bits``.
        """
        trainer = build_trainer(
            config,
            source,
            out=self.path,
            listeners=[_Guard(self), *listeners, _Guard(self)] if self._first else (),
            processes=self.processes,
        )
        if self.state is not None:
            self._demand_settings(config, self.state)
            trainer.resume(self.state, other_bits=other_bits)
        if self._first:
            self._prepare(config, trainer)
        return trainer

    def _demand_settings(self, config: RunConfig, state: dict[str, Any]) -> None:
        """Name what changed, where the folder's config.toml is the checkpoint's; else the trainer
        compares digests.
        """
        if state["config_digest"] == config.digest or not is_regular(self.path / CONFIG):
            return
        before = load(self.path / CONFIG)
        if before.digest == state["config_digest"]:
            changed = [shorten(line, 90, placeholder=" ...") for line in config.changes(before)]
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            raise ValueError(
                "the checkpoint must come from this configuration, but "
                f"{', '.join(changed[:3])}{more}; choose another --out, or the old configuration"
            )

    @property
    def _first(self) -> bool:
        return self.processes.rank == 0

    def _read_last(self) -> dict[str, Any] | None:
        if not self.path.is_dir():
            return None  # made, and locked, once it is known that there is a run to put there
        self._acquire()
        last = self.path / LAST
        if not os.path.lexists(last):
            return None
        if self.force and not self.resume:
            return None
        if not self.resume:
            raise ValueError(
                f"--out must be a folder without a run, got {self.path} with a last.pt; pass "
                "--resume or choose another"
            )
        return checkpoint.load(last)

    def _prepare(self, config: RunConfig, trainer: MetaTrainer) -> None:
        make_folder(self.path)
        if self._lock is None:
            self._acquire()
            if os.path.lexists(self.path / LAST):
                raise ValueError(
                    f"--out must be a folder of this process alone, but another has begun a run in "
                    f"{self.path}; choose another"
                )
        if self.state is None:
            self._demand_room(config)
        else:
            check_belongs(self.path)
            check_metrics(self.path / METRICS, self.state["counters"])
        checkpoint.remove_leftovers(self.path, (CONFIG, METRICS, BEST, LAST, SUMMARY))
        if self.state is None:
            write_atomically(self.path / CONFIG, config.to_toml().encode())

    def _demand_room(self, config: RunConfig) -> None:
        """Refuse to replace files, but what this run wrote before its first checkpoint."""
        if self.force:
            for name in (LAST, METRICS, BEST):
                (self.path / name).unlink(missing_ok=True)
            return
        texts = {CONFIG: config.to_toml().encode(), METRICS: b"", BEST: None}
        for name, own in texts.items():
            file = self.path / name
            if os.path.lexists(file) and (not file.is_file() or file.read_bytes() != own):
                raise ValueError(
                    f"--out must be a folder without a {name} of something else, got {file}; "
                    "choose another folder, or replace it with --force"
                )

    def _acquire(self) -> None:
        """Lock the folder; ``ValueError`` with the holder's process and host if it is locked, and
        for a file in the lock's place that is none.
        """
        file = self.path / LOCK
        with contextlib.suppress(FileNotFoundError):
            status = file.lstat()
            if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
                raise ValueError(
                    f"--out must be a folder whose {LOCK} is a file of its own, got {file}, "
                    "which is a link or no file; remove it"
                )
        lock = FileLock(file, timeout=0, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            holder = "another process"
            with contextlib.suppress(OSError, UnicodeDecodeError):
                holder = file.read_text(encoding="ascii")[:200] or holder
            raise ValueError(
                f"--out must be a folder of this process alone, but {self.path} is in use by "
                f"{holder}; wait for it, or choose another folder"
            ) from None
        except OSError as error:
            raise ValueError(
                f"--out must be a folder that can be written, but the system says of {file}: "
                f"{error.strerror}; choose another"
            ) from error
        self._lock, self._locked = lock, self._identity()
        file.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="ascii")

    def _identity(self) -> tuple[int, int] | None:
        """Which file the lock's name leads to; ``None`` where there is none."""
        try:
            status = (self.path / LOCK).lstat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def intact(self) -> bool:
        """Whether the folder is still the one that was locked; otherwise it was deleted, or
        replaced by another, in which somebody else may be at work.
        """
        return self._identity() == self._locked

    def demand_intact(self) -> None:
        """``ValueError`` unless the folder is :meth:`intact`."""
        if not self.intact():
            raise ValueError(
                f"--out must stay in place during a run, but {self.path} was replaced, or its "
                f"{LOCK} deleted; nothing more is written there, put it back and go on with "
                "--resume"
            )

    def _unlock(self) -> None:
        if self._lock is not None:
            if self.intact():  # else it is another process's
                with contextlib.suppress(OSError):
                    (self.path / LOCK).unlink()
            self._lock.release()
            self._lock = None


class _Guard:
    """A listener, before what writes and again as the last one before a checkpoint is written, that
    ends a run whose folder is not its own any more, or in whose middle a plug-in changed how torch
    computes.
    """

    def __init__(self, folder: RunFolder):
        self._folder = folder

    def start(self, *, done: int, validated: int, total: int) -> None:
        self._folder.demand_intact()
        self._state = state()

    def record(self, row: Row) -> None:
        self._folder.demand_intact()
        demand_state(self._state, "one of this run")

    def close(self) -> None:
        """Nothing is open."""


def check_belongs(folder: Path) -> None:
    """``ValueError`` unless config.toml, last.pt and best.pt of a folder are of one run, as far as
    they are there.
    """
    digests, counters = {}, {}
    for name in (LAST, BEST):
        if is_regular(folder / name):
            found = checkpoint.load(folder / name)
            digests[name] = found["config_digest"], found["data_digest"]
            counters[name] = found["counters"]
    if digests and is_regular(folder / CONFIG):
        data = next(iter(digests.values()))[1]
        digests[CONFIG] = load(folder / CONFIG).digest, data
    if len(set(digests.values())) > 1:
        raise ValueError(
            f"{folder} must hold the files of one run, but {' and '.join(digests)} are of several; "
            "name the checkpoint that is meant, or restore the folder"
        )
    if len(counters) == 2:
        last, best = counters[LAST], counters[BEST]["iteration"]
        if best != last["best_iteration"] and best < last["iteration"]:
            raise ValueError(
                f"{folder} must hold the files of one run, but {BEST} is of iteration {best} and "
                f"{LAST} says {last['best_iteration']}; restore the folder"
            )


def check_metrics(path: Path, counters: dict[str, Any]) -> None:
    """``ValueError`` if the metrics of a folder are another run's; said, if some of its lines are
    lost.
    """
    rows = metrics_up_to(path, iteration=counters["iteration"], validated=counters["validated"])
    best = [
        row
        for row in rows
        if row["kind"] == "validation" and row["iteration"] == counters["best_iteration"]
    ]
    if any(_score(row) != counters["best_score"] for row in best):
        raise ValueError(
            f"{path} must be of the run that it lies beside, but its validation after iteration "
            f"{counters['best_iteration']} is another; restore it, or move it away"
        )
    trained = sum(row["kind"] == "train" for row in rows)
    if trained < counters["iteration"]:
        say(
            f"note: {path} lacks {counters['iteration'] - trained} of the first "
            f"{counters['iteration']} iterations; the run itself goes on as it was"
        )


def _score(row: dict[str, Any]) -> float:
    """What a validation is judged by: the accuracy, or minus the loss where there is none."""
    accuracy, loss = row.get("accuracy"), row.get("loss")
    if isinstance(accuracy, float):
        return accuracy
    return math.nan if loss is None else -float(loss)
