"""Mirror descent with a learned convex potential: the conjugate h* itself is modelled, so that g =
grad h* by construction.
"""

from __future__ import annotations

from typing import Literal

from mdtheory.geometry.base import Geometry, geometries
from mdtheory.maps.potential.base import BoundedPotential
from mdtheory.maps.potential.icnn import InputConvexPotential
from mdtheory.maps.potential.ridge import ConvexPotential


@geometries.register("potential")
class Potential(Geometry):
    """z_{k+1} = z_k - task_lr * grad L(phi_k), phi_k = grad h*(z_k): true mirror descent, h
    strongly convex and smooth.

    mu I <= Hessian of h* <= L I on all of R^d whatever the meta-parameters (0 < mu < 1 < L), so
    every step is a descent step for task_lr < 2 / (L L_f) where the task loss is L_f-smooth. At the
    start h* = 1/2 ||z||^2 and the geometry is MAML. ``form``: "ridge",
    :class:`~mdtheory.maps.potential.ridge.ConvexPotential`, which couples the layers of a large
    network; or "icnn", :class:`~mdtheory.maps.potential.icnn.InputConvexPotential`, dense, for
    small d. ``geometry.map.curvature(meta)`` is the certificate of the trained parameters.
    """

    source = "own design: the poster's outlook (model h* directly)"

    map: BoundedPotential

    def __init__(
        self,
        *,
        form: Literal["ridge", "icnn"] = "ridge",
        mu: float = 0.1,
        L: float = 10.0,
        seed: int = 0,
    ):
        if form not in ("ridge", "icnn"):
            raise ValueError(
                f"form must be 'ridge' or 'icnn', got {form!r}; 'ridge' scales to large networks"
            )
        made = ConvexPotential if form == "ridge" else InputConvexPotential
        super().__init__(made(mu=mu, L=L, seed=seed))
