from .base import (
    DualMap as DualMap,
)
from .base import (
    MirrorMap as MirrorMap,
)
from .base import (
    build as build,
)
from .base import (
    maps as maps,
)
from .entropy import NegativeEntropy as NegativeEntropy
from .hypentropy import Hypentropy as Hypentropy
from .iaf import (
    MLPIAF as MLPIAF,
)
from .iaf import (
    BlockIAF as BlockIAF,
)
from .iaf import (
    CertifiedIAF as CertifiedIAF,
)
from .iaf import (
    CertifiedKroneckerIAF as CertifiedKroneckerIAF,
)
from .iaf import (
    CertifiedMLPIAF as CertifiedMLPIAF,
)
from .iaf import (
    KroneckerIAF as KroneckerIAF,
)
from .identity import Identity as Identity
from .log_barrier import LogBarrier as LogBarrier
from .pnorm import PNorm as PNorm
from .potential import (
    BoundedPotential as BoundedPotential,
)
from .potential import (
    ConvexPotential as ConvexPotential,
)
from .potential import (
    InputConvexPotential as InputConvexPotential,
)
from .quadratic import Quadratic as Quadratic
