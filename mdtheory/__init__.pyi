"""The public face: what `import mdtheory` gives. The names stand here once; see lazy_loader."""

from . import (
    config as config,
    contract as contract,
    core as core,
    data as data,
    figures as figures,
    geometry as geometry,
    inner as inner,
    maps as maps,
    meta as meta,
    models as models,
)
from .core.estimate import Estimate as Estimate
from .core.objectives import Objective as Objective
from .core.types import (
    Episode as Episode,
    MetaGradient as MetaGradient,
)
from .data import (
    ClassImages as ClassImages,
    EpisodeStream as EpisodeStream,
    GlyphSet as GlyphSet,
    TaskSet as TaskSet,
    open_class_folders as open_class_folders,
    open_mini_imagenet as open_mini_imagenet,
)
from .geometry import (
    Geometry as Geometry,
    GradientStep as GradientStep,
    StepRule as StepRule,
)
from .inner import (
    EpisodeTask as EpisodeTask,
    FunctionTask as FunctionTask,
    Problem as Problem,
    Task as Task,
    Trace as Trace,
    descend as descend,
    estimators as estimators,
    states as states,
)
from .inner.estimators import Estimator as Estimator
from .maps import (
    DualMap as DualMap,
    MirrorMap as MirrorMap,
)
from .meta import (
    AdaptedModel as AdaptedModel,
    MetaLearner as MetaLearner,
    MetaTrainer as MetaTrainer,
    TrainerOptions as TrainerOptions,
)
from .meta.evaluate import (
    Scores as Scores,
    estimate as estimate,
    evaluate as evaluate,
    paired as paired,
)
from .run.load import load as load

__version__: str
