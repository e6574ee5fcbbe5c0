"""How many test tasks there are without using an image twice.

Tasks are drawn with replacement from few classes, so an interval over all of them shrinks with
every new task although no new image is seen: it speaks of the sampler and not of the data (Lafargue
et al. 2024, arXiv 2409.02850). The interval without reuse takes the spread of all tasks and the
number of those that the test images suffice for.
"""

from __future__ import annotations

import math

import numpy as np

from mdtheory.config import RunConfig
from mdtheory.core.estimate import Estimate, estimate

TEST_IMAGES = {"mini-imagenet": 20 * 600, "omniglot": 659 * 20, "omniglot, characters": 423 * 20}
"""Source, and its split where that is named -> images of the test split, classes times images of
each; a drawing that is turned is no other one. Glyphs are drawn anew for every task.
"""


def tasks_without_reuse(config: RunConfig, n_query: int) -> int | None:
    """floor(images / (n_way (n_shot + n_query))); ``None`` where no image is ever used twice."""
    data, task = config.data, config.task
    images = TEST_IMAGES.get(", ".join(filter(None, [data.source, data.options.get("split")])))
    if images is None:
        return None
    return images // (task.n_way * (task.n_shot + n_query))


def without_reuse(values: np.ndarray, config: RunConfig, n_query: int) -> Estimate | None:
    """The mean of all tasks with the half-width that as many as there are without reuse would
    give; ``n`` is their number. shape: (n_tasks,)
    """
    most = tasks_without_reuse(config, n_query)
    if most is None:
        return None
    every = estimate(values)
    n = min(most, every.n)
    return Estimate(every.mean, every.half_width * math.sqrt(every.n / n), n)
