from . import checkpoint as checkpoint
from .learner import (
    AdaptedModel as AdaptedModel,
    MetaLearner as MetaLearner,
)
from .trainer import (
    MetaTrainer as MetaTrainer,
    RunInfo as RunInfo,
    TrainerOptions as TrainerOptions,
    Validation as Validation,
)
