"""How exactly float32 products are taken on a GPU: a setting, never a default of somebody else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch

from mdtheory.core.registry import unknown

Precision = Literal["float32", "tf32"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
"""float32: products of 24-bit factors; tf32: of 11-bit ones, several times as fast on tensor
cores, with errors of several percent in a meta-gradient of ill-conditioned tasks."""


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Inside, convolutions and matrix products on CUDA in float32 have this precision; afterwards
    what was set before.

    torch's own default is TF32 in convolutions. A backward pass follows the setting of its own
    moment, so this must stand around the whole iteration. Without meaning on a CPU.
    """
    check(name)
    cudnn: Any = torch.backends.cudnn
    matmul = torch.backends.cuda.matmul
    places = cudnn.conv, cudnn.rnn, matmul
    before = [place.fp32_precision for place in places]
    # the old names set both; torch.compile reads them, and they refuse where only new ones were set
    cudnn.allow_tf32 = matmul.allow_tf32 = name == "tf32"
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before[0] == "tf32", before[2] == "tf32"
        for place, word in zip(places, before, strict=True):
            if place.fp32_precision != word:
                place.fp32_precision = word


def check(name: str) -> None:
    """Refuse a name that is not in :data:`PRECISIONS`, with the nearest one."""
    if name not in PRECISIONS:
        raise unknown("precision", name, list(PRECISIONS))


def tf32() -> bool:
    """Whether convolutions may take TF32 products here and now."""
    cudnn: Any = torch.backends.cudnn
    return bool(cudnn.conv.fp32_precision == "tf32")
