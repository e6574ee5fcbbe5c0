r"""C07: "converges to a stationary point, |phi_hat - phi_bar| = O(L/K)". What holds instead, class
by class.

*Why it is false.* With $\alpha=1/L$ the iterates do not change under $f\to cf$, while $L/K\to
cL/K$: a constant that does not scale like $1/f$ would force distance 0. Over convex $f$ no rate for
the distance exists at all (part c), and single functions are slower than $1/K$ (part d, $p>3$).

*Proofs* ($\alpha=1/L$). (a) contraction from $\langle u,x\rangle\ge\frac{\mu
L}{\mu+L}\|x\|^2+\frac1{\mu+L}\|u\|^2$ and $\|u\|\ge\mu\|x\|$; maximise $q(1-q)^K$. (d)
$y=x^{-(p-2)}$, Stolz-Cesaro. (e) $\sqrt{\Delta_k}-\sqrt{\Delta_{k+1}}\ge
\frac{\sqrt{2\mu}}4\|u_k\|/L$ makes the path finite. (f) the quadratic upper bound at $\phi$ lies
above the quadratic lower bound at $\phi^+$ *everywhere*; at the worst point this reads
$f(\phi)-f(\phi^+)\ge\frac1{2L}\|u\|^2+\frac1{4L}\|u^+\|^2$; sum, and add $f(\phi^K)-\inf
f\ge\frac1{2L}\|u^K\|^2$. (g) three-point identity. (h) the same with $-\mu D_h(x,\phi)$. (b) is
cited (Drori and Teboulle 2014).
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import sympy as sp
import torch
from hypothesis import strategies as st

from mdtheory import descend
from proofs_check.claim import Claim, Statement, Verdict
from proofs_check.run import Run
from proofs_check.tools import sdp
from proofs_check.tools.extremal import huber, power_iterate, sawtooth
from proofs_check.tools.models import dual, mirror, vector
from proofs_check.tools.strategies import Loss, convex_losses, for_all, pl_losses, seeds

claim = Claim(
    id="C07",
    title="GD converges to a stationary point at distance O(L/K)",
    source="Bilevel optimization for meta-learning, accuracy versus complexity",
    printed=Statement(then=r"\|\hat\phi_t-\bar\phi_t\|_2=\mathcal O(L/K)"),
    amended=Statement(
        given={"step": r"\alpha=1/L,\ f\ L\text{-smooth (relative to }h\text{ in g, h)}"},
        then=r"\text{the rate depends on the class of }f",
        parts={
            "a": r"\mu\text{-s.c.: }\|\phi^K-\phi^*\|\le(1-\tfrac\mu L)^KD\le\tfrac L\mu"
            r"\tfrac{K^K}{(K+1)^{K+1}}D"
            r"\le\tfrac L{e\mu K}D",
            "b": r"\text{convex: }f(\phi^K)-f^*\le\tfrac{LD^2}{4K+2},\text{ attained}",
            "c": r"\text{convex, distance: }\sup\|\phi^K-\phi^*\|/D=1\text{ for every }K",
            "d": r"|x|^p/p,\ p>2,\ L=p-1:\ x_K\sim(\alpha(p-2)K)^{-1/(p-2)};\ O(1/K)\iff p\le3",
            "e": r"\mu\text{-PL: }\|\phi^K-\bar\phi\|\le2\sqrt{2\Delta_0/\mu}(1-\tfrac\mu L)^{K/2}"
            r"\le\tfrac{4\sqrt2}e\tfrac L\mu\sqrt{\tfrac{\Delta_0}\mu}\tfrac1K",
            "f": (
                r"\text{nonconvex: }\min_{k\le K}\|\nabla f\|^2\le\tfrac{4L\Delta_0}{3K+2},\text{ "
                r"attained}"
            ),
            "g": r"\text{MD, convex: }f(\phi^K)-f(x)\le LD_h(x,\phi^0)/K",
            "h": r"\text{MD, }\mu\text{-s.c. rel. }h:\ D_h(\phi^*,\phi^K)\le(1-\tfrac\mu L)^KD_h("
            r"\phi^*,\phi^0)"
            r"\text{ and }f\text{-gap}\le\mu D_h/((1+\tfrac\mu{L-\mu})^K-1)",
        },
    ),
    expected=Verdict("FALSE", "SUPPORTED"),
    remark=(
        "(b) for all K is cited; SDPs confirm K = 1..5 from both sides. KL rates (Attouch and "
        "Bolte 2009) agree with (d)."
    ),
)

STEPS = (1, 2, 3, 4, 5)
ROOT = sp.sqrt(2)


@claim.check("counterexample", about="printed")
def no_rate_for_convex(run: Run, *, curvature: Callable[[int], float] = lambda k: 1 / k**2) -> None:
    """f = mu/2 x^2 with mu = L/K^2 and D = L = 1: the library's distance times K/L exceeds K - 1,
    so no constant exists.
    """
    for k in (2, 10, 50):
        mu = curvature(k)
        end = descend(lambda v, mu=mu: 0.5 * mu * v @ v, vector(1.0), task_lr=1.0, n_steps=k)[-1]
        run.above(float(end) * k, k - 1, what=f"K * distance / L at K = {k}")


no_rate_for_convex.mutant("a fixed curvature L/2", curvature=lambda k: 0.5)


@claim.check("counterexample", about="printed")
def no_rate_for_one_function(run: Run, *, power: int = 4) -> None:
    """x^4/4 from 1, L = 3: K x_K / L grows like sqrt(K) (K 100 times larger, it 10 times), so not
    even f-dependent O(1/K).
    """
    few, many = (k * power_iterate(power, k) / (power - 1) for k in (200, 20_000))
    run.above(many / few, 9.0, what="growth of K x_K / L from K = 200 to 20000")


no_rate_for_one_function.mutant("p = 3, the break-even", power=3)


@claim.check("counterexample", about="printed")
def not_homogeneous(run: Run, *, rate: Callable[[float], float] = lambda big_l: 1 / big_l) -> None:
    """f and 10^-6 f give the library the same iterates, but L/K falls by 10^6: the ratio
    distance/(L/K) is unbounded.
    """
    ends = []
    for c in (1.0, 1e-6):
        end = descend(
            lambda v, c=c: c * (0.25 * v @ v + 0.1 * torch.cos(v).sum()),
            vector(2.0),
            task_lr=rate(c),
            n_steps=5,
        )[-1]
        ends.append(float(end))
    run.close(ends[0], ends[1], tolerance=1e-9, what="iterates under f -> c f")


not_homogeneous.mutant("a step that is not 1/L", rate=lambda big_l: 1.0)


@claim.check("certificate", part="a")
def contraction(
    run: Run, *, factor: Callable[..., sp.Expr] = lambda mu, alpha: 1 - alpha * mu, share: int = 2
) -> None:
    """Multipliers 2 alpha and 2 alpha/(mu+L) - alpha^2 >= 0 prove the contraction; then sup_q
    q(1-q)^K and x e^{-x} <= 1/e.
    """
    mu, big_l, alpha, x, u = sp.symbols("mu L alpha x u", positive=True)
    first = (
        u * x - mu * big_l / (mu + big_l) * x**2 - u**2 / (mu + big_l)
    )  # >= 0, co-coercivity of f - mu/2
    second = u**2 - mu**2 * x**2  # >= 0
    slack = factor(mu, alpha) ** 2 * x**2 - (x - alpha * u) ** 2 - 2 * alpha * first
    multiplier = share * alpha / (mu + big_l) - alpha**2
    run.zero(slack - multiplier * second, "(1 - alpha mu)^2 |x|^2 - |x - alpha u|^2")
    edge = sp.solve(multiplier, alpha)[0] * (mu + big_l)
    run.quantity(
        "largest alpha (L + mu) of the contraction",
        sp.simplify(edge),
        theory=2,
        meaning="its multiplier is >= 0",
    )
    q = sp.Symbol("q", positive=True)
    for k in STEPS:
        best = sp.solve(sp.diff(sp.log(q) + k * sp.log(1 - q), q), q)
        run.quantity(
            f"mu/L that attains it, K={k}",
            best[0],
            theory=Fraction(1, k + 1),
            meaning="argmax of q(1-q)^K",
        )
        peak = run.quantity(
            f"K^K/(K+1)^(K+1), K={k}",
            (q * (1 - q) ** k).subs(q, best[0]),
            meaning="max of q(1-q)^K",
        )
        run.above(sp.exp(-1) / k, peak, what="below 1/(eK)")
    t = sp.Symbol("t", positive=True)
    run.that(sp.solve(sp.diff(t * sp.exp(-t), t), t) == [1], "t e^{-t} is largest at t = 1")
    run.quantity("constant of L/(e mu K) D", (t * sp.exp(-t)).subs(t, 1), meaning="max of t e^{-t}")
    end = descend(lambda v: 0.1 * v @ v, vector(1.0), task_lr=1.0, n_steps=4)[
        -1
    ]  # mu/L = 1/5 = 1/(K+1)
    run.close(
        float(end),
        float(5 * sp.Rational(4**4, 5**5)),
        tolerance=1e-14,
        what="mu/2 x^2 attains both at mu/L = 1/(K+1)",
    )


contraction.mutant("1 - 2 alpha mu", factor=lambda mu, alpha: 1 - 2 * alpha * mu)
contraction.mutant("multiplier alpha/(L + mu) - alpha^2", share=1)


@claim.check("sdp", part="a")
def contraction_worst_case(run: Run, *, step: float = 1.0, power: float = 1.0) -> None:
    """The SDP's worst distance over mu-s.c. functions is (1 - mu/L)^K, from both solvers, mu/L =
    1/5.
    """
    for k in STEPS:
        for solver in ("CLARABEL", "SCS"):
            worst = sdp.distance(k, 0.2, step, solver)
            run.close(
                worst / 0.8 ** (power * k),
                1.0,
                tolerance=1e-3,
                what=f"worst distance, K = {k}, {solver}",
            )
        run.quantity(
            f"worst distance/D at mu/L=1/5, K={k}",
            worst,
            tolerance=1e-3,
            theory=0.8**k,
            meaning="(1 - mu/L)^K",
        )


contraction_worst_case.mutant("step 1.01 * 2/L", step=2.02)
contraction_worst_case.mutant("(1 - mu/L)^(K/2)", power=0.5)


@claim.check(
    "sdp", part="b", rests_on="drori2014performance for every K; the SDP is solved for K = 1..5"
)
def convex_value(
    run: Run, *, denominator: Callable[[int], int] = lambda k: 4 * k + 2, step: float = 1.0
) -> None:
    """Both sides: the SDP's worst gap (two solvers), and Huber with kink D/(2K+1) on the library's
    GD.
    """
    for k in STEPS:
        bound = Fraction(1, denominator(k))
        for solver in ("CLARABEL", "SCS"):
            run.close(
                sdp.convex_gap(k, step, solver) / float(bound),
                1.0,
                tolerance=1e-3,
                what=f"SDP, K = {k}, {solver}",
            )
        attained = huber(1 / (2 * k + 1))(
            descend(huber(1 / (2 * k + 1)), vector(1.0), task_lr=step, n_steps=k)[-1]
        )
        run.close(float(attained), float(bound), tolerance=1e-13, what=f"Huber, K = {k}")
        run.quantity(
            f"worst convex gap/(L D^2), K={k}",
            bound,
            meaning="1/(4K+2), attained by Huber with kink D/(2K+1)",
        )
        run.quantity(
            f"Huber kink/D, K={k}",
            Fraction(1, 2 * k + 1),
            meaning="the kink of the attaining Huber function",
        )


convex_value.mutant("4K + 3", denominator=lambda k: 4 * k + 3)
convex_value.mutant("2K", denominator=lambda k: 2 * k)
convex_value.mutant("step 1.01 * 2/L", step=2.02)


@claim.check("property", part="b")
def convex_value_on_library(
    run: Run, *, denominator: Callable[[int], int] = lambda k: 4 * k + 2
) -> None:
    """The library on convex losses, singular quadratics and the worst Huber functions, K = 1..5."""

    @for_all(loss=convex_losses(), k=st.integers(1, 5))
    def _(loss: Loss, k: int) -> None:
        end = descend(loss.function, loss.start, task_lr=1.0, n_steps=k)[-1]
        run.at_most(
            float(loss.function(end)),
            1 / denominator(k),
            slack=1e-12,
            what=f"gap of {loss.name}, K = {k}",
        )


convex_value_on_library.mutant("4K + 3", denominator=lambda k: 4 * k + 3)


@claim.check("exact", part="c")
def no_distance_rate(
    run: Run, *, mu: Callable[[int], Fraction] = lambda k: Fraction(1, k**2)
) -> None:
    """(1 - 1/K^2)^K >= 1 - 1/K (Bernoulli), in rationals; at most 1 always, and the limit mu -> 0
    is 1 for each K.
    """
    for k in (1, 2, 3, 5, 10, 30):
        run.that(1 >= (1 - mu(k)) ** k >= 1 - Fraction(1, k), f"ratio at K = {k}")
    m = sp.Symbol("m", positive=True)
    for k in STEPS:
        run.quantity(
            f"sup distance/D, convex, K={k}",
            sp.limit((1 - m) ** k, m, 0),
            theory=1,
            meaning="no rate",
        )
        run.quantity(f"distance/D at mu=L/K^2, K={k}", (1 - mu(k)) ** k, meaning="at least 1 - 1/K")
    end = descend(lambda v: 0.5 / 9 * v @ v, vector(1.0), task_lr=1.0, n_steps=3)[-1]
    run.close(
        float(end),
        float((1 - Fraction(1, 9)) ** 3),
        tolerance=1e-14,
        what="the library's ratio at K = 3",
    )


no_distance_rate.mutant("mu = L/K", mu=lambda k: Fraction(1, k))


@claim.check("sdp", part="c")
def no_distance_rate_worst_case(run: Run, *, mu: float = 0.0) -> None:
    """The SDP's worst distance over merely convex functions is 1.000 for K = 1..5."""
    for k in STEPS:
        run.close(sdp.distance(k, mu), 1.0, tolerance=1e-3, what=f"worst distance, K = {k}")


