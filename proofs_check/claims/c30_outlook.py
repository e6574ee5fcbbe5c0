r"""C30: the outlook. The bilevel convergence that a follow-up announces, with the conditions under
which it holds.

*Proof of the rate.* With $u=\nabla F(\theta)$, a gradient $u+e$ and $\beta=1/L_F$, the descent
inequality (C12) at $\theta^+=\theta-\beta(u+e)$ is $F(\theta^+)\le
F-\frac1{2L_F}\|u\|^2+\frac1{2L_F}\|e\|^2$ (``descent_with_error``). Sum over $r<R$ with $\|e\|\le
b$. *Why a condition on $L_F$.* For the poster's $g$ and linear $\ell=w^\top\phi$ with
$w_c\ne0$ and no weight on later blocks (they could cancel it), already with $K=0$, $\nabla_aF$ at
$z=(a,te_c)$ is $tw_c\nabla s_c(a)$ plus what does not depend on $t$: between two prefixes with
different $\nabla s_c$ the difference of gradients grows without bound at a fixed distance. A
positive scale that is not constant has such prefixes, for a positive function with constant
gradient is constant.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import sympy as sp
import torch
from hypothesis import strategies as st
from torch import Tensor

from mdtheory import descend
from proofs_check.claim import Claim, Formula, Statement, Verdict
from proofs_check.formula import tex
from proofs_check.run import Run
from proofs_check.tools import potentials
from proofs_check.tools.hypergradient import unrolled_gradients
from proofs_check.tools.models import vector
from proofs_check.tools.strategies import Loss, convex_losses, for_all, numbers, pl_losses, seeds

_OUTLOOK = (
    r"\text{model }h^*:\mathbb R^d\to\mathbb R\text{, and analyze bilevel convergence}"
    r"\text{ (a plan: judged by whether it can be carried out)}"
)
_L, _GAP, _BIAS, _R = sp.symbols(r"L_F \Delta b R", positive=True)
RATE = Formula(
    left=sp.Symbol(r"\min_{r<R}\|\nabla F(\theta^r)\|^2"),
    relation="<=",
    right=2 * _L * _GAP / _R + _BIAS**2,
    text=r"{formula}\text{ for }{given};\ \text{the bias term cannot be improved}",
    given={"rate": sp.Eq(sp.Symbol(r"\beta", positive=True), 1 / _L)},
)
_MU, _EPS, _SIGMA, _KAPPA = sp.symbols(r"\mu \epsilon \sigma \kappa", positive=True)
_P, _THETA, _Q = sp.symbols(r"p \theta q", positive=True)
ITERATIONS = Formula(
    left=_R,
    relation="==",
    right=4 * _L * _GAP / _EPS**2,
    text=r"{formula}\text{ for }b={bias}",
    terms={"bias": _EPS / sp.sqrt(2)},
)
STEPS = Formula(
    left=sp.Symbol("K", positive=True),
    relation=">=",
    right=sp.log(1 + 1 / (_MU * _EPS)) / sp.log(1 / _Q),
    text=r"f={task},\ \ell={query},\ \phi^0=0,\ q={shrink}:\ \text{where the }K\text{-step "
    r"gradient vanishes }|F'|\text{ is at most }\epsilon\iff {formula},\text{ of the order of }"
    r"{order}",
    terms={
        "task": _MU / 2 * _P**2 - _THETA * _P,
        "query": (_P - 1) ** 2 / 2,
        "shrink": 1 - sp.Symbol(r"\alpha", positive=True) * _MU,
        "order": _KAPPA * sp.log(1 / _EPS),
    },
)
SGD = Formula(
    left=_R,
    relation="==",
    right=8 * _L * _GAP * _SIGMA**2 / _EPS**4,
    text=r"\text{task SGD, gradients of standard deviation }\sigma,\text{ constant batch, }"
    r"{given}:\ {formula},\text{ or batches of }{batch}",
    given={"noise": sp.Le(_EPS**2, 2 * _SIGMA**2)},
    terms={"batch": 2 * _SIGMA**2 / _EPS**2},
)
SMOOTHNESS = Formula(
    left=sp.Symbol(r"\lim_{a\to1}L_F"),
    relation="==",
    right=sp.Symbol(r"L_\ell", positive=True)
    + sp.Symbol(r"G_\ell", positive=True)
    * sp.Symbol(r"\alpha", positive=True)
    * sp.Symbol(r"\rho", positive=True)
    * sp.Symbol("K", integer=True, positive=True),
    text=r"L_F\text{ of C10: }{formula};\text{ for larger }a=\sup\|I-\alpha\nabla^2f\|\text{ every "
    r"step multiplies it by }{growth}\text{ in the limit}",
    terms={"growth": sp.Symbol("a", positive=True) ** 2},
)

claim = Claim(
    id="C30",
    title="Outlook: model h*, and analyse bilevel convergence",
    source="Learning inverse mirror map with a NN model, research outlook",
    printed=Statement(then=_OUTLOOK, scopes={"": "exists"}),
    amended=Statement(
        given={
            "below": r"\Delta=F(\theta^0)-\inf F<\infty",
            "smooth": r"F\text{ is }L_F\text{-smooth},\ L_F<\infty",
            "error": (
                r"\text{deterministic gradients, error}\le b=" + tex(ITERATIONS.terms["bias"])
            ),
        },
        then=r"\text{bilevel descent reaches }\|\nabla F\|\le\epsilon\text{ in }O("
        + tex(_EPS**-2)
        + r")\text{ meta-steps, where }L_F<\infty;\text{ for BlockIAF it need not be}",
        parts={
            "rate": RATE,
            "iterations": ITERATIONS,
            "steps": STEPS,
            "sgd": SGD,
            "smoothness": SMOOTHNESS,
            "blockiaf": (
                r"g\text{ BlockIAF with a non-constant scale }s_c,\ \ell\text{ linear with a "
                r"weight on }\phi_c\text{ and none on later blocks},\ K=0:\ L_F=\infty"
            ),
            "needed": (
                r"\text{with a fixed }K\text{, or without an }L_F\text{, the bound fails for "
                r"some }F"
            ),
        },
        scopes={"needed": "exists"},
    ),
    expected=Verdict("HOLDS", "PROVED"),
    uses=("C10/smoothness", "C12"),
    remark="The panel announces a plan and no theorem. Modelling h* is repair RA1. With it, or "
    "with RB and smooth conditioners, L_F is finite on bounded theta (RE); for the "
    "poster's own map it cannot be guaranteed on all of R^d (the mechanism of T2). What a "
    "follow-up claims about it is judged in F1.",
)


def rate(big_l: float, gap: float, rounds: int, b: float) -> float:
    """2 L Delta / R + b^2."""
    return 2 * big_l * gap / rounds + b**2


def decrease(u: sp.Expr, e: sp.Expr, big_l: sp.Expr) -> sp.Expr:
    """The guaranteed decrease of F in one step, from |u|^2 and |e|^2."""
    return (u - e) / (2 * big_l)


@claim.check("certificate", part="rate")
def descent_with_error(run: Run, *, gain: Callable[..., sp.Expr] = decrease) -> None:
    """The quadratic upper bound at theta - (u + e)/L, for two-dimensional u and e (any two vectors
    span no more).
    """
    u, e = sp.Matrix(sp.symbols("u1 u2", real=True)), sp.Matrix(sp.symbols("e1 e2", real=True))
    big_l = sp.Symbol("L", positive=True)
    step = -(u + e) / big_l
    upper = u.dot(step) + big_l / 2 * step.dot(step)
    run.zero(
        sp.expand(upper + gain(u.dot(u), e.dot(e), big_l)),
        "F(theta+) - F(theta) by the upper bound",
    )


descent_with_error.mutant("error counted twice", gain=lambda u, e, big_l: (u - 2 * e) / (2 * big_l))
descent_with_error.mutant("decrease |u|^2/L", gain=lambda u, e, big_l: (2 * u - e) / (2 * big_l))


def biased_descent(loss: Loss, *, rounds: int, error: Callable[[Tensor], Tensor]) -> float:
    """min |grad F|^2 over r < R along the library's gradient step of 1/L, with ``error(u)`` added
    to the gradient u.
    """
    point, least = loss.start, math.inf
    for _ in range(rounds):
        slope = torch.func.grad(loss.function)(point)
        least = min(least, float(slope.square().sum()))
        e = error(slope)
        point = descend(
            lambda v, e=e: loss.function(v) + e @ v, point, task_lr=1 / loss.big_l, n_steps=1
        )[-1]
    return least


def errors(kind: str, b: float, seed: int) -> Callable[[Tensor], Tensor]:
    """Errors of norm at most b: against the gradient (as much as stops it), along it, or in any
    direction.
    """
    draw = torch.Generator().manual_seed(seed)

    def error(u: Tensor) -> Tensor:
        size = torch.linalg.vector_norm(u)
        if kind == "any":
            d = torch.randn(u.shape, generator=draw, dtype=u.dtype)
            return b * d / torch.linalg.vector_norm(d)
        sign = -1.0 if kind == "against" else 1.0
        return sign * min(b, float(size)) * u / size.clamp_min(1e-300)

    return error


@claim.check("property", part="rate")
def library_keeps_the_rate(run: Run, *, bound: Callable[..., float] = rate) -> None:
    """Convex and PL losses (not all convex), any errors up to b, R = 1..6, by the library's own
    step.
    """

    @for_all(
        loss=st.one_of(convex_losses(), pl_losses()),
        b=numbers(0.0, 1.0),
        rounds=st.integers(1, 6),
        kind=st.sampled_from(["against", "along", "any"]),
        seed=seeds(),
    )
    def _(loss: Loss, b: float, rounds: int, kind: str, seed: int) -> None:
        gap = float(loss.function(loss.start)) - loss.lowest
        least = biased_descent(loss, rounds=rounds, error=errors(kind, b, seed))
        run.at_most(
            least, bound(loss.big_l, gap, rounds, b), slack=1e-12 * (1 + gap), what="min |grad F|^2"
        )


library_keeps_the_rate.mutant(
    "b dropped", bound=lambda big_l, gap, rounds, b: rate(big_l, gap, rounds, 0.0)
)
library_keeps_the_rate.mutant(
    "L Delta/R", bound=lambda big_l, gap, rounds, b: rate(big_l, gap / 2, rounds, b)
)


@claim.check("exact", part="rate")
def bias_is_tight(run: Run, *, bound: Callable[..., float] = rate) -> None:
    """F = L x^2/2, an error that stops descent at |grad F| = b: min |grad F|^2 = b^2 for every R. R
    = 1, b = 0: 2 L Delta.
    """
    b, big_l = 0.5, 4.0
    loss = Loss(lambda v: big_l / 2 * v @ v, vector(b / big_l), big_l)
    gap = float(loss.function(loss.start))
    for rounds in (1, 10, 100):
        least = biased_descent(loss, rounds=rounds, error=errors("against", b, 0))
        run.that(least == b**2, f"descent stands still for {rounds} rounds")
        run.at_most(least, bound(big_l, gap, rounds, b), what=f"the rate at R = {rounds}")
    ratio = b**2 / bound(big_l, gap, 10**6, b)
    run.quantity(
        "min|grad F|^2 / bound, R -> oo, bias b",
        ratio,
        tolerance=2e-6,
        theory=1.0,
        meaning="b^2 is tight",
    )
    free = biased_descent(loss, rounds=1, error=errors("along", 0.0, 0)) / bound(big_l, gap, 1, 0.0)
    run.quantity(
        "min|grad F|^2 / bound, R=1, b=0",
        free,
        tolerance=1e-12,
        theory=1.0,
        meaning="2 L Delta is attained",
    )


bias_is_tight.mutant("b dropped", bound=lambda big_l, gap, rounds, b: rate(big_l, gap, rounds, 0.0))
bias_is_tight.mutant(
    "b^2/2", bound=lambda big_l, gap, rounds, b: rate(big_l, gap, rounds, b / math.sqrt(2))
)
bias_is_tight.mutant(
    "2 b^2", bound=lambda big_l, gap, rounds, b: rate(big_l, gap, rounds, b * math.sqrt(2))
)
bias_is_tight.mutant(
    "4 L Delta/R", bound=lambda big_l, gap, rounds, b: rate(big_l, 2 * gap, rounds, b)
)


HALF = sp.Rational(1, 2)


@claim.check("symbolic", part="iterations")
def iterations_for_accuracy(run: Run, *, share: sp.Expr = HALF) -> None:
    """b^2 = eps^2/2 leaves 2 L Delta/R = eps^2/2: R eps^2/(L Delta) = 4, and R doubles four times
    as eps is quartered.
    """
    big_l, gap, eps, rounds = sp.symbols("L Delta epsilon R", positive=True)
    (needed,) = sp.solve(2 * big_l * gap / rounds + share * eps**2 - eps**2, rounds)
    constant = sp.simplify(needed * eps**2 / (big_l * gap))
    run.quantity(
        "R eps^2/(L_F Delta), b = eps/sqrt 2", constant, theory=4, meaning="deterministic O(eps^-2)"
    )
    order = -sp.simplify(eps * sp.diff(needed, eps) / needed)
    run.quantity(
        "order of R in 1/eps, deterministic", order, theory=2, meaning="d log R / d log(1/eps)"
    )


iterations_for_accuracy.mutant("b = eps/2", share=sp.Rational(1, 4))


MU, ALPHA = 0.5, 1.0
Q = 1 - ALPHA * MU


def floor(n_steps: int) -> float:
    """|grad F| where the K-step gradient vanishes, for f = mu p^2/2 - theta p, l = (p - 1)^2/2:
    q^K/((1 - q^K) mu).
    """
    return Q**n_steps / ((1 - Q**n_steps) * MU)


def truncated_gradient(theta: float, n_steps: int) -> float:
    """The library's unrolled gradient of the K-step objective by theta, from phi^0 = 0."""
    task = lambda p, t: (MU / 2 * p * p - t * p).sum()  # noqa: E731
    query = lambda p, t: ((p - 1) ** 2 / 2).sum()  # noqa: E731
    return float(
        unrolled_gradients(task, query, vector(0.0), vector(theta), alpha=ALPHA, n_steps=n_steps)[0]
    )


