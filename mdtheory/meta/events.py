"""Who listens to a training run: JSON lines always, TensorBoard where installed, a bar or plain
lines for people.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from mdtheory.meta.checkpoint import write_atomically

Row = Mapping[str, Any]
"""One event: ``kind`` ("train" or "validation"), ``iteration``, and numbers."""


class Listener(Protocol):
    """Told of every event, and of the end, also when the run stops early."""

    def start(self, *, done: int, total: int) -> None:
        """``done`` of ``total`` iterations are behind us."""

    def record(self, row: Row) -> None:
        """One event."""

    def close(self) -> None:
        """No more events."""


class JsonLines:
    """Append every event to a file, one JSON object a line; NaN becomes null."""

    def __init__(self, path: Path):
        self.path = path
        self._file = path.open("a", encoding="utf-8")

    def start(self, *, done: int, total: int) -> None:
        """Nothing to say."""

    def record(self, row: Row) -> None:
        """Write and hand over to the system at once, so that a killed process loses no line."""
        plain = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in row.items()
        }
        self._file.write(json.dumps(plain) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def truncate_metrics(path: Path, *, iteration: int, validated: int) -> None:
    """Drop every line that the run will write again: those after the checkpoint, and a half-written
    last one.
    """
    if not path.exists():
        return
    kept = []
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            row = json.loads(line)
            last = {"train": iteration, "validation": validated}[row["kind"]]
            if not line.endswith(b"\n") or row["iteration"] > last:
                break
        except (ValueError, KeyError, TypeError):
            break
        kept.append(line)
    write_atomically(path, b"".join(kept))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All events of a run, in order."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


class TensorBoard:
    """Every number of every event as a scalar ``<kind>/<name>``."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._writer: Any = None

    def start(self, *, done: int, total: int) -> None:
        """Open the log; steps after ``done`` from an earlier, killed process are hidden."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(self.folder), purge_step=done + 1)

    def record(self, row: Row) -> None:
        """Write the numbers."""
        for name, value in row.items():
            if isinstance(value, int | float) and name != "iteration":
                self._writer.add_scalar(f"{row['kind']}/{name}", value, row["iteration"])

    def close(self) -> None:
        """Flush and close."""
        if self._writer is not None:
            self._writer.close()


class Bar:
    """A progress bar on the error stream with iterations per second and the time left."""

    def __init__(self, label: str = "train"):
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self.label = label
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[news]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._rate = _Rate()

    def start(self, *, done: int, total: int) -> None:
        """Show the bar."""
        self._task = self._progress.add_task(self.label, total=total, completed=done, news="")
        self._progress.start()
        self._rate.start(done)

    def record(self, row: Row) -> None:
        """Move it."""
        if row["kind"] == "train":
            speed = self._rate(row["iteration"])
            self._progress.update(
                self._task, completed=row["iteration"], news=f"{_news(row)}  {speed:.2f} it/s"
            )
        else:
            self._progress.console.print(
                f"{self.label} {row['iteration']}: validation {_news(row)}", highlight=False
            )

    def close(self) -> None:
        """Leave the terminal tidy."""
        self._progress.stop()


class Lines:
    """The same for a file or a pipe: a plain line on the error stream at most every ``every``
    seconds, and every validation.
    """

    def __init__(self, label: str = "train", *, every: float = 10.0):
        self.label, self.every = label, every
        self._rate, self._last, self._total = _Rate(), -math.inf, 0

    def start(self, *, done: int, total: int) -> None:
        """Remember the goal."""
        self._total = total
        self._rate.start(done)

    def record(self, row: Row) -> None:
        """Write a line if it is time, or if it is the last."""
        now, iteration = time.monotonic(), row["iteration"]
        if row["kind"] == "validation":
            self._say(f"{self.label} {iteration}: validation {_news(row)}")
        elif now - self._last >= self.every or iteration == self._total:
            self._last, speed = now, self._rate(iteration)
            left = (self._total - iteration) / speed if speed > 0 else math.inf
            eta = f"{left / 60:.1f} min left" if math.isfinite(left) else "time left unknown"
            self._say(
                f"{self.label} {iteration}/{self._total}: {_news(row)}, {speed:.2f} it/s, {eta}"
            )

    def close(self) -> None:
        """Nothing is open."""

    def _say(self, text: str) -> None:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def for_people(label: str = "train") -> Listener:
    """A bar on a terminal, plain lines elsewhere."""
    return Bar(label) if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else Lines(label)


def for_run(folder: Path, label: str = "train") -> list[Listener]:
    """Everything that a run with an output folder writes: people, ``metrics.jsonl``, and
    TensorBoard where it is installed.
    """
    listeners: list[Listener] = [for_people(label), JsonLines(folder / "metrics.jsonl")]
    if importlib.util.find_spec("tensorboard") is not None:
        listeners.append(TensorBoard(folder / "tensorboard"))
    return listeners


class _Rate:
    """Iterations per second since the start of this process."""

    def __init__(self) -> None:
        self.start(0)

    def start(self, done: int) -> None:
        self._done, self._since = done, time.monotonic()

    def __call__(self, iteration: int) -> float:
        return (iteration - self._done) / max(time.monotonic() - self._since, 1e-9)


def _news(row: Row) -> str:
    accuracy = row["accuracy"]
    shown = f", accuracy {100 * accuracy:.1f}%" if math.isfinite(accuracy) else ""
    return f"loss {row['loss']:.3f}{shown}"
