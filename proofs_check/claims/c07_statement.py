r"""C07, third file: parts a, c, d, e and h as they are printed.

The proofs stand in the first file, with the statement.
"""

from __future__ import annotations

import sympy as sp

from mdtheory import descend
from proofs_check.claim import Formula
from proofs_check.claims.c07_rates import STEPS, claim
from proofs_check.formula import value
from proofs_check.run import Run
from proofs_check.tools.extremal import power_iterate
from proofs_check.tools.models import vector


@claim.check("symbolic", part="c")
def stated_supremum(run: Run, *, stated: Formula) -> None:
    """mu/2 x^2 gives (1 - mu)^K at L = 1, which tends to the printed number as mu falls, for every
    K, and never exceeds it.
    """
    m, n = sp.Symbol("m", positive=True), sp.Symbol("K", integer=True, positive=True)
    run.zero(sp.limit((1 - m) ** n, m, 0) - stated.right, "the limit")
    run.that(stated.holds({stated.left: sp.limit((1 - m) ** n, m, 0)}), "the statement")


@claim.check("symbolic", part="d", covers="limit")
def stated_asymptote(run: Run, *, stated: Formula) -> None:
    """For a symbolic p: the printed x_K makes y = x^{-(p-2)} grow by alpha (p - 2) a step, as the
    step of the printed loss does in the limit; and x_K of x^4/4 at K = 20000.
    """
    p, alpha = sp.symbols(r"p \alpha", positive=True)
    k = sp.Symbol("K", integer=True, positive=True)
    x, t = sp.Symbol("x", positive=True), sp.Symbol("t", positive=True)
    slope = sp.simplify(sp.diff(stated.terms["loss"], x) / x ** (p - 1))  # 1: x_+ = x (1 - t)
    rise = sp.limit((alpha / t) * ((1 - slope * t) ** -(p - 2) - 1), t, 0)
    grown = sp.powdenest(stated.right ** -(p - 2), force=True)
    run.zero(sp.simplify(sp.diff(grown, k) - rise), "growth of y")
    order = sp.simplify(-k * sp.diff(sp.log(stated.right), k))
    run.zero(sp.simplify(-k * sp.diff(stated.terms["fast"], k) * k) - 1, "1/K")
    (edge,) = sp.solve(order - 1, p)
    run.zero(edge - stated.terms["edge"], "the largest p with O(1/K)")
    at = {stated.left: power_iterate(4, 20_000), r"\alpha": sp.Rational(1, 3), "p": 4, "K": 20_000}
    run.attained(stated, at, tolerance=1e-3)


@claim.check("symbolic", part="e")
def stated_pl_distance(run: Run, *, stated: Formula) -> None:
    """The path's constant (see pl_distance) times sqrt(Delta_K), and t e^{-t} <= 1/e at t = mu K/
    (2L), are the two printed bounds; a bowl lies below the first.
    """
    mu, big_l, gap = sp.symbols(r"\mu L \Delta_0", positive=True)
    k = sp.Symbol("K", integer=True, positive=True)
    a, g = sp.symbols("a g", positive=True)
    path = (4 * a / g).subs(g, sp.sqrt(2 * mu) * a)
    first = path * sp.sqrt(gap) * (1 - mu / big_l) ** (k / 2)
    run.zero(sp.simplify(first - stated.right), "the first bound")
    t = mu * k / (2 * big_l)
    run.zero(sp.simplify(path * sp.sqrt(gap) / (sp.E * t) - stated.terms["second"]), "the second")
    end = descend(lambda v: 0.4 * v @ v, vector(1.0), task_lr=1.0, n_steps=3)[-1]
    at = {stated.left: float(end.norm()), r"\mu": 0.8, "L": 1, r"\Delta_0": 0.4, "K": 3}
    run.stands(stated, at)


@claim.check("symbolic", part="h")
def stated_relative_rate(run: Run, *, stated: Formula) -> None:
    """gap_+ <= (L - mu) D - L D_+ in the mean over K steps with weights (L/(L - mu))^k, K = 1, 2, 3
    (every K in relative_strong_convexity); GD on a bowl lies below the printed rate.
    """
    mu, big_l = sp.symbols(r"\mu L", positive=True)
    start = sp.Symbol(r"D_h(\phi^*,\phi^0)", positive=True)
    k = sp.Symbol("K", integer=True, positive=True)
    after = sp.Symbol("D1")
    (step,) = sp.solve((big_l - mu) * start - big_l * after, after)
    growth = big_l / (big_l - mu)
    for steps in (1, 2, 3):
        rate = (step / start) ** steps * start
        run.zero(sp.simplify(stated.right.subs(k, steps) - rate), f"rate at K = {steps}")
        total = sum(growth**j for j in range(1, steps + 1))
        bound = growth * (big_l - mu) * start / total
        run.zero(sp.simplify(stated.terms["gap"].subs(k, steps) - bound), f"gap at K = {steps}")
    end = descend(lambda v: 0.4 * v @ v, vector(1.0), task_lr=1.0, n_steps=2)[-1]
    at = {stated.left: float(end @ end) / 2, r"\mu": 0.8, "L": 1, start: 0.5, "K": 2}
    run.stands(stated, at)
    run.at_most(0.4 * float(end @ end), float(value(stated.terms["gap"], at)), what="the gap")


@claim.check("exact", part="a")
def stated_contraction(run: Run, *, stated: Formula) -> None:
    """The library on mu/2 x^2 attains the printed rate; the second bound is attained at mu/L =
    1/(K+1), and the third is above it by a factor that tends to 1.
    """
    for k in STEPS:
        for big_l, mu, tight in ((2.0, 2.0 / (k + 1), True), (2.0, 1.5, False)):
            end = descend(
                lambda v, mu=mu: 0.5 * mu * v @ v, vector(3.0), task_lr=1 / big_l, n_steps=k
            )[-1]
            at = {stated.left: float(end.norm()), "L": big_l, r"\mu": mu, "D": 3, "K": k}
            run.attained(stated, at, tolerance=1e-12)
            second, third = (float(value(stated.terms[name], at)) for name in ("second", "third"))
            run.at_most(float(end.norm()), second, what="the second bound", slack=1e-12)
            run.at_most(second, third, what="the third bound")
            run.at_most(third, second * (1 + 1 / k), what="(1 + 1/K)^(K+1)/e is near 1")
            if tight:
                run.close(float(end.norm()), second, tolerance=1e-12, what="attained")
    rotated = descend(lambda v: v @ v * vector(1.0, 0.5)[0], vector(3.0), task_lr=0.5, n_steps=1)[
        -1
    ]
    at = {stated.left: float(rotated.norm()), "L": 2, r"\mu": 1, "D": 3, "K": 1}
    run.stands(stated, at)
