"""What code from outside the package may not do to everybody else: write among the results, or
change how torch computes.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any


@contextlib.contextmanager
def foreign(what: str) -> Iterator[None]:
    """Inside, ``what`` is imported: whatever it or its child processes write to the standard output
    goes to the error stream, and :func:`demand_state` holds it to the program's state.
    """
    before = state()
    with contextlib.redirect_stdout(sys.stderr), _output_aside():
        yield
    demand_state(before, what)


@contextlib.contextmanager
def _output_aside() -> Iterator[None]:
    """The descriptor of the standard output leads to the error stream, where both are open."""
    try:
        kept = os.dup(1)
    except OSError:
        yield
        return
    try:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            os.dup2(2, 1)
        yield
    finally:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.__stdout__.flush()  # type: ignore[union-attr]
        os.dup2(kept, 1)
        os.close(kept)


def state() -> dict[str, Any]:
    """What decides how torch computes and where files are, beyond what a configuration says."""
    import torch

    return {
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "inference mode": torch.is_inference_mode_enabled(),
        "recording of gradients": torch.is_grad_enabled(),
        "autocast": torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"),
        "choice of deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "number of threads": torch.get_num_threads(),
        "use of oneDNN": torch.backends.mkldnn.enabled,
        "current folder": _folder(),
    }


def demand_state(before: Mapping[str, Any], what: str) -> None:
    """``ValueError`` where ``what`` has changed the :func:`state`: the numbers would be others than
    the configuration says, or the files elsewhere.
    """
    for name, now in state().items():
        if now != before[name]:
            raise ValueError(
                f"a plug-in must leave the program's state as it is, but {what} changes the {name} "
                f"from {before[name]} to {now}; take that out, or change it back"
            )


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:
        return "a deleted one"
