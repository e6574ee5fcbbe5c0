"""ECML: MAML whose adaptation problem is kept well conditioned by a penalty (Hiller, Harandi and
Drummond 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.func import vjp
from torch.nn.functional import cross_entropy

from mdtheory.core import tree
from mdtheory.core.objectives import Objective
from mdtheory.core.types import Params
from mdtheory.geometry.base import Geometry, Outputs, geometries

Residual = Literal["root", "loss"]
GUARD = 1e-12  # keeps the slope of the square root finite where an item's loss vanishes


def residuals(outputs: Tensor, targets: Tensor, kind: Residual = "root") -> Tensor:
    """The residuals r of the least-squares form 1/2 ||r||^2 of the support loss. shape:
    (n_losses,), or (n_items * n_out,)

    Classes: l_i is the cross-entropy of item i; "root" is r_i = sqrt(2 l_i + 1e-12), "loss" is r_i
    = l_i. Float targets: r = outputs - targets, entry by entry, whichever the kind.
    """
    if targets.is_floating_point():
        return (outputs - targets).flatten()
    losses = cross_entropy(outputs, targets, reduction="none").flatten()
    return losses if kind == "loss" else torch.sqrt(2 * losses + GUARD)


def log_spread(jacobian: Tensor, *, trivial: float) -> Tensor:
    """Var_i(log lambda_i), biased, over the eigenvalues of A = J J^T above ``trivial`` times the
    largest. shape: ()

    Zero iff these are all equal, unchanged when J is scaled, zero for J = 0. The logarithms are 2
    log(sigma_i) with the singular values of J, which keep twice the digits that A would; their
    gradient is defined where some are equal.
    """
    values = torch.linalg.svdvals(jacobian)
    counted = (values > trivial**0.5 * values[0]) & (values > 0)
    logs = 2 * torch.where(counted, values, 1.0).log()
    n = counted.sum().clamp(min=1)
    return torch.where(counted, (logs - logs.sum() / n).square(), 0.0).sum() / n


@geometries.register("ecml")
class ECML(Geometry):
    """MAML's steps; the meta-objective adds ``gamma`` times the spread of the log-spectrum of A = J
    J^T at phi_k, all k < K.

    J = d r / d phi is the Jacobian of the support residuals (:func:`residuals`), those of the
    cross-entropy or of squares whatever loss the learner descends, one row per
    residual and one column per conditioned coordinate; A has the non-zero spectrum of the
    Gauss-Newton Hessian J^T J. Where batch statistics couple the items, so does J: every row is a
    vector-Jacobian product of the whole batch. The spectrum is computed in float64; eigenvalues
    below ``trivial`` times the largest are left out, since A has zero ones of necessity when there
    are more residuals than independent columns (the slopes of a softmax sum to 0).

    Confirmed from the abstract: no extra parameters, conditioning enforced in meta-training by a
    cost on the condition number, possibly for a part of the parameters. Recalled, not confirmed,
    hence settings: the residuals, the variance of the log-eigenvalues (an extreme-eigenvalue ratio
    would teach two directions only), its mean over the steps. ``gamma`` is an own choice.
    ``conditioned``: patterns of adapted names that J is taken over; default the last layer's.

    Cost per step: n_items backward passes to the conditioned parameters, and their derivative.
    Equals MAML at test.
    """

    source = "hiller2022ecml; formula recalled, not checked against the paper"
    capturable = False  # the singular value solver reports its status to the host

    def __init__(
        self,
        gamma: float = 0.1,
        conditioned: str | Sequence[str] | None = None,
        residual: Residual = "root",
        trivial: float = 1e-10,
    ):
        super().__init__()
        if gamma < 0 or not 0 <= trivial < 1:
            raise ValueError(
                f"gamma must be >= 0 and trivial in [0, 1), got {gamma} and {trivial}; gamma=0 is "
                "plain MAML"
            )
        if residual not in get_args(Residual):
            raise ValueError(
                f"residual must be one of {get_args(Residual)}, got {residual!r}; 'root' is the "
                "usual one"
            )
        self.objective = Objective(penalty=gamma)
        self.patterns = (conditioned,) if isinstance(conditioned, str) else conditioned
        self.residual = residual
        self.trivial = trivial

    def build(self, anchor: Params) -> None:
        super().build(anchor)
        last_layer = next(reversed(anchor), "").rpartition(".")[0]
        if self.patterns is None:
            self.conditioned = [name for name in anchor if name.rpartition(".")[0] == last_layer]
        else:
            self.conditioned = [
                name for name in anchor if any(fnmatchcase(name, each) for each in self.patterns)
            ]
        if not self.conditioned:
            some = ", ".join([*anchor][:3])
            raise ValueError(
                f"conditioned must match adapted parameters, got {self.patterns}; choose from "
                f"{some}, ..."
            )

    def jacobian(self, point: Params, outputs: Outputs, targets: Tensor) -> Tensor:
        """J = d r / d phi for the conditioned tensors, in float64. shape: (n_residuals,
        n_coordinates)
        """
        chosen = {name: point[name] for name in self.conditioned}
        product = vjp(
            lambda own: residuals(outputs({**point, **own}), targets, self.residual), chosen
        )
        values, pullback = product[0], product[1]
        # one pass per row, not a vmap of them: the derivative of a vmapped pass is wrong for native
        # norm layers
        rows = [
            pullback(row)[0]
            for row in torch.eye(len(values), dtype=values.dtype, device=values.device)
        ]
        return torch.stack([tree.flatten(row) for row in rows]).double()

    def meta_penalty(
        self, meta: Params, point: Params, outputs: Outputs, targets: Tensor, k: int
    ) -> Tensor:
        """Var_i log lambda_i(J J^T) at phi_k. shape: ()"""
        spread = log_spread(self.jacobian(point, outputs, targets), trivial=self.trivial)
        return spread.to(next(iter(point.values())).dtype)
