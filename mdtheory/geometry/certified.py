"""The certified geometry: conditioners as in MetaMiDA, with a map that is monotone and Lipschitz by
construction.
"""

from __future__ import annotations

from typing import Literal

from mdtheory.geometry.base import Geometry, geometries
from mdtheory.maps.iaf.base import Partition
from mdtheory.maps.iaf.certified import CertifiedIAF
from mdtheory.maps.iaf.certified_forms import CertifiedKroneckerIAF, CertifiedMLPIAF


@geometries.register("certified")
class Certified(Geometry):
    """z_{k+1} = z_k - task_lr * grad L(phi_k), phi_k = g(z_k), with g a block-triangular map that
    is certified globally.

    <g(z) - g(z'), z - z'> >= m ||z - z'||^2 and ||g(z) - g(z')|| <= M ||z - z'|| on all of R^d
    whatever the meta-parameters (0 < m < 1 < M): the steps descend for task_lr < 2 m / (L_f M^2)
    where the task loss is L_f-smooth. Monotone dual-space preconditioning, not mirror descent:
    see :class:`~mdtheory.maps.iaf.certified.CertifiedIAF`. At the start g is the identity and the
    geometry is MAML.

    ``partition`` and ``form`` as in MetaMiDA: "kronecker" for networks, "mlp" for small d.
    """

    source = "own design: BlockIAF of zhang2024metamida, saturated"

    map: CertifiedIAF

    def __init__(
        self,
        partition: Partition = 4,
        *,
        form: Literal["kronecker", "mlp"] = "kronecker",
        m: float = 0.1,
        M: float = 4.0,
        seed: int = 0,
    ):
        if form not in ("kronecker", "mlp"):
            raise ValueError(
                f"form must be 'kronecker' or 'mlp', got {form!r}; 'kronecker' scales to large "
                "networks"
            )
        made = CertifiedKroneckerIAF if form == "kronecker" else CertifiedMLPIAF
        super().__init__(made(partition, m=m, M=M, seed=seed))
