"""Training callbacks: JSON lines, TensorBoard, and progress on the error stream."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TextIO

from mdtheory.core.atomic import write_atomically
from mdtheory.core.progress import ProgressBar, say
from mdtheory.core.registry import Registry
from mdtheory.data.files import is_regular

Row = Mapping[str, Any]
"""One event: ``kind`` ("train" or "validation"), ``iteration``, and numbers."""


class Listener(Protocol):
    """Hears of the start, of every event, and of the end, also when the run stops early."""

    def start(self, *, done: int, validated: int, total: int) -> None:
        """``done`` of ``total`` iterations lie behind the run, which was last validated after
        iteration ``validated`` (-1: not yet). What is opened is opened here.
        """

    def record(self, row: Row) -> None:
        """Take one event, as it happens."""

    def close(self) -> None:
        """No more events; also called where :meth:`start` was not."""


listeners: Registry[Listener] = Registry("listener", "mdtheory.meta")
"""Further listeners of every run from the command line, by ``--plugin FILE``: each is made from the
run's folder and its configuration as a dictionary.
"""


class JsonLines:
    """Append every event to a file, one JSON object a line; NaN becomes null."""

    def __init__(self, path: Path):
        self.path = path
        self._file: TextIO | None = None
        self._size = 0

    def start(self, *, done: int, validated: int, total: int) -> None:
        """Open the file, without the lines that the run will write again."""
        truncate_metrics(self.path, iteration=done, validated=validated)
        self._open()

    def record(self, row: Row) -> None:
        """Write and hand over to the system at once, so that a killed process loses no line."""
        plain = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in row.items()
        }
        if self._file is None:
            raise ValueError("metrics must be started before an event, got one; call start first")
        with _written(self.path):
            if not self._intact():
                say(
                    f"note: {self.path} was deleted or changed by another program; the lines that "
                    "it lacks are lost, the run itself goes on as it was"
                )
                self._file.close()
                self._open()
                if self.path.read_bytes()[-1:] not in (b"", b"\n"):
                    self._file.write("\n")  # the half line that is left stays alone
            self._file.write(json.dumps(plain) + "\n")
            self._file.flush()
            self._size = os.fstat(self._file.fileno()).st_size

    def _intact(self) -> bool:
        """Whether the file is as this process left it, under its name."""
        if self._file is None:
            return False
        mine = os.fstat(self._file.fileno())
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            return False
        return os.path.samestat(mine, there) and mine.st_size == self._size

    def _open(self) -> None:
        self._file = self.path.open("a", encoding="utf-8")
        self._size = os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # what was not written was said by record
                self._file.close()
            self._file = None


@contextlib.contextmanager
def _written(path: Path) -> Iterator[None]:
    """The system's refusal to write, as one sentence that names the file."""
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"{path} must be written, but the system says: {error.strerror or error}; make room, "
            "and go on with --resume"
        ) from error


def truncate_metrics(path: Path, *, iteration: int, validated: int) -> None:
    """Drop every line that the run will write again: those after the checkpoint, and a half-written
    last one.
    """
    if is_regular(path):
        kept = _lines_up_to(path, iteration, validated)
        write_atomically(path, b"".join(line for line, _ in kept))


def metrics_up_to(path: Path, *, iteration: int, validated: int) -> list[dict[str, Any]]:
    """The events that :func:`truncate_metrics` would keep."""
    kept = _lines_up_to(path, iteration, validated) if is_regular(path) else []
    return [row for _, row in kept]


def _lines_up_to(path: Path, iteration: int, validated: int) -> list[tuple[bytes, dict[str, Any]]]:
    """Lines with their events, without those that are no whole event."""
    kept = []
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            row = json.loads(line)
            last = {"train": iteration, "validation": validated}[row["kind"]]
            if not _is_event(row):
                continue
            if row["iteration"] > last:
                break
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        if line.endswith(b"\n"):
            kept.append((line, row))
    return kept


