r"""C30: the outlook. The bilevel convergence that a follow-up announces, with the conditions under
which it holds.

*Proof of the rate.* With $u=\nabla F(\theta)$, a gradient $u+e$ and $\beta=1/L_F$, the descent
inequality (C12) at $\theta^+=\theta-\beta(u+e)$ is $F(\theta^+)\le
F-\frac1{2L_F}\|u\|^2+\frac1{2L_F}\|e\|^2$ (``descent_with_error``). Sum over $r<R$ with $\|e\|\le
b$. *Why a condition on $L_F$.* For the poster's $g$ and linear $\ell=c^\top\phi$, already with
$K=0$, $\nabla_aF$ at $z=(a,te_c)$ is $t\nabla s_c(a)$ plus what does not depend on $t$: between two
prefixes with different $\nabla s_c$ the difference of gradients grows without bound at a fixed
distance. A positive scale that is not constant has such prefixes, for a positive function with
constant gradient is constant.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import sympy as sp
import torch
from hypothesis import strategies as st
from torch import Tensor

from mdtheory import descend
from proofs_check.claim import Claim, Statement, Verdict
from proofs_check.claims.c10_complexity import measured_smoothness
from proofs_check.run import CheckFailed, Run
from proofs_check.tools import cost, iaf
from proofs_check.tools.hypergradient import unrolled_gradients
from proofs_check.tools.iaf import Flat
from proofs_check.tools.models import vector
from proofs_check.tools.strategies import Loss, convex_losses, for_all, numbers, pl_losses, seeds

_THEN = (
    r"\exists L_F:\ \min_{r<R}\|\nabla F(\theta^r)\|^2\le\tfrac{2L_F\Delta}R+b^2\text{ for }\beta="
    r"\tfrac1{L_F}"
    r",\text{ so }R=O(\epsilon^{-2})"
)

claim = Claim(
    id="C30",
    title="Outlook: model h*, and bilevel convergence in O(eps^-2)",
    source="Learning inverse mirror map with a NN model, research outlook; announced follow-up",
    printed=Statement(given={"below": r"\Delta=F(\theta^0)-\inf F<\infty"}, then=_THEN),
    amended=Statement(
        given={
            "below": r"\Delta=F(\theta^0)-\inf F<\infty",
            "smooth": r"F\text{ is }L_F\text{-smooth},\ L_F<\infty",
            "error": (
                r"\text{deterministic gradients, error}\le b=\epsilon/\sqrt2:\ K=O(\kappa\log"
                r"\tfrac1\epsilon)"
            ),
        },
        then=_THEN,
        parts={
            "rate": (
                r"\min_{r<R}\|\nabla F\|^2\le\tfrac{2L_F\Delta}R+b^2;\ b^2\text{ cannot be "
                r"improved}"
            ),
            "iterations": r"R=4L_F\Delta\,\epsilon^{-2}\text{ for }b=\epsilon/\sqrt2",
            "steps": (
                r"\text{error}\le\epsilon\iff K\ge\log(1+\tfrac1{\mu\epsilon})/\log\tfrac1q=O("
                r"\kappa\log\tfrac1\epsilon)"
            ),
            "sgd": (
                r"\text{task SGD, constant batch: }R=8L_F\Delta\sigma^2\epsilon^{-4},\text{ or "
                r"batches }O(\epsilon^{-2})"
            ),
            "smoothness": (
                r"L_F\text{ of C10: linear in }K\text{ at }a=1,\ a^{2K}\text{ for }a=\sup"
                r"\|I-\alpha\nabla^2f\|>1"
            ),
            "blockiaf": (
                r"g\text{ BlockIAF with a non-constant scale},\ \ell\text{ linear},\ K=0:\ "
                r"L_F=\infty"
            ),
        },
    ),
    expected=Verdict("NEEDS_CONDITIONS", "PROVED"),
    uses=("C10/smoothness", "C12"),
    remark="Modelling h* itself is repair RA1. With it, or with RB and smooth conditioners, L_F is "
    "finite on bounded theta; "
    "for the poster's own map it cannot be guaranteed on all of R^d (the mechanism of T2).",
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


@claim.check("counterexample", about="printed", drops=("error",))
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


@claim.check("exact", part="smoothness")
def smoothness_in_the_number_of_steps(
    run: Run, *, measured: Callable[..., float] = measured_smoothness
) -> None:
    """The library's F'' at the attaining case: a line in K for a = 1; multiplied by a^2 per step
    for a = 1.25.
    """
    how = {"big_lq": 0.7, "slope": 1.3, "alpha": 0.5, "rho": 0.9}
    flat = [measured(a=1.0, n_steps=k, **how) for k in (1, 2, 3)]
    run.close(
        flat[2] - flat[1], flat[1] - flat[0], tolerance=1e-5, what="second difference in K at a = 1"
    )
    run.close(
        flat[1] - flat[0],
        how["alpha"] * how["rho"] * how["slope"],
        tolerance=1e-5,
        what="alpha rho G per step",
    )
    growth = [
        measured(a=1.25, n_steps=k + 1, **how) / measured(a=1.25, n_steps=k, **how) for k in (8, 16)
    ]
    run.quantity(
        "L_F(K+1)/L_F(K), K=16, a=1.25",
        growth[1],
        tolerance=0.01,
        theory=1.25**2,
        meaning="a^2: exponential in K",
    )
    for k in (1, 6):
        bound = cost.smoothness(a=1.25, n_steps=k, **how)
        run.close(
            measured(a=1.25, n_steps=k, **how) / bound,
            1.0,
            tolerance=1e-5,
            what=f"C10's bound, K = {k}",
        )


smoothness_in_the_number_of_steps.mutant(
    "the square root of the growth",
    measured=lambda *, a, n_steps, **how: measured_smoothness(
        a=math.sqrt(a), n_steps=n_steps, **how
    ),
)


SCALE = sp.Function("s")


@claim.check("certificate", part="blockiaf")
def curvature_takes_every_value(run: Run, *, shape: Callable[[sp.Expr], sp.Expr] = SCALE) -> None:
    """d/da of c_1 g_1(a) + c_2 (t s(a) + mu(a)) at two prefixes: the difference is any P at a t
    that exists iff s' differs.
    """
    a, b, t, p, c1, c2 = sp.symbols("a b t P c1 c2", real=True)
    first, mu = sp.Function("g1"), sp.Function("mu")

    def slope(x: sp.Symbol) -> sp.Expr:
        return sp.diff(c1 * first(x) + c2 * (t * shape(x) + mu(x)), x)

    difference = sp.expand(slope(b) - slope(a))
    found = sp.solve(difference - p, t)
    run.that(len(found) == 1, "one t for every P")
    run.zero(difference.subs(t, found[0]) - p, "the difference at this t")
    run.zero(
        sp.diff(difference, t) - c2 * (sp.diff(shape(b), b) - sp.diff(shape(a), a)), "slope in t"
    )


curvature_takes_every_value.mutant("constant scale", shape=lambda x: sp.Symbol("s0"))
curvature_takes_every_value.mutant(
    "scale with constant slope", shape=lambda x: sp.Symbol("s0") + sp.Symbol("s1") * x
)


def as_is(map: Flat) -> Flat:
    """The library's map."""
    return map


