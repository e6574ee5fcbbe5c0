"""What every other part stands on: types, trees of tensors, seeds, registries, objectives.

Parameters, states and gradients are flat dictionaries from dotted names to tensors of any
shapes.

>>> import torch
>>> from mdtheory.core import tree
>>> x = {"w": torch.tensor([3.0, 4.0])}
>>> tree.norm(x), tree.axpy(2.0, x, x)["w"]
(tensor(5.), tensor([ 9., 12.]))
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
