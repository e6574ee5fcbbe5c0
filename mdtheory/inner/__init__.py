"""The task level: the problem, its solver, and estimators of the meta-gradient."""

from mdtheory.inner.problem import Problem
from mdtheory.inner.solver import Trace, solve, trace

__all__ = ["Problem", "Trace", "solve", "trace"]
