r"""C20: property P1: the conjugate of a strongly convex h is convex and smooth.

*Proof.* $h^*$ is a supremum of affine functions: convex. $h-\langle z,\cdot\rangle$ is closed,
coercive and strictly convex, so it has a unique minimiser for every $z$: $\partial h^*(z)$ is a
singleton, and $h^*$ is differentiable on $\mathbb R^d$ (Rockafellar 23.5, 25.1). With
$z_i\in\partial h(\phi_i)$ add the two inequalities of strong convexity:
$\sigma\|\phi_1-\phi_2\|^2\le\langle z_1-z_2,\phi_1-\phi_2\rangle$; then Cauchy-Schwarz.
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
from proofs_check.run import Run
from proofs_check.tools.models import FromPotential, built, point, vector
from proofs_check.tools.strategies import for_all, seeds

_SMOOTH = r"h^*\text{ is convex and }L_{h^*}\text{-smooth on }\mathbb R^d"

_SIGMA = sp.Symbol(r"\sigma", positive=True)
CONSTANT = Formula(
    left=sp.Symbol("L_{h^*}"),
    relation="==",
    right=1 / _SIGMA,
    text=r"{formula},\text{ attained by }{attaining}\,\|\cdot\|^2",
    terms={"attaining": _SIGMA / 2},
)
_X, _Z = sp.symbols("x z", positive=True)
COCOERCIVE = Formula(
    left=sp.Symbol(r"\langle\nabla h^*(z)-\nabla h^*(z'),z-z'\rangle"),
    relation=">=",
    right=_SIGMA * sp.Symbol(r"\|\nabla h^*(z)-\nabla h^*(z')\|", positive=True) ** 2,
)
NEEDED = Formula(
    left=sp.Symbol(r"\nabla h^*(z)"),
    relation="==",
    right=_Z ** sp.Rational(1, 3),
    text=r"\text{fails without it: }h={h}\text{ has }{formula}\text{; softplus has }h^*=\infty"
    r"\text{ at }z={far}",
    terms={"h": _X**4 / 4, "far": sp.Integer(2)},
)

claim = Claim(
    id="C20",
    title="P1: the conjugate is convex and Lipschitz smooth",
    source="Learning loss geometry priors via mirror descent, P1",
    printed=Statement(
        given={"strong": r"h\text{ proper, }\sigma\text{-strongly convex (closed)}"}, then=_SMOOTH
    ),
    amended=Statement(
        given={"strong": r"h\text{ proper, closed, }\sigma\text{-strongly convex}"},
        then=_SMOOTH + r",\ " + CONSTANT.core,
        parts={"cocoercive": COCOERCIVE, "constant": CONSTANT, "needed": NEEDED},
        scopes={"constant": "exists", "needed": "exists"},
    ),
    expected=Verdict("HOLDS", "PROVED"),
)


def _assembled(run: Run, share: sp.Expr) -> None:
    h1, h2, x, z1, z2, sigma = sp.symbols("h1 h2 x z1 z2 sigma")  # x = phi_1 - phi_2
    first = h1 - h2 - z2 * x - share * sigma * x**2  # >= 0: strong convexity at phi_2
    second = h2 - h1 + z1 * x - share * sigma * x**2  # >= 0: at phi_1
    run.zero(first + second - ((z1 - z2) * x - sigma * x**2), "sum of the two inequalities")


@claim.check("certificate", about="printed")
def smooth(run: Run, *, share: sp.Expr = sp.S.Half) -> None:
    """The two inequalities add up to sigma |d phi|^2 <= <d z, d phi> <= |d z||d phi|, so |d phi| <=
    |d z|/sigma.
    """
    _assembled(run, share)
    size, dual, sigma = sp.symbols("s d sigma", positive=True)
    run.zero(
        sp.solve(sp.Eq(sigma * size**2, dual * size), size)[0] - dual / sigma,
        "largest |d phi| that Cauchy-Schwarz allows",
    )


smooth.mutant("sigma for sigma/2", share=sp.S.One)


@claim.check("certificate", part="cocoercive")
def cocoercive(run: Run, *, share: sp.Expr = sp.S.Half) -> None:
    """The same sum, read at phi_i = grad h*(z_i)."""
    _assembled(run, share)


cocoercive.mutant("sigma/4", share=sp.S.Half / 2)


def strongly_convex(sigma: float) -> MirrorMap:
    """h = sigma/2 |x|^2 + sum log cosh x: its curvature falls to sigma, and h* by the library's
    Newton inverse.
    """
    return FromPotential(lambda v: (0.5 * sigma * v**2 + torch.cosh(v).log()).sum())


@claim.check("property", part="cocoercive")
def sampled_slopes(run: Run, *, modulus: Callable[[float], float] = lambda sigma: sigma) -> None:
    """Numeric conjugates, p-norm and quadratic maps of the library on near and far pairs: sigma |d
    phi|^2 <= <d phi, d z>.
    """

    @for_all(
        kind=st.sampled_from(["numeric", "pnorm", "quadratic"]),
        sigma=st.floats(0.1, 0.9),
        seed=seeds(),
        size=st.floats(-2, 1),
    )
    def _(kind: str, sigma: float, seed: int, size: float) -> None:
        z, step = torch.tensor(np.random.default_rng(seed).standard_normal((2, 3)))
        other = z + 10.0**size * step
        h = {
            "numeric": lambda: strongly_convex(sigma),
            "pnorm": lambda: built("pnorm", z, p=1 + sigma),
            "quadratic": lambda: built("quadratic", z, matrix=1 / sigma),
        }[kind]()
        change, moved = point(h, other) - point(h, z), other - z
        slack = 1e-9 * float(moved.square().sum())
        run.at_most(
            modulus(sigma) * change.square().sum(),
            change @ moved,
            slack=slack,
            what=f"cocoercivity of {kind}",
        )
        run.at_most(change.norm(), moved.norm() / sigma, slack=1e-9, what="L_{h*} = 1/sigma")


sampled_slopes.mutant("L_{h*} = sigma", modulus=lambda sigma: 1 / sigma)


@claim.check("exact", part="constant")
def attained(run: Run, *, constant: Callable[[float], float] = lambda sigma: 1 / sigma) -> None:
    """sigma/2 |x|^2: slope 1/sigma of the library's map, whose own curvature says the same."""
    for sigma in (0.25, 1.0, 4.0):
        h = built("quadratic", vector(0.0), matrix=1 / sigma)
        slope = float(point(h, vector(2.0)) - point(h, vector(1.0)))
        run.close(slope, constant(sigma), tolerance=1e-14, what=f"slope at sigma = {sigma}")
        run.close(h.curvature({})[1], constant(sigma), tolerance=1e-14, what="the library's bound")
    run.quantity(
        "sigma * L_{h*}",
        constant(0.25) * 0.25,
        tolerance=1e-12,
        theory=1.0,
        meaning="L_{h*} = 1/sigma",
    )


