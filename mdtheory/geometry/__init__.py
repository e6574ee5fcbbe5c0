"""Loss geometries: how a gradient moves the state, and how a state becomes a point.

shapes: a state, a point and a gradient have those of the adapted parameters.

>>> import mdtheory
>>> mdtheory.geometry.geometries.names()[:3]
['certified', 'ecml', 'maml']
>>> type(mdtheory.geometry.build("metamida", form="mlp")) is mdtheory.geometry.MetaMiDA
True
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