def exact_gradient(theta: float) -> float:
    """F'(theta) for phi* = theta/mu."""
    return (theta / MU - 1) / MU


@claim.check("counterexample", part="needed")
def fixed_steps_stay_away(run: Run, *, n_steps: int = 1, level: float = 2.0) -> None:
    """K = 1 for ever: 80 meta-steps of the library's gradient end where the K-step gradient is zero
    and |grad F| = 2.
    """
    theta, beta, least = 3.0, MU**2, math.inf  # beta = 1/L_F
    for _ in range(80):
        least = min(least, abs(exact_gradient(theta)))
        theta -= beta * truncated_gradient(theta, n_steps)
    run.close(
        truncated_gradient(theta, n_steps),
        0.0,
        tolerance=1e-8,
        what="the gradient that descent sees, at its end",
    )
    run.quantity(
        "|grad F| that K=1 cannot undercut",
        least,
        tolerance=1e-6,
        theory=level,
        meaning="q^K/((1-q^K) mu)",
    )


fixed_steps_stay_away.mutant("3 steps", n_steps=3)
fixed_steps_stay_away.mutant("q/mu, without 1 - q", level=1.0)


def steps_for(eps: float) -> int:
    """The smallest K with floor(K) <= eps."""
    return math.ceil(math.log(1 + 1 / (MU * eps)) / math.log(1 / Q))


