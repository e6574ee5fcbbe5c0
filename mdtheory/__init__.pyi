"""The public face: what `import mdtheory` gives. The names stand here once; see lazy_loader."""

from . import (
    config as config,
)
from . import (
    contract as contract,
)
from . import (
    core as core,
)
from . import (
    data as data,
)
from . import (
    figures as figures,
)
from . import (
    geometry as geometry,
)
from . import (
    inner as inner,
)
from . import (
    maps as maps,
)
from . import (
    meta as meta,
)
from . import (
    models as models,
)
from .core.objectives import Objective as Objective
from .core.types import (
    Episode as Episode,
)
from .core.types import (
    Estimate as Estimate,
)
from .core.types import (
    MetaGradient as MetaGradient,
)
from .data import (
    ClassImages as ClassImages,
)
from .data import (
    EpisodeStream as EpisodeStream,
)
from .data import (
    GlyphSet as GlyphSet,
)
from .data import (
    open_class_folders as open_class_folders,
)
from .data import (
    open_mini_imagenet as open_mini_imagenet,
)
from .geometry import (
    Geometry as Geometry,
)
from .geometry import (
    GradientStep as GradientStep,
)
from .geometry import (
    StepRule as StepRule,
)
from .inner import (
    Problem as Problem,
)
from .inner import (
    Trace as Trace,
)
from .inner import (
    estimators as estimators,
)
from .inner.estimators import Estimator as Estimator
from .maps import (
    DualMap as DualMap,
)
from .maps import (
    MirrorMap as MirrorMap,
)
from .meta import (
    AdaptedModel as AdaptedModel,
)
from .meta import (
    MetaLearner as MetaLearner,
)
from .meta import (
    MetaTrainer as MetaTrainer,
)
from .meta.evaluate import (
    Scores as Scores,
)
from .meta.evaluate import (
    estimate as estimate,
)
from .meta.evaluate import (
    evaluate as evaluate,
)
from .meta.evaluate import (
    paired as paired,
)
from .run.load import load as load

__version__: str
