"""Networks, one per file, the norm layer that is exact under every transform, and the door for a
user's own module.

shapes: images (N, channels, height, width) -> scores (N, n_way).

>>> import torch, mdtheory
>>> network = mdtheory.models.Conv4(in_channels=1, image_size=28, n_way=5, channels=8)
>>> network(torch.rand(2, 1, 28, 28)).shape
torch.Size([2, 5])
>>> same = mdtheory.models.build("conv4", in_channels=1, image_size=28, n_way=5, channels=8)
>>> type(same) is mdtheory.models.Conv4
True
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