@claim.check("exact", part="steps")
def steps_for_accuracy(run: Run, *, steps: Callable[[float], int] = steps_for) -> None:
    """At the zero of the library's K-step gradient |grad F| is at most eps for K = K(eps), and
    above it for one step less.
    """
    for exponent in (1, 3, 6):
        eps = 10.0**-exponent
        least = steps(eps)
        for n_steps, enough in ((least, True), (least - 1, False)):
            theta = MU / (1 - Q**n_steps)
            run.close(
                truncated_gradient(theta, n_steps),
                0.0,
                tolerance=1e-12,
                what=f"the K-step gradient, K = {n_steps}",
            )
            run.close(
                abs(exact_gradient(theta)), floor(n_steps), tolerance=1e-12, what="|grad F| there"
            )
            run.that((floor(n_steps) <= eps) == enough, f"eps = 1e-{exponent} with K = {n_steps}")
        run.quantity(
            f"K for |grad F| <= 1e-{exponent}, kappa=2",
            least,
            meaning="log(1 + 1/(mu eps))/log(1/q)",
        )
    kappa, eps = sp.symbols("kappa epsilon", positive=True)
    ratio = sp.limit(sp.log(1 + 1 / eps) / sp.log(1 / (1 - 1 / kappa)) / kappa, kappa, sp.oo)
    limit = sp.limit(ratio / sp.log(1 / eps), eps, 0, "+")
    run.quantity(
        "K/(kappa log(1/eps)), kappa -> oo, eps -> 0",
        limit,
        theory=1,
        meaning="K = O(kappa log 1/eps)",
    )


