"""Loss geometries: how a gradient moves the state, and how a state becomes a point."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
