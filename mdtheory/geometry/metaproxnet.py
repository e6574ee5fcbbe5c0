"""MetaProxNet: a learned piecewise-linear function of every coordinate's path from the start, in
place of the proximal operator of a prior (Zhang and Giannakis 2024).
"""

from __future__ import annotations

import torch
from torch import Tensor

from mdtheory.core import tree
from mdtheory.core.tree import ParameterTree
from mdtheory.core.types import Params, State
from mdtheory.geometry.base import Geometry, Pullback, StepRule, geometries

PIECES, RANGE = 5, 2.0
SPACING = 2 * RANGE / PIECES


def piecewise_linear(points: Tensor, x: Tensor) -> Tensor:
    """The function through (knot_j, points_j), knots evenly over [-2, 2], at x; straight on beyond
    them. shapes: points (..., 6), x and the result (...)

    >>> piecewise_linear(torch.linspace(-4, 4, 6), torch.tensor(3.0))  # twice the identity
    tensor(6.)
    """
    place = (x + RANGE) / SPACING
    left = place.detach().floor().nan_to_num().clamp(0, PIECES - 1)  # nan has no index; it stays
    index = left.long().unsqueeze(-1)
    low, high = (points.gather(-1, index + one).squeeze(-1) for one in (0, 1))
    return low + (place - left) * (high - low)


class UnrolledProx(StepRule):
    """v_{k+1} = p_k(v_k - grad L(phi_k)), phi_k = phi_0 + task_lr v_k, v_0 = 0: k-th step of an
    unrolled proximal gradient descent.

    p_k is :func:`piecewise_linear` in every coordinate with six free values of its own, for each of
    the first ``steps`` steps; later ones use the last (1: all share it). It is the identity at the
    start, where a step is MAML's. The state keeps ``path.<name>`` = v. Nothing keeps the values in
    order: p_k is the proximal operator of some penalty iff it is non-decreasing, and of a convex
    one iff it is 1-Lipschitz as well (gribonval2020proximity, one coordinate at a time); see
    :meth:`slopes`.

    Parameters: ``points.<k>.<name>`` (..., 6).
    """

    def __init__(self, steps: int = 1):
        super().__init__()
        if not 1 <= steps <= 1000:
            raise ValueError(
                f"steps must be at least 1 and at most 1000, got {steps}; 1 serves all task steps"
            )
        self.steps = steps

    def build(self, anchor: Params) -> None:
        made = {}
        for k in range(self.steps):
            for name, value in anchor.items():
                knots = torch.linspace(-RANGE, RANGE, PIECES + 1, dtype=value.dtype)
                made[f"{k}.{name}"] = knots.to(value.device).repeat(*value.shape, 1)
        self.points = ParameterTree(made)

    def init(self, meta: Params, noise: Params) -> State:
        """v_0 = 0."""
        first = tree.sub(meta, "points.0.")
        return {f"path.{name}": torch.zeros_like(points[..., 0]) for name, points in first.items()}

    def step(
        self, meta: Params, state: State, grad: Params, *, task_lr: float, k: int, pull: Pullback
    ) -> State:
        block, moved = min(k, self.steps - 1), {}
        for name, g in grad.items():
            before = state[f"path.{name}"]
            after = piecewise_linear(meta[f"points.{block}.{name}"], before - g)
            moved[f"path.{name}"] = after
            moved[f"z.{name}"] = state[f"z.{name}"] + task_lr * (after - before)
        return {**state, **moved}

    def slopes(self, meta: Params) -> Params:
        """The slopes of every p_k, by parameter. A proximal operator has none below 0, that of a
        convex penalty none above 1 either. shape: (..., 5)
        """
        found = tree.sub(meta, "points.")
        return {name: points.diff(dim=-1) / SPACING for name, points in found.items()}


@geometries.register("metaproxnet")
class MetaProxNet(Geometry):
    """MAML with a learned "proximal" function of every coordinate and step; equals MAML's step at
    the start.

    Published with one function for each of 5 task steps, ``steps=5``: on Conv4 with 64 channels,
    5-way, 30 numbers for every weight, 3,632,790. The authors train it with SGD and Nesterov's
    momentum; their second version, on top of Meta-Curvature, is not here.
    """

    source = "zhang2024metaproxnet; the authors' code for knots, range and starting values"

    def __init__(self, steps: int = 1):
        super().__init__(rule=UnrolledProx(steps))
