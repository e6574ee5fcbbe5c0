"""Images, episodes and synthetic tasks. Nothing heavy is imported before it is asked for.

shapes: images (n, channels, height, width), float32 in [0, 1]; labels (n,), int64.

>>> from mdtheory.data import SinusoidStream
>>> SinusoidStream(seed=0, n_shot=10)(3).support_x.shape
torch.Size([10, 1])
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
