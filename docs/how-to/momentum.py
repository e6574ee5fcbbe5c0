"""A geometry in one file: heavy-ball momentum whose strength is meta-learned, one number per
tensor.
"""

from __future__ import annotations

import torch

from mdtheory.core import ParameterTree, Params, State
from mdtheory.geometry import Geometry, Pullback, StepRule, geometries


class MomentumStep(StepRule):
    """v <- sigmoid(b) v + grad, z <- z - task_lr v, with b learned; the velocity v travels in the
    state as ``v.*``.
    """

    def build(self, anchor: Params) -> None:
        """One b per tensor, -3 at the start: momentum 0.05."""
        self.strength = ParameterTree(
            {name: value.new_full((), -3.0) for name, value in anchor.items()}
        )

    def step(
        self,
        meta: Params,
        state: State,
        grad: Params,
        *,
        task_lr: float,
        k: int,
        pull: Pullback,
    ) -> State:
        """One step; ``meta`` holds this rule's own parameters, which are never read from
        ``self``.
        """
        moved = {}
        for name, g in grad.items():
            keep = torch.sigmoid(meta[f"strength.{name}"])
            velocity = g if k == 0 else keep * state[f"v.{name}"] + g
            moved |= {
                f"v.{name}": velocity,
                f"z.{name}": state[f"z.{name}"] - task_lr * velocity,
            }
        return {**state, **moved}


@geometries.register("momentum")
class Momentum(Geometry):
    """Gradient descent with meta-learned momentum; the first step is MAML's."""

    source = "own design"

    def __init__(self) -> None:
        super().__init__(rule=MomentumStep())
