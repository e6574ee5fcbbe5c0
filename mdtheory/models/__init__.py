"""Networks, one per file, the norm layer that is exact under every transform, and the door for a
user's own module.
"""

from mdtheory.models.base import models
from mdtheory.models.norm import (
    POLICIES,
    BatchStatNorm,
    FixedStatNorm,
    collecting_statistics,
    set_policy,
    statistics_over_first,
)
from mdtheory.models.user.prepare import prepare
from mdtheory.models.user.probe import probe

__all__ = [
    "POLICIES",
    "BatchStatNorm",
    "FixedStatNorm",
    "collecting_statistics",
    "models",
    "prepare",
    "probe",
    "set_policy",
    "statistics_over_first",
]
