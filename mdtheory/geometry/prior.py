"""The explicit Gaussian prior: descend the task loss plus 1/2 ||phi - theta||^2_Lambda with a
learned precision.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mdtheory.core import tree
from mdtheory.core.tree import ParameterTree
from mdtheory.core.types import Params
from mdtheory.geometry.base import Geometry, geometries


@geometries.register("prior")
class Prior(Geometry):
    """R(phi; theta) = 1/2 sum_i lambda_i (phi_i - theta_i)^2 with lambda = exp(log_precision), one
    per coordinate.

    This is -log of the prior N(theta, Lambda^{-1}) up to its normaliser, the poster's first bilevel
    form (rajeswaran2019imaml, eq. (3), has one fixed lambda). ``precision`` > 0 is the start of
    every lambda. The penalty's gradient vanishes at phi = theta, so the first step is MAML's. Its
    minimiser depends on the meta-parameters, so the ``implicit`` estimator applies; ``unrolled``
    differentiates the finite solver instead.
    """

    source = "poster, bilevel form with R(phi; theta); rajeswaran2019imaml, eq. (3)"

    def __init__(self, precision: float = 1.0):
        super().__init__()
        if not 0 < precision < math.inf:
            raise ValueError(
                f"precision must be positive and finite, got {precision}; 1.0 is a usual start"
            )
        self.precision = precision

    def build(self, anchor: Params) -> None:
        super().build(anchor)
        start = math.log(self.precision)
        self.log_precision = ParameterTree(
            {name: torch.full_like(value, start) for name, value in anchor.items()}
        )

    def task_penalty(self, meta: Params, anchor: Params, point: Params) -> Tensor:
        """1/2 sum_i lambda_i (phi_i - theta_i)^2. shape: ()"""
        precision = {name: meta[f"log_precision.{name}"].exp() for name in point}
        gap = tree.axpy(-1.0, anchor, point)
        return 0.5 * tree.dot(tree.tree_map(torch.mul, precision, gap), gap)
