"""Maps between the dual variable z and the point phi; the type says what is true of each."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
