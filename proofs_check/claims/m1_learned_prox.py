r"""M1: MetaProxNet's learned piecewise-linear function approximates a proximal operator. When it is
one.

*Proof* (Gribonval and Nikolova 2020, on the line). *Necessary*: if $x$ minimises
$\frac12(x-z)^2+r(x)$ and $x'$ that with $z'$, adding the two inequalities gives
$(x-x')(z-z')\ge0$; if $r$ is convex, $z-x\in\partial r(x)$ gives $(x-x')(z-z')\ge(x-x')^2$, that
is, slopes of at most 1. *Sufficient*: for $p$ non-decreasing $\Phi(z)=\int_0^zp$ is convex and
$p(z)\in\partial\Phi(z)$, so $p(z)$ minimises $\Phi^*(x)-xz=\frac12(x-z)^2+r(x)-\frac12z^2$ with
$r=\Phi^*-\frac12x^2$; slopes of at most 1 make $\Phi^*$ 1-strongly convex and $r$ convex.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import sympy as sp

from proofs_check.claim import Claim, Formula, Statement, Verdict
from proofs_check.run import Run

_PROX = (
    r"\text{the learned piecewise-linear function }p\text{ is the proximal operator of a penalty}"
)
CONVEX = Formula(
    left=sp.Symbol(r"\max_is_i", real=True),
    relation="<=",
    right=sp.Integer(1),
    text=r"\text{non-decreasing: prox of a convex penalty iff its slopes have }{formula}",
)
NECESSARY = Formula(
    left=sp.Symbol("(p(z)-p(z'))(z-z')", real=True),
    relation=">=",
    right=sp.Integer(0),
    text=r"p\text{ a prox}\Rightarrow{formula}",
)
PENALTY = Formula(
    left=sp.Symbol("r(x)"),
    relation="==",
    right=sp.Symbol(r"(\textstyle\int p)^*(x)") - sp.Symbol("x", real=True) ** 2 / 2,
    text=r"p\text{ non-decreasing}\Rightarrow p={\rm prox}_r,\ {formula}",
)

claim = Claim(
    id="M1",
    title="A learned piecewise-linear function is a proximal operator",
    source="MetaProxNet, the learned prox of each coordinate and step",
    paper="zhang2024metaproxnet",
    printed=Statement(
        then=_PROX, given={"line": r"p:\mathbb R\to\mathbb R\text{ continuous, slopes }s_i"}
    ),
    amended=Statement(
        then=_PROX,
        given={
            "line": r"p:\mathbb R\to\mathbb R\text{ continuous, slopes }s_i",
            "rising": r"s_i\text{ not negative, all }i",
        },
        parts={
            "necessary": NECESSARY,
            "sufficient": PENALTY,
            "convex": CONVEX,
        },
    ),
    expected=Verdict("NEEDS_CONDITIONS", "PROVED"),
    remark="The published code leaves the control points free, so nothing keeps the slopes "
    "non-negative. Many coordinates, each with its own p, are a prox iff each p is one.",
)

KNOTS = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])


def piecewise(values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Linear between the control points (KNOTS, values), and on beyond them, as in the code."""
    slopes = np.diff(values) / np.diff(KNOTS)

    def p(z: np.ndarray) -> np.ndarray:
        i = np.clip(np.searchsorted(KNOTS, z) - 1, 0, len(slopes) - 1)
        return values[i] + slopes[i] * (z - KNOTS[i])

    return p


@claim.check("counterexample", about="printed", drops=("rising",))
def one_falling_slope(run: Run, *, middle: float = -0.5) -> None:
    """Control points with one slope -1/2: two points with (p(z) - p(z'))(z - z') < 0, which no prox
    has, whatever the penalty.
    """
    values = np.array([-1.5, -1.0, 0.0, middle, 1.0])
    p = piecewise(values)
    z = np.array([0.25, 0.75])
    x = p(z)
    run.above(0.0, float((x[1] - x[0]) * (z[1] - z[0])), what="the product of the two differences")


one_falling_slope.mutant("a rising slope", middle=0.5)


@claim.check("symbolic", part="necessary")
def two_minimisers(run: Run, *, half: sp.Expr = sp.S.Half) -> None:
    """The two inequalities of optimality, each with the other's point, add up to (x - y)(z - w) >=
    0: the penalty cancels.
    """
    x, y, z, w, r, s = sp.symbols("x y z w r s", real=True)  # r, s: the penalty at x, y
    first = (half * (y - z) ** 2 + s) - (half * (x - z) ** 2 + r)
    second = (half * (x - w) ** 2 + r) - (half * (y - w) ** 2 + s)
    run.zero(sp.expand(first + second - (x - y) * (z - w)), "sum of the two")


