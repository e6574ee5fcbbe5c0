"""The registry of networks, and how each one draws its first weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mdtheory.core.registry import Registry

models: Registry[nn.Module] = Registry("model", "mdtheory.models")
"""Every known network, by slug."""

build = models.build


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, torch's initialisers draw on the CPU from ``seed``; outside, the global generators
    are as they were.

    Only the CPU generator is seeded: ``torch.manual_seed`` would move the accelerators' generators
    too.
    """
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.random.default_generator.manual_seed(seed)
        yield


def at_least(name: str, value: int, least: int) -> None:
    """Refuse a size below ``least`` with one sentence."""
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}; choose a larger {name}")


def check_images(x: Tensor, in_channels: int, image_size: int) -> Tensor:
    """``x`` itself, if its shape is (N, in_channels, image_size, image_size); ``ValueError``
    otherwise. shape: as x
    """
    expected = (in_channels, image_size, image_size)
    if tuple(x.shape[1:]) != expected:
        raise ValueError(
            f"images must have shape (N, {', '.join(map(str, expected))}), got {tuple(x.shape)}; "
            "resize them"
        )
    return x