no_distance_rate_worst_case.mutant("with strong convexity", mu=0.05)


@claim.check("symbolic", part="d")
def power_functions(run: Run, *, exponent: Callable[[sp.Expr], sp.Expr] = lambda p: p - 2) -> None:
    """y = x^{-(p-2)} rises by alpha (p-2) in the limit, so x_K ~ (alpha (p-2) K)^{-1/(p-2)}; p = 4:
    by at most 3.75 alpha.
    """
    t, alpha, p = sp.symbols(
        "t alpha p", positive=True
    )  # t = alpha/y = alpha x^{p-2}; x_+ = x (1 - t); y = alpha/t
    for power in (3, 4, 5, 6):
        rise = (alpha / t) * ((1 - t) ** -(p - 2) - 1).subs(p, power)
        run.zero(sp.limit(rise, t, 0) - alpha * exponent(power), f"limit of y_+ - y at p = {power}")
    rise = sp.simplify((alpha / t) * ((1 - t) ** -2 - 1))
    run.zero(rise - alpha * (2 - t) / (1 - t) ** 2, "the increment at p = 4")
    run.that(
        sp.simplify(sp.diff((2 - t) / (1 - t) ** 2, t) * (1 - t) ** 3 - (3 - t)) == 0,
        "it grows with t < 1",
    )
    slope = run.quantity(
        "p=4 increment/alpha",
        (rise / alpha).subs(t, sp.Rational(1, 3)),
        meaning="15/4: y_+ - y at t=1/3",
    )
    run.close(
        float((1 + slope / 3) ** sp.Rational(-1, 2)),
        2 / 3,
        tolerance=1e-15,
        what="x_1 = 2/3 attains it",
    )
    run.close(
        float(descend(lambda v: 0.25 * (v**4).sum(), vector(1.0), task_lr=1 / 3, n_steps=1)[-1]),
        2 / 3,
        tolerance=1e-15,
        what="x_1",
    )
    run.quantity(
        "largest p with O(1/K)",
        sp.solve(sp.Eq(1 / exponent(p), 1), p)[0],
        theory=3,
        meaning="1/(p-2) = 1",
    )
    theta = sp.Symbol("theta")
    kl = sp.solve(sp.Eq((1 - theta) / (2 * theta - 1), 1), theta)[0]
    run.quantity(
        "largest KL exponent with O(1/K)",
        kl,
        theory=Fraction(2, 3),
        meaning="cited rate; theta = (p-1)/p at p = 3",
    )


