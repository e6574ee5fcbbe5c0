"""Estimators of the meta-gradient; each declares the surrogate whose exact gradient it returns."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
