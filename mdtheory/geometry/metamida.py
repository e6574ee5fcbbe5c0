"""MetaMiDA: a learned bijection between the dual variable and the network's parameters (the
poster's own method).
"""

from __future__ import annotations

from typing import Literal

from mdtheory.geometry.base import Geometry, geometries
from mdtheory.maps.iaf.base import Partition, ScaleForm
from mdtheory.maps.iaf.kronecker import KroneckerIAF
from mdtheory.maps.iaf.mlp import MLPIAF


@geometries.register("metamida")
class MetaMiDA(Geometry):
    """z_{k+1} = z_k - task_lr * grad L(phi_k), phi_k = g(z_k), with g a BlockIAF that starts as the
    identity.

    ``form``: "kronecker", the authors' conditioners from their live start (see
    :class:`KroneckerIAF`), or "mlp", the poster's. ``partition``: tensors a block, or lists of
    tensor names. ``scale``: by default "exp" for the first form, as in the code, and "bounded" for
    the second, as on the poster. At the start its step is MAML's.
    """

    source = (
        "zhang2024metamida, 'Learning inverse mirror map with a NN model'; live start: own design"
    )

    def __init__(
        self,
        partition: Partition = 4,
        *,
        form: Literal["kronecker", "mlp"] = "kronecker",
        scale: ScaleForm | None = None,
        seed: int = 0,
    ):
        if form not in ("kronecker", "mlp"):
            raise ValueError(
                f"form must be 'kronecker' or 'mlp', got {form!r}; 'kronecker' is the authors' code"
            )
        if scale is None:
            scale = "exp" if form == "kronecker" else "bounded"
        made = KroneckerIAF if form == "kronecker" else MLPIAF
        super().__init__(made(partition, scale=scale, seed=seed))


@geometries.register("metamida-published")
class PublishedMetaMiDA(Geometry):
    """MetaMiDA exactly as its public code starts it, dead heads included; ``map.never_trained()``
    names what can never train.

    On Conv4-64 with 5 classes that is 3,004,509 decoder parameters, and 82,632 more of the linear
    layers by rows, of 3,447,535: on all coordinates but those of vectors, g stays an elementwise
    affine map with constant coefficients. What is left of the conditioners hangs on ReLU units that
    may start dead and on heads that start at zero, so ``never_trained`` declares all of them.
    """

    source = (
        "zhang2024metamida, public code (zhangyilang/MetaMirrorDescent, src/meta_mirror_descent.py)"
    )
    never_trained = ("map.encoders.*", "map.decoders.*", "map.linears.*")

    map: KroneckerIAF

    def __init__(self, partition: Partition = 4, *, seed: int = 0):
        super().__init__(KroneckerIAF(partition, init="published", scale="exp", seed=seed))
