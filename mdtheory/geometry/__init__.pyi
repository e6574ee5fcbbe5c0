from .base import (
    Geometry as Geometry,
    GradientStep as GradientStep,
    Outputs as Outputs,
    Pullback as Pullback,
    StepRule as StepRule,
    build as build,
    geometries as geometries,
)
from .certified import Certified as Certified
from .ecml import ECML as ECML
from .maml import MAML as MAML
from .metacurvature import (
    CurvatureStep as CurvatureStep,
    MetaCurvature as MetaCurvature,
)
from .metakfo import (
    KroneckerStep as KroneckerStep,
    MetaKFO as MetaKFO,
)
from .metamida import (
    MetaMiDA as MetaMiDA,
    PublishedMetaMiDA as PublishedMetaMiDA,
)
from .metaproxnet import (
    MetaProxNet as MetaProxNet,
    UnrolledProx as UnrolledProx,
)
from .metasgd import (
    DiagonalStep as DiagonalStep,
    MetaSGD as MetaSGD,
)
from .mirror import Mirror as Mirror
from .mtnet import (
    MaskedStep as MaskedStep,
    MTNet as MTNet,
)
from .potential import Potential as Potential
from .prior import Prior as Prior
from .rules import (
    BlockDualStep as BlockDualStep,
    PullbackStep as PullbackStep,
    block_bounds as block_bounds,
    block_rates as block_rates,
)
from .warpgrad import WarpGrad as WarpGrad
