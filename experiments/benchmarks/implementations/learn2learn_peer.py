"""learn2learn: its ``MAML`` class; the class alone, from the package's own files, where the whole
cannot be imported.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from torch.nn.functional import cross_entropy

from experiments.benchmarks.case import Work
from experiments.benchmarks.implementations import Variant, gradients, implementations
from experiments.benchmarks.network import Conv4
from mdtheory.core.types import Episode, Params


@functools.cache
def maml_class() -> Any:
    """``learn2learn.algorithms.MAML``; without the start-up code of the packages around it where
    that fails.

    The sources of release 0.2.0 were translated from Cython for older Pythons, and its start
    imports gym and others; the class itself needs neither. ``ImportError`` where no such package is
    on the path.
    """
    try:
        return importlib.import_module("learn2learn").algorithms.MAML
    except ImportError:
        for name in [name for name in sys.modules if name.split(".")[0] == "learn2learn"]:
            del sys.modules[name]
        for name in ("learn2learn", "learn2learn.algorithms"):
            spec = find_spec(name)
            if spec is None or spec.submodule_search_locations is None:
                raise
            bare = ModuleType(name)
            bare.__path__ = list(spec.submodule_search_locations)
            sys.modules[name] = bare
        return importlib.import_module("learn2learn.algorithms.maml").MAML


@implementations.register("learn2learn")
class Learn2Learn:
    """``clone`` and ``adapt``."""

    methods = ("maml",)
    variants = (Variant(),)
    package = "learn2learn"

    def __init__(self, work: Work, weights: Params):
        self.size = work.size
        self.network = Conv4(work.size, weights)
        self.learner = maml_class()(self.network, lr=work.size.task_lr, first_order=False)

    def meta_gradient(self, episodes: Sequence[Episode]) -> Params:
        """By backward passes, task after task."""
        for episode in episodes:
            learner = self.learner.clone()
            for _ in range(self.size.n_steps):
                learner.adapt(cross_entropy(learner(episode.support_x), episode.support_y))
            (cross_entropy(learner(episode.query_x), episode.query_y) / len(episodes)).backward()
        return gradients(dict(self.network.named_parameters()))
