r"""C07, second file: PL losses, nonconvex losses and mirror descent (parts e to h).

The proofs stand in the first file, with the statement.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import sympy as sp
import torch
from hypothesis import strategies as st

from mdtheory import descend
from proofs_check.claim import Formula
from proofs_check.claims.c07_rates import MU, ROOT, STEPS, claim
from proofs_check.run import Run
from proofs_check.tools import exact_sdp, sdp
from proofs_check.tools.extremal import sawtooth
from proofs_check.tools.models import dual, mirror, vector
from proofs_check.tools.strategies import Loss, for_all, pl_losses, seeds


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
    y, by algebra. The sawtooth, whose gradients are all 1, drops by 3/4 a step and 1/2 at the end:
    it attains the bound for every K.
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
    t, half = sp.Symbol("t"), sp.S.Half  # -f' along a step: 1 - t, then t; after the last 1 - t
    tooth = sp.integrate(1 - t, (t, 0, half)) + sp.integrate(t, (t, half, 1))
    drop = steps * tooth + sp.integrate(1 - t, (t, 0, 1))
    run.zero(4 / (3 * steps + 2) * drop - 1, "attained by the sawtooth, every K")


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
def relative_strong_convexity(run: Run, *, modulus: sp.Expr = MU) -> None:
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
    r = sp.Symbol("r", positive=True)  # growth - 1
    geometric = (1 + r) * ((1 + r) ** n - 1) / r  # sum_{k=1}^{K} growth^k, by its recursion
    more = geometric.subs(n, n + 1) - geometric - (1 + r) ** (n + 1)
    run.zero(geometric.subs(n, 0), "an empty sum")
    run.zero(sp.powsimp(sp.expand(sp.simplify(more * r))), "one term more")
    apart = modulus * (1 + r) / r - modulus  # L - mu at r = mu/(L - mu)
    run.zero((1 + r) * apart / geometric - mu / ((1 + r) ** n - 1), "the gap, every K, mu and L")
    for steps in STEPS:
        run.zero(
            (growth * (big_l - mu) * d / sum(growth**j for j in range(1, steps + 1)) - bound).subs(
                n, steps
            ),
            f"K = {steps}",
        )


relative_strong_convexity.mutant("modulus mu/2", modulus=MU / 2)


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


@claim.check("exact", part="f")
def stated_gradient(run: Run, *, stated: Formula) -> None:
    """The printed bound is attained by the sawtooth on the library's GD, K = 1..5, and strict on a
    bowl.
    """
    for k in STEPS:
        cases = (
            (sawtooth(k), vector(0.0), vector(-k - 1.0), True),
            (lambda v: 0.5 * v @ v, vector(1.0), vector(0.0), False),
        )
        for f, start, lowest, tight in cases:
            points = descend(f, start, task_lr=1.0, n_steps=k)
            least = min(float(torch.func.grad(f)(point).square().sum()) for point in points)
            drop = float(f(start) - f(lowest))
            at = {stated.left: least / 4, "L": 0.5, r"\Delta_0": drop / 2, "K": k}  # f/2
            run.stands(stated, at, slack=1e-13)
            if tight:
                run.attained(stated, at, tolerance=1e-12)


@claim.check("symbolic", part="g")
def stated_mirror(run: Run, *, stated: Formula) -> None:
    """K (f(phi^K) - f(x)) <= L D_h telescoped and solved is the printed right side; GD on a bowl (h
    = |.|^2/2) lies strictly below it.
    """
    gap = sp.Symbol("g", positive=True)
    divergence = next(one for one in stated.right.free_symbols if one.name.startswith("D_h"))
    big_l = sp.Symbol("L", positive=True)
    steps = sp.Symbol("K", integer=True, positive=True)
    (largest,) = sp.solve(steps * gap - big_l * divergence, gap)
    run.zero(largest - stated.right, "the largest gap that the telescope allows")
    end = descend(lambda v: 0.2 * v @ v, vector(1.0), task_lr=1.0, n_steps=3)[-1]
    run.stands(stated, {stated.left: float(0.2 * end @ end), "L": 1, divergence: 0.5, "K": 3})


claim.kernel("mirror_descent_rate", part="g")
claim.kernel("relative_contraction", part="h")


@claim.check("certificate", part="b", covers="samples")
def exact_duals(run: Run, *, steps: int = 0) -> None:
    """The dual certificates of the SDPs in rationals, positive semidefinite by an exact L D L^T:
    the bounds of (a), (b), (f), (g) and (h) for K = 1..5, and (b) for K = 12.
    """
    fifth = Fraction(1, 5)
    for k in STEPS:
        for problem, certificate in (
            exact_sdp.convex_gap(k),
            exact_sdp.distance(k, fifth),
            exact_sdp.nonconvex_gradient(k),
            exact_sdp.mirror_descent(k),
            exact_sdp.mirror_descent(k, fifth, "divergence"),
        ):
            pivots = exact_sdp.prove(problem, certificate)
            run.that(all(one >= 0 for one in pivots), f"a pivot is negative at K = {k}")
    problem, certificate = exact_sdp.convex_gap(12)
    run.that(certificate.bound == Fraction(1, 4 * (12 + steps) + 2), "the bound at K = 12")
    exact_sdp.prove(problem, certificate)


exact_duals.mutant("the bound of K + 1", steps=1)