power_functions.mutant("exponent p - 1", exponent=lambda p: p - 1)


@claim.check("certificate", part="d")
def power_iterates(run: Run, *, slope: Fraction = Fraction(15, 4)) -> None:
    """Ball arithmetic: K x_K/L -> 1 at p = 3; x_K between (1+3.75 alpha K)^{-1/2} and the asymptote
    at p = 4.
    """
    ratio = 20_000 * power_iterate(3, 20_000) / 2
    run.quantity(
        "K x_K/L at p=3, K=20000",
        ratio,
        tolerance=2e-3,
        theory=1.0,
        meaning="break-even: tends to 1",
    )
    for k in (1, 10, 1000):
        x = power_iterate(4, k)
        run.at_most((1 + float(slope) * k / 3) ** -0.5, x, slack=1e-15, what=f"p = 4, K = {k}")
    low = (1 + float(slope) / 3) ** -0.5
    run.quantity(
        "x_1 at p=4",
        power_iterate(4, 1),
        tolerance=1e-15,
        theory=low,
        meaning="attains (1 + 3.75 alpha K)^{-1/2}",
    )
    run.quantity(
        "x_K sqrt(2 alpha K) at p=4, K=20000",
        power_iterate(4, 20_000) * (40_000 / 3) ** 0.5,
        tolerance=1e-3,
        theory=1.0,
        meaning="asymptote (alpha (p-2) K)^{-1/(p-2)}",
    )


