"""The task level: the problem, its solver, and estimators of the meta-gradient."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
