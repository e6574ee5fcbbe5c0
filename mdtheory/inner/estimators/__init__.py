"""Estimators of the meta-gradient; each declares the surrogate whose exact gradient it returns."""

from mdtheory.inner.estimators.base import Estimator, TaskGradient, estimators

__all__ = ["Estimator", "TaskGradient", "estimators"]