power_iterates.mutant("1 + 3 alpha K", slope=Fraction(3))


@claim.check("certificate", part="e")
def pl_distance(run: Run, *, constant: sp.Expr = 4 * ROOT) -> None:
    """a - b >= (a^2 - b^2)/(2a) for a = sqrt(Delta_k) etc. bounds each step by 2 sqrt(2/mu) (a -
    b): telescope.
    """
    a, b, mu, big_l, g = sp.symbols("a b mu L g", positive=True)
    run.zero(
        a - b - (a**2 - b**2) / (2 * a) - (a - b) ** 2 / (2 * a),
        "a - b exceeds (a^2 - b^2)/(2a) by a square",
    )
    # a^2 - b^2 >= g^2/(2L) and g >= sqrt(2 mu) a, so g/L <= (a - b) * 4 a / g <= (a - b) * 4/sqrt(2
    # mu)
    run.zero(
        sp.solve(sp.Eq(a - b, g**2 / (4 * big_l * a)), g)[0] ** 2 - 4 * big_l * a * (a - b),
        "step length squared",
    )
    run.zero(
        (4 * a / g).subs(g, sp.sqrt(2 * mu) * a) - 2 * sp.sqrt(2 / mu),
        "constant of the path length",
    )
    t = sp.Symbol(
        "t", positive=True
    )  # (1-q)^{K/2} <= e^{-qK/2} = t/(qK/2) * e^{-t} at t = qK/2, at most 2/(e q K)
    run.zero(2 * sp.sqrt(2) * 2 * (t * sp.exp(-t)).subs(t, 1) - constant / sp.E, "4 sqrt(2)/e")
    run.quantity(
        "PL distance constant",
        2 * sp.sqrt(2),
        meaning="|phi^K - phi_bar| <= c sqrt(Delta_0/mu) (1 - mu/L)^{K/2}",
    )
    run.quantity("PL distance constant of L/(mu K)", constant / sp.E, meaning="4 sqrt(2)/e")


