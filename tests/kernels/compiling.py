"""Compile every kernel for a card that need not be here, as launches of the block and of the
learned map would: ``python -m tests.kernels.compiling 80 float32``.

Prints a JSON object: by kernel, the bytes of shared memory of each of its variants.
"""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from typing import Any

os.environ.pop("TRITON_INTERPRET", None)  # read where a kernel is defined

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from mdtheory.kernels import have_triton, triton, triton_convolution, triton_maps
from mdtheory.kernels.formulas import First, Plan
from mdtheory.kernels.over_tasks import last
from mdtheory.kernels.precision import PRECISIONS, precision


class Card:
    """What Triton asks a driver before it compiles."""

    def __init__(self, capability: int):
        self.capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def block(dtype: torch.dtype) -> None:
    """Both directions of one task's layer, with statistics of half the items."""
    draw = {"dtype": dtype}
    x, weight = torch.zeros(2, 64, 42, 42, **draw), torch.zeros(1, 64, 64, 3, 3, **draw)
    vector, plan = torch.zeros(1, 64, **draw), Plan(1e-5, 1)
    u = last(torch.zeros(2, 64, 42, 42, **draw))
    y, code, mean, r = triton.normalise(u, vector, vector, plan)
    dgamma, dbeta = triton.slopes(y, u, code, mean, r, plan)
    for gu in (None, u):
        first = First(y, gu, vector, u, code, mean, r, dgamma, dbeta, plan)
        triton.through_conv(first, x, weight, need_x=False, need_w=False)
    for v in (None, vector):
        triton.second(first, u, v, v)
    if dtype == torch.float64:
        return  # cuDNN convolves these
    g = u[:, :, :21, :21]
    for name in PRECISIONS:
        with precision(name):
            x, weight = torch.zeros(2, 64, 21, 21), torch.zeros(1, 64, 64, 3, 3)
            triton.conv((x, weight), (x, weight))
            triton.input_gradient(g, weight)
            triton.weight_gradient(g, x, weight)
    x, weight = torch.zeros(2, 3, 21, 21), torch.zeros(1, 64, 3, 3, 3)
    triton.conv((x, weight))
    triton.weight_gradient(g, x, weight)


def maps(dtype: torch.dtype) -> None:
    """The steps of a learned map."""
    z = torch.zeros(2000, dtype=dtype)
    triton_maps.unit(z, (0.5, 0.5))
    triton_maps.unit_slope(z, z, (0.5, 0.5))
    triton_maps.affine(z, z, z)
    triton_maps.affine_slopes(z, z, z)


def main(capability: int, dtype: torch.dtype) -> dict[str, list[int]]:
    driver.set_active(Card(capability))
    found: dict[str, list[int]] = defaultdict(list)

    def launch(kernel: Any, grid: Any, *arguments: Any, **sizes: Any) -> None:
        made = kernel.run(*arguments, grid=grid, warmup=True, **sizes, **have_triton.OPTIONS)
        assert made.asm["cubin"]
        found[kernel.__name__].append(made.metadata.shared)

    for module in (triton, triton_convolution, triton_maps):
        module.launch = launch  # type: ignore[attr-defined]
    launch(have_triton._nothing, (1,), 2)
    block(dtype)
    maps(dtype)
    return found


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), getattr(torch, sys.argv[2]))))
