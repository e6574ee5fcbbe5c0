"""The referee: every mathematical claim of the poster executed on the library's own objects, with a
computed verdict.

How to write a claim, see :mod:`proofs_check.claim`; how a verdict follows from the checks, see
:mod:`proofs_check.verdict`; ``python -m proofs_check`` runs them all.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, ["claim", "verdict"])