def _is_event(row: dict[str, Any]) -> bool:
    """Whether the iteration is a count and everything else a number of 64 bits, or null."""
    numbers = [value for key, value in row.items() if key != "kind"]
    return type(row["iteration"]) is int and all(
        value is None
        or (type(value) is float and math.isfinite(value))
        or (type(value) is int and abs(value) < 2**63)
        for value in numbers
    )


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All events of a run, in order, without what a killed process left half-written."""
    return metrics_up_to(path, iteration=sys.maxsize, validated=sys.maxsize)


class TensorBoard:
    """Every number of every event as a scalar ``<kind>/<name>``."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._writer: Any = None

    def start(self, *, done: int, validated: int, total: int) -> None:
        """Open the log; steps after ``done`` from an earlier, killed process are hidden."""
        from torch.utils.tensorboard import SummaryWriter

        self._hook = threading.excepthook
        threading.excepthook = self._in_thread
        self._writer = SummaryWriter(str(self.folder), purge_step=done + 1)

    def record(self, row: Row) -> None:
        """Write the numbers."""
        with _written(self.folder):
            for name, value in row.items():
                if isinstance(value, int | float) and name != "iteration":
                    self._writer.add_scalar(f"{row['kind']}/{name}", value, row["iteration"])

    def close(self) -> None:
        """Flush and close."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            try:
                with _written(self.folder):
                    writer.close()
            finally:
                threading.excepthook = self._hook

    def _in_thread(self, failed: threading.ExceptHookArgs) -> None:
        """The writer's own thread says nothing of a full disk: its next call raises it here."""
        writes = type(failed.thread).__module__.partition(".")[0] == "tensorboard"
        if not (writes and issubclass(failed.exc_type, OSError)):
            self._hook(failed)


class Bar:
    """A progress bar on the error stream with iterations per second and the time left."""

    def __init__(self, label: str = "train"):
        self.label = label
        self._bar: ProgressBar | None = None

    def start(self, *, done: int, validated: int, total: int) -> None:
        """Show the bar."""
        self._bar = ProgressBar(self.label, done=done, total=total)

    def record(self, row: Row) -> None:
        """Move the bar; a validation is a line above it."""
        if self._bar is None:
            return
        if row["kind"] == "train":
            self._bar.update(row["iteration"], note=_news(row))
        else:
            self._bar.say(f"{self.label} {row['iteration']}: validation {_news(row)}")

    def close(self) -> None:
        """Leave the terminal tidy."""
        if self._bar is not None:
            self._bar.close()


class Lines:
    """The same for a file or a pipe: a plain line on the error stream at most every ``every``
    seconds, and every validation.
    """

    def __init__(self, label: str = "train", *, every: float = 10.0):
        self.label = label
        self.every = every
        self._last = -math.inf
        self.start(done=0, validated=-1, total=0)

    def start(self, *, done: int, validated: int, total: int) -> None:
        """The rate counts from here."""
        self._first = done
        self._total = total
        self._since = time.monotonic()

    def record(self, row: Row) -> None:
        """Write a line if it is time, or if it is the last."""
        now, iteration = time.monotonic(), row["iteration"]
        if row["kind"] == "validation":
            say(f"{self.label} {iteration}: validation {_news(row)}")
        elif now - self._last >= self.every or iteration == self._total:
            self._last = now
            speed = (iteration - self._first) / max(now - self._since, 1e-9)
            left = (self._total - iteration) / speed if speed > 0 else math.inf
            eta = f"{left / 60:.1f} min left" if math.isfinite(left) else "time left unknown"
            say(f"{self.label} {iteration}/{self._total}: {_news(row)}, {speed:.2f} it/s, {eta}")

    def close(self) -> None:
        """Nothing is open."""


def on_console(label: str = "train") -> Listener:
    """A bar on a terminal, plain lines elsewhere."""
    terminal = sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    return Bar(label) if terminal else Lines(label)


def for_run(folder: Path, label: str = "train") -> list[Listener]:
    """What a run with an output folder is heard by: the console, ``metrics.jsonl``, and TensorBoard
    where it is installed.
    """
    listeners: list[Listener] = [on_console(label), JsonLines(folder / "metrics.jsonl")]
    if importlib.util.find_spec("tensorboard") is not None:
        listeners.append(TensorBoard(folder / "tensorboard"))
    return listeners


def of_plugins(folder: Path, config: Mapping[str, Any]) -> list[Listener]:
    """One of every kind in :data:`listeners`, for a run in this folder by this configuration."""
    return [listeners.build(name, folder, config) for name in listeners.names()]


def _news(row: Row) -> str:
    accuracy = row["accuracy"]
    shown = f", accuracy {100 * accuracy:.1f}%" if math.isfinite(accuracy) else ""
    return f"loss {row['loss']:.3f}{shown}"
