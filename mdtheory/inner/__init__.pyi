from . import estimators as estimators
from .problem import Problem as Problem
from .solver import (
    Trace as Trace,
    descend as descend,
    solve as solve,
    states as states,
    trace as trace,
)
from .task import (
    EpisodeTask as EpisodeTask,
    FunctionTask as FunctionTask,
    Task as Task,
)
