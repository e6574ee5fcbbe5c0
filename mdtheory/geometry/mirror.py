"""Mirror descent with any registered map, chosen by name: the classical rows of the theory."""

from __future__ import annotations

from typing import Any

from mdtheory.geometry.base import Geometry, geometries
from mdtheory.maps.base import DualMap, maps
from mdtheory.maps.identity import Identity


@geometries.register("mirror")
class Mirror(Geometry):
    """z_{k+1} = z_k - task_lr * grad L(phi_k), phi_k = g(z_k), with the registered map ``map`` for
    g, e.g. "entropy"; ``options`` are the map's own. The anchor is z_0, in the map's dual domain.

    Mirror descent where the map is a mirror map, the gradient of a convex conjugate
    (beck2003mirror). By default the map is the identity and the geometry MAML; with another one the
    first step is not MAML's, since g(z_0) is another point than z_0.

    >>> import torch, mdtheory
    >>> entropy = mdtheory.geometry.Mirror("entropy")
    >>> bowl = lambda phi: 0.5 * (phi - 1).square().sum()
    >>> path = mdtheory.descend(bowl, torch.zeros(3), geometry=entropy, n_steps=20, task_lr=0.5)
    >>> bool((path > 0).all()), round(float(path[-1].mean()), 3)
    (True, 1.0)
    """

    source = "beck2003mirror; the maps name their own"

    def __init__(self, map: str | DualMap = "identity", **options: Any):
        if isinstance(map, str):
            chosen = maps.get(map)
            try:
                made: DualMap = chosen(**options)
            except TypeError as error:
                raise ValueError(
                    f"options of the map {map!r} must suit it, got {options}: {error}"
                ) from error
        else:
            made = map
        super().__init__(made)
        self.starts_as_maml = isinstance(made, Identity)
