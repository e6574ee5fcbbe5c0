"""Meta-learning with learned loss geometries, and the referee that checks its theory.

Everything public is an attribute, loaded when it is first used: ``dir(mdtheory)`` lists the names.

>>> import torch, mdtheory
>>> tasks = mdtheory.EpisodeStream(
...     mdtheory.GlyphSet(), split="train", seed=0, n_way=5, n_shot=1, n_query=5
... )
>>> network = mdtheory.models.Conv4(in_channels=1, image_size=28, n_way=5, channels=4)
>>> learner = mdtheory.MetaLearner(network, mdtheory.geometry.MetaSGD(), n_steps=2)
>>> learner.backward([tasks(0), tasks(1)]).stats["query_loss"].shape
torch.Size([2])
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
