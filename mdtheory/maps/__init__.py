"""Maps between the dual variable z and the point phi; the type says what is true of each.

shapes: a point has those of its dual variable.

>>> import mdtheory
>>> mdtheory.maps.maps.names()[:3], mdtheory.maps.build("entropy")
(['barrier', 'entropy', 'hypentropy'], NegativeEntropy())
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
