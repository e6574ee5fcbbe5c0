"""Stand-ins for a GPU's graph: what is recorded is done again operation by operation, and reading a
number on the host is refused, as a capture refuses it.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

READS = (
    "aten._local_scalar_dense",
    "aten.is_nonzero",
    "aten.nonzero",
    "aten.equal",
    "aten.masked_select",
    "aten.bincount",
    "aten._unique2",
    "aten.unique_dim",
    "aten.repeat_interleave.Tensor",
    "aten._linalg_check_errors",
)
"""Operations that wait for the device."""

COPY = "aten.lift_fresh"
"""``torch.tensor``, which copies to the device."""

FREE = (
    "aten.detach",
    "aten.empty",
    "aten.new_empty",
    "aten.alias",
    COPY,
    "aten._reshape_alias",
    "aten._unsafe_view",
    "aten.scalar_tensor",
)
"""Operations without a kernel on the device: memory, views by another name, numbers of the host."""


class Strict(TorchDispatchMode):
    """Refuses host reads and new tensors from the host; counts what would be a kernel. With
    ``copies``, ``torch.tensor`` is let through: torch's Adam makes one on a CPU alone.
    """

    def __init__(self, *, strict: bool = True, copies: bool = False):
        super().__init__()
        self.strict, self.copies, self.paused = strict, copies, False
        self.kernels: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not self.paused:
            self._look(func, args, kwargs)
        return func(*args, **kwargs)

    def _look(self, func: Any, args: tuple, kwargs: dict) -> None:
        name = str(func)
        refused = _waits(name, args, kwargs) or (name.startswith(COPY) and not self.copies)
        if self.strict and refused:
            raise RuntimeError(f"operation not permitted when stream is capturing: {name}")
        if not (getattr(func, "is_view", False) or name.startswith(FREE)):
            self.kernels[name] += 1


def _waits(name: str, args: tuple, kwargs: dict) -> bool:
    """Whether a capture would refuse it: it waits for the device, or copies from the host."""
    if name.startswith("aten._to_copy") and isinstance(args[0], torch.Tensor):
        return kwargs.get("device") not in (None, args[0].device)
    if name.startswith(("aten.index.", "aten.index_put", "aten._index_put")):
        return any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])
    return name.startswith(READS)


class Standin:
    """A recorder for CI. ``replays``: how often the graph ran."""

    def __init__(self) -> None:
        self.replays = 0

    def record(self, body: Callable[[], None]) -> Callable[[], None]:
        body()
        self._strictly(body)

        def replay() -> None:
            self.replays += 1
            self._strictly(body)

        return replay

    @staticmethod
    def _strictly(body: Callable[[], None]) -> None:
        with torch.device("meta"), Strict():  # what names no device is not on the body's
            body()


def capturable_on_a_cpu(monkeypatch: Any) -> None:
    """Let torch's optimizers keep their counts as tensors here, as they do on a GPU, and not remark
    on it where there is one.
    """
    for name in ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check"):
        monkeypatch.setattr(torch.optim.Optimizer, name, lambda _: None, raising=False)
    for name in ("adam", "rmsprop"):
        module = importlib.import_module(f"torch.optim.{name}")
        monkeypatch.setattr(
            module, "_get_capturable_supported_devices", lambda **_: ["cpu", "cuda"]
        )
