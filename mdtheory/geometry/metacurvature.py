"""Meta-Curvature: a learned matrix for every mode of a gradient (Park and Oliva 2019)."""

from __future__ import annotations

import torch

from mdtheory.geometry.base import Geometry, Pull, StepRule, geometries
from mdtheory.tree import ParameterTree
from mdtheory.typing import Params, State

MODES = ("out", "in", "kernel")


class CurvatureStep(StepRule):
    """z <- z - task_lr * MC(grad), with one free square matrix per mode of every tensor.

    A convolution's gradient, viewed as G of shape (out, in, k * k), becomes
    MC(G)[a, b, c] = sum_{a'b'c'} M_out[a, a'] M_in[b, b'] M_kernel[c, c'] G[a', b', c'], that is, the matrix
    M_out (x) M_in (x) M_kernel on the row-major flattened gradient. A matrix (out, in) has the first two modes; a vector or
    a scalar is multiplied entry by entry. All start at the identity or at ones. Nothing keeps the matrices symmetric or
    positive. The authors' code transposes some of them: immaterial, since they are free.

    Parameters: ``out.<name>`` (out, out), ``in.<name>`` (in, in), ``kernel.<name>`` (k * k, k * k), ``scale.<name>``.
    """

    def build(self, anchor: Params) -> None:
        made: Params = {}
        for name, value in anchor.items():
            if value.dim() < 2:
                made[f"scale.{name}"] = torch.ones_like(value)
                continue
            for mode, size in zip(MODES, _three_modes(value.shape), strict=True):
                if mode != "kernel" or value.dim() > 2:
                    made[f"{mode}.{name}"] = torch.eye(size, dtype=value.dtype, device=value.device)
        self.curvature = ParameterTree(made)

    def step(self, meta: Params, state: State, grad: Params, *, task_lr: float, k: int, pull: Pull) -> State:
        moved = {f"z.{name}": state[f"z.{name}"] - task_lr * curved(meta, name, g) for name, g in grad.items()}
        return {**state, **moved}


def _three_modes(shape: torch.Size) -> tuple[int, int, int]:
    """(out, in, k * k); the last is 1 for a matrix."""
    return shape[0], shape[1], shape[2:].numel()


def curved(meta: Params, name: str, g: torch.Tensor) -> torch.Tensor:
    """MC(G) for the tensor ``name`` with the rule's parameters ``meta``. shape: as g"""
    if g.dim() < 2:
        return meta[f"curvature.scale.{name}"] * g
    n_out, n_in, n_kernel = _three_modes(g.shape)
    rows = (meta[f"curvature.out.{name}"] @ g.reshape(n_out, -1)).reshape(n_out, n_in, n_kernel)
    mixed = meta[f"curvature.in.{name}"] @ rows
    if g.dim() > 2:
        mixed = mixed @ meta[f"curvature.kernel.{name}"].mT
    return mixed.reshape(g.shape)


@geometries.register("metacurvature")
class MetaCurvature(Geometry):
    """Gradient descent preconditioned mode by mode (Park and Oliva 2019); equals MAML's step at the start.

    The matrices are shared by all steps and tasks and never adapted. On Conv4 with 64 channels, 5-way, they hold
    2,589,803 numbers, of which the classifier's 1600 x 1600 input mode takes 2,560,000.
    """

    source = "park2019metacurvature; the authors' released code for the initial values"

    def __init__(self) -> None:
        super().__init__(rule=CurvatureStep())
