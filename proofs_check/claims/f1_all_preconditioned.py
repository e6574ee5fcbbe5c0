r"""F1: a follow-up's announcement that all preconditioned meta-learners converge in O(eps^-2).

Only the abstract could be read. Its sentence is judged as a statement about gradient descent on
$F(\theta,\theta_P)=\ell(\phi^K)$ with a learned preconditioner; the paper's own conditions may be
those of the amendment.

*Proof.* With $F$ $L_F$-smooth and gradient error at most $\epsilon/\sqrt2$, C30 gives
$R=4L_F\Delta\epsilon^{-2}$. *Why $L_F<\infty$ must be assumed.* Already for Meta-SGD on
$f=\ell=\frac12\phi^2$ with one step, $F(\theta,p)=\frac12(1-\alpha p)^2\theta^2$ and
$\partial_p^2F=\alpha^2\theta^2$ has no bound. On a bounded set of $(\theta,p)$ it has.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import sympy as sp

from mdtheory.geometry.base import geometries
from mdtheory.inner.estimators import estimators
from proofs_check.claim import Claim, Formula, Statement, Verdict
from proofs_check.claims.c30_outlook import fixed_steps_stay_away
from proofs_check.formula import tex
from proofs_check.run import Run
from proofs_check.tools.models import problem_of, vector

_ALL = (
    r"\text{every preconditioned meta-learner reaches }\|\nabla F\|\le\epsilon\text{ in }"
    r"O(\epsilon^{-2})\text{ meta-steps}"
)
_L, _GAP, _EPS = sp.symbols(r"L_F \Delta \epsilon", positive=True)
STEPS = Formula(
    left=sp.Symbol("R", positive=True),
    relation=">=",
    right=4 * _L * _GAP / _EPS**2,
    text=r"{formula}\text{ meta-steps of }{rate}\text{ suffice}",
    terms={"rate": 1 / _L},
)
_ALPHA, _THETA = sp.Symbol(r"\alpha", positive=True), sp.Symbol(r"\theta")
_P, _PHI = sp.symbols(r"p \phi")
METASGD = Formula(
    left=sp.Symbol(r"\partial_p^2F"),
    relation="==",
    right=_ALPHA**2 * _THETA**2,
    text=r"f=\ell={loss},\ K=1:\ {formula},\text{ so }L_F=\infty\text{ on the plane, finite on "
    r"bounded sets}",
    terms={"loss": _PHI**2 / 2},
)

claim = Claim(
    id="F1",
    title="All preconditioned meta-learners converge in O(eps^-2)",
    source="abstract of the announced follow-up",
    paper="zhang2025preconditioned",
    printed=Statement(then=_ALL),
    amended=Statement(
        then=_ALL,
        given={
            "smooth": r"F\text{ is }L_F\text{-smooth along the iterates},\ L_F<\infty",
            "error": r"\text{gradient error at most }" + tex(_EPS / sp.sqrt(2)),
        },
        parts={
            "steps": STEPS,
            "metasgd": METASGD,
        },
        scopes={"metasgd": "instance"},
    ),
    expected=Verdict("NEEDS_CONDITIONS", "PROVED"),
    uses=("C30/rate", "C30/iterations"),
    remark="The paper could not be read beyond its abstract. For maps that are no preconditioners "
    "(BlockIAF) L_F can be infinite even with the geometry held fixed (C30, blockiaf).",
)


def gradient(theta: float, rate: float, alpha: float) -> tuple[float, float]:
    """The library's meta-gradient of one Meta-SGD step on phi^2/2, by the start and by the rate."""
    geometry = geometries.get("metasgd")(form="free")
    geometry.build({"phi": vector(theta)})
    geometry.rule.scale.phi.data = vector(rate)
    problem, meta, task = problem_of(
        lambda v: 0.5 * v @ v, vector(theta), task_lr=alpha, n_steps=1, geometry=geometry
    )
    grads = estimators.get("unrolled")()(problem, meta, [task]).grads
    by_rate = next(value for name, value in grads.items() if name.startswith("geometry."))
    return float(grads["anchor.phi"]), float(by_rate)


