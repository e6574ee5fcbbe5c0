"""The meta level: the learner, its training, checkpoints and evaluation."""

from mdtheory.meta.learner import AdaptedModel, MetaLearner

__all__ = ["AdaptedModel", "MetaLearner"]
