from .base import (
    Geometry as Geometry,
)
from .base import (
    GradientStep as GradientStep,
)
from .base import (
    Outputs as Outputs,
)
from .base import (
    Pull as Pull,
)
from .base import (
    StepRule as StepRule,
)
from .base import (
    build as build,
)
from .base import (
    geometries as geometries,
)
from .certified import Certified as Certified
from .ecml import ECML as ECML
from .maml import MAML as MAML
from .metacurvature import (
    CurvatureStep as CurvatureStep,
)
from .metacurvature import (
    MetaCurvature as MetaCurvature,
)
from .metakfo import (
    KroneckerStep as KroneckerStep,
)
from .metakfo import (
    MetaKFO as MetaKFO,
)
from .metamida import (
    MetaMiDA as MetaMiDA,
)
from .metamida import (
    PublishedMetaMiDA as PublishedMetaMiDA,
)
from .metasgd import (
    DiagonalStep as DiagonalStep,
)
from .metasgd import (
    MetaSGD as MetaSGD,
)
from .mtnet import (
    MaskedStep as MaskedStep,
)
from .mtnet import (
    MTNet as MTNet,
)
from .potential import Potential as Potential
from .prior import Prior as Prior
from .rules import (
    BlockDualStep as BlockDualStep,
)
from .rules import (
    PullbackStep as PullbackStep,
)
from .rules import (
    block_bounds as block_bounds,
)
from .rules import (
    block_rates as block_rates,
)
from .warpgrad import WarpGrad as WarpGrad