attained.mutant("L_{h*} = sigma", constant=lambda sigma: sigma)


@claim.check("counterexample", part="needed")
def without_strong_convexity(run: Run, *, ridge: float = 0.0) -> None:
    """x^4/4: grad h* = z^{1/3} has slopes without bound at 0. Softplus: 2x - softplus(x) -> oo, so
    h*(2) is infinite.
    """
    slopes = []
    for z in (1e-3, 1e-6, 1e-9):
        roots = np.roots([1.0, 0.0, ridge, -z])
        x = float(roots[np.abs(roots.imag) < 1e-12].real.max())
        slopes.append(x / z)
    order = 1 - float(np.log10(slopes[1] / slopes[0])) / 3
    run.quantity(
        "order of grad h* at 0, h=x^4/4",
        order,
        tolerance=1e-9,
        theory=1 / 3,
        meaning="z^{1/3}: no Lipschitz constant",
    )
    run.above(slopes[2] / slopes[1], 50.0, what="growth of the slope, 10^3 closer again")
    far = [float(2 * v - torch.nn.functional.softplus(v)) for v in (vector(1e2), vector(1e4))]
    run.above(far[1], 9e3, what="2x - softplus(x) at 10^4")
    x = sp.Symbol("x", positive=True)
    run.that(sp.limit(2 * x - sp.log(1 + sp.exp(x)), x, sp.oo) is sp.oo, "h*(2) is infinite")


