"""A progress bar on stderr that shows itself only when the work lasts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[int, int], None]
"""``progress(done, total)``, called now and then from the thread that started the work."""

PATIENCE = 2.0
"""Seconds of work before a bar appears."""


@contextmanager
def bar_on_stderr(what: str) -> Iterator[Progress]:
    """A ``progress`` callback that draws a bar with count, rate and time left on stderr after
    ``PATIENCE`` seconds.
    """
    from rich import progress as rich
    from rich.console import Console

    started = time.monotonic()
    bar = rich.Progress(
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TextColumn("{task.fields[rate]:.0f}/s"),
        rich.TextColumn("time left"),
        rich.TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    task = bar.add_task(what, total=None, rate=0.0)

    def show(done: int, total: int) -> None:
        passed = time.monotonic() - started
        bar.update(task, completed=done, total=total, rate=done / passed if passed else 0.0)
        if passed > PATIENCE and not bar.live.is_started:
            bar.start()

    try:
        yield show
    finally:
        if bar.live.is_started:
            bar.stop()