steps_for_accuracy.mutant(
    "log(1/eps)", steps=lambda eps: math.ceil(math.log(1 / eps) / math.log(1 / Q))
)
steps_for_accuracy.mutant("half as many", steps=lambda eps: steps_for(eps) // 2)


def step_size(big_l: sp.Expr, gap: sp.Expr, sigma: sp.Expr, rounds: sp.Expr) -> sp.Expr:
    """The best constant rate of SGD."""
    return sp.sqrt(2 * gap / (big_l * rounds)) / sigma


@claim.check("symbolic", part="sgd")
def constant_batches(run: Run, *, best: Callable[..., sp.Expr] = step_size, noise: int = 1) -> None:
    """E F(theta+) <= F - beta/2 |u|^2 + beta^2 L sigma^2/2, beta <= 1/L: mean |u|^2 <= 2
    Delta/(beta R) + beta L sigma^2.
    """
    big_l, gap, sigma, rounds, beta, u, eps = sp.symbols(
        "L Delta sigma R beta u epsilon", positive=True
    )
    expected = -beta * u**2 + big_l * beta**2 / 2 * (u**2 + noise * sigma**2)
    promised = -beta / 2 * u**2 + big_l * beta**2 * sigma**2 / 2
    run.zero(
        promised - expected - beta / 2 * (1 - big_l * beta) * u**2,
        "what is given away is >= 0 for beta <= 1/L",
    )
    bound = 2 * gap / (beta * rounds) + beta * big_l * sigma**2
    chosen = best(big_l, gap, sigma, rounds)
    run.zero(sp.diff(bound, beta).subs(beta, chosen), "the best rate")
    (needed,) = sp.solve(sp.simplify(bound.subs(beta, chosen)) - eps**2, rounds)
    constant = sp.simplify(needed * eps**4 / (big_l * gap * sigma**2))
    run.quantity(
        "R eps^4/(L_F Delta sigma^2), constant batch",
        constant,
        theory=8,
        meaning="task SGD, O(eps^-4)",
    )
    order = -sp.simplify(eps * sp.diff(needed, eps) / needed)
    run.quantity("order of R in 1/eps, task SGD", order, theory=4, meaning="d log R / d log(1/eps)")
    batch = sp.solve(sigma**2 / rounds - eps**2 / 2, rounds)[0]
    run.quantity(
        "batch eps^2/sigma^2 at beta = 1/L_F",
        sp.simplify(batch * eps**2 / sigma**2),
        theory=2,
        meaning="O(eps^-2)",
    )


constant_batches.mutant(
    "rate 1/R", best=lambda big_l, gap, sigma, rounds: 2 * gap / (big_l * rounds * sigma)
)
constant_batches.mutant("noise counted twice", noise=2)


@claim.check("symbolic", part="steps")
def steps_in_closed_form(run: Run, *, power: int = 1) -> None:
    """q^K/((1 - q^K) mu) <= eps iff q^K <= mu eps/(1 + mu eps), for every mu and q; and log(1 +
    1/(mu eps)) = -log of that.
    """
    mu, eps, x = sp.symbols("mu epsilon x", positive=True)
    (edge,) = sp.solve(x**power / ((1 - x) * mu) - eps, x)[-1:]
    run.zero(edge - mu * eps / (1 + mu * eps), "the largest q^K")
    run.zero(sp.simplify(1 / edge - (1 + 1 / (mu * eps))), "its logarithm")
    run.that(sp.simplify(sp.diff(x / ((1 - x) * mu), x) * (1 - x) ** 2 * mu) == 1, "it grows")


steps_in_closed_form.mutant("q^{2K}", power=2)


@claim.check("exact", about="printed")
def the_plan_can_be_carried_out(run: Run, *, scalar: bool = True) -> None:
    """The library's potential is a function h* from R^d to R whose gradient is the map it uses, and
    three meta-steps with it keep the rate below with b = 0.
    """
    map = potentials.ridge(1, 0.3)
    z = map.random("c30", "plan")
    value = potentials.conjugate(map, z) if scalar else map.at(z)
    run.that(value.ndim == 0, "h* is a number")
    slope = torch.func.grad(lambda v: potentials.conjugate(map, v))(z)
    run.close(slope, map.at(z), tolerance=1e-10, what="g = grad h*")
    top = potentials.certificate(map)[1]
    loss = Loss(lambda v: potentials.conjugate(map, v), z, top)
    least = biased_descent(loss, rounds=3, error=errors("along", 0.0, 0))
    low = min(
        float(loss.function(descend(loss.function, z, task_lr=1 / top, n_steps=k)[-1]))
        for k in (50, 200)
    )
    run.at_most(least, rate(top, float(loss.function(z)) - low, 3, 0.0), what="min |grad F|^2")


the_plan_can_be_carried_out.mutant("a map in place of a potential", scalar=False)