two_minimisers.mutant("without the half", half=sp.S.One)


@claim.check("symbolic", part="sufficient")
def the_penalty(run: Run, *, half: sp.Expr = sp.S.Half) -> None:
    """(x - z)^2/2 + (G(x) - x^2/2) = G(x) - x z + z^2/2 for an arbitrary G: with G = Phi^* the same
    minimisers as Phi^*(x) - x z, of which p(z), in the subdifferential of Phi, is one.
    """
    x, z = sp.symbols("x z", real=True)
    g = sp.Function("G")(x)
    run.zero(sp.expand(half * (x - z) ** 2 + g - x**2 / 2 - (g - x * z + z**2 / 2)), "objectives")


the_penalty.mutant("without the half", half=sp.S.One)


@claim.check("symbolic", part="convex")
def slopes_at_most_one(run: Run, *, power: int = 1) -> None:
    """z = x + g, g a subgradient of a convex r: (x - y)(z - w) = (x - y)^2 + (x - y)(g - h), the
    last not negative; and r'' = 1/s - 1 is >= 0 exactly for s <= 1.
    """
    x, y, g, h = sp.symbols("x y g h", real=True)
    product = (x - y) * ((x + g) - (y + h))
    run.zero(sp.expand(product - (x - y) ** 2 - power * (x - y) * (g - h)), "firmly nonexpansive")
    s = sp.Symbol("s", positive=True)
    room, beyond = sp.symbols("a b", positive=True)
    bend = 1 / s - 1  # of Phi^* - x^2/2, for p of slope s
    run.that(sp.simplify(bend.subs(s, 1 / (1 + room))).is_positive, "s < 1")
    run.that(sp.simplify(bend.subs(s, 1 + beyond)).is_negative, "s > 1")


slopes_at_most_one.mutant("twice the subgradients", power=2)


def penalty_is_convex(values: np.ndarray) -> bool:
    """Whether r = Phi^* - x^2/2 is convex on a grid: its slope z - x, z the inverse of p, rises."""
    z = np.linspace(-3, 3, 601)
    x = piecewise(values)(z)
    return all(b - a >= -1e-12 for a, b in pairwise(z - x))


@claim.check("exact", part="convex")
def stated_slopes(run: Run, *, stated: Formula) -> None:
    """Strictly rising control points with steepest slopes 0.4, 0.8, 1, 1.2 and 1.5: the penalty's
    slope rises exactly where the printed condition says so.
    """
    for top in (0.4, 0.8, 1.0, 1.2, 1.5):
        values = np.cumsum([0.0, 0.3, top, 0.2, 0.4])
        run.decides(stated, {stated.left: top}, penalty_is_convex(values))


@claim.check("exact", part="necessary")
def stated_product(run: Run, *, stated: Formula) -> None:
    """The prox of |x|, a soft threshold, at pairs on either side of its kink and across it."""
    prox = lambda z: np.sign(z) * max(abs(z) - 1, 0.0)  # noqa: E731
    for z, w in ((1.5, 2.0), (0.2, 0.4), (-1.5, 1.5)):
        run.stands(stated, {stated.left: (prox(z) - prox(w)) * (z - w)})


@claim.check("exact", part="sufficient")
def stated_penalty(run: Run, *, stated: Formula) -> None:
    """p(z) = s z, s = 1/2 and 1/3: the integral's conjugate is x^2/(2 s), and the printed r has p
    for its prox.
    """
    x, z = sp.symbols("x z", real=True)
    for s in (sp.Rational(1, 2), sp.Rational(1, 3)):
        (best,) = sp.solve(sp.diff(x * z - s * z**2 / 2, z), z)
        conjugate = (x * z - s * z**2 / 2).subs(z, best)
        c = sp.Symbol("c", positive=True)  # r = c x^2, from its prox z/(1 + 2 c) = s z
        (weight,) = sp.solve(1 / (1 + 2 * c) - s, c)
        at = {stated.left: weight * 9, "x": 3}
        run.stands(stated, {**at, r"(\textstyle\int p)^*(x)": conjugate.subs(x, 3)})