without_strong_convexity.mutant("x^4/4 + x^2/2", ridge=1.0)


def curvature_of(h: MirrorMap, z: Tensor) -> Tensor:
    """Hessian of h* at z by differentiating the library's point map. shape: (d, d)"""
    return torch.func.jacrev(lambda v: point(h, v))(z)


@claim.check("property", part="constant")
def numeric_curvature(run: Run, *, sigma_used: float = 1.0) -> None:
    """Second derivatives of the library's numeric h*: eigenvalues in (0, 1/sigma], reaching it far
    out (log cosh is flat).
    """
    for sigma in (0.2, 0.7):
        h, top = strongly_convex(sigma), []
        for size in (0.0, 1.0, 10.0):
            values = torch.linalg.eigvalsh(curvature_of(h, size * vector(1.0, -2.0)))
            run.above(float(values[0]), 0.0, what="smallest curvature of h*")
            run.at_most(
                float(values[-1]), sigma_used / sigma, slack=1e-8, what="largest curvature of h*"
            )
            top.append(float(values[-1]))
        run.close(max(top), 1 / sigma, tolerance=1e-6, what="attained far out")


numeric_curvature.mutant("half of 1/sigma", sigma_used=0.5)


@claim.check("exact", part="constant")
def stated_constant(run: Run, *, stated: Formula) -> None:
    """The library's map of the printed attaining h has the printed constant as its slope and as its
    own bound, for three moduli.
    """
    for sigma in (0.25, 0.5, 4.0):
        weight = float(stated.terms["attaining"].subs(_SIGMA, sigma))
        h = FromPotential(lambda v, w=weight: w * v @ v)
        slope = float(point(h, vector(2.0)) - point(h, vector(1.0)))
        run.stands(stated, {stated.left: slope, r"\sigma": sigma}, slack=1e-9)
        found = built("quadratic", vector(0.0), matrix=1 / sigma).curvature({})[1]
        run.stands(stated, {stated.left: float(found), r"\sigma": sigma}, slack=1e-12)


@claim.check("exact", part="cocoercive")
def stated_cocoercive(run: Run, *, stated: Formula) -> None:
    """The library's map of diag(1/sigma, 1/2): attained along the first axis, strict along the
    other.
    """
    h = built("quadratic", vector(0.0, 0.0), matrix={"phi": vector(4.0, 0.5)})
    for step, tight in ((vector(0.5, 0.0), True), (vector(0.0, 2.0), False)):
        change = point(h, step) - point(h, vector(0.0, 0.0))
        at = {stated.left: float(change @ step), r"\sigma": 0.25}
        at[r"\|\nabla h^*(z)-\nabla h^*(z')\|"] = float(change.norm())
        run.stands(stated, at, slack=1e-12)
        if tight:
            run.attained(stated, at, tolerance=1e-12)


@claim.check("exact", part="needed")
def stated_counterexamples(run: Run, *, stated: Formula) -> None:
    """h' = z solved for the printed h; and z x - softplus(x) has no bound at the printed z."""
    run.zero(sp.diff(stated.terms["h"], _X).subs(_X, stated.right) - _Z, "grad h at grad h*")
    run.stands(stated, {stated.left: sp.Integer(2), "z": 8})
    growth = stated.terms["far"] * _X - sp.log(1 + sp.exp(_X))
    run.that(sp.limit(growth, _X, sp.oo) is sp.oo, "h* is infinite there")
