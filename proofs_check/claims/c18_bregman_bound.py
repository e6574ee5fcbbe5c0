r"""C18: "non-quadratic upper bounds": the Bregman surrogate bounds f only if h dominates f.

*Proof.* The gap is $D_{h/\alpha-f}$ (algebra, as in C12), non-negative for all pairs iff
$\frac1\alpha h-f$ is convex. If $h$ is $\sigma$-s.c. and $f$ $L$-smooth, then $\langle\nabla
w(x)-\nabla w(y),x-y\rangle\ge(\frac\sigma\alpha-L)\|x-y\|^2$ for $w=\frac1\alpha h-f$.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import sympy as sp
import torch
from hypothesis import strategies as st
from torch import Tensor

from mdtheory.maps.base import MirrorMap
from proofs_check.claim import Claim, Formula, Statement, Verdict
from proofs_check.formula import tex, value
from proofs_check.run import Run
from proofs_check.tools.models import built, vector
from proofs_check.tools.strategies import for_all, seeds

_ALPHA, _SIGMA, _L = sp.symbols(r"\alpha \sigma L", positive=True)
SUFFICIENT = Formula(
    left=_ALPHA,
    relation="<=",
    right=_SIGMA / _L,
    text=r"h\ \sigma\text{-s.c., }f\ L\text{-smooth: }{formula}={other}\text{ suffices; sharp}",
    terms={"other": 1 / (_L * sp.Symbol("L_{h^*}", positive=True))},
)
_BOUND = (
    r"f(\phi)\le{\rm lin}(f,\psi)(\phi)+" + tex(1 / _ALPHA) + r"D_h(\phi,\psi)\quad\forall\phi,\psi"
)
_A, _B, _X = sp.symbols("a b x", positive=True)
GAP = Formula(
    left=sp.Symbol(r"{\rm lin}(f,\psi)+D_h/\alpha-f"),
    relation="==",
    right=sp.Symbol("D_h") / _ALPHA - sp.Symbol("D_f"),
    text=r"\text{the gap is }{formula}:\text{ the bound holds iff }h/\alpha-f\text{ is convex}",
)
RELATIVE = Formula(
    left=_ALPHA,
    relation="<=",
    right=1 / _B,
    text=r"\text{without any }L\text{: }f={loss},\ h={h}\text{ in each coordinate, iff }{formula}",
    terms={"loss": _A * _X - _B * sp.log(_X), "h": -sp.log(_X)},
)

claim = Claim(
    id="C18",
    title="Bregman divergences give non-quadratic upper bounds",
    source="Learning loss geometry priors via mirror descent",
    printed=Statement(
        then=_BOUND,
        given={"domain": r"h,f\text{ differentiable on the same open convex set, }h\text{ s.c.}"},
    ),
    amended=Statement(
        then=_BOUND,
        given={
            "domain": r"h,f\text{ differentiable on the same open convex set}",
            "dominates": tex(1 / _ALPHA) + r"h-f\text{ convex}",
        },
        parts={
            "iff": GAP,
            "sufficient": SUFFICIENT,
            "relative": RELATIVE,
        },
    ),
    expected=Verdict("NEEDS_CONDITIONS", "PROVED"),
    remark="The poster gives no check of this for a learned h.",
)


def gap(
    h: MirrorMap, f: Callable[[Tensor], Tensor], phi: Tensor, psi: Tensor, alpha: float
) -> float:
    """lin(f, psi)(phi) + D_h(phi, psi)/alpha - f(phi), with the library's divergence."""
    slope = torch.func.grad(f)(psi)
    return float(
        f(psi)
        + slope @ (phi - psi)
        + h.bregman(h.own(), {"phi": phi}, {"phi": psi}) / alpha
        - f(phi)
    )


@claim.check("counterexample", about="printed", drops=("dominates",))
def quartic(run: Run, *, power: int = 4) -> None:
    """h = x^2/2 (strongly convex), f = x^4: for every alpha the bound fails at psi = 0, phi =
    1/sqrt(alpha).
    """
    for alpha in (1e-4, 1e-2, 1.0):
        far = vector(alpha**-0.5)
        found = gap(
            built("identity", far), lambda v: (v.abs() ** power).sum(), far, vector(0.0), alpha
        )
        run.above(0.0, found, what=f"gap at alpha = {alpha}")
    alpha = sp.Symbol("alpha", positive=True)
    at = 1 / sp.sqrt(alpha)
    run.that(
        sp.simplify(at**2 / (2 * alpha) - at**power).is_negative, "the gap, for every alpha > 0"
    )


