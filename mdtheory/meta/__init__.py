"""The meta level: the learner, its training, checkpoints and evaluation.

units: training is counted in meta-iterations, evaluation in tasks.

>>> import torch
>>> from mdtheory.meta import MetaLearner
>>> learner = MetaLearner(torch.nn.Linear(3, 2), "metasgd")
>>> sum(value.numel() for value in learner.meta().values())  # a start, and a rate for each
16
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