def far_away(big_l: float) -> float:
    """A start where L is too small."""
    return 2 * math.sqrt(big_l)


@claim.check("counterexample", about="printed", drops=("smooth",))
def no_constant_serves(run: Run, *, start: Callable[[float], float] = far_away) -> None:
    """Meta-SGD with a learned rate, one step: for each L there is a start where |grad F|^2 exceeds
    2 L (F - inf F), which no step of 1/L can repair.
    """
    for big_l in (1.0, 1e2, 1e4):
        theta, rate, alpha = start(big_l), 0.5, 1.0
        square = sum(value**2 for value in gradient(theta, rate, alpha))
        gap = 0.5 * (1 - alpha * rate) ** 2 * theta**2
        run.above(square, 2 * big_l * gap, what=f"|grad F|^2 at L = {big_l:g}")


no_constant_serves.mutant("a bounded start", start=lambda big_l: 0.5)


@claim.check("counterexample", about="printed", drops=("error",))
def one_task_step_for_ever(run: Run, *, n_steps: int = 1) -> None:
    """C30's example, P = I: with K = 1 the descent ends where |grad F| = 2."""
    fixed_steps_stay_away.function(run, n_steps=n_steps)


one_task_step_for_ever.mutant("3 steps", n_steps=3)


@claim.check("symbolic", part="steps")
def stated_steps(run: Run, *, stated: Formula) -> None:
    """C30's rate with b^2 = eps^2/2 solved for R is the printed number, and one gap in R below it
    the bound is above eps^2.
    """
    rounds = sp.Symbol("R", positive=True)
    (needed,) = sp.solve(2 * _L * _GAP / rounds + _EPS**2 / 2 - _EPS**2, rounds)
    run.zero(needed - stated.right, "the R that is needed")
    beta = sp.Symbol("beta", positive=True)
    (best,) = sp.solve(sp.diff(beta - _L * beta**2 / 2, beta), beta)  # of the descent inequality
    run.zero(best - stated.terms["rate"], "the step")
    for share in (sp.Rational(3, 5), sp.Rational(9, 10), 1, 2):
        at = {"L_F": 3, r"\Delta": 2, r"\epsilon": sp.Rational(1, 10)}
        found = share * needed.subs({_L: 3, _GAP: 2, _EPS: sp.Rational(1, 10)})
        reached = sp.Rational(12) / found + sp.Rational(1, 200) <= sp.Rational(1, 100)
        run.decides(stated, {**at, "R": found}, bool(reached))


@claim.check("symbolic", part="metasgd")
def curvature_by_the_rate(run: Run, *, power: int = 2) -> None:
    """The second derivative of F(theta, p) by p, in symbols, and the library's gradient by p from
    which it comes.
    """
    p, alpha, theta = sp.symbols("p alpha theta", real=True)
    f = (1 - alpha * p) ** 2 * theta**2 / 2
    run.zero(sp.diff(f, p, 2) - alpha**2 * theta**power, "second derivative by the rate")
    for start in (0.5, 40.0):
        found = [gradient(start, rate, 0.3)[1] for rate in (0.5, 1.5)]
        expected = 0.3**2 * start**power
        run.close(found[1] - found[0], expected, tolerance=1e-9 * expected, what="the library's")


curvature_by_the_rate.mutant("theta", power=1)


@claim.check("symbolic", part="metasgd")
def stated_curvature(run: Run, *, stated: Formula) -> None:
    """l(theta - alpha p l'(theta)) of the printed loss, differentiated twice by p."""
    loss = stated.terms["loss"]
    after = _THETA - _ALPHA * _P * sp.diff(loss, _PHI).subs(_PHI, _THETA)
    found = sp.diff(loss.subs(_PHI, after), _P, 2)
    run.zero(sp.expand(found - stated.right), "the second derivative")
    bend = sp.diff(loss, _PHI, 2)
    run.zero(bend - 1, "the loss has curvature one")
