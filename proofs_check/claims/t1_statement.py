r"""T1, second file: what is printed, falsified in every way, on the library's gated map.

The proofs stand in the first file, with the statement.
"""

from __future__ import annotations

import math

from proofs_check.claim import Formula
from proofs_check.claims.t1_triangular import claim
from proofs_check.run import Run
from proofs_check.tools import iaf
from proofs_check.tools.models import vector


@claim.check("exact", about="printed", part="p_function")
def stated_product(run: Run, *, stated: Formula) -> None:
    """The library's gated map between points with equal first blocks, against the printed product
    with its scale read off the Jacobian.
    """
    map = iaf.gated()
    for prefix, z, w in ((0.7, 2.0, -1.0), (-1.5, 0.25, 3.0)):
        here, there = vector(prefix, z), vector(prefix, w)
        found = (z - w) * float(map.at(here)[1] - map.at(there)[1])
        scale = float(map.jacobian(here)[1, 1])
        at = {stated.left: found, "s_c(z_{<i})": scale, "z_c-z'_c": z - w}
        run.stands(stated, at, slack=1e-12)


@claim.check("exact", about="printed", part="jacobian")
def stated_log_det(run: Run, *, stated: Formula) -> None:
    """The library's log-determinant of (z_1/2, z_2 sigmoid z_1) against the sum written out."""
    for first in (-1.0, 0.7, 2.0):
        total = math.log(0.5) - math.log(1 + math.exp(-first))
        found = iaf.gated().log_abs_det(vector(first, 3.0))
        run.stands(stated, {stated.left: found, r"\sum_c\log s_c": total}, slack=1e-12)


@claim.check("exact", about="printed", part="inverse")
def stated_inverse(run: Run, *, stated: Formula) -> None:
    """The slope of the library's inverse in its own coordinate against the scale there."""
    map = iaf.gated()
    for z in (vector(0.7, 2.0), vector(-1.5, 0.25)):
        slope = float(map.inverted().jacobian(map.at(z))[1, 1])
        at = {stated.left: slope, "s_c": float(map.jacobian(z)[1, 1])}
        run.stands(stated, at, slack=1e-9)
