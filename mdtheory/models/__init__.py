"""Networks, one per file, the norm layer that is exact under every transform, and the door for a
user's own module.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