pl_distance.mutant("2 sqrt(2)/e", constant=2 * ROOT)


@claim.check("property", part="e")
def pl_distance_on_library(run: Run, *, constant: float = 2 * 2**0.5) -> None:
    """The library on PL losses: |phi^k - phi^60| (its limit) below the bound. It is not tight, and
    not claimed to be.
    """

    @for_all(loss=pl_losses())
    def _(loss: Loss) -> None:
        points = descend(loss.function, loss.start, task_lr=1 / loss.big_l, n_steps=60)
        gap = float(loss.function(loss.start)) - loss.lowest
        for k, point in enumerate(points[:12]):
            bound = constant * (gap / loss.mu) ** 0.5 * (1 - loss.mu / loss.big_l) ** (k / 2)
            run.at_most(
                float((point - points[-1]).norm()),
                bound,
                slack=1e-12,
                what=f"distance of {loss.name} at k = {k}",
            )


pl_distance_on_library.mutant("a tenth", constant=2 * 2**0.5 / 10)


@claim.check("certificate", part="f")
def nonconvex_gradient(run: Run, *, share: sp.Expr = sp.S.Half / 2) -> None:
    """f(x) - f(x_+) >= |u|^2/(2L) + |u_+|^2/(4L): upper minus lower quadratic at its lowest point
    y, by algebra.
    """
    big_l, u, v, y = sp.symbols(
        "L u v y", real=True
    )  # x = 0, x_+ = -u/L; quadratic forms, so scalars stand for vectors
    upper = u * y + big_l / 2 * y**2  # f(y) - f(x) <= this
    lower = v * (y + u / big_l) - big_l / 2 * (y + u / big_l) ** 2  # f(y) - f(x_+) >= this
    lowest = sp.solve(sp.diff(upper - lower, y), y)[0]
    run.zero(
        (lower - upper).subs(y, lowest) - u**2 / (2 * big_l) - share * v**2 / big_l,
        "decrease of one step",
    )
    steps, minimum = sp.symbols("K m", positive=True)
    total = (
        steps * (sp.S.Half + share) * minimum + minimum / 2
    )  # in units of 1/L, with f(phi^K) - inf f >= |u^K|^2/(2L)
    run.zero(minimum / total - 4 / (3 * steps + 2), "m = 4 L Delta_0/(3K + 2)")


