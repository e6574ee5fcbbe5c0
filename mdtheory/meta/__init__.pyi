from . import checkpoint as checkpoint
from .adapted import AdaptedModel as AdaptedModel
from .events import (
    Listener as Listener,
    listeners as listeners,
)
from .learner import MetaLearner as MetaLearner
from .trainer import (
    MetaTrainer as MetaTrainer,
    RunInfo as RunInfo,
    TrainerOptions as TrainerOptions,
    Validation as Validation,
)
