"""Loss geometries: how a gradient moves the state, and how a state becomes a point."""

from mdtheory.geometry.base import Geometry, GradientStep, StepRule, geometries

__all__ = ["Geometry", "GradientStep", "StepRule", "geometries"]