nonconvex_gradient.mutant("|u_+|^2/2", share=sp.S.Half)


@claim.check("sdp", part="f")
def nonconvex_both_sides(
    run: Run, *, denominator: Callable[[int], int] = lambda k: 3 * k + 2
) -> None:
    """The SDP's worst case from two solvers, and the sawtooth that attains it on the library's
    GD.
    """
    for k in STEPS:
        bound = Fraction(4, denominator(k))
        for solver in ("CLARABEL", "SCS"):
            run.close(
                sdp.nonconvex_gradient(k, solver) / float(bound),
                1.0,
                tolerance=1e-3,
                what=f"SDP, K = {k}, {solver}",
            )
        f, points = sawtooth(k), descend(sawtooth(k), vector(0.0), task_lr=1.0, n_steps=k)
        smallest = min(float(torch.func.grad(f)(point).square()) for point in points)
        drop = float(f(vector(0.0)) - f(vector(-k - 1.0)))
        run.close(smallest / drop, float(bound), tolerance=1e-13, what=f"sawtooth, K = {k}")
        run.quantity(
            f"worst min|grad f|^2/(L Delta_0), K={k}",
            bound,
            meaning="4/(3K+2), attained by a sawtooth gradient",
        )


nonconvex_both_sides.mutant("3K + 1", denominator=lambda k: 3 * k + 1)
nonconvex_both_sides.mutant("textbook 2K", denominator=lambda k: 2 * k)


@claim.check("certificate", part="g")
def three_points(run: Run, *, sign: int = 1) -> None:
    """<grad h(y) - grad h(x), z - y> = D(z,x) - D(z,y) - D(y,x), and so f(y) <= f(z) + L [D(z,x) -
    D(z,y)]; telescope.
    """
    x, y, z, big_l, value = sp.symbols("x y z L f")
    h = sp.Function("h")
    slope = [
        sp.diff(h(point), point) for point in (x, y)
    ]  # one coordinate; the inner product sums them

    def divergence(a: sp.Symbol, b: sp.Symbol) -> sp.Expr:
        return h(a) - h(b) - sp.diff(h(b), b) * (a - b)

    identity = (
        (slope[1] - slope[0]) * (z - y)
        - sign * (divergence(z, x) - divergence(z, y))
        + sign * divergence(y, x)
    )
    run.zero(identity, "three-point identity")
    u = -big_l * (slope[1] - slope[0])  # the mirror step: L (grad h(y) - grad h(x)) = -u
    majorised = value + u * (y - x) + big_l * divergence(y, x)
    run.zero(
        majorised - (value + u * (z - x)) - big_l * (divergence(z, x) - divergence(z, y)),
        "f(y) - lin f(z)",
    )


three_points.mutant("signs of the divergences swapped", sign=-1)


@claim.check("sdp", part="g")
def mirror_worst_case(run: Run, *, denominator: Callable[[int], int] = lambda k: k) -> None:
    """The SDP's worst gap over all h and all f: L D_h/K for K = 1..5, from both solvers."""
    for k in STEPS:
        bound = Fraction(1, denominator(k))
        for solver in ("CLARABEL", "SCS"):
            run.close(
                sdp.mirror_descent(k, solver=solver) / float(bound),
                1.0,
                tolerance=1e-3,
                what=f"SDP, K = {k}, {solver}",
            )
        run.quantity(
            f"worst MD gap/(L D_h), K={k}",
            bound,
            meaning="1/K over all h and relatively smooth convex f",
        )


