"""Every registered estimator, map and network keeps its contract, by the functions that ``mdtheory
check`` runs.
"""

from __future__ import annotations

import pytest

from mdtheory.contract import estimator, map as map_contract, network
from mdtheory.inner.estimators import estimators
from mdtheory.maps.base import maps
from mdtheory.models.base import models


def broken(findings) -> list[str]:
    return [f"{one.property}: {one.said}" for one in findings if one.verdict == "broken"]


@pytest.mark.parametrize("slug", estimators.names())
def test_estimators(slug, device):
    assert broken(estimator.check_estimator(estimators.get(slug), device=device)) == []


@pytest.mark.parametrize("slug", maps.names())
def test_maps(slug):
    assert broken(map_contract.check_map(maps.get(slug))) == []


@pytest.mark.parametrize("slug", models.names())
def test_networks(slug, device):
    assert broken(network.check_network(models.get(slug), device=device)) == []
