"""What every geometry owes to the solver, as functions that the tests and ``mdtheory check``
share.

units: errors are relative, in float64.

>>> import mdtheory
>>> from mdtheory.contract import Setting, examine
>>> setting = Setting(mdtheory.geometry.MAML, "mlp")
>>> examine(setting, "neutral").verdict
'holds'
"""

import lazy_loader

from mdtheory.contract.check import Finding, check, examine
from mdtheory.contract.hooks import HOOKS
from mdtheory.contract.setting import MODELS, Broken, NotOwed, Setting

__getattr__, _, _ = lazy_loader.attach(__name__, ["strategies"])  # these need hypothesis
__all__ = [
    "HOOKS",
    "MODELS",
    "Broken",
    "Finding",
    "NotOwed",
    "Setting",
    "check",
    "examine",
    "strategies",
]
