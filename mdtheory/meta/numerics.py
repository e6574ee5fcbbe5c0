"""What decides the last bits of a run besides its configuration: a change of it is a change of the
run.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from mdtheory.kernels.compile import identity, library

UNUSED = "unused"
"""The compiled kernels of a process that has not met an operation for them."""


def numerical_path(device: torch.device, known: Mapping[str, str] | None = None) -> dict[str, str]:
    """Device, processor, precision, kernels and the version of torch, as words.

    ``kernels``: the compiled library's name, which is a digest of its source, compiler, flags and
    processor; "plain" where there is none; :data:`UNUSED` before the first use. ``known``: the path
    so far, whose kernels count as used here too.
    """
    used = library.cache_info().currsize > 0 or (known or {}).get("kernels", UNUSED) != UNUSED
    on_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else device.type,
        "processor": torch.backends.cpu.get_cpu_capability(),
        "precision": _of_products(),
        "kernels": identity() if used else UNUSED,
        "torch": str(torch.__version__),
    }


def _of_products() -> str:
    """As torch's old name for it says, which refuses where a new one was set."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return str(torch.backends.cuda.matmul.fp32_precision)


def difference(stored: Mapping[str, str], here: Mapping[str, str]) -> str | None:
    """The first entry that changed, as "kernels: block-1 before, plain now"; what either does not
    know or use is no change.
    """
    for name in stored.keys() & here.keys():
        before, now = stored[name], here[name]
        if before != now and UNUSED not in (before, now):
            return f"{name}: {before} before, {now} now"
    return None
