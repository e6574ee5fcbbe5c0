from . import checkpoint as checkpoint
from .learner import (
    AdaptedModel as AdaptedModel,
)
from . import checkpoint as checkpoint
from .learner import (
    MetaLearner as MetaLearner,
)
from .trainer import (
    MetaTrainer as MetaTrainer,
)
from .trainer import (
    Validation as Validation,
)
