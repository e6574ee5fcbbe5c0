"""The task level: tasks, the problem, its solver, and estimators of the meta-gradient."""

from mdtheory.inner.problem import Problem
from mdtheory.inner.solver import Trace, descend, solve, states, trace
from mdtheory.inner.task import EpisodeTask, FunctionTask, Task

__all__ = [
    "EpisodeTask",
    "FunctionTask",
    "Problem",
    "Task",
    "Trace",
    "descend",
    "solve",
    "states",
    "trace",
]
