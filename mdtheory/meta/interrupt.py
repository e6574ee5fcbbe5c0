"""Asked to stop: finish what is at hand, save, and leave with the code that the shell expects."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGXCPU")
    if hasattr(signal, name)
)
"""What asks a run to stop: Ctrl-C, kill, the end of the terminal, Ctrl-backslash, and the end of
the processor time that was allowed.
"""
HANGUP = getattr(signal, "SIGHUP", None)
CPU_TIME = getattr(signal, "SIGXCPU", None)


class InterruptedRunError(Exception):
    """A signal asked the run to stop, and it was saved; ``exit_code`` is 128 + the signal's
    number.
    """

    def __init__(self, message: str, signum: int):
        super().__init__(message)
        self.signum = signum
        self.exit_code = 128 + signum

    def __reduce__(self) -> tuple[type[InterruptedRunError], tuple[str, int]]:
        """Pickle the signal with the message, so that it reaches another process."""
        return type(self), (str(self), self.signum)


class StopRequest:
    """Inside the context, the :data:`SIGNALS` only set ``signum``; a second one acts as it would
    outside. A hang-up that was ignored before (as by ``nohup``) stays ignored. Of the end of its
    processor time the system tells every second: one more changes nothing.

    Python delivers signals to the main thread alone; in another thread the context does nothing.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for signum in SIGNALS:
                if signum != HANGUP or signal.getsignal(signum) is not signal.SIG_IGN:
                    self._before[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is None:
            self.signum = signum
        elif signum != CPU_TIME:
            self._restore()  # only now: a signal that waits for its handler must find one
            os.kill(os.getpid(), signum)

    def _restore(self) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._before = {}
