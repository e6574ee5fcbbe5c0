r"""T6: the dual step with a monotone Lipschitz g descends for alpha < 2m/(LM^2); what asymmetry
costs against a mirror map.

*Proof.* Let $u=\nabla f(\phi)$, $q=\phi-\phi^+=g(z)-g(z-\alpha u)$. Strong monotonicity on the
segment: $\langle u,q\rangle\ge\alpha m\|u\|^2$; Lipschitz: $\|q\|\le\alpha M\|u\|$; smoothness:
$f(\phi^+)\le f(\phi)-\langle u,q\rangle+\frac L2\|q\|^2$. Combine with multipliers $1$ and $L/2$.
If $J$ is $L_J$-Lipschitz, $q-\alpha Ju=\alpha\int_0^1(J(z-t\alpha u)-J(z))u\,dt$ has norm at most
$\int_0^1t\,dt\,\alpha^2L_J\|u\|^2$. For a gradient map $q=\alpha\bar Ju$ with a symmetric $\bar J$,
spectrum in $[m,M]$: the bound is $\max_\lambda(-\alpha\lambda+\frac{\alpha^2L}2\lambda^2)$, convex
in $\lambda$, so attained at an end.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import sympy as sp
import torch
from PEPit import PEP
from PEPit.functions import SmoothFunction, SmoothStronglyConvexFunction
from PEPit.operators import LipschitzStronglyMonotoneOperatorCheap
from torch import Tensor

from mdtheory import descend
from mdtheory.geometry.base import Geometry
from proofs_check.claim import Claim, Formula, Statement, Verdict
from proofs_check.run import Run
from proofs_check.tools import iaf
from proofs_check.tools.iaf import Linear
from proofs_check.tools.intervals import Box, certify
from proofs_check.tools.models import vector
from proofs_check.tools.sdp import solved
from proofs_check.tools.strategies import for_all, seeds

_ALPHA, _M, _BIG_M, _L = sp.symbols(r"\alpha m M L", positive=True)
DESCENT = Formula(
    left=sp.Symbol(r"f(\phi^+)-f(\phi)"),
    relation="<=",
    right=-_ALPHA * (_M - _ALPHA * _L * _BIG_M**2 / 2) * sp.Symbol(r"\|u\|", positive=True) ** 2,
    text=r"{formula},\text{ negative up to }\alpha={largest}",
    terms={"largest": 2 * _M / (_L * _BIG_M**2)},
)
_DELTA, _MU, _KAPPA = sp.symbols(r"\Delta_0 \mu \kappa", positive=True)
_K = sp.Symbol("K", integer=True, positive=True)
RATE = Formula(
    left=sp.Symbol(r"\min_{k<K}\|\nabla f(\phi^k)\|^2"),
    relation="<=",
    right=2 * _L * _BIG_M**2 * _DELTA / (_M**2 * _K),
    text=r"{formula}\text{ at }{given};\ \mu\text{-PL: }f-f^*\text{ shrinks by }{factor}",
    given={"rate": sp.Eq(_ALPHA, _M / (_L * _BIG_M**2))},
    terms={"factor": 1 - _MU * _M**2 / (_L * _BIG_M**2)},
)
EXPANSION = Formula(
    left=sp.Symbol(r"\|r\|"),
    relation="<=",
    right=_ALPHA**2 * sp.Symbol("L_J", positive=True) * sp.Symbol(r"\|u\|", positive=True) ** 2 / 2,
    text=r"\phi^+=\phi-\alpha J_g(z)u+r,\ {formula}",
)
TIGHT = Formula(
    left=DESCENT.left,
    relation="==",
    right=DESCENT.right,
    text=r"\text{for }J=\begin{psmallmatrix}m&-b\\b&m\end{psmallmatrix},\ f={loss}:\ {formula}",
    terms={"loss": _L * sp.Symbol(r"\|\phi\|", positive=True) ** 2 / 2},
)
PRICE = Formula(
    left=sp.Symbol(r"\text{ratio}"),
    relation="==",
    right=4 * _KAPPA**3 / (1 + _KAPPA) ** 2,
    text=r"g=\nabla h^*:\ \text{best guaranteed decrease }{symmetric}\text{ against }{plain},\ "
    r"{formula};\ \text{no ascent up to }\alpha={edge},\text{ whatever }m",
    terms={
        "symmetric": 2 * _M * _BIG_M / (_L * (_BIG_M + _M) ** 2),
        "plain": _M**2 / (2 * _L * _BIG_M**2),
        "edge": 2 / (_L * _BIG_M),
    },
)

claim = Claim(
    id="T6",
    title="Descent of the dual step, and the price of asymmetry",
    source="Theorem, for the poster's dual iteration with g",
    printed=Statement(
        given={
            "map": (
                r"g\ m\text{-strongly monotone and }M\text{-Lipschitz on every segment "
                r"}[z^k,z^k-\alpha u^k]"
            ),
            "loss": (
                r"f\ L\text{-smooth (nonconvex allowed), bounded below};\ \Delta_0=f(\phi^0)-"
                r"\inf f"
            ),
            "smooth": r"\text{for (expansion): }J_g\ L_J\text{-Lipschitz (no ReLU)}",
        },
        then=r"z^+=z-\alpha u,\ \phi^+=g(z^+):\quad " + DESCENT.core,
        parts={
            "descent": DESCENT,
            "rate": RATE,
            "expansion": EXPANSION,
            "tight": TIGHT,
            "price": PRICE,
        },
        scopes={"tight": "exists"},
    ),
    expected=Verdict("HOLDS", "PROVED"),
    remark="Tightness inside the triangular subclass is not claimed.",
)

ALPHA, M_LOW, M_HIGH, BIG_L, U, PROD, SQUARE = sp.symbols("alpha m M L U X Y", positive=True)
Change = Callable[..., sp.Expr]


def change(alpha: sp.Expr, m: sp.Expr, big_m: sp.Expr, big_l: sp.Expr) -> sp.Expr:
    """The largest change of f per |u|^2: -alpha (m - alpha L M^2 / 2)."""
    return -alpha * (m - alpha * big_l * big_m**2 / 2)


@claim.check("certificate", about="printed", part="descent")
def multipliers(run: Run, *, bound: Change = change) -> None:
    """descent lemma = bound - 1 (<u,q> - alpha m U) - L/2 (alpha^2 M^2 U - |q|^2), with U = |u|^2;
    the largest useful alpha.
    """
    lemma = -PROD + BIG_L / 2 * SQUARE
    rest = (PROD - ALPHA * M_LOW * U) + BIG_L / 2 * (ALPHA**2 * M_HIGH**2 * U - SQUARE)
    value = bound(ALPHA, M_LOW, M_HIGH, BIG_L)
    run.zero(lemma + rest - value * U, "the two multipliers")
    run.zero(
        value.subs(ALPHA, 2 * M_LOW / (BIG_L * M_HIGH**2)),
        "no descent is promised from alpha = 2m/(LM^2)",
    )
    run.that(value.subs(ALPHA, M_LOW / (BIG_L * M_HIGH**2)).is_negative, "descent at half of it")
    run.quantity(
        "largest alpha * L M^2 / m",
        sp.solve(value, ALPHA)[0] * BIG_L * M_HIGH**2 / M_LOW,
        theory=2,
        meaning="2m/(LM^2)",
    )


multipliers.mutant(
    "L M^2 without the half", bound=lambda a, m, big_m, big_l: -a * (m - a * big_l * big_m**2)
)
multipliers.mutant("M for m", bound=lambda a, m, big_m, big_l: change(a, big_m, big_m, big_l))
multipliers.mutant("m^2 for M^2", bound=lambda a, m, big_m, big_l: change(a, m, m, big_l))


@claim.check("certificate", about="printed", part="rate")
def rate_follows(
    run: Run, *, share: Callable[..., sp.Expr] = lambda m, big_m, big_l: m / (big_l * big_m**2)
) -> None:
    """At alpha = m/(LM^2) the decrease is m^2/(2LM^2) per |u|^2, the best; then telescope; PL: f -
    f* <= U/(2 mu).
    """
    best = share(M_LOW, M_HIGH, BIG_L)
    value = change(ALPHA, M_LOW, M_HIGH, BIG_L)
    run.zero(sp.diff(value, ALPHA).subs(ALPHA, best), "the best alpha")
    decrease = -value.subs(ALPHA, best)
    k, delta, mu = sp.symbols("K Delta mu", positive=True)
    run.zero(
        delta / (k * decrease) - 2 * BIG_L * M_HIGH**2 * delta / (M_LOW**2 * k),
        "min |grad f|^2 <= Delta_0/(K decrease)",
    )
    run.zero((1 - 2 * mu * decrease) - (1 - mu * M_LOW**2 / (BIG_L * M_HIGH**2)), "PL factor")
    unit = M_LOW**2 / (BIG_L * M_HIGH**2)
    run.quantity(
        "best decrease / (m^2/(L M^2))",
        sp.simplify(decrease / unit),
        meaning="at alpha = m/(LM^2), per |u|^2",
    )
    run.quantity(
        "K min|grad f|^2 / (L M^2 Delta_0/m^2)",
        sp.simplify(unit / decrease),
        meaning="2 L M^2 Delta_0/(m^2 K)",
    )
    at = {mu: sp.Rational(1, 2), BIG_L: 1, M_LOW: 1, M_HIGH: 2}
    run.quantity(
        "PL factor, mu=1/2, L=1, m=1, M=2",
        (1 - 2 * mu * decrease).subs(at),
        meaning="1 - mu m^2/(L M^2)",
    )


rate_follows.mutant("alpha = 2m/(LM^2)", share=lambda m, big_m, big_l: 2 * m / (big_l * big_m**2))
rate_follows.mutant("alpha = 1/(LM)", share=lambda m, big_m, big_l: 1 / (big_l * big_m))


def rotation(m: float, big_m: float) -> Tensor:
    """((m, -b), (b, m)) with b = sqrt(M^2 - m^2): norm M, symmetric part m I."""
    b = (big_m**2 - m**2) ** 0.5
    return torch.tensor([[m, -b], [b, m]], dtype=torch.float64)


def bowl(big_l: float) -> Callable[[Tensor], Tensor]:
    """L/2 |phi|^2."""
    return lambda phi: big_l / 2 * phi @ phi


CASES = [(1.0, 0.5, 1.0), (2.0, 0.3, 1.5), (0.5, 1.0, 10.0)]


@claim.check("exact", about="printed", part="tight")
def attained_by_the_rotation(
    run: Run, *, bound: Change = change, make: Callable[..., Tensor] = rotation
) -> None:
    """The library's solver with the scaled rotation as point map on L/2 |phi|^2: equality at every
    alpha.
    """
    for big_l, m, big_m in CASES:
        geometry = Geometry(map=Linear(make(m, big_m)))
        for factor in (0.5, 1.0, 1.9, 3.0):
            alpha = factor * m / (big_l * big_m**2)
            before, after = descend(
                bowl(big_l), vector(1.0, -2.0), task_lr=alpha, n_steps=1, geometry=geometry
            )
            u = big_l * before
            found = (bowl(big_l)(after) - bowl(big_l)(before)) / (u @ u)
            promised = float(bound(alpha, m, big_m, big_l))
            run.close(
                found,
                promised,
                tolerance=1e-12 * (1 + abs(promised)),
                what=f"change per |u|^2 at {factor} m/(LM^2)",
            )
    for k, tolerance in ((1, 1e-12), (4, 1e-12)):
        big_l, m, big_m = CASES[1]
        alpha = m / (big_l * big_m**2)
        end = descend(
            bowl(big_l),
            vector(1.0, 0.0),
            task_lr=alpha,
            n_steps=k,
            geometry=Geometry(map=Linear(make(m, big_m))),
        )[-1]
        start = Linear(make(m, big_m)).point({}, {"phi": vector(1.0, 0.0)})["phi"]
        shrink = float(bowl(big_l)(end) / bowl(big_l)(start))
        run.close(
            shrink,
            (1 - m**2 / big_m**2) ** k,
            tolerance=tolerance,
            what="PL factor 1 - mu m^2/(LM^2), mu = L, attained",
        )


attained_by_the_rotation.mutant(
    "m^2 for M^2", bound=lambda a, m, big_m, big_l: change(a, m, m, big_l)
)
attained_by_the_rotation.mutant(
    "half the decrease", bound=lambda a, m, big_m, big_l: change(a, m, big_m, big_l) / 2
)
attained_by_the_rotation.mutant(
    "impostor: symmetric with the same m, M",
    make=lambda m, big_m: torch.diag(torch.tensor([m, big_m], dtype=torch.float64)),
)


@cache
def worst_step(
    kind: str, big_l: float, m: float, big_m: float, alpha: float, solver: str = "CLARABEL"
) -> float:
    """max f(phi^+) - f(phi) at |u| = 1 over L-smooth f and over all maps of the kind, by SDP."""
    problem = PEP()
    f = problem.declare_function(SmoothFunction, L=big_l)
    made = (
        SmoothStronglyConvexFunction
        if kind == "gradient"
        else LipschitzStronglyMonotoneOperatorCheap
    )
    g = problem.declare_function(made, mu=m, L=big_m)
    z = problem.set_initial_point()
    phi = g.gradient(z)
    u, value = f.oracle(phi)
    after = f(g.gradient(z - alpha * u))
    problem.set_initial_condition(u**2 == 1)
    problem.set_performance_metric(after - value)
    return solved(problem, solver)


@claim.check("sdp", about="printed", part="tight")
def worst_case_by_sdp(run: Run, *, bound: Change = change) -> None:
    """Over all L-smooth f and all m-strongly monotone M-Lipschitz maps the SDP's worst change is
    the bound: both sides.
    """
    for big_l, m, big_m in CASES[:2]:
        for factor in (0.5, 1.0, 2.5):
            alpha = factor * m / (big_l * big_m**2)
            found, promised = (
                worst_step("operator", big_l, m, big_m, alpha),
                float(bound(alpha, m, big_m, big_l)),
            )
            run.close(found, promised, tolerance=1e-5, what="SDP against the bound")
            name = f"SDP worst change, L={big_l:g}, m={m:g}, M={big_m:g}, {factor:g} m/(LM^2)"
            run.quantity(
                name, found, tolerance=1e-5, theory=promised, meaning="f(phi+) - f(phi) at |u| = 1"
            )
    again = worst_step("operator", 1.0, 0.5, 1.0, 0.5, "SCS")
    run.close(again, worst_step("operator", 1.0, 0.5, 1.0, 0.5), tolerance=1e-4, what="two solvers")


worst_case_by_sdp.mutant(
    "99% of the change", bound=lambda a, m, big_m, big_l: 0.99 * change(a, m, big_m, big_l)
)
worst_case_by_sdp.mutant("m^2 for M^2", bound=lambda a, m, big_m, big_l: change(a, m, m, big_l))


def symmetric_change(alpha: sp.Expr, lam: sp.Expr, big_l: sp.Expr) -> sp.Expr:
    """-alpha lambda + alpha^2 L lambda^2 / 2."""
    return -alpha * lam + alpha**2 * big_l * lam**2 / 2


@claim.check("certificate", about="printed", part="price")
def price_of_asymmetry(
    run: Run, *, best: Callable[..., sp.Expr] = lambda m, big_m, big_l: 2 / (big_l * (m + big_m))
) -> None:
    """At alpha = 2/(L(m+M)) both ends give the same decrease, 2mM/(L(M+m)^2); its ratio to
    m^2/(2LM^2) is 4k^3/(1+k)^2.
    """
    alpha = best(M_LOW, M_HIGH, BIG_L)
    low, high = (sp.simplify(symmetric_change(alpha, lam, BIG_L)) for lam in (M_LOW, M_HIGH))
    run.zero(low - high, "both ends of the spectrum")
    lam = sp.Symbol("lambda", real=True)
    run.zero(
        sp.diff(symmetric_change(ALPHA, lam, BIG_L), lam, 2) - ALPHA**2 * BIG_L, "convex in lambda"
    )
    run.zero(
        -low - 2 * M_LOW * M_HIGH / (BIG_L * (M_HIGH + M_LOW) ** 2), "the best guaranteed decrease"
    )
    decrease = -change(M_LOW / (BIG_L * M_HIGH**2), M_LOW, M_HIGH, BIG_L)
    kappa = sp.Symbol("kappa", positive=True)
    ratio = sp.simplify((-low / decrease).subs(M_HIGH, kappa * M_LOW))
    run.zero(ratio - 4 * kappa**3 / (1 + kappa) ** 2, "the ratio")
    edge = sp.solve(symmetric_change(ALPHA, M_HIGH, BIG_L), ALPHA)[0] * BIG_L * M_HIGH
    run.quantity(
        "largest alpha L M of a mirror map",
        edge,
        theory=2,
        meaning="no ascent up to alpha = 2/(LM), m = 0 allowed",
    )
    run.quantity(
        "best decrease of a mirror map, L=1, m=1, M=3",
        -low.subs({BIG_L: 1, M_LOW: 1, M_HIGH: 3}),
        meaning="2mM/(L(M+m)^2)",
    )
    run.that(
        sp.factor(symmetric_change(ALPHA, lam, BIG_L))
        == sp.factor(ALPHA * lam * (ALPHA * BIG_L * lam - 2) / 2),
        "nor below",
    )
    for value in (1, 2, 10, 100):
        meaning = "4 kappa^3/(1 + kappa)^2"
        run.quantity(
            f"price of asymmetry at kappa={value}", ratio.subs(kappa, value), meaning=meaning
        )
    run.quantity(
        "price at kappa=10, rounded",
        float(ratio.subs(kappa, 10)),
        tolerance=0.5,
        theory=33,
        meaning="33 times",
    )


price_of_asymmetry.mutant("alpha = 1/(LM)", best=lambda m, big_m, big_l: 1 / (big_l * big_m))


@claim.check("sdp", about="printed", part="price")
def symmetric_by_sdp(run: Run, *, share: float = 1.0) -> None:
    """Over all gradient maps with spectrum in [m, M] the SDP gives the symmetric bound; no ascent
    at 2/(LM) with m = 0.
    """
    big_l, m, big_m = CASES[1]
    for alpha in (0.1, 2 / (big_l * (m + big_m))):
        promised = share * max(float(symmetric_change(alpha, lam, big_l)) for lam in (m, big_m))
        run.close(
            worst_step("gradient", big_l, m, big_m, alpha),
            promised,
            tolerance=1e-5,
            what=f"SDP at alpha = {alpha:.3g}",
        )
    run.close(
        worst_step("gradient", 1.0, 0.0, 1.0, 2.0),
        0.0,
        tolerance=1e-5,
        what="no ascent at 2/(LM), m = 0",
    )


symmetric_by_sdp.mutant("99% of it", share=0.99)


def bent(z: Tensor) -> Tensor:
    """A shift with second derivative 3."""
    return 1.5 * z**2


@claim.check("exact", about="printed", part="expansion", covers="all")
def remainder_attained(run: Run, *, constant: float = 0.5) -> None:
    """int_0^1 t dt = 1/2; (z_1, z_2 + 3/2 z_1^2), whose J is 3-Lipschitz, attains alpha^2/2 L_J
    |u|^2 for u along z_1.
    """
    t = sp.Symbol("t")
    half = run.quantity(
        "|r| / (alpha^2 L_J |u|^2)",
        sp.integrate(t, (t, 0, 1)),
        meaning="remainder of the expansion, attained",
    )
    run.close(float(half), constant, tolerance=0.0, what="int_0^1 t dt")
    map = iaf.formula(
        lambda _: (vector(1.0), vector(0.0)), lambda z: (vector(1.0), bent(z)), scale=iaf.Identity()
    )
    for alpha in (0.25, 2.0):
        z, u = vector(0.5, -1.0), vector(2.0, 0.0)
        rest = map.at(z - alpha * u) - (map.at(z) - alpha * map.jacobian(z) @ u)
        run.close(
            torch.linalg.vector_norm(rest),
            constant * alpha**2 * 3.0 * 4.0,
            tolerance=1e-12,
            what="|r|",
        )


remainder_attained.mutant("alpha^2 L_J", constant=1.0)
remainder_attained.mutant("alpha^2 L_J / 4", constant=0.25)


@claim.check("property", about="printed", part="expansion")
def library_expansion(
    run: Run, *, matrix: Callable[[Tensor], Tensor] = lambda jacobian: jacobian
) -> None:
    """Both forms: phi^+ - phi + alpha J u falls by about 4 when alpha is halved: J, not its
    transpose.
    """

    @for_all(map=iaf.block_maps(min_blocks=2), seed=seeds())
    def _(map: iaf.Flat, seed: int) -> None:
        z, u = map.random("t6", "z", seed), map.random("t6", "u", seed)
        linear = matrix(map.jacobian(z)) @ u
        rests = [
            float(torch.linalg.vector_norm(map.at(z - alpha * u) - map.at(z) + alpha * linear))
            for alpha in (1e-3, 5e-4)
        ]
        run.at_most(
            rests[1], 0.3 * rests[0], what="remainder at alpha/2 against that at alpha", slack=1e-12
        )


library_expansion.mutant("J^T in place of J", matrix=lambda jacobian: jacobian.T)
library_expansion.mutant("D in place of J", matrix=lambda jacobian: torch.diag(jacobian.diagonal()))


@claim.check("property", about="printed", part="descent")
def library_descends(
    run: Run, *, factor: float = 1.0, modulus: Callable[[float, float], float] = lambda m, big_m: m
) -> None:
    """A library map with m and M certified on a box; one step of the library's solver on random
    losses, inside the box.
    """
    map, box = iaf.mlp([[0], [1]], seed=5, size=0.5, hidden=3, code=1), Box.cube(0.5, 2)
    m = certify(map.map, box, "monotone", tolerance=0.05).bound
    big_m = certify(map.map, box, "lipschitz", tolerance=0.05).bound
    run.above(m, 0.0, what="certified modulus")
    geometry = Geometry(map=map.map)

    @for_all(seed=seeds())
    def _(seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        target = torch.randn(2, generator=draw, dtype=torch.float64)
        start = torch.rand(2, generator=draw, dtype=torch.float64) - 0.5

        def f(phi):
            return 0.5 * (phi - target).square().sum() + 0.2 * torch.cos(phi).sum()

        big_l = 1.2
        alpha = factor * m / (big_l * big_m**2)
        before = map.at(start)
        u = torch.func.grad(f)(before)
        if float((start - alpha * u).abs().max()) > 0.5:
            return
        after = descend(f, start, task_lr=alpha, n_steps=1, geometry=geometry)[-1]
        promised = float(change(alpha, modulus(m, big_m), big_m, big_l)) * float(u @ u)
        run.at_most(float(f(after) - f(before)), promised, slack=1e-12, what="change of the loss")


library_descends.mutant("twice M for m", modulus=lambda m, big_m: 2 * big_m)
library_descends.mutant("ascent", factor=-1.0)


claim.kernel("dual_step_descends", part="descent", about="printed")
