"""Meta-SGD: a learned learning rate for every coordinate (Li et al. 2017)."""

from __future__ import annotations

from typing import Literal

import torch

from mdtheory.core.tree import ParameterTree
from mdtheory.core.types import Params, State
from mdtheory.geometry.base import Geometry, Pullback, StepRule, geometries


class DiagonalStep(StepRule):
    """z <- z - task_lr * s (*) grad, with s = exp(a), a = 0 at the start, or s free-signed, 1 at
    the start.

    Equal to a rate task_lr * s per coordinate: ``exp`` is the form of the MetaMiDA authors' code
    (log rates starting at log task_lr), ``free`` the original paper's, whose rates may change sign.
    """

    def __init__(self, form: Literal["exp", "free"] = "exp"):
        super().__init__()
        if form not in ("exp", "free"):
            raise ValueError(
                f"form must be 'exp' or 'free', got {form!r}; 'exp' keeps every rate positive"
            )
        self.form = form

    def build(self, anchor: Params) -> None:
        fill = torch.zeros_like if self.form == "exp" else torch.ones_like
        self.scale = ParameterTree({name: fill(value) for name, value in anchor.items()})

    def step(
        self, meta: Params, state: State, grad: Params, *, task_lr: float, k: int, pull: Pullback
    ) -> State:
        moved = {}
        for name, g in grad.items():
            scale = meta[f"scale.{name}"]
            rate = scale.exp() if self.form == "exp" else scale
            moved[f"z.{name}"] = state[f"z.{name}"] - task_lr * rate * g
        return {**state, **moved}


@geometries.register("metasgd")
class MetaSGD(Geometry):
    """Diagonal preconditioned gradient descent (Li et al. 2017); equals MAML's step at the
    start.
    """

    source = "li2017metasgd, eq. (2)"

    def __init__(self, form: Literal["exp", "free"] = "exp"):
        super().__init__(rule=DiagonalStep(form))
