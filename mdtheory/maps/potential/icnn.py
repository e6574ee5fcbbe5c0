"""A universal convex potential for small d: an input-convex network with a certified Hessian
bound.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.func import grad
from torch.nn.functional import softplus

from mdtheory.core import seeding, tree
from mdtheory.core.tree import ParameterTree
from mdtheory.core.types import Params
from mdtheory.maps.base import maps
from mdtheory.maps.potential.base import LEARNED, BoundedPotential
from mdtheory.maps.spectral_bounds import gram, largest, log_top, within

SOFTPLUS_CURVATURE = 0.25  # sup of psi'' for psi = softplus, whose slope lies in (0, 1)


@maps.register("icnn")
class InputConvexPotential(BoundedPotential):
    """F(z) = gate Phi(z) / L_Phi with Phi an input-convex network of ``depth`` layers of ``width``
    softplus units.

    p_1 = B_0 z + b_0, y_l = softplus(p_l), p_{l+1} = A_l y_l + B_l z + b_l, Phi = v^T y_depth, A_l,
    v >= 0 (softplus of free numbers). 0 <= Hessian of Phi <= L_Phi I with

        L_Phi = 1/4 sum_l max(v_l) Lambda_l^2,  v_depth = v,  v_l = A_l^T v_{l+1},
        Lambda_1 = ||B_0||,  Lambda_{l+1} = ||A_l|| Lambda_l + ||B_l||

    (amos2017icnn for the network; repair R-A2 for the bound, sharp but loose for typical weights).
    The norms in the network are replaced by the smooth bounds of
    :mod:`mdtheory.maps.spectral_bounds`. The gate starts at 0, lies in (-(1 - mu)/2, (L - 1)/2) and
    may have either sign. Phi is dense in convex functions on compacts where L_Phi is free; at a
    given (mu, L) h* is not. Cost: O(depth width (d + width)) and ``depth`` norms a call: for small
    d.

    Parameters: ``quadratic`` (d,), ``gate`` (), ``layers.<l>.direct`` B_l (width, d),
    ``layers.<l>.bias`` b_l, and from l = 1 ``layers.<l>.through`` A_l before softplus (width,
    width); ``output`` v before softplus (width,).
    """

    def __init__(
        self, *, mu: float = 0.1, L: float = 10.0, width: int = 16, depth: int = 2, seed: int = 0
    ):
        super().__init__(mu=mu, L=L)
        if width < 1 or depth < 1:
            raise ValueError(
                f"width and depth must be at least 1, got {width} and {depth}; the defaults are 16 "
                "and 2"
            )
        self.width = width
        self.depth = depth
        self.seed = seed

    def build(self, anchor: Params) -> None:
        super().build(anchor)
        like, generator = self.quadratic, seeding.generator("icnn", self.seed)
        z = tree.flatten(anchor).double()
        size = float(z.square().sum().sqrt()) or 1.0

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        layers: Params = {}
        for l in range(self.depth):
            layers[f"{l}.direct"] = normal(self.width, z.numel()) / size
            layers[f"{l}.bias"] = normal(self.width)
            if l:
                layers[f"{l}.through"] = math.log(math.expm1(1 / self.width)) + 0.5 * normal(
                    self.width, self.width
                )
        self.layers = ParameterTree({name: value.to(like) for name, value in layers.items()})
        self.output = nn.Parameter(normal(self.width).to(like))
        self.gate = nn.Parameter(like.new_zeros(()))

    def _gate(self, meta: Params) -> Tensor:
        return within(meta["gate"], low=LEARNED * (1 - self.mu), high=LEARNED * (self.L - 1))

    def _through(self, meta: Params, l: int) -> Tensor:
        return softplus(meta[f"layers.{l}.through"])

    def _network(self, meta: Params, z: Tensor) -> Tensor:
        """Phi(z). shape: ()"""
        y = z.new_zeros(self.width)
        for l in range(self.depth):
            p = meta[f"layers.{l}.direct"] @ z + meta[f"layers.{l}.bias"]
            y = torch.logaddexp(p + self._through(meta, l) @ y if l else p, torch.zeros_like(p))
        return softplus(meta["output"]) @ y

    def bound(self, meta: Params, *, exact: bool = False) -> Tensor:
        """L_Phi, from smooth bounds of the norms and maxima, or from the ``exact`` ones. shape:
        ()
        """

        def norm(matrix: Tensor) -> Tensor:
            return (
                torch.linalg.matrix_norm(matrix, ord=2)
                if exact
                else torch.exp(0.5 * log_top(gram(matrix)))
            )

        def top(v: Tensor) -> Tensor:
            return v.max() if exact else largest(v)

        reach = [norm(meta["layers.0.direct"])]
        for l in range(1, self.depth):
            reach.append(
                norm(self._through(meta, l)) * reach[-1] + norm(meta[f"layers.{l}.direct"])
            )
        v = softplus(meta["output"])
        total = top(v) * reach[-1].square()
        for l in range(self.depth - 1, 0, -1):
            v = self._through(meta, l).mT @ v
            total = total + top(v) * reach[l - 1].square()
        return SOFTPLUS_CURVATURE * total

    def _flat(self, meta: Params, z: Tensor) -> Tensor:
        return self._gate(meta) / self.bound(meta) * self._network(meta, z)

    def learned(self, meta: Params, z: Params) -> Tensor:
        return self._flat(meta, tree.flatten(z))

    def slope(self, meta: Params, z: Params) -> Tensor:
        return grad(self._flat, argnums=1)(meta, tree.flatten(z))

    def learned_curvature(self, meta: Params) -> tuple[float, float]:
        top = float(self._gate(meta) * self.bound(meta, exact=True) / self.bound(meta))
        return min(top, 0.0), max(top, 0.0)
