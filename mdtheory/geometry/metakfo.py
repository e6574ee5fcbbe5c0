"""MetaKFO: a Kronecker-factored meta-optimizer that is itself adapted on the task (Arnold, Iqbal
and Sha 2021).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import vjp

from mdtheory.core import tree
from mdtheory.core.tree import ParameterTree
from mdtheory.core.types import Params, State
from mdtheory.geometry.base import Geometry, Pullback, StepRule, geometries


class KroneckerStep(StepRule):
    """z_{k+1} = z_k - task_lr * U_xi_k(g_k), where the transform xi takes a gradient step of its
    own from k = 1 on.

    U works tensor by tensor on G of shape (batch, n, m): U(G) = L G R with L = A^T A, R = B^T B
    (positive semidefinite, so that a gradient is never reversed), A = I_n and B = I_m at the start.
    A convolution (out, in, k, k) has batch = out, n = in, m = k * k; a matrix has batch = 1, n =
    out, m = in; a vector has n = its length, m = 1, so a full matrix.

    Before step k >= 1, xi_k = xi_{k-1} - task_lr * dL/dxi_{k-1}, where the support loss L at phi_k
    = phi_{k-1} - task_lr * U_{xi_{k-1}}(g_{k-1}) depends on xi_{k-1} through that last update only:
    dL/dxi_{k-1} = -task_lr * (d U_xi(g_{k-1}) / d xi)^T g_k. The meta-gradient passes through all
    of it. This is the authors' public code with the transform adapted. The state keeps ``xi.*`` and
    ``prev.*`` (= g_{k-1}).

    ``hidden`` > 0 is an own reading of the paper's non-linear transform (recalled: "typically two
    hidden layers"; its architecture is not confirmed): hidden + 1 Kronecker layers, between them x
    -> max(x, 0) + s min(x, 0) with a learned slope s per tensor, 1 at the start. It is the identity
    at the start and homogeneous: U(cG) = c U(G) for c >= 0.

    Parameters, below ``transform.``: ``left.<layer>.<name>`` (A), ``right.<layer>.<name>`` (B),
    ``slope.<layer>.<name>`` (s).
    """

    def __init__(self, hidden: int = 0):
        super().__init__()
        if not 0 <= hidden <= 100:
            raise ValueError(
                f"hidden must be >= 0 layers, and at most 100, got {hidden}; 0 is the linear "
                "transform of the public code"
            )
        self.hidden = hidden

    def build(self, anchor: Params) -> None:
        made: Params = {}
        for name, value in anchor.items():
            _, n, m = _factor_shape(value.shape)
            for layer in range(self.hidden + 1):
                made[f"left.{layer}.{name}"] = torch.eye(n, dtype=value.dtype, device=value.device)
                made[f"right.{layer}.{name}"] = torch.eye(m, dtype=value.dtype, device=value.device)
                if layer < self.hidden:
                    made[f"slope.{layer}.{name}"] = torch.ones(
                        (), dtype=value.dtype, device=value.device
                    )
        self.transform = ParameterTree(made)
        self._shapes = {name: value.shape for name, value in anchor.items()}

    def init(self, meta: Params, noise: Params) -> State:
        """xi_0 = the meta-learned transform; no gradient has been seen."""
        xi = tree.sub(meta, "transform.")
        nothing = {
            name: xi[f"left.0.{name}"].new_zeros(shape) for name, shape in self._shapes.items()
        }
        return {**tree.prefixed("xi.", xi), **tree.prefixed("prev.", nothing)}

    def step(
        self, meta: Params, state: State, grad: Params, *, task_lr: float, k: int, pull: Pullback
    ) -> State:
        xi = tree.sub(state, "xi.")
        if k > 0:
            pullback = vjp(lambda own: self.transformed(own, tree.sub(state, "prev.")), xi)[1]
            xi = tree.axpy(task_lr * task_lr, pullback(grad)[0], xi)
        update = self.transformed(xi, grad)
        moved = tree.axpy(-task_lr, update, {name: state[f"z.{name}"] for name in grad})
        return {
            **state,
            **tree.prefixed("z.", moved),
            **tree.prefixed("xi.", xi),
            **tree.prefixed("prev.", grad),
        }

    def transformed(self, xi: Params, grad: Params) -> Params:
        """U_xi(G) for every tensor. shapes: as grad"""
        return {name: self._transform(xi, name, g) for name, g in grad.items()}

    def _transform(self, xi: Params, name: str, g: Tensor) -> Tensor:
        x = g.reshape(_factor_shape(g.shape))
        for layer in range(self.hidden + 1):
            left, right = xi[f"left.{layer}.{name}"], xi[f"right.{layer}.{name}"]
            x = left.mT @ (
                left @ ((x @ right.mT) @ right)
            )  # never forms A^T A: for 1600 x 1600 that would cost more
            if layer < self.hidden:
                x = x.clamp(min=0) + xi[f"slope.{layer}.{name}"] * x.clamp(max=0)
        return x.reshape(g.shape)


def _factor_shape(shape: torch.Size) -> tuple[int, int, int]:
    """(batch, n, m) of a gradient; see :class:`KroneckerStep`."""
    if len(shape) > 2:
        return shape[0], shape[1], shape[2:].numel()
    return (1, shape[0], shape[1]) if len(shape) == 2 else (1, shape.numel(), 1)


@geometries.register("metakfo")
class MetaKFO(Geometry):
    """Steps through a learned Kronecker transform of the gradient, adapted along with the weights
    (Arnold et al. 2021).

    Equals MAML's first step at the start; from the second step on the transform has moved. On Conv4
    with 64 channels, 5-way, the linear transform holds 2,621,836 numbers, of which the classifier's
    1600 x 1600 factor takes 2,560,000.
    """

    source = "arnold2021kfo; the public code for the order of operations"

    def __init__(self, hidden: int = 0):
        super().__init__(rule=KroneckerStep(hidden))