quartic.mutant("f = x^2: dominated for small alpha", power=2)


@claim.check("symbolic", part="iff")
def gap_is_a_divergence(
    run: Run, *, scale: Callable[[sp.Symbol], sp.Expr] = lambda a: 1 / a
) -> None:
    """lin f + D_h/alpha - f = D_{h/alpha - f} for arbitrary functions of two variables; convexity
    is D_w >= 0 for all pairs.
    """
    x, y = (sp.Matrix(sp.symbols(f"{n}1 {n}2")) for n in "xy")
    alpha, f, h = sp.Symbol("alpha", positive=True), sp.Function("f"), sp.Function("h")

    def divergence(w: Callable[..., sp.Expr]) -> sp.Expr:
        return w(*x) - w(*y) - sum(sp.diff(w(*y), b) * (a - b) for a, b in zip(x, y, strict=True))

    found = scale(alpha) * divergence(h) - divergence(f)
    run.zero(found - divergence(lambda *v: h(*v) / alpha - f(*v)), "gap")


gap_is_a_divergence.mutant("alpha for 1/alpha", scale=lambda a: a)


@claim.check("certificate", part="sufficient")
def strong_convexity_suffices(
    run: Run, *, limit: Callable[..., sp.Expr] = lambda sigma, big_l: sigma / big_l
) -> None:
    """<grad w, .> >= (sigma/alpha - L)|x - y|^2 >= 0 for alpha <= sigma/L; h = sigma/2 x^2, f = L/2
    x^2 leaves no slack.
    """
    sigma, big_l, square, share = sp.symbols("sigma L D t", positive=True)
    alpha = limit(sigma, big_l) * share / (1 + share)
    run.that(
        sp.simplify(sigma * square / alpha - big_l * square).is_nonnegative,
        "monotonicity of grad w below the limit",
    )
    run.zero(sigma / limit(sigma, big_l) - big_l, "slack of the extreme pair at the limit")
    run.quantity(
        "largest alpha L/sigma",
        sp.simplify(limit(sigma, big_l) * big_l / sigma),
        theory=1,
        meaning="alpha <= sigma/L",
    )


strong_convexity_suffices.mutant("alpha <= 4/L", limit=lambda sigma, big_l: 4 * sigma / big_l)


@claim.check("property", part="sufficient")
def library_maps(run: Run, *, factor: float = 1.0) -> None:
    """The library's p-norm (p <= 2, L_{h*} = q - 1) and quadratic maps, smooth losses with their
    top direction: gap >= 0.
    """

    @for_all(p=st.one_of(st.just(2.0), st.floats(1.2, 2.0)), seed=seeds(), top=st.booleans())
    def _(p: float, seed: int, top: bool) -> None:
        rng = np.random.default_rng(seed)
        root = rng.standard_normal((3, 3))
        hessian, psi = torch.tensor(root @ root.T), torch.tensor(rng.standard_normal(3))
        values, columns = torch.linalg.eigh(hessian)
        step = columns[:, -1] if top else torch.tensor(rng.standard_normal(3))
        h = built("pnorm", psi, p=p)
        alpha = factor / (float(values[-1]) * h.curvature({})[1])
        found = gap(h, lambda v: 0.5 * v @ hessian @ v, psi + step, psi, alpha)
        run.at_most(-found, 0.0, slack=1e-10 * float(values[-1]), what=f"negative gap at p = {p}")


library_maps.mutant("alpha = 4/L", factor=4.0)
library_maps.mutant("alpha = 1.01/L", factor=1.01)


