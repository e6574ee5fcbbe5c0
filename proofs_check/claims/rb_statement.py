r"""RB, third file: the library's enforcement and descent, and what is printed.

The proofs stand in the first two files.
"""

from __future__ import annotations

from itertools import pairwise

import sympy as sp
import torch
from hypothesis import strategies as st

from mdtheory import descend
from mdtheory.geometry.base import Geometry
from proofs_check.claim import Formula
from proofs_check.claims.rb_certified_iaf import (
    MODULUS,
    certified,
    claim,
    constant_coupling,
    library_certificate,
)
from proofs_check.claims.t6_descent import DESCENT
from proofs_check.run import Run
from proofs_check.tools import iaf
from proofs_check.tools.models import vector
from proofs_check.tools.strategies import for_all, seeds


@claim.check("exact", about="printed", part="scaling")
def library_enforces(run: Run, *, promised: float = 0.1) -> None:
    """The library's certificate stays inside (m, M) = (.1, 4) for parameters up to 10^3, and comes
    near its own limits.
    """
    lows, highs = [], []
    for seed in range(6):
        for spread in (1.0, 1e3):
            low, high = library_certificate(certified(seed, spread, kronecker=seed % 2 == 0))
            run.at_most(promised, low, what="m", slack=1e-12)
            run.at_most(high, 4.0, what="M", slack=1e-12)
            lows.append(low)
            highs.append(high)
    run.quantity(
        "least certified m, constructor's m=0.1",
        min(lows),
        tolerance=0.01,
        meaning="parameters up to 10^3",
    )
    run.quantity(
        "largest certified M, constructor's M=4",
        max(highs),
        tolerance=0.2,
        meaning="parameters up to 10^3",
    )


library_enforces.mutant("m = 0.5", promised=0.5)


@claim.check("property", about="printed", part="descent")
def library_descends(run: Run, *, share: float = 1.0) -> None:
    """The library's solver with a certified map and alpha = m/(LM^2): at least the promised
    decrease, at every step.
    """

    @for_all(seed=seeds(), spread=st.sampled_from([0.0, 0.3, 3.0]))
    def _(seed: int, spread: float) -> None:
        map = certified(seed % 1000, spread, kronecker=False)
        low, high = library_certificate(map)
        target, big_l = map.random("rb", "t", seed), 1.8

        def f(phi):
            return 0.5 * (phi - target).square().sum() + 0.2 * torch.cos(2 * phi).sum()

        alpha = low / (big_l * high**2)
        points = descend(
            f, map.random("rb", "s", seed), task_lr=alpha, n_steps=3, geometry=Geometry(map=map.map)
        )
        for before, after in pairwise(points):
            u = torch.func.grad(f)(before)
            promised = share * low**2 / (2 * big_l * high**2) * float(u @ u)
            run.at_most(
                float(f(after) - f(before)), -promised, slack=1e-13, what="change of the loss"
            )


library_descends.mutant("a hundred times the decrease", share=100.0)


@claim.check("exact", about="printed", part="sharp")
def stated_sharp(run: Run, *, stated: Formula) -> None:
    """Constant couplings through the library, B = 2..5; for every B the vector of ones has the
    printed eigenvalue, and the general modulus at their eta is the same number.
    """
    for blocks in range(2, 6):
        start = torch.zeros(blocks, dtype=torch.float64)
        found = iaf.least(constant_coupling(blocks, 0.3, 0.8).jacobian(start))
        run.stands(stated, {stated.left: found, r"a_{\min}": 0.8, r"\kappa": 0.3, "B": blocks},
                   slack=1e-12)  # fmt: skip
    b, kappa = sp.Symbol("B", integer=True, positive=True), sp.Symbol(r"\kappa", positive=True)
    names = {one.name: one for one in MODULUS.right.free_symbols}
    eta = kappa * sp.sqrt(b * (b - 1) / 2)
    general = MODULUS.right.subs({names[r"\eta"]: eta, names[r"\tau_-"]: 0})
    below = sp.Symbol("n", positive=True)  # B - 1
    run.zero(sp.simplify((general - stated.right).subs(b, below + 1)), "the two moduli, every B")
    ones = names[r"a_{\min}"] - (b - 1) * kappa / 2  # a row of sym J, summed; the rest have a + k/2
    run.zero(ones - stated.right, "the least eigenvalue, every B")


@claim.check("symbolic", about="printed", part="form")
def stated_gates(run: Run, *, stated: Formula) -> None:
    """Both slopes at 0, where they are largest (slopes_of_the_gates)."""
    x = sp.Symbol("x", real=True)
    run.stands(stated, {stated.left: sp.diff(sp.tanh(x / 2), x).subs(x, 0)})
    slope = sp.diff(1 / (1 + sp.exp(-x)), x).subs(x, 0)
    run.zero(slope - stated.terms["sigmoid"], "of the sigmoid")


@claim.check("symbolic", about="printed", part="scaling")
def stated_scaling(run: Run, *, stated: Formula) -> None:
    """The printed modulus with eta times the printed factor is m."""
    names = {one.name: one for one in MODULUS.right.free_symbols}
    eta, m = names[r"\eta"], sp.Symbol("m", positive=True)
    run.zero(sp.simplify(MODULUS.right.subs(eta, stated.right * eta) - m), "the modulus")


@claim.check("exact", about="printed", part="inverse")
def stated_inverse(run: Run, *, stated: Formula) -> None:
    """Diagonal maps: attained by the slope m, strict where all slopes are above it."""
    for slopes, m, tight in (((0.5, 2.0), 0.5, True), ((3.0, 4.0), 2.0, False)):
        found = iaf.norm(torch.diag(1 / vector(*slopes)))
        run.stands(stated, {stated.left: found, "m": m}, slack=1e-12)
        if tight:
            run.attained(stated, {stated.left: found, "m": m}, tolerance=1e-12)


@claim.check("symbolic", about="printed", part="descent")
def stated_rate(run: Run, *, stated: Formula) -> None:
    """T6's printed change is negative just where the printed condition says so."""
    names = {one.name: one for one in DESCENT.right.free_symbols}
    at = {names["m"]: 2, names["M"]: 3, names["L"]: sp.Rational(1, 2), names[r"\|u\|"]: 1}
    for alpha in (sp.Rational(1, 5), sp.Rational(3, 5), sp.Rational(4, 5), 1, 2):
        change = DESCENT.right.subs({**at, names[r"\alpha"]: alpha})
        here = {r"\alpha": alpha, "m": 2, "M": 3, "L": sp.Rational(1, 2)}
        run.decides(stated, here, bool(change < 0))
