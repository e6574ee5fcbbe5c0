"""Stopped gradients that can be replayed, so that finite differences can hold constant what a
derivative holds constant.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Tape:
    """The values of all stops of one evaluation, in the order in which they were met."""

    values: list[Tensor] = field(default_factory=list)


_recording: ContextVar[Tape | None] = ContextVar("recording", default=None)
_replaying: ContextVar[Iterator[Tensor] | None] = ContextVar("replaying", default=None)


def stop_gradient(x: Tensor) -> Tensor:
    """``x`` as a constant: ``x.detach()``; inside :func:`replaying`, the value that this stop had
    when recorded. shape: as x
    """
    replayed = _replaying.get()
    if replayed is not None:
        return next(replayed)
    value, tape = x.detach(), _recording.get()
    if tape is not None:
        tape.values.append(value)
    return value


@contextmanager
def recording() -> Iterator[Tape]:
    """Inside, every :func:`stop_gradient` leaves its value on the tape. Not under ``torch.func``
    transforms.
    """
    tape = Tape()
    token = _recording.set(tape)
    try:
        yield tape
    finally:
        _recording.reset(token)


@contextmanager
def replaying(tape: Tape) -> Iterator[None]:
    """Inside, the k-th :func:`stop_gradient` returns the tape's k-th value; the evaluation must
    meet the same stops.

    Errors: ``ValueError`` when the evaluation met fewer or more stops than were recorded.
    """
    left = iter(tape.values)
    token = _replaying.set(left)
    try:
        yield
    except StopIteration as error:
        raise ValueError(
            f"the tape must hold every stop, got {len(tape.values)}; record the same evaluation"
        ) from error
    finally:
        _replaying.reset(token)
    unmet = sum(1 for _ in left)
    if unmet:
        raise ValueError(
            f"the evaluation must meet all {len(tape.values)} recorded stops, got {unmet} fewer; "
            "record the same one"
        )
