from .learner import (
    AdaptedModel as AdaptedModel,
)
from .learner import (
    MetaLearner as MetaLearner,
)
from .trainer import (
    MetaTrainer as MetaTrainer,
)
from .trainer import (
    Validation as Validation,
)
