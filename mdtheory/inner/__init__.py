"""The task level: tasks, the problem, its solver, and estimators of the meta-gradient.

shapes: losses (), along a trajectory (K + 1,).

>>> import torch, mdtheory
>>> learner = mdtheory.MetaLearner(torch.nn.Linear(2, 2), n_steps=3)
>>> x, y = torch.eye(2), torch.tensor([0, 1])
>>> task = mdtheory.Episode(x, y, x, y)
>>> sorted(mdtheory.inner.solve(learner.problem(), learner.meta(), learner.task(task)))
['z.bias', 'z.weight']
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
