"""Figures and contact sheets, with the same bytes every time.

shapes: paths (n_tasks, K + 1), pictures (H, W, 3).

>>> import numpy as np
>>> from mdtheory.figures import Paths, adaptation_figure
>>> paths = Paths(support_loss=np.ones((4, 6)), grad_norm=np.ones((4, 6)))
>>> figure = adaptation_figure({"trained": {"maml": paths}}, "support_loss", trained_steps=5)
>>> len(figure.axes)
1
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
