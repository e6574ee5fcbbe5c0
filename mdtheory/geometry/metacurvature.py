"""Meta-Curvature: a learned matrix for every mode of a gradient (Park and Oliva 2019)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mdtheory.core.tree import ParameterTree
from mdtheory.core.types import Params, State
from mdtheory.geometry.base import Geometry, Pullback, StepRule, geometries

MODES = ("out", "in", "kernel")


class CurvatureStep(StepRule):
    """z <- z - task_lr * MC(grad), with one free square matrix per mode of every tensor.

    A convolution's gradient, viewed as G of shape (out, in, k * k), becomes MC(G)[a, b, c] =
    sum_{a'b'c'} M_out[a, a'] M_in[b, b'] M_kernel[c, c'] G[a', b', c'], that is, the matrix M_out
    (x) M_in (x) M_kernel on the row-major flattened gradient. A matrix (out, in) has the first two
    modes; a vector or a scalar is multiplied entry by entry. All start at the identity or at ones.
    Nothing keeps the matrices symmetric or positive. The authors' code transposes some of them:
    immaterial, since they are free.

    ``form`` "symmetric" (own variant) puts M = A^T A in place of every matrix and a^2 of every
    entry of a vector. The whole matrix P is then symmetric and positive semidefinite: no gradient
    is reversed, and the loss does not grow for task_lr < 2 / (lambda_max(P) L_f) where it is
    L_f-smooth. While every A is invertible and no a is 0, as at the start, P is definite and the
    step is mirror descent with the quadratic potential h*(z) = 1/2 z^T P z.

    Parameters: ``out.<name>`` (out, out), ``in.<name>`` (in, in), ``kernel.<name>`` (k * k, k * k),
    ``scale.<name>``.
    """

    def __init__(self, form: Literal["free", "symmetric"] = "free"):
        super().__init__()
        if form not in ("free", "symmetric"):
            raise ValueError(
                f"form must be 'free' or 'symmetric', got {form!r}; 'free' is the published method"
            )
        self.form = form

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

    def step(
        self, meta: Params, state: State, grad: Params, *, task_lr: float, k: int, pull: Pullback
    ) -> State:
        moved = {
            f"z.{name}": state[f"z.{name}"] - task_lr * self.curved(meta, name, g)
            for name, g in grad.items()
        }
        return {**state, **moved}

    def curved(self, meta: Params, name: str, g: Tensor) -> Tensor:
        """MC(G) for the tensor ``name`` with the rule's parameters ``meta``. shape: as g"""
        symmetric = self.form == "symmetric"
        if g.dim() < 2:
            scale = meta[f"curvature.scale.{name}"]
            return (scale.square() if symmetric else scale) * g

        def applied(mode: str, x: Tensor) -> Tensor:
            matrix = meta[f"curvature.{mode}.{name}"]
            return matrix.mT @ (matrix @ x) if symmetric else matrix @ x

        n_out, n_in, n_kernel = _three_modes(g.shape)
        mixed = applied("in", applied("out", g.reshape(n_out, -1)).reshape(n_out, n_in, n_kernel))
        if g.dim() > 2:
            kernel = meta[f"curvature.kernel.{name}"]
            mixed = mixed @ kernel.mT @ kernel if symmetric else mixed @ kernel.mT
        return mixed.reshape(g.shape)


def _three_modes(shape: torch.Size) -> tuple[int, int, int]:
    """(out, in, k * k); the last is 1 for a matrix."""
    return shape[0], shape[1], shape[2:].numel()


@geometries.register("metacurvature")
class MetaCurvature(Geometry):
    """Gradient descent preconditioned mode by mode (Park and Oliva 2019); equals MAML's step at the
    start.

    The matrices are shared by all steps and tasks and never adapted. On Conv4 with 64 channels,
    5-way, they hold 2,589,803 numbers, of which the classifier's 1600 x 1600 input mode takes
    2,560,000. ``form`` "symmetric" is an own variant that makes the step mirror descent; see
    :class:`CurvatureStep`.
    """

    source = "park2019metacurvature; the authors' released code for the initial values"

    def __init__(self, form: Literal["free", "symmetric"] = "free") -> None:
        super().__init__(rule=CurvatureStep(form))
