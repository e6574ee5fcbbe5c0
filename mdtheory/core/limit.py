"""An end to work that may never end by itself."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from types import FrameType

from mdtheory.core.progress import say

PLUGIN_SECONDS = 50.0
"""What importing a plug-in may take, and any one examination of it."""
GRACE = 5.0
"""Seconds that what is late has to end in."""


class LateError(BaseException):
    """The time is up; no ``except Exception`` of what is late may swallow it."""


def plugin_limit() -> AbstractContextManager[None]:
    """:func:`time_limit` of :data:`PLUGIN_SECONDS`."""
    return time_limit(PLUGIN_SECONDS)


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """:class:`LateError` after so many seconds inside, where there are such alarms (not on Windows,
    nor in another thread than the main one). What swallows even that ends the process, with one
    sentence and exit code 2, :data:`GRACE` seconds later.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not (
        threading.main_thread()
    ):
        yield
        return

    def late(signum: int, frame: FrameType | None) -> None:
        raise LateError(f"it must end within {seconds:g} seconds, and has not")

    last = threading.Timer(seconds + GRACE, _leave, [seconds])
    last.daemon = True
    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    last.start()
    try:
        yield
    finally:
        last.cancel()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _leave(seconds: float) -> None:
    say(
        f"mdtheory: a plug-in must end within {seconds:g} seconds, got one that has not, and that "
        "catches even what would end it; correct it (no `except:` without a name)"
    )
    os._exit(2)
