from .base import (
    Estimator as Estimator,
    TaskGradient as TaskGradient,
    build as build,
    estimators as estimators,
)
from .implicit import Implicit as Implicit
from .stepwise import Stepwise as Stepwise
from .unrolled import (
    FirstOrder as FirstOrder,
    Unrolled as Unrolled,
)
