"""What this card reaches at most: bytes copied and convolutions computed, a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import conv2d

from experiments.benchmarks.case import Size
from experiments.benchmarks.lower_bound import CHANNELS, SIDE
from mdtheory.kernels.precision import precision

COPIED = 2**28
"""Bytes of the copied tensor; fewer where the card is a processor."""


def wait(device: torch.device) -> None:
    """Until everything asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def best(
    body: Callable[[], Any], device: torch.device, seconds: float, *, times: int = 10
) -> float:
    """The least seconds of one call among several rounds of so many."""
    body()
    wait(device)
    least, until = float("inf"), time.perf_counter() + seconds
    while True:
        begun = time.perf_counter()
        for _ in range(times):
            body()
        wait(device)
        least = min(least, (time.perf_counter() - begun) / times)
        if time.perf_counter() > until:
            return least


def copy_rate(device: torch.device, seconds: float) -> float:
    """Bytes read and written a second."""
    size = COPIED if device.type == "cuda" else 2**20
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / best(lambda: target.copy_(source), device, seconds)


def convolution_rate(device: torch.device, size: Size, kind: str, seconds: float) -> float:
    """Operations a second of a channels-last 3x3 convolution of 64 channels at 42 x 42, the best of
    the batches of a task and of all tasks.
    """
    form = {"device": device, "memory_format": torch.channels_last}
    weight = torch.ones(CHANNELS, CHANNELS, 3, 3).to(**form)
    rates = []
    with torch.no_grad(), precision(kind):
        for n in sorted({size.n_support, size.n_queries, size.n_tasks * size.n_queries}):
            x = torch.ones(n, CHANNELS, SIDE, SIDE).to(**form)
            spent = best(lambda x=x: conv2d(x, weight, padding=1), device, seconds / 3, times=3)
            rates.append(2 * 9 * CHANNELS**2 * SIDE**2 * n / spent)
    return max(rates)
