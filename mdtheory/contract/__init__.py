"""What everything registered owes to the rest, as functions that the tests and ``mdtheory check``
share: geometries, maps, networks, estimators, data sources, readers.

units: errors are relative, in float64.

>>> import mdtheory
>>> from mdtheory.contract import check_map
>>> {finding.verdict for finding in check_map(mdtheory.maps.NegativeEntropy)} <= {"holds"}
True
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
