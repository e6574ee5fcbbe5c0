"""Progress on the error stream. A console that fails (closed, full, a pipe without a reader) is
left alone, and the work goes on.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO, cast

Progress = Callable[[int, int], None]
"""``progress(done, total)``, called now and then from the thread that started the work."""

PATIENCE = 2.0
"""Seconds of work before :func:`progress_bar` shows itself."""
PLAIN = str.maketrans({"±": "+/-", "…": "...", "—": "-", "–": "-", "×": "x"})
"""What is written where the stream's encoding lacks the character; any other becomes "?"."""


class SafeStream(io.TextIOBase):
    """A text stream whose ``write`` never raises: what the encoding lacks is written in ASCII, and
    after an error of the system nothing more is written, or ``instead`` takes it.

    ``failure`` is that error. A reader that went away (a broken pipe) wants no more: nothing is
    passed to ``instead`` then. Without a stream (closed at the start, as by ``2>&-``) all of it is.
    """

    errors = "replace"

    def __init__(self, stream: TextIO | None, instead: SafeStream | None = None):
        self.stream = stream
        self.instead = instead
        self.failure: OSError | ValueError | None = None

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The stream's own, "utf-8" where it says none."""
        return getattr(self.stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Write ``text``, or what can be written of it; the length of ``text``."""
        if not isinstance(text, str):
            raise TypeError(f"text must be a str, got {type(text).__name__}; decode it")
        self._attempt(lambda stream: stream.write(self._encodable(text)))
        if self._silent() and self.instead is not None:
            self.instead.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream, unless it has failed."""
        self._attempt(lambda stream: stream.flush())

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        return not self._silent() and self.stream is not None and self.stream.isatty()

    def _silent(self) -> bool:
        return (self.stream is None or self.failure is not None) and not isinstance(
            self.failure, BrokenPipeError
        )

    def _encodable(self, text: str) -> str:
        try:
            text.encode(self.encoding)
        except UnicodeEncodeError:
            plain = text.translate(PLAIN).encode(self.encoding, "replace")
            return plain.decode(self.encoding)
        return text

    def _attempt(self, action: Callable[[TextIO], object]) -> None:
        if self.stream is None or self.failure is not None:
            return
        try:
            action(self.stream)
        except (OSError, ValueError) as error:
            self.failure = error


def say(text: str) -> None:
    """One line on the error stream, if that takes it."""
    stream = SafeStream(sys.stderr)
    stream.write(text + "\n")
    stream.flush()


class ProgressBar:
    """A bar on the error stream: how much is done, a note, and the time left.

    ``total``: ``None`` while it is not known. ``patience``: seconds until the bar shows itself.
    """

    def __init__(
        self, label: str, *, done: int = 0, total: int | None = None, patience: float = 0.0
    ):
        from rich import progress as rich
        from rich.console import Console

        self._bar = rich.Progress(
            rich.TextColumn("{task.description}"),
            rich.BarColumn(bar_width=None),
            rich.MofNCompleteColumn(),
            rich.TextColumn("{task.fields[note]}"),
            rich.TimeRemainingColumn(),
            console=Console(file=cast(TextIO, SafeStream(sys.stderr))),
        )
        self._task = self._bar.add_task(label, total=total, completed=done, note="")
        self._first = done
        self._patience = patience
        self._started = time.monotonic()
        self._show()

    def update(self, done: int, total: int | None = None, *, note: str = "") -> None:
        """``done`` of ``total`` (default: as before) is behind us; ``note`` and the rate stand
        beside the bar.
        """
        passed = time.monotonic() - self._started
        rate = f"{(done - self._first) / passed:.3g}/s" if passed > 0 else ""
        self._bar.update(self._task, completed=done, total=total, note=f"{note}  {rate}".strip())
        self._show()

    def say(self, text: str) -> None:
        """A line above the bar."""
        self._bar.console.print(text, highlight=False, markup=False)

    def close(self) -> None:
        """Stop the bar and give the cursor back."""
        if self._bar.live.is_started:
            self._bar.stop()

    def _show(self) -> None:
        if not self._bar.live.is_started and time.monotonic() - self._started >= self._patience:
            self._bar.start()


@contextmanager
def progress_bar(label: str) -> Iterator[Progress]:
    """A :data:`Progress` that draws a bar where the work lasts longer than :data:`PATIENCE`."""
    bar = ProgressBar(label, patience=PATIENCE)
    try:
        yield lambda done, total: bar.update(done, total)
    finally:
        bar.close()
