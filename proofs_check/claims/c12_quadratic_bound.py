r"""C12: the quadratic model of gradient descent majorises the loss for alpha <= 1/L. (Also the
model of how to write a claim.)

*Proof.* The gap $Q_\alpha(\phi;\psi)-f(\phi)$ is the Bregman divergence of
$w=\|\cdot\|^2/(2\alpha)-f$ (``gap_is_bregman``, by algebra). It is non-negative for all $\phi,\psi$
iff $w$ is convex, the first-order characterisation of convexity. If $\nabla f$ is $L$-Lipschitz,
$\langle\nabla w(x)-\nabla w(y),x-y\rangle\ge(1/\alpha-L)\|x-y\|^2$, so $\alpha\le1/L$ suffices; for
$f=\frac L2x^2$ the gap is $\frac12(1/\alpha-L)(x-y)^2$, so no larger step does (``tight``).
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import sympy as sp
import torch
from torch import Tensor

from mdtheory import descend
from proofs_check.claim import Claim, Formula, Statement, Verdict
from proofs_check.formula import tex, value
from proofs_check.run import Run
from proofs_check.tools.models import vector
from proofs_check.tools.strategies import Loss, for_all, smooth_losses

_ALPHA, _L, _GAP = sp.symbols(r"\alpha L g", positive=True)
TIGHT = Formula(
    left=sp.Symbol("Q_\\alpha(x;y)-f(x)"),
    relation="==",
    right=(1 / _ALPHA - _L) * sp.Symbol(r"\|x-y\|") ** 2 / 2,
    text=r"\text{for }f={loss}\text{ it is }{formula},\text{ negative beyond }\alpha={edge}",
    terms={"loss": _L / 2 * sp.Symbol("x") ** 2, "edge": 1 / _L},
)
DESCENT = Formula(
    left=sp.Symbol(r"f(\phi-\alpha u)-f(\phi)"),
    relation="<=",
    right=-_ALPHA * (1 - _ALPHA * _L / 2) * sp.Symbol(r"\|u\|", positive=True) ** 2,
    text=r"{formula},\ u=\nabla f(\phi)",
)
_FAR, _LINEAR = sp.Symbol(r"\|\phi-\psi\|", positive=True), sp.Symbol(r"{\rm lin}(f,\psi)(\phi)")
MAJORANT = Formula(
    left=sp.Symbol(r"f(\phi)"),
    relation="<=",
    right=_LINEAR + _FAR**2 / (2 * _ALPHA),
    text=r"{formula}\ \forall\phi,\psi,\ {given}",
    given={"rate": sp.Le(_ALPHA, 1 / _L)},
)
GAP = Formula(
    left=sp.Symbol(r"Q_\alpha(\phi;\psi)-f(\phi)"),
    relation="==",
    right=_FAR**2 / (2 * _ALPHA) - sp.Symbol(r"D_f(\phi,\psi)"),
    text=r"{formula}=D_w,\ w={weight}\|\cdot\|^2-f;\ \text{a majorant for every }\psi\iff "
    r"w\text{ convex}",
    terms={"weight": 1 / (2 * _ALPHA)},
)

claim = Claim(
    id="C12",
    title="GD's surrogate is a quadratic upper bound for 0 < alpha <= 1/L",
    source="Prior art on accelerated task-specific optimization, GD recap",
    printed=Statement(
        then=MAJORANT,
        given={
            "smooth": r"f=\mathcal L_t^{\rm trn}\text{ is }L\text{-smooth}",
        },
    ),
    amended=Statement(
        then=MAJORANT.core
        + r"\ \forall\phi,\psi\iff "
        + tex(GAP.terms["weight"])
        + r"\|\cdot\|^2-f"
        r"\text{ is convex}",
        given={"smooth": r"f\text{ is }L\text{-smooth}"},
        parts={
            "iff": GAP,
            "tight": TIGHT,
            "descent": DESCENT,
        },
    ),
    expected=Verdict("HOLDS", "PROVED"),
    remark=(
        "A ReLU network is not C^1 and deep losses have no global L: there the statement is "
        "local at best."
    ),
)


def surrogate_gap(f: Callable[[Tensor], Tensor], phi: Tensor, psi: Tensor, alpha: float) -> float:
    """Q_alpha(phi; psi) - f(phi), by autograd."""
    slope = torch.func.grad(f)(psi)
    return float(f(psi) + slope @ (phi - psi) + (phi - psi).square().sum() / (2 * alpha) - f(phi))


def quadratic_model(f: sp.Function, x: sp.Matrix, y: sp.Matrix, alpha: sp.Symbol) -> sp.Expr:
    """f(y) + grad f(y)^T (x - y) + |x - y|^2 / (2 alpha)."""
    slope = [sp.diff(f(*y), entry) for entry in y]
    return (
        f(*y)
        + sum(s * (a - b) for s, a, b in zip(slope, x, y, strict=True))
        + (x - y).dot(x - y) / (2 * alpha)
    )


@claim.check("symbolic", part="iff")
def gap_is_bregman(run: Run, *, model: Callable[..., sp.Expr] = quadratic_model) -> None:
    """Q_alpha(x; y) - f(x) = D_w(x, y) for an arbitrary function f of two variables, by algebra."""
    x, y, alpha = (
        sp.Matrix(sp.symbols("x1 x2", real=True)),
        sp.Matrix(sp.symbols("y1 y2", real=True)),
        sp.Symbol("a", positive=True),
    )
    f = sp.Function("f")

    def w(v: sp.Matrix) -> sp.Expr:
        return v.dot(v) / (2 * alpha) - f(*v)

    divergence = w(x) - w(y) - sum(sp.diff(w(y), b) * (a - b) for a, b in zip(x, y, strict=True))
    run.zero(model(f, x, y, alpha) - f(*x) - divergence, "gap - D_w")


gap_is_bregman.mutant(
    "1/alpha in place of 1/(2 alpha)",
    model=lambda f, x, y, a: quadratic_model(f, x, y, a) + (x - y).dot(x - y) / (2 * a),
)


@claim.check("certificate", about="printed")
def smoothness_suffices(
    run: Run, *, largest_rate: Callable[[sp.Symbol], sp.Expr] = lambda big_l: 1 / big_l
) -> None:
    """<grad w(x) - grad w(y), x - y> = |x - y|^2 / alpha - <grad f(x) - grad f(y), x - y> >= 0 for
    every alpha <= 1/L.
    """
    big_l, share, square, cosine = sp.symbols("L t D c", positive=True)
    inner = (
        cosine * big_l * square
    )  # <grad f(x) - grad f(y), x - y> = c L |x - y|^2 with c <= 1 by Cauchy-Schwarz
    alpha = largest_rate(big_l) * share / (1 + share)  # every alpha strictly below the largest
    worst = sp.simplify((square / alpha - inner).subs(cosine, 1))
    run.that(worst.is_nonnegative, f"monotonicity of grad w: {worst} >= 0")
    run.zero(
        (square / largest_rate(big_l) - inner).subs(cosine, 1),
        "slack at the largest rate and c = 1",
    )


smoothness_suffices.mutant("alpha <= 2/L", largest_rate=lambda big_l: 2 / big_l)
smoothness_suffices.mutant(
    "alpha <= 1.01/L", largest_rate=lambda big_l: sp.Rational(101, 100) / big_l
)


@claim.check("exact", part="tight")
def tight(
    run: Run,
    *,
    gap: Callable[[Fraction, Fraction], Fraction] = lambda alpha, big_l: (1 / alpha - big_l) / 2,
) -> None:
    """f = L/2 x^2: the gap changes sign exactly at alpha = 1/L."""
    for big_l in (Fraction(1, 3), Fraction(1), Fraction(7)):
        for factor in (Fraction(1, 2), Fraction(1), Fraction(101, 100), Fraction(2)):
            alpha = factor / big_l
            measured = surrogate_gap(
                lambda v, c=float(big_l): 0.5 * c * v @ v, vector(3.0), vector(1.0), float(alpha)
            )
            run.close(
                measured,
                float(4 * gap(alpha, big_l)),
                tolerance=1e-12,
                what=f"gap at alpha = {factor}/L",
            )
            run.that(
                (gap(alpha, big_l) < 0) == (factor > 1), f"sign of the gap at alpha = {factor}/L"
            )
    run.quantity(
        "gap at alpha=1.01/L, L=1, |x-y|=1",
        gap(Fraction(101, 100), Fraction(1)),
        meaning="(1/alpha - L)/2 < 0",
    )
    rate = sp.Symbol("t", positive=True)
    run.quantity(
        "largest majorising rate times L",
        sp.solve(gap(rate, sp.Integer(1)), rate)[0],
        meaning="alpha L at which the gap of L/2 x^2 is zero",
    )


tight.mutant("gap (1/alpha - L)", gap=lambda alpha, big_l: 1 / alpha - big_l)
tight.mutant(
    "gap with upper curvature halved", gap=lambda alpha, big_l: (1 / alpha - big_l / 2) / 2
)


def decrease(alpha: float, big_l: float) -> float:
    """The guaranteed decrease per |u|^2."""
    return alpha * (1 - alpha * big_l / 2)


@claim.check("certificate", part="descent")
def descent_follows(run: Run, *, rate: Callable[..., sp.Expr] = decrease) -> None:
    """The bound of part (iff) with 1/alpha = L at phi - alpha u is the descent inequality, and L/2
    x^2 attains it.
    """
    alpha, big_l, u, f0 = sp.symbols("alpha L u f0", positive=True)
    run.zero(
        f0 - alpha * u**2 + big_l / 2 * (alpha * u) ** 2 - (f0 - rate(alpha, big_l) * u**2),
        "Q_{1/L}(phi - alpha u)",
    )
    at_limit = sp.simplify(rate(1 / big_l, big_l) * big_l)
    run.quantity(
        "guaranteed decrease at alpha=1/L, times L/|u|^2",
        at_limit,
        theory=0.5,
        meaning="alpha (1 - alpha L/2)",
    )
    x = sp.Symbol("x")
    run.zero(
        big_l / 2 * (x - alpha * big_l * x) ** 2
        - big_l / 2 * x**2
        + rate(alpha, big_l) * (big_l * x) ** 2,
        "attained",
    )


descent_follows.mutant("alpha (1 - alpha L)", rate=lambda alpha, big_l: alpha * (1 - alpha * big_l))


@claim.check("property", about="printed")
def library_step_descends(
    run: Run, *, factor: float = 1.0, step: Callable[..., Tensor] = descend
) -> None:
    """The library's MAML step on smooth losses, the top eigenvector included: below the surrogate,
    and descent as promised.
    """

    @for_all(loss=smooth_losses())
    def _(loss: Loss) -> None:
        f, alpha = loss.function, factor / loss.big_l
        after = step(f, loss.start, task_lr=alpha, n_steps=1)[-1]
        square = torch.func.grad(f)(loss.start).square().sum()
        slack = 1e-12 * (1 + float(loss.start.square().sum()))
        run.at_most(
            -surrogate_gap(f, after, loss.start, alpha),
            0.0,
            slack=slack,
            what="f above its surrogate",
        )
        run.at_most(
            f(after),
            f(loss.start) - 0.5 / loss.big_l * square,
            slack=slack,
            what="less descent than promised",
        )


library_step_descends.mutant("a step of 1.01/L", factor=1.01)
library_step_descends.mutant(
    "ascent", step=lambda f, start, **how: 2 * start - descend(f, start, **how)
)


@claim.check("symbolic", part="tight")
def stated_gap(run: Run, *, stated: Formula) -> None:
    """The surrogate of the printed loss less the loss is the printed gap, symbolically; and it
    changes sign at alpha = 1/L.
    """
    x, y, d = sp.symbols("x y d", real=True)
    f = stated.terms["loss"]
    slope = sp.diff(f, sp.Symbol("x")).subs(sp.Symbol("x"), y)
    surrogate = f.subs(sp.Symbol("x"), y) + slope * (x - y) + (x - y) ** 2 / (2 * _ALPHA)
    size = next(one for one in stated.right.free_symbols if "|" in one.name)
    gap = surrogate - f.subs(sp.Symbol("x"), x) - stated.right.subs(size, d)
    run.zero(sp.expand(gap.subs(d, x - y)), "gap of the printed loss")
    e = sp.Symbol("e", positive=True)
    run.zero(stated.right.subs(_ALPHA, stated.terms["edge"]), "zero at the edge")
    beyond = stated.right.subs(_ALPHA, 1 / (_L / (1 + e)))
    run.that(sp.simplify(beyond.subs(size, e)).is_negative, "below zero beyond 1/L")


@claim.check("exact", part="descent")
def stated_descent(run: Run, *, stated: Formula) -> None:
    """The library's step on L/2 x^2 attains the printed decrease at three rates; a smaller
    curvature gains more.
    """
    for alpha in (0.1, 0.3, 0.6):
        for curvature, tight in ((3.0, True), (1.0, False)):
            f = lambda v, c=curvature: c / 2 * v @ v  # noqa: E731
            end = descend(f, vector(2.0), task_lr=alpha, n_steps=1)[-1]
            found = float(f(end) - f(vector(2.0)))
            at = {stated.left: found, r"\alpha": alpha, "L": 3, r"\|u\|": 2 * curvature}
            run.stands(stated, at, slack=1e-12)
            if tight:
                run.attained(stated, at, tolerance=1e-12)


claim.kernel("majoriser_iff", part="", about="printed")


@claim.check("exact", about="printed")
def stated_majorant(run: Run, *, stated: Formula) -> None:
    """L/2 x^2 and a flatter bowl at three rates: the printed bound is attained at 1/L, strict below
    it, and false beyond it.
    """
    for curvature, share in ((2, 1), (2, sp.Rational(1, 2)), (1, 1), (2, sp.Rational(11, 10))):
        x, y, alpha = sp.Integer(3), sp.Integer(1), sp.Rational(share) / 2
        at = {stated.left: curvature * x**2 / 2, r"\alpha": alpha, "L": 2}
        at[r"{\rm lin}(f,\psi)(\phi)"] = curvature * y**2 / 2 + curvature * y * (x - y)
        at[r"\|\phi-\psi\|"] = x - y
        run.stands(stated, at)
        if (curvature, share) == (2, 1):
            run.attained(stated, at, tolerance=1e-12)


@claim.check("exact", part="iff")
def stated_identity(run: Run, *, stated: Formula) -> None:
    """x^4 at two rational pairs: gap and divergence of w, both from their definitions."""
    for x, y, alpha in ((3, 1, sp.Rational(1, 5)), (-2, 4, sp.Rational(3, 7))):
        divergence = sp.Integer(x**4 - y**4 - 4 * y**3 * (x - y))
        gap = y**4 + 4 * y**3 * (x - y) + sp.Rational((x - y) ** 2) / (2 * alpha) - x**4
        at = {stated.left: gap, r"\alpha": alpha, r"\|\phi-\psi\|": abs(x - y)}
        run.stands(stated, {**at, r"D_f(\phi,\psi)": divergence})
        half = value(stated.terms["weight"], {r"\alpha": alpha})
        run.zero(half * (x**2 - y**2 - 2 * y * (x - y)) - divergence - gap, "D_w")
