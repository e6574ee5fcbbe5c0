r"""C30, third file: what is printed, falsified in every way.

The proofs stand in the first file, with the statement.
"""

from __future__ import annotations

import sympy as sp

from mdtheory import descend
from proofs_check.claim import Formula
from proofs_check.claims.c10_complexity import SMOOTHNESS as OF_C10
from proofs_check.claims.c30_outlook import ALPHA, MU, Q, biased_descent, claim, errors, floor
from proofs_check.formula import value
from proofs_check.run import Run
from proofs_check.tools.models import vector
from proofs_check.tools.strategies import Loss

_L, _GAP, _EPS, _SIGMA = sp.symbols(r"L_F \Delta \epsilon \sigma", positive=True)
_R = sp.Symbol("R", positive=True)


@claim.check("exact", part="rate")
def stated_rate(run: Run, *, stated: Formula) -> None:
    """The two attaining cases of the library's step, bias alone and gap alone, and a third where
    the step is a hundredth of 1/L.
    """
    b, big_l = 0.5, 4.0
    stuck = Loss(lambda v: big_l / 2 * v @ v, vector(b / big_l), big_l)
    for rounds in (1, 10**6):
        least = biased_descent(stuck, rounds=min(rounds, 5), error=errors("against", b, 0))
        at = {stated.left: least, "L_F": big_l, r"\Delta": float(stuck.function(stuck.start))}
        at |= {"b": b, "R": rounds, r"\beta": sp.Rational(1, 4)}
        run.stands(stated, at, slack=1e-12)
        if rounds > 1:
            run.attained(stated, at, tolerance=1e-5)
    free = Loss(lambda v: big_l / 2 * v @ v, vector(2.0), big_l)
    least = biased_descent(free, rounds=1, error=errors("along", 0.0, 0))
    gap = float(free.function(free.start))
    at = {stated.left: least, "L_F": big_l, r"\Delta": gap, "b": 0, "R": 1}
    run.attained(stated, {**at, r"\beta": sp.Rational(1, 4)}, tolerance=1e-12)
    points = [vector(2.0)]
    for _ in range(9):
        points.append(descend(free.function, points[-1], task_lr=0.01 / big_l, n_steps=1)[-1])
    slow = min(float((big_l * point).square().sum()) for point in points)
    at |= {stated.left: slow, "R": 10, r"\beta": sp.Rational(1, 400)}
    run.stands(stated, at)


@claim.check("symbolic", part="iterations")
def stated_iterations(run: Run, *, stated: Formula) -> None:
    """2 L Delta/R + b^2 = eps^2 with the printed b, solved for R."""
    (needed,) = sp.solve(2 * _L * _GAP / _R + stated.terms["bias"] ** 2 - _EPS**2, _R)
    run.zero(sp.simplify(needed - stated.right), "R")


@claim.check("exact", part="steps")
def stated_steps(run: Run, *, stated: Formula) -> None:
    """|grad F| at the zero of the K-step gradient, q^K/((1 - q^K) mu), is at most eps just where
    the printed condition says so; the printed task has curvature mu; and the order.
    """
    task, p, theta = stated.terms["task"], *sp.symbols(r"p \theta", positive=True)
    mu = sp.Symbol(r"\mu", positive=True)
    run.zero(sp.diff(task, p) - (mu * p - theta), "slope of the task")
    shrink = value(stated.terms["shrink"], {r"\alpha": ALPHA, r"\mu": MU})
    run.close(float(shrink), Q, tolerance=1e-15, what="q")
    gone = sp.Symbol("x", positive=True)  # q^K: phi^K = theta (1 - q^K)/mu from 0
    slope = sp.diff(stated.terms["query"], p)
    (best,) = sp.solve(slope, p)
    there = slope.subs(p, mu * best / (1 - gone) / mu) / mu
    run.zero(sp.simplify(there - gone / ((1 - gone) * mu)), "F' where the K-step gradient vanishes")
    for eps in (0.3, 0.05, 0.001):
        for k in (1, 2, 3, 5, 8, 11, 15):
            truth = floor(k) <= eps
            run.decides(stated, {"K": k, r"\mu": MU, r"\epsilon": eps, "q": Q}, truth)
    kappa = sp.Symbol(r"\kappa", positive=True)
    ratio = sp.log(1 / _EPS) / sp.log(1 / (1 - 1 / kappa)) / stated.terms["order"]
    run.zero(sp.limit(ratio, kappa, sp.oo) - 1, "K over the printed order")


@claim.check("symbolic", part="sgd")
def stated_sgd(run: Run, *, stated: Formula) -> None:
    """2 Delta/(beta R) + beta L sigma^2 at its best beta, set to eps^2 and solved for R; where that
    beta is beyond 1/L the rate is 1/L, and more rounds are needed; and the batch that leaves
    eps^2/2.
    """
    beta = sp.Symbol("beta", positive=True)
    bound = 2 * _GAP / (beta * _R) + beta * _L * _SIGMA**2
    (best,) = sp.solve(sp.diff(bound, beta), beta)
    (needed,) = sp.solve(sp.simplify(bound.subs(beta, best)) - _EPS**2, _R)
    run.zero(sp.simplify(needed - stated.right), "R")
    for sigma in (sp.Integer(1), sp.Rational(1, 2)):  # eps = 1: the best rate is 1/(2 L sigma^2)
        at = {_L: 3, _GAP: 5, _SIGMA: sigma, _EPS: 1}
        rate = sp.Min(best.subs(_R, needed), 1 / _L).subs(at)
        (rounds,) = sp.solve(bound.subs(at).subs(beta, rate) - 1, _R)
        run.stands(stated, {"R": rounds, **{str(name): one for name, one in at.items()}})
    (batch,) = sp.solve(_SIGMA**2 / _R - _EPS**2 / 2, _R)
    run.zero(batch - stated.terms["batch"], "the batch")


@claim.check("symbolic", part="smoothness")
def stated_growth(run: Run, *, stated: Formula) -> None:
    """C10's printed bound, symbolic K: its limit at a = 1, and a^{2K} times a constant beyond."""
    names = {one.name: one for one in OF_C10.right.free_symbols}
    a, k = names["a"], names["K"]
    run.zero(sp.simplify(sp.limit(OF_C10.right, a, 1) - stated.right), "a = 1")
    steep = {one: 1 for name, one in names.items() if name not in ("a", "K")} | {
        a: sp.Rational(5, 4)
    }
    late = [OF_C10.right.subs({**steep, k: steps}) for steps in (120, 121)]
    growth = float(stated.terms["growth"].subs(a, sp.Rational(5, 4)))
    run.close(float(late[1] / late[0]), growth, tolerance=1e-9, what="growth at K = 120, a = 5/4")
