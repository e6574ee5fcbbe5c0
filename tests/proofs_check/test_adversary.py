"""The search for broken certificates: attains what is attainable, breaks what is false, and says so
in the table.
"""

from __future__ import annotations

import math

import pytest
import torch

from mdtheory.maps.iaf.certified_forms import CertifiedMLPIAF
from mdtheory.maps.identity import Identity
from mdtheory.maps.potential.icnn import InputConvexPotential
from mdtheory.maps.potential.ridge import ConvexPotential
from proofs_check.studies.certificates import page, rows
from proofs_check.tools.adversary import Searched, search
from tests.maps.certified_cases import built, meta_of, perturbed, tiny_anchor


def saturated(kind, sign=1):
    """One vector, all amplitudes and rates at one end, all units centred at 0: the certificate is
    attained there.
    """
    made = built(kind(rank=4, units=3), {"w": torch.ones(4, dtype=torch.float64)})
    with torch.no_grad():
        made.quadratic.fill_(sign * 1e3)
        made.amplitude.fill_(sign * 1e3)
    return made, meta_of(made), {"w": torch.ones(4, dtype=torch.float64)}


class Overdrawn(ConvexPotential):
    """Amplitudes of twice the budget that the certificate counts."""

    def _amplitudes(self, meta):
        return (1 if self.counting else 2) * super()._amplitudes(meta)

    counting = False

    def learned_curvature(self, meta):
        self.counting = True
        bounds = super().learned_curvature(meta)
        self.counting = False
        return bounds


@pytest.mark.parametrize("sign", [-1, 1])
def test_it_finds_the_point_where_the_certificate_is_attained(sign):
    one = search(*saturated(ConvexPotential, sign), [], n=0, steps=2)
    assert one.holds
    assert one.ratios[(1 + sign) // 2] < 1.1


def test_it_breaks_a_false_certificate():
    one = search(*saturated(Overdrawn), [], n=0, steps=2)
    assert not one.holds and "BROKEN" in page({"overdrawn": one}, "")


@pytest.mark.parametrize(
    "make",
    [
        lambda: ConvexPotential(rank=2, units=4),
        lambda: InputConvexPotential(width=4),
        lambda: CertifiedMLPIAF(partition=1, hidden=4, code=3),
    ],
    ids=["ridge", "icnn", "certified"],
)
def test_certificates_of_disturbed_maps_hold(make):
    made = perturbed(built(make(), tiny_anchor()))
    found = dict(rows("map", made, meta_of(made), tiny_anchor(), [tiny_anchor()], n=1, steps=3))
    assert len(found) == (1 if isinstance(made, CertifiedMLPIAF) else 2)
    assert all(one.holds for one in found.values())
    assert found["map"].found[0] < 1 < found["map"].found[1]


def test_the_table_compares_distances_from_one():
    one = Searched((0.5, 3.0), (0.75, 2.0))
    assert one.holds and one.ratios == (2.0, 2.0)
    assert not Searched((0.5, 3.0), (0.4, 2.0)).holds and not Searched((0.5, 3.0), (0.7, 3.1)).holds
    assert math.isnan(Searched((1.0, 2.0), (1.0, 2.0)).ratios[0])
    assert "| a map | [0.5000, 3.0000] | [0.7500, 2.0000] | 2.00 | 2.00 | yes |" in page(
        {"a map": one}, "Somewhere."
    )


def test_what_has_no_certificate_is_refused():
    with pytest.raises(ValueError, match="map must have a certificate, got Identity"):
        search(Identity(), {}, tiny_anchor(), [])
