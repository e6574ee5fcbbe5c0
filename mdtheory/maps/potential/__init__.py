"""Learned convex potentials: mirror maps whose curvature is bounded for every value of their
parameters.
"""

from mdtheory.maps.potential.base import BoundedPotential
from mdtheory.maps.potential.icnn import InputConvexPotential
from mdtheory.maps.potential.ridge import ConvexPotential

__all__ = ["BoundedPotential", "ConvexPotential", "InputConvexPotential"]
