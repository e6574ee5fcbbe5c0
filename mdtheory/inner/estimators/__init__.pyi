from .base import (
    Estimator as Estimator,
)
from .base import (
    TaskGradient as TaskGradient,
)
from .base import (
    build as build,
)
from .base import (
    estimators as estimators,
)
from .implicit import Implicit as Implicit
from .stepwise import Stepwise as Stepwise
from .unrolled import (
    FirstOrder as FirstOrder,
)
from .unrolled import (
    Unrolled as Unrolled,
)
