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

import sympy as sp
import torch
from hypothesis import strategies as st

from mdtheory import descend
from proofs_check.claim import Claim, Formula, Statement, Verdict
from proofs_check.run import Run
from proofs_check.tools import sdp
from proofs_check.tools.extremal import huber, power_iterate
from proofs_check.tools.models import vector
from proofs_check.tools.strategies import Loss, convex_losses, for_all

_L, _D, _MU, _DELTA = sp.symbols(r"L D \mu \Delta_0", positive=True)
_K = sp.Symbol("K", integer=True, positive=True)
VALUE = Formula(
    left=sp.Symbol("f(\\phi^K)-f^*"),
    relation="<=",
    right=_L * _D**2 / (4 * _K + 2),
    text=r"\text{convex: }{formula},\text{ attained}",
)
CONTRACTION = Formula(
    left=sp.Symbol(r"\|\phi^K-\phi^*\|"),
    relation="<=",
    right=(1 - _MU / _L) ** _K * _D,
    text=r"\mu\text{-s.c.: }{formula},\text{ at most }{second},\text{ at most }{third}",
    terms={
        "second": _L / _MU * _K**_K / (_K + 1) ** (_K + 1) * _D,
        "third": _L / (sp.E * _MU * _K) * _D,
    },
)
GRADIENT = Formula(
    left=sp.Symbol(r"\min_{k\le K}\|\nabla f\|^2"),
    relation="<=",
    right=4 * _L * _DELTA / (3 * _K + 2),
    text=r"\text{nonconvex: }{formula},\text{ attained}",
)
MIRROR = Formula(
    left=sp.Symbol(r"f(\phi^K)-f(x)"),
    relation="<=",
    right=_L * sp.Symbol(r"D_h(x,\phi^0)", positive=True) / _K,
    text=r"\text{MD, convex: }{formula}",
)
_ALPHA, _P, _X = sp.symbols(r"\alpha p x", positive=True)
_START = sp.Symbol(r"D_h(\phi^*,\phi^0)", positive=True)
NO_RATE = Formula(
    left=sp.Symbol(r"\sup\|\phi^K-\phi^*\|/D"),
    relation="==",
    right=sp.Integer(1),
    text=r"\text{convex, distance: }{formula}\text{ for every }K",
)
POWERS = Formula(
    left=sp.Symbol("x_K"),
    relation="==",
    right=(_ALPHA * (_P - 2) * _K) ** (-1 / (_P - 2)),
    text=r"f={loss}:\ x_K\sim{right};\ \text{as fast as }{fast}\text{ up to }p={edge}",
    terms={"loss": _X**_P / _P, "edge": sp.Integer(3), "fast": 1 / _K},
)
PL_DISTANCE = Formula(
    left=sp.Symbol(r"\|\phi^K-\bar\phi\|"),
    relation="<=",
    right=2 * sp.sqrt(2 * _DELTA / _MU) * (1 - _MU / _L) ** (_K / 2),
    text=r"\mu\text{-PL: }{formula},\text{ at most }{second}",
    terms={"second": 4 * sp.sqrt(2) / sp.E * _L / _MU * sp.sqrt(_DELTA / _MU) / _K},
)
RELATIVE = Formula(
    left=sp.Symbol(r"D_h(\phi^*,\phi^K)"),
    relation="<=",
    right=(1 - _MU / _L) ** _K * _START,
    text=r"\text{MD, }\mu\text{-s.c. rel. }h:\ {formula}\text{, the gap in }f\text{ at most }{gap}",
    terms={"gap": _MU * _START / ((1 + _MU / (_L - _MU)) ** _K - 1)},
)

claim = Claim(
    id="C07",
    title="GD converges to a stationary point at distance O(L/K)",
    source="Bilevel optimization for meta-learning, accuracy versus complexity",
    printed=Statement(then=r"\|\hat\phi_t-\bar\phi_t\|_2=\mathcal O(L/K)"),
    amended=Statement(
        given={
            "step": r"\alpha=1/L,\ f\ L\text{-smooth (relative to }h\text{ in g, h)}",
            "start": r"D=\|\phi^0-\phi^*\|,\ \Delta_0=f(\phi^0)-\inf f",
            "powers": r"\text{in d: }p>2,\ L=p-1\text{ on }[-1,1],\text{ from }0<x_0\le1",
            "gap": r"\text{the gap in h: }\mu<L",
        },
        then=r"\text{the rate depends on the class of }f",
        parts={
            "a": CONTRACTION,
            "b": VALUE,
            "c": NO_RATE,
            "d": POWERS,
            "e": PL_DISTANCE,
            "f": GRADIENT,
            "g": MIRROR,
            "h": RELATIVE,
        },
        scopes={"d": "limit"},
    ),
    expected=Verdict("FALSE", "VERIFIED"),
    remark=(
        "(b) for all K is cited; SDPs confirm K = 1..5 from both sides. KL rates (Attouch and "
        "Bolte 2009) agree with (d)."
    ),
)

