r"""C05, third file: what is printed, falsified in every way, against the library and exact sums.

The proofs stand in the first file, with the statement.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import sympy as sp

from mdtheory import descend
from proofs_check import formula
from proofs_check.claim import Formula
from proofs_check.claims.c05_implicit_prior import claim
from proofs_check.run import Run
from proofs_check.tools import prior
from proofs_check.tools.models import vector

RATES = ((Fraction(2, 3), Fraction(1, 2)), (Fraction(1, 5), Fraction(-3)))  # alpha, eta
STEPS = (1, 2, 3)


def summed(alpha: Fraction, eta: Fraction, n_steps: int) -> Fraction:
    """s_K, term by term."""
    return sum((alpha * (1 - alpha * eta) ** k for k in range(n_steps)), Fraction(0))


@claim.check("exact", part="quadratic")
def stated_weight(run: Run, *, stated: Formula) -> None:
    """GD on eta x^2/2 + x by hand in rationals: its end is stationary for the printed penalty with
    the printed weight, and -s_K is where it is.
    """
    for alpha, eta in RATES:
        for steps in STEPS:
            x = Fraction(0)
            for _ in range(steps):
                x -= alpha * (eta * x + 1)
            at = {r"\alpha": alpha, r"\eta": eta, "K": steps, "s_K": -x}
            total = formula.value(stated.terms["sum"], at)
            run.zero(total + sp.Rational(x), "where GD ends")
            weight = -1 / x - eta
            run.stands(stated, {**at, r"\lambda": weight})
            prox = 2 * stated.terms["prox"] * sp.Rational(weight) * sp.Rational(x)
            run.zero(sp.Rational(eta * x + 1) + prox, "stationarity")


@claim.check("exact", part="inverse")
def stated_sum(run: Run, *, stated: Formula) -> None:
    """s_K/r^K in rationals against the printed sum."""
    for alpha, eta in RATES:
        for steps in STEPS:
            inverse = summed(alpha, eta, steps) / (1 - alpha * eta) ** steps
            at = {r"\alpha": alpha, r"\eta": eta, "K": steps, r"\lambda": 1 / inverse}
            run.stands(stated, at)


@claim.check("exact", part="condition")
def stated_edge(run: Run, *, stated: Formula) -> None:
    """Signs of s_K for even K at alpha eta = 1/2 .. 5, and of odd K, which has none below zero."""
    for x in (Fraction(1, 2), Fraction(3, 2), Fraction(2), Fraction(5, 2), Fraction(5)):
        for steps in (2, 4):
            found = summed(Fraction(1), x, steps) > 0
            run.decides(stated, {r"\alpha": 1, r"\eta": x}, found)
        run.that(summed(Fraction(1), x, 3) > 0, f"K odd, alpha eta = {x}")


@claim.check("exact", part="one_step")
def stated_first_step(run: Run, *, stated: Formula) -> None:
    """eta + lambda_1 in rationals, with lambda_1 = r/s_1."""
    for alpha, eta in RATES:
        weight = (1 - alpha * eta) / summed(alpha, eta, 1)
        run.stands(stated, {r"\alpha": alpha, r"\eta": eta, r"\lambda_1": weight})


@claim.check("exact", part="nonconvex")
def stated_nonconvex_bound(run: Run, *, stated: Formula) -> None:
    """The library at curvature -L nearly attains the printed sum; a convex cubic stays below."""
    for curvature, tight in ((-1.0, True), (1.0, False)):
        for steps in (2, 4):
            gap = prior.deviation(
                prior.cubic(-2.0, curvature, 1e-6, 100.0), vector(0.0), alpha=0.5, n_steps=steps
            )
            at = {stated.left: gap, r"\rho": 1e-6, r"\alpha": 0.5, "G": 2, "L": 1, "K": steps}
            at[r"\gamma"] = formula.value(stated.terms["growth"], {r"\alpha": 0.5, "L": 1})
            run.stands(stated, at, slack=1e-12)
            if tight:
                run.attained(stated, at, tolerance=1e-3)


@claim.check("exact", part="true_loss")
def stated_true_loss(run: Run, *, stated: Formula) -> None:
    """The penalised minimiser of cubics by the library's GD: nearly at the printed distance, and
    nearer where the cubic ends early.
    """
    alpha, eta, rho = 0.5, 1.0, 1e-4
    for steps, until, tight in ((1, 4.0, True), (3, 4.0, True), (3, 0.5, False)):
        f = prior.cubic(-2.0, eta, rho, until)
        weight = float(prior.precision(np.array([[eta]]), alpha, steps)[0, 0])
        moved = 2.0 * (1 - (1 - alpha * eta) ** steps) / eta  # |S_K g|
        share = float(stated.terms["prox"]) * weight
        best = descend(
            lambda v, f=f, share=share: f(v) + share * v @ v,
            vector(0.0),
            task_lr=0.5 / (eta + weight),
            n_steps=60,
        )[-1]
        at = {stated.left: abs(float(best) - moved), r"\rho": rho, r"\|S_Kg\|": moved}
        at["m"] = eta + weight
        run.stands(stated, at, slack=1e-12)
        if tight:
            run.attained(stated, at, tolerance=1e-3)


@claim.check("exact", part="pgd")
def stated_preconditioned(run: Run, *, stated: Formula) -> None:
    """Preconditioned GD on h x^2/2 + x by hand in rationals ends at -1/(h + lambda), one
    eigenvalue.
    """
    for alpha, p, h in (
        (Fraction(1, 2), Fraction(3), Fraction(1, 4)),
        (Fraction(1, 3), Fraction(1, 2), Fraction(-2)),
    ):
        for steps in STEPS:
            x = Fraction(0)
            for _ in range(steps):
                x -= alpha * p * (h * x + 1)
            at = {r"\alpha": alpha, "P": p, "H": h, "I": 1, "K": steps}
            run.stands(stated, {**at, stated.left: 1 / (-1 / x - h)})
