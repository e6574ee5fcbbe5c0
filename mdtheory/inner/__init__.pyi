from . import estimators as estimators
from .problem import Problem as Problem
from .solver import (
    Trace as Trace,
)
from .solver import (
    solve as solve,
)
from .solver import (
    trace as trace,
)