mirror_worst_case.mutant("2K + 1 with D_h", denominator=lambda k: 2 * k + 1)


@claim.check("property", part="g")
def mirror_on_library(run: Run, *, share: float = 1.0) -> None:
    """The library's log-barrier on Poisson losses (relatively smooth, no L in the Euclidean sense):
    gap <= L D_h/K.
    """

    @for_all(seed=seeds(), k=st.integers(1, 8))
    def _(seed: int, k: int) -> None:
        draw = np.random.default_rng(seed)
        a, b, start = (torch.tensor(draw.uniform(0.5, 2.0, 3)) for _ in range(3))
        geometry = mirror("barrier", start)
        f = lambda v: a @ v - b @ v.log()  # noqa: E731
        big_l, best = float(b.max()), b / a  # the minimiser
        end = descend(
            f, dual(geometry.map, start), task_lr=1 / big_l, n_steps=k, geometry=geometry
        )[-1]
        divergence = geometry.map.bregman({}, {"phi": best}, {"phi": start})
        run.at_most(
            f(end) - f(best), share * big_l * divergence / k, slack=1e-12, what=f"gap at K = {k}"
        )


mirror_on_library.mutant("a hundredth of the bound", share=0.01)


@claim.check("certificate", part="h")
def relative_strong_convexity(
    run: Run, *, modulus: sp.Expr = sp.Symbol("mu", positive=True)
) -> None:
    """With f(z) >= lin f(z) + mu D(z, x) the step reads gap_+ <= (L - mu) D - L D_+; weights
    (L/(L-mu))^k telescope.
    """
    mu, big_l, d, after, n, k = sp.symbols("mu L D D1 K k", positive=True)
    growth = big_l / (big_l - modulus)
    run.zero(
        sp.solve((big_l - mu) * d - big_l * after, after)[0] - (1 - modulus / big_l) * d,
        "gap_+ >= 0 gives the rate of D",
    )
    run.zero(growth * (big_l - mu) - big_l, "w_{k+1} (L - mu) = w_k L: the divergences telescope")
    total = sp.summation(
        growth**k, (k, 1, n)
    )  # the gap falls, so its bound is growth (L - mu) D / total
    bound = mu * d / ((1 + mu / (big_l - mu)) ** n - 1)
    run.zero(
        sp.simplify((growth * (big_l - mu) * d / total - bound).subs({mu: 1, big_l: 5})),
        "bound at mu/L = 1/5",
    )
    for steps in STEPS:
        run.zero(
            (growth * (big_l - mu) * d / sum(growth**j for j in range(1, steps + 1)) - bound).subs(
                n, steps
            ),
            f"K = {steps}",
        )


relative_strong_convexity.mutant("modulus mu/2", modulus=sp.Symbol("mu", positive=True) / 2)


@claim.check("sdp", part="h")
def relative_worst_case(run: Run, *, power: int = 1, offset: int = 0) -> None:
    """The SDP's worst divergence and gap at mu/L = 1/5, K = 1..5, both solvers."""
    for k in STEPS:
        rate = Fraction(4, 5) ** (power * k)
        gap = Fraction(1, 5) / (Fraction(5, 4) ** (k + offset) - 1)
        for solver in ("CLARABEL", "SCS"):
            divergence = sdp.mirror_descent(k, 0.2, "divergence", solver)
            run.close(
                divergence / float(rate), 1.0, tolerance=1e-3, what=f"divergence, K = {k}, {solver}"
            )
            run.close(
                sdp.mirror_descent(k, 0.2, "gap", solver) / float(gap),
                1.0,
                tolerance=1e-3,
                what=f"gap, K = {k}, {solver}",
            )
        run.quantity(f"worst D_h ratio at mu/L=1/5, K={k}", rate, meaning="(1 - mu/L)^K")
        run.quantity(
            f"worst gap/(L D_h) at mu/L=1/5, K={k}", gap, meaning="mu/L / ((1 + mu/(L-mu))^K - 1)"
        )


relative_worst_case.mutant("(1 - mu/L)^{2K} for D_h", power=2)
relative_worst_case.mutant("K + 1 in the gap", offset=1)