@claim.check("symbolic", part="relative")
def burg(run: Run, *, limit: Callable[[sp.Symbol], sp.Expr] = lambda b: 1 / b) -> None:
    """(h/alpha - f)'' = (1/alpha - b)/x^2 per coordinate: non-negative iff alpha <= 1/b, although
    f'' is unbounded.
    """
    x, a, b, alpha = sp.symbols("x a b alpha", positive=True)
    curvature = sp.diff(-sp.log(x) / alpha - (a * x - b * sp.log(x)), x, 2)
    run.zero(curvature - (1 / alpha - b) / x**2, "curvature of h/alpha - f")
    run.zero(curvature.subs(alpha, limit(b)), "zero at the limit")
    run.quantity(
        "largest alpha*b for Burg entropy",
        sp.simplify(limit(b) * b),
        theory=1,
        meaning="alpha <= 1/max b",
    )


burg.mutant("2/b", limit=lambda b: 2 / b)


@claim.check("property", part="relative")
def library_burg(run: Run, *, factor: float = 1.0) -> None:
    """The library's log-barrier on Poisson losses, pairs up to a factor of e^10 apart: gap >= 0 at
    alpha = 1/max b.
    """

    @for_all(seed=seeds(), size=st.floats(0.1, 10.0))
    def _(seed: int, size: float) -> None:
        rng = np.random.default_rng(seed)
        a, b, x = (
            torch.tensor(v)
            for v in (rng.uniform(0, 2, 3), rng.uniform(0.1, 2, 3), rng.uniform(0.5, 2, 3))
        )
        y = x * torch.exp(size * torch.tensor(rng.uniform(-1, 1, 3)))
        alpha = factor / float(b.max())
        found = gap(built("barrier", x), lambda v: a @ v - b @ v.log(), y, x, alpha)
        run.at_most(-found, 0.0, slack=1e-9 * float(y.max()), what="negative gap")


library_burg.mutant("alpha = 4/L", factor=4.0)


@claim.check("exact", part="sufficient")
def stated_rate(run: Run, *, stated: Formula) -> None:
    """h = sigma/2 x^2 and f = L/2 x^2 in rationals: the bound holds exactly where the printed
    condition says so.
    """
    for sigma, big_l in ((sp.Rational(1, 2), 3), (sp.Integer(2), sp.Rational(1, 3))):
        for factor in (sp.Rational(2, 5), sp.Rational(3, 4), 1, sp.Rational(101, 100), 2):
            alpha = factor * sigma / big_l
            gap = sigma / alpha - big_l  # of h/alpha - f, a quadratic
            run.decides(stated, {r"\alpha": alpha, r"\sigma": sigma, "L": big_l}, bool(gap >= 0))
        found = built("quadratic", vector(0.0), matrix=float(1 / sigma)).curvature({})[1]
        run.close(
            float(value(stated.terms["other"], {"L": big_l, "L_{h^*}": found})),
            float(sigma / big_l),
            tolerance=1e-12,
            what="the same by L_{h*}",
        )


@claim.check("exact", part="iff")
def stated_gap(run: Run, *, stated: Formula) -> None:
    """f = x^4 and h = x^2 at rational pairs, all from the definitions."""
    for x, y, alpha in ((3, 1, sp.Rational(1, 5)), (-2, 4, sp.Rational(3, 7))):
        of_h = sp.Integer((x - y) ** 2)
        of_f = sp.Integer(x**4 - y**4 - 4 * y**3 * (x - y))
        gap = y**4 + 4 * y**3 * (x - y) + of_h / alpha - x**4
        run.stands(stated, {stated.left: gap, "D_h": of_h, "D_f": of_f, r"\alpha": alpha})


@claim.check("symbolic", part="relative")
def stated_burg(run: Run, *, stated: Formula) -> None:
    """The curvature of h/alpha - f for the printed two, times x^2, decides where the printed
    condition says so; f has the slope a - b/x.
    """
    run.zero(sp.diff(stated.terms["loss"], _X) - (_A - _B / _X), "slope of f")
    whole = stated.terms["h"] / _ALPHA - stated.terms["loss"]
    bend = sp.simplify(sp.diff(whole, _X, 2) * _X**2)
    for b in (sp.Rational(1, 2), sp.Integer(3)):
        for share in (sp.Rational(2, 5), sp.Rational(3, 4), 1, sp.Rational(11, 10), 4):
            here = bend.subs({_ALPHA: share / b, _B: b})
            run.decides(stated, {r"\alpha": share / b, "b": b}, bool(here >= 0))
