"""Every registered geometry, and the library's own settings as the older tests call them."""

from __future__ import annotations

from mdtheory.contract.setting import MODELS, Setting, distance, largest
from mdtheory.core.types import Episode
from mdtheory.geometry import Geometry, geometries
from mdtheory.meta import MetaLearner

__all__ = ["MODELS", "SLUGS", "build", "distance", "episodes_of", "largest", "learner_of"]

VARIANTS = {
    "metasgd-free": ("metasgd", {"form": "free"}),
    "metamida-bounded": ("metamida", {"scale": "bounded"}),
}
SLUGS = [*geometries.names(), *VARIANTS]


def build(slug: str) -> Geometry:
    name, options = VARIANTS.get(slug, (slug, {}))
    return geometries.get(name)(**options)


def learner_of(
    slug: str, model: str, estimator: str = "unrolled", **options: object
) -> MetaLearner:
    """A float64 learner with live (not neutral) meta-parameters, always the same."""
    return Setting(lambda: build(slug), model).learner(estimator, **options)


def episodes_of(model: str, n_tasks: int = 3) -> list[Episode]:
    """Random tasks of the model's input shape."""
    return Setting(Geometry, model).episodes(n_tasks)
