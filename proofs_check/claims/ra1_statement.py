r"""RA1, second file: what is printed, falsified in every way, and the bumps of the budget.

The proofs stand in the first file, with the statement.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import sympy as sp

from proofs_check.claim import Formula
from proofs_check.claims.ra1_ridge_potential import (
    FUNCTIONAL,
    applied,
    claim,
    curvature,
    positive,
)
from proofs_check.run import Run
from proofs_check.tools import ridges

_MU, _L = sp.symbols(r"\mu L", positive=True)


@claim.check("exact", about="printed", part="zonoid")
def stated_error(run: Run, *, stated: Formula) -> None:
    """The functional's value on the triangle is the printed bound, exactly; a linear program comes
    within 1e-9 of it from above, and a coarser one stays away.
    """
    value = applied(lambda z: positive(z[0] + positive(z[1] - z[0])), FUNCTIONAL)
    run.stands(stated, {stated.left: value})
    grid = ridges.polar(8, 24)
    for angles, offsets in ((12, 7), (8, 5)):
        _, fit = ridges.best_fit(ridges.triangle, angles=angles, offsets=offsets, points=grid)
        at = {stated.left: ridges.sup_error(fit)}
        run.stands(stated, at, slack=1e-9)
        if angles == 12:
            run.attained(stated, at, tolerance=1e-7)


@claim.check("symbolic", about="printed", part="curvature")
def stated_curvature(run: Run, *, stated: Formula) -> None:
    """mu + (L - mu)/Gamma c psi'' W^2 with Gamma = psi-bar c W^2: the printed ends at psi'' =
    psi-bar and 0, and strictly between them at half of it.
    """
    psi, c, w, bend = sp.symbols("psi c W b", positive=True)
    whole = _MU + (_L - _MU) / (psi * c * w**2) * c * bend * w**2
    run.zero(whole.subs(bend, psi) - stated.right, "the largest")
    run.zero(sp.limit(whole, bend, 0) - stated.terms["low"], "the least")
    middle = sp.simplify(whole.subs(bend, psi / 2)).subs({_MU: 1, _L: 5})
    run.stands(stated, {stated.left: middle, "L": 5})


@claim.check("symbolic", about="printed", part="mirror")
def stated_rate(run: Run, *, stated: Formula) -> None:
    """-alpha t + alpha^2 L_f t^2/2 at t = L is negative just where the printed condition says so;
    h'' = 1/t is least at t = L.
    """
    t = sp.Symbol("t", positive=True)
    run.zero((1 / t).subs(t, _L) - stated.terms["modulus"], "the modulus of h")
    for share in (sp.Rational(1, 3), sp.Rational(3, 4), sp.Rational(9, 10), sp.Rational(11, 10), 3):
        alpha = share * 2 / sp.Integer(3 * 2)
        change = -alpha * 3 + alpha**2 * 2 * 9 / sp.Integer(2)
        run.decides(stated, {r"\alpha": alpha, "L": 3, "L_f": 2}, bool(change < 0))


def softplus_bend(t: float) -> float:
    """4 psi'' of softplus, 1 at most."""
    return 1 / math.cosh(t / 2) ** 2


@claim.check("exact", about="printed", part="budget")
def between_two_bumps(run: Run, *, bend: Callable[[float], float] = softplus_bend) -> None:
    """b(5/2) >= min(b(1/2), b(9/2)) for b(t) = psi''(w (t - c)), ten widths and nineteen centres:
    the step that needs a psi'' with one mode. With the target's own curvature as psi'', one unit
    would be the target.
    """
    for width in np.geomspace(0.1, 10, 10):
        for centre in np.linspace(-4, 5, 19):
            low, middle, high = (bend(width * (t - centre)) for t in (0.5, 2.5, 4.5))
            run.at_most(min(low, high), middle, what=f"w = {width:.3g}, c = {centre}", slack=1e-15)


between_two_bumps.mutant("psi'' with two modes", bend=lambda t: float(curvature(np.array(2.5 + t))))
