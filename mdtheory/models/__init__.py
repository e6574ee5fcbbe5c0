"""Networks, one per file, and the norm layer that is exact under every transform."""

from mdtheory.models.base import models
from mdtheory.models.norm import POLICIES, BatchStatNorm, collecting_statistics, set_policy, statistics_over_first

__all__ = ["POLICIES", "BatchStatNorm", "collecting_statistics", "models", "set_policy", "statistics_over_first"]
