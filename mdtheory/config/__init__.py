"""A run as a file: TOML in, one frozen object out, and one clear sentence for whatever is wrong.

units: those of the keys, e.g. ``meta.iterations`` in meta-iterations.

>>> from mdtheory.config import parse
>>> parse({"geometry": {"name": "metasgd"}, "task": {"n_steps": 3}}).task.n_steps
3
"""

from mdtheory.config.construction import construct, open_data
from mdtheory.config.reading import load, override, parse
from mdtheory.config.schema import (
    DataConfig,
    GeometryConfig,
    MetaConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    RunConfig,
    SchedulerConfig,
    TaskConfig,
    TestConfig,
    ValidationConfig,
)

__all__ = [
    "DataConfig",
    "GeometryConfig",
    "MetaConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "OptimizerConfig",
    "RunConfig",
    "SchedulerConfig",
    "TaskConfig",
    "TestConfig",
    "ValidationConfig",
    "construct",
    "load",
    "open_data",
    "override",
    "parse",
]