@claim.check("property", part="blockiaf")
def library_has_no_finite_constant(
    run: Run, *, wrap: Callable[[Flat], Flat] = as_is, quotient: float = 1e4
) -> None:
    """Both forms, random partitions, F = sum g(z) (linear l, K = 0): gradients 10^4 times further
    apart than their points.
    """

    @for_all(map=iaf.block_maps(min_blocks=2), seed=seeds())
    def _(map: Flat, seed: int) -> None:
        map = wrap(map)
        slope = torch.func.grad(lambda z: map.at(z).sum())
        last = torch.isin(torch.arange(map.size), torch.tensor(map.blocks[-1]))
        a, b = map.random("c30", "a", seed), map.random("c30", "b", seed)
        apart = float(torch.linalg.vector_norm((b - a)[~last]))

        def gap(t: float) -> Tensor:
            return slope(torch.where(last, t, b)) - slope(torch.where(last, t, a))

        still, moving = gap(0.0), gap(1.0) - gap(0.0)  # affine in t
        if not float(moving.abs().max()) > 1e-12:
            raise CheckFailed(
                "the gradient of the scales is the same at both prefixes: there is nothing to show"
            )
        size = torch.linalg.vector_norm
        t = float((quotient * apart + size(still)) / size(moving)) * 1.01
        run.above(
            float(size(gap(t))) / apart, quotient, what="difference quotient of the gradient of F"
        )


library_has_no_finite_constant.mutant("frozen conditioners", wrap=iaf.frozen)
library_has_no_finite_constant.mutant(
    "bounded curvature", wrap=lambda m: m.altered(lambda z, _: z + torch.sin(z.sum() + z))
)
library_has_no_finite_constant.mutant(
    "monotone, linear", wrap=lambda m: m.altered(lambda z, _: z + iaf.turned(z))
)


@claim.check("counterexample", about="printed", drops=("smooth",))
def no_constant_serves(run: Run, *, make: Callable[[], Flat] = iaf.gated) -> None:
    """The library's g = (z_1/2, z_2 sigmoid z_1), l = (phi_2 - y)^2/2, K = 0, Delta = 1/2: for each
    L the bound fails at R = 1, and the step 1/L ascends."""
    map, over = make(), 3.0
    for big_l in (1.0, 1e2, 1e4):
        start = vector(0.0, 4 * over * math.sqrt(big_l))
        target = float(map.at(start)[1]) - 1

        def loss(z: Tensor, y: float = target) -> Tensor:
            return (map.at(z)[1] - y) ** 2 / 2

        slope = torch.func.grad(loss)(start)
        ratio = float(slope.square().sum()) / rate(big_l, 0.5, 1, 0.0)
        run.above(ratio, 1.0, what=f"|grad F|^2 over 2 L Delta at L = {big_l:g}")
        after = float(loss(descend(loss, start, task_lr=1 / big_l, n_steps=1)[-1]))
        run.above(after, 0.5, what=f"F after a step of 1/L, L = {big_l:g}")
        if big_l == 1e4:
            run.quantity(
                "|grad F|^2/(2 L Delta) at L=1e4",
                ratio,
                tolerance=1e-3,
                theory=over**2,
                meaning="gated BlockIAF, R=1",
            )


no_constant_serves.mutant("constant scale", make=lambda: iaf.shifted(0.0))
no_constant_serves.mutant(
    "a linear map", make=lambda: iaf.flat(iaf.Linear(torch.eye(2, dtype=torch.float64)), 2)
)