STEPS = (1, 2, 3, 4, 5)
ROOT = sp.sqrt(2)
MU = sp.Symbol("mu", positive=True)


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
    n = sp.Symbol("K", integer=True, positive=True)
    (top,) = sp.solve(sp.diff(sp.log(q) + n * sp.log(1 - q), q), q)
    run.zero(top - 1 / (n + 1), "argmax of q(1-q)^K, every K")
    run.zero(sp.simplify(top * (1 - top) ** n * (n + 1) ** (n + 1) / n**n) - 1, "its value")
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
    kink = sp.Symbol("c", positive=True)  # K steps of c from 1, then c x - c^2/2
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
            sp.solve(sp.diff(kink * (1 - k * kink) - kink**2 / 2, kink), kink)[0],
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


@claim.check("exact", part="c", covers="all")
def no_distance_rate(
    run: Run,
    *,
    mu: Callable[[int], Fraction] = lambda k: Fraction(1, k**2),
    cocoercive: Callable[..., sp.Expr] = lambda u, x, big_l: u * x - u**2 / big_l,
) -> None:
    """(1 - 1/K^2)^K >= 1 - 1/K (Bernoulli), in rationals; the limit mu -> 0 is 1 for each K, and no
    convex loss exceeds 1: |x|^2 - |x - u/L|^2 is co-coercivity times 2/L and a square.
    """
    for k in (1, 2, 3, 5, 10, 30):
        run.that(1 >= (1 - mu(k)) ** k >= 1 - Fraction(1, k), f"ratio at K = {k}")
    u, x, big_l = sp.symbols("u x L", positive=True)  # quadratic forms: scalars for vectors
    kept = x**2 - (x - u / big_l) ** 2 - (2 / big_l) * cocoercive(u, x, big_l)
    run.zero(sp.expand(kept - (u / big_l) ** 2), "no step moves away from a minimiser")
    m, n = sp.Symbol("m", positive=True), sp.Symbol("K", integer=True, positive=True)
    run.zero(sp.limit((1 - m) ** n, m, 0) - 1, "the limit mu -> 0 for every K")
    for k in STEPS:
        run.quantity(
            f"sup distance/D, convex, K={k}",
            sp.limit((1 - m) ** n, m, 0).subs(n, k),
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
no_distance_rate.mutant("convexity alone", cocoercive=lambda u, x, big_l: u * x)


@claim.check("sdp", part="c")
def no_distance_rate_worst_case(run: Run, *, mu: float = 0.0) -> None:
    """The SDP's worst distance over merely convex functions is 1.000 for K = 1..5."""
    for k in STEPS:
        run.close(sdp.distance(k, mu), 1.0, tolerance=1e-3, what=f"worst distance, K = {k}")


no_distance_rate_worst_case.mutant("with strong convexity", mu=0.05)


@claim.check("symbolic", part="d", covers="limit")
def power_functions(run: Run, *, exponent: Callable[[sp.Expr], sp.Expr] = lambda p: p - 2) -> None:
    """y = x^{-(p-2)} rises by alpha (p-2) in the limit, so x_K ~ (alpha (p-2) K)^{-1/(p-2)}; p = 4:
    by at most 3.75 alpha.
    """
    t, alpha, p = sp.symbols(
        "t alpha p", positive=True
    )  # t = alpha/y = alpha x^{p-2}; x_+ = x (1 - t); y = alpha/t
    every = sp.limit((alpha / t) * ((1 - t) ** -(p - 2) - 1), t, 0)
    run.zero(every - alpha * exponent(p), "limit of y_+ - y, every p > 2")
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


@claim.check("certificate", part="d", covers="exact")
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


@claim.check("exact", part="b")
def stated_value(run: Run, *, stated: Formula) -> None:
    """The printed bound is attained by the worst Huber function on the library's GD, K = 1..5, and
    strict elsewhere; with L = 1/2 and D = 2.
    """
    for k in STEPS:
        kink = 1 / (2 * k + 1)
        worst = lambda v, kink=kink: 2 * huber(kink)(v / 2)  # noqa: E731
        for f, tight in ((worst, True), (lambda v: 0.1 * v @ v, False)):
            end = descend(f, vector(2.0), task_lr=2.0, n_steps=k)[-1]
            at = {stated.left: float(f(end)), "L": 0.5, "D": 2, "K": k}
            run.stands(stated, at, slack=1e-13)
            if tight:
                run.attained(stated, at, tolerance=1e-12)
