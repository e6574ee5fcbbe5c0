"""Estimators of the meta-gradient; each declares the surrogate whose exact gradient it returns.

shapes: a gradient has the meta-parameter's.

>>> import mdtheory
>>> mdtheory.estimators.estimators.names()
['first_order', 'implicit', 'stepwise', 'unrolled']
>>> type(mdtheory.estimators.build("stepwise")) is mdtheory.estimators.Stepwise
True
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
