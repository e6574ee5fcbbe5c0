"""Maps between the dual variable z and the point phi; the type says what is true of each."""

from mdtheory.maps.base import DualMap, MirrorMap

__all__ = ["DualMap", "MirrorMap"]
