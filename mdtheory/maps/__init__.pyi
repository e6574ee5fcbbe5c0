from .base import (
    DualMap as DualMap,
    MirrorMap as MirrorMap,
    build as build,
    maps as maps,
)
from .entropy import NegativeEntropy as NegativeEntropy
from .hypentropy import Hypentropy as Hypentropy
from .iaf import (
    MLPIAF as MLPIAF,
    BlockIAF as BlockIAF,
    CertifiedIAF as CertifiedIAF,
    CertifiedKroneckerIAF as CertifiedKroneckerIAF,
    CertifiedMLPIAF as CertifiedMLPIAF,
    KroneckerIAF as KroneckerIAF,
)
from .identity import Identity as Identity
from .log_barrier import LogBarrier as LogBarrier
from .pnorm import PNorm as PNorm
from .potential import (
    BoundedPotential as BoundedPotential,
    ConvexPotential as ConvexPotential,
    InputConvexPotential as InputConvexPotential,
)
from .quadratic import Quadratic as Quadratic
