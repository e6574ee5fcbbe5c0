"""The two honest types: a bijection z <-> phi, and a bijection that is the gradient of a strictly
convex potential.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from mdtheory.core import tree
from mdtheory.core.registry import Registry
from mdtheory.core.types import Params

maps: Registry[DualMap] = Registry("map", "mdtheory.maps")
"""Every known mirror map, by slug."""

build = maps.build


class DualMap(nn.Module, ABC):
    """A bijection from the dual variable z to the point phi, both trees of the same names and
    shapes.

    The module owns its parameters and never reads them: each method takes them as ``meta`` (names
    as in ``named_parameters()``), is pure, and works for one task, so that vmap, grad and vjp
    apply.

    >>> import torch, mdtheory
    >>> class Double(mdtheory.DualMap):
    ...     def point(self, meta, z):
    ...         return {name: 2 * value for name, value in z.items()}
    ...     def inverse(self, meta, phi):
    ...         return {name: value / 2 for name, value in phi.items()}
    >>> Double()({"w": torch.tensor([1.0, -3.0])})
    {'w': tensor([ 2., -6.])}
    """

    def build(self, anchor: Params) -> None:
        """Create the parameters for points of these names and shapes. Called once, before any other
        method.
        """

    def own(self) -> Params:
        """The module's own parameters, to be passed as ``meta``."""
        return dict(self.named_parameters())

    def prepared(self, meta: Params) -> Params:
        """``meta`` in the form in which the points of one task are computed most cheaply: made once
        for all of them, and taken by :meth:`point` as well. Here: as it is.
        """
        return meta

    @abstractmethod
    def point(self, meta: Params, z: Params) -> Params:
        """phi = g(z)."""

    @abstractmethod
    def inverse(self, meta: Params, phi: Params) -> Params:
        """z with g(z) = phi. Raises ``ValueError`` where phi is outside the range of g."""

    def log_abs_det(self, meta: Params, z: Params) -> Tensor:
        """log |det dg/dz| at z. shape: (); maps that know it override this."""
        raise NotImplementedError(
            f"{type(self).__name__} has no closed log-determinant; use a dense Jacobian for small d"
        )

    def forward(self, z: Params) -> Params:
        """phi = g(z) with the module's own parameters."""
        return self.point(self.own(), z)


class MirrorMap(DualMap):
    """g = grad h* for a strictly convex h of Legendre type, so that g^{-1} = grad h (Rockafellar,
    Convex Analysis, Thm 26.5).

    shapes: points and dual variables are trees of the same shapes; potentials and divergences ().

    >>> import torch, mdtheory
    >>> entropy = mdtheory.maps.NegativeEntropy()
    >>> x, y = {"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([1.0, 1.0])}
    >>> entropy.bregman({}, x, y)  # the sum of x log(x / y) - x + y
    tensor(0.3863)
    """

    @abstractmethod
    def potential(self, meta: Params, phi: Params) -> Tensor:
        """h(phi). shape: ()"""

    @abstractmethod
    def conjugate(self, meta: Params, z: Params) -> Tensor:
        """h*(z) = sup_phi <phi, z> - h(phi). shape: ()"""

    def curvature(self, meta: Params) -> tuple[float, float]:
        """(mu, L) with mu I <= Hessian of h* <= L I everywhere; (0, inf) where no such bound is
        known.
        """
        return (0.0, float("inf"))

    def bregman(self, meta: Params, x: Params, y: Params) -> Tensor:
        """D_h(x, y) = h(x) - h(y) - <grad h(y), x - y>, >= 0. shape: ()"""
        slope = self.inverse(meta, y)
        gap = self.potential(meta, x) - self.potential(meta, y)
        return gap - tree.dot(slope, tree.axpy(-1.0, y, x))
