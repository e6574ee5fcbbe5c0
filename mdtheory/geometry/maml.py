"""MAML: gradient descent from a learned start (Finn et al. 2017)."""

from __future__ import annotations

from mdtheory.geometry.base import Geometry, geometries


@geometries.register("maml")
class MAML(Geometry):
    """phi_{k+1} = phi_k - task_lr * grad L(phi_k); the only meta-parameter is phi_0 (Finn et al.
    2017, eq. 1).
    """

    source = "finn2017maml, eq. (1)"
