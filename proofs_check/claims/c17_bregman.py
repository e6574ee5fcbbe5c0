r"""C17: the Bregman divergence and its quadratic example.

*Proof.* $D_h\ge0$ is the first-order characterisation of convexity; for $\sigma$-strongly convex
$h$ apply it to $h-\frac\sigma2\|\cdot\|^2$. Strict convexity gives equality only at equal
arguments. Duality: with $z_i=\nabla h(\phi_i)$ and Fenchel's equality
$h(\phi_i)+h^*(z_i)=\langle\phi_i,z_i\rangle$, both sides are
$h(\phi_1)+h^*(z_2)-\langle\phi_1,z_2\rangle$.
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
from proofs_check.tools.models import built, dual, vector
from proofs_check.tools.strategies import for_all, seeds

_SIGMA = sp.Symbol(r"\sigma", positive=True)
STRONG = Formula(
    left=sp.Symbol(r"D_h(\phi,\psi)"),
    relation=">=",
    right=_SIGMA / 2 * sp.Symbol(r"\|\phi-\psi\|", positive=True) ** 2,
    text=r"h\ \sigma\text{-s.c.}\Rightarrow {formula}",
)
_FAR, _SIZE = sp.symbols(r"\|\phi-\psi\|_{P^{-1}} \|\cdot\|_{P^{-1}}", positive=True)
_D_H = sp.Symbol(r"D_h(\phi,\psi)", real=True)
EXAMPLE = Formula(
    left=_D_H,
    relation="==",
    right=_FAR**2 / 2,
    text=r"h={h}\Rightarrow {formula}",
    terms={"h": _SIZE**2 / 2},
)
NONNEGATIVE = Formula(
    left=_D_H,
    relation=">=",
    right=sp.Integer(0),
    text=r"{formula};\ \text{zero iff }\phi=\psi\text{ for strictly convex }h",
)
DUALITY = Formula(
    left=sp.Symbol(r"D_h(\phi_1,\phi_2)"),
    relation="==",
    right=sp.Symbol("D_{h^*}(z_2,z_1)"),
    text=r"h\text{ strictly convex: }{formula},\ z_i=\nabla h(\phi_i)",
)

claim = Claim(
    id="C17",
    title="Bregman divergence and its quadratic example",
    source="Learning loss geometry priors via mirror descent",
    printed=Statement(
        given={"h": r"h\text{ differentiable and strongly convex}"},
        then=EXAMPLE,
    ),
    amended=Statement(
        given={"h": r"h\text{ differentiable and convex}"},
        then=NONNEGATIVE.core + r",\text{ and more as }h\text{ is better}",
        parts={
            "example": EXAMPLE,
            "nonnegative": NONNEGATIVE,
            "strong": STRONG,
            "duality": DUALITY,
        },
    ),
    expected=Verdict("HOLDS", "PROVED"),
)


def divergence(h: MirrorMap, x: Tensor, y: Tensor) -> Tensor:
    """The library's D_h(x, y)."""
    return h.bregman(h.own(), {"phi": x}, {"phi": y})


def conjugate_divergence(h: MirrorMap, x: Tensor, y: Tensor) -> Tensor:
    """D_{h*}(x, y) = h*(x) - h*(y) - <grad h*(y), x - y>, from the library's conjugate and
    point.
    """
    value, slope = (lambda v: h.conjugate(h.own(), {"phi": v})), h.point(h.own(), {"phi": y})["phi"]
    return value(x) - value(y) - slope @ (x - y)


def swapped(h: MirrorMap, x: Tensor, y: Tensor) -> Tensor:
    """The arguments the wrong way round."""
    return divergence(h, y, x)


def without_slope(h: MirrorMap, x: Tensor, y: Tensor) -> Tensor:
    """h(x) - h(y) only."""
    return h.potential(h.own(), {"phi": x}) - h.potential(h.own(), {"phi": y})


def _example(run: Run, half: sp.Expr) -> None:
    a, b, c = sp.symbols("a b c", real=True)
    weight, x, y = (
        sp.Matrix([[a, b], [b, c]]),
        sp.Matrix(sp.symbols("x1 x2")),
        sp.Matrix(sp.symbols("y1 y2")),
    )

    def h(v: sp.Matrix) -> sp.Expr:
        return half * v.dot(weight * v)

    slope = sp.Matrix([sp.diff(h(y), v) for v in y])
    run.zero(
        h(x) - h(y) - slope.dot(x - y) - (x - y).dot(weight * (x - y)) / 2, "D_h of the quadratic"
    )


@claim.check("symbolic", about="printed")
def quadratic_example(run: Run, *, half: sp.Expr = sp.S.Half) -> None:
    """The identity for a symbolic symmetric P^{-1}."""
    _example(run, half)


quadratic_example.mutant("h without its 1/2", half=sp.S.One)


@claim.check("exact", part="example", covers="all")
def library_example(
    run: Run, *, form: Callable[[MirrorMap, Tensor, Tensor], Tensor] = divergence
) -> None:
    """The library's quadratic map with a dense P, a diagonal P and the identity."""
    dense = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    x, y = vector(1.0, -2.0), vector(0.3, 0.4)
    for matrix, metric in ((dense, dense), (vector(2.0, 0.5), torch.diag(vector(2.0, 0.5)))):
        h = built("quadratic", x, matrix={"phi": matrix})
        run.close(
            form(h, x, y),
            0.5 * (x - y) @ torch.linalg.solve(metric, x - y),
            tolerance=1e-13,
            what="D_h",
        )
    run.close(
        form(built("identity", x), x, y),
        0.5 * (x - y) @ (x - y),
        tolerance=1e-13,
        what="D_h of the identity",
    )
    _example(run, sp.S.Half)


library_example.mutant("h(x) - h(y) only", form=without_slope)


@claim.check("symbolic", part="nonnegative")
def first_order(run: Run, *, sign: int = 1) -> None:
    """D_h(x, y) = integral of (x - t) h''(t) from y to x, by integration by parts: h'' >= 0 makes
    it >= 0, > 0 if h'' > 0.
    """
    x, y, t = sp.symbols("x y t", real=True)
    h = t**4 + 3 * t**2 + sp.exp(t)  # the antiderivative below is checked for any h
    generic = sp.Function("h")(t)
    anti = (x - t) * sp.diff(generic, t) + sign * generic
    run.zero(sp.diff(anti, t) - (x - t) * sp.diff(generic, t, 2), "antiderivative of (x - t) h''")
    value = sp.integrate(sp.expand((x - t) * sp.diff(h, t, 2)), (t, y, x))
    run.zero(
        value - (h.subs(t, x) - h.subs(t, y) - sp.diff(h, t).subs(t, y) * (x - y)),
        "D_h as an integral",
    )


first_order.mutant("sign of the boundary term", sign=-1)


@claim.check("property", part="nonnegative")
def library_nonnegative(
    run: Run, *, form: Callable[[MirrorMap, Tensor, Tensor], Tensor] = divergence
) -> None:
    """Every closed map of the library, on near and far pairs: D_h > 0, and 0 at equal arguments."""

    @for_all(
        slug=st.sampled_from(["entropy", "hypentropy", "barrier", "pnorm", "quadratic"]),
        seed=seeds(),
        size=st.floats(-3, 1),
    )
    def _(slug: str, seed: int, size: float) -> None:
        draws = np.random.default_rng(seed).standard_normal((2, 3))
        y = torch.tensor(np.exp(draws[0]))
        x = y * torch.exp(10.0**size * torch.tensor(draws[1]) / 3)
        h = built(slug, y)
        run.above(float(form(h, x, y)), 0.0, what=f"D_h of {slug}")
        run.close(form(h, y, y), 0.0, tolerance=1e-15, what="D_h at equal arguments")


library_nonnegative.mutant("h(x) - h(y) only", form=without_slope)


@claim.check("symbolic", part="strong")
def strong_bound(run: Run, *, factor: sp.Expr = sp.S.Half) -> None:
    """D is linear in h: D_h = D_{h - sigma/2 |.|^2} + sigma/2 |x - y|^2; equality for h = sigma/2
    |.|^2.
    """
    sigma, x, y = sp.symbols("sigma x y", real=True)
    h = sp.Function("h")

    def d(f: Callable[[sp.Expr], sp.Expr]) -> sp.Expr:
        return f(x) - f(y) - sp.diff(f(y), y) * (x - y)

    run.zero(
        d(h) - d(lambda v: h(v) - sigma * v**2 / 2) - factor * sigma * (x - y) ** 2,
        "D_h minus the convex rest",
    )


strong_bound.mutant("sigma for sigma/2", factor=sp.S.One)


@claim.check("property", part="strong")
def library_strong(run: Run, *, scale: float = 1.0) -> None:
    """p-norm maps, p in (1, 2], sigma = p - 1 in the p-norm; attained by the identity map; sigma =
    1/L of the library.
    """

    @for_all(p=st.floats(1.1, 2.0), seed=seeds())
    def _(p: float, seed: int) -> None:
        x, y = torch.tensor(np.random.default_rng(seed).standard_normal((2, 3)))
        h = built("pnorm", x, p=p)
        sigma = scale / h.curvature({})[1]
        run.close(1 / h.curvature({})[1], p - 1, tolerance=1e-12, what="the library's modulus")
        run.at_most(
            0.5 * sigma * (x - y).square().sum(),
            divergence(h, x, y),
            slack=1e-12,
            what="sigma/2 |x - y|^2",
        )

    x, y = vector(1.0, 2.0), vector(0.5, -1.0)
    attained = divergence(built("identity", x), x, y) / (0.5 * scale * (x - y).square().sum())
    run.quantity(
        "D_h/(sigma/2 |x-y|^2), identity",
        float(attained),
        tolerance=1e-12,
        theory=1.0,
        meaning="attained by sigma/2 |.|^2",
    )


library_strong.mutant("twice the modulus", scale=2.0)


@claim.check("symbolic", part="duality")
def fenchel(run: Run, *, order: tuple[int, int] = (1, 0)) -> None:
    """Both divergences written with h*(z_i) = <phi_i, z_i> - h(phi_i) are the same expression."""
    phi, z, value = sp.symbols("p1 p2"), sp.symbols("z1 z2"), sp.symbols("h1 h2")
    star = [p * s - v for p, s, v in zip(phi, z, value, strict=True)]
    primal = value[0] - value[1] - z[1] * (phi[0] - phi[1])
    i, j = order
    run.zero(
        primal - (star[i] - star[j] - phi[j] * (z[i] - z[j])),
        "D_h(phi_1, phi_2) - D_{h*}(z_2, z_1)",
    )


fenchel.mutant("arguments not swapped", order=(0, 1))


@claim.check("property", part="duality")
def library_duality(
    run: Run, *, form: Callable[[MirrorMap, Tensor, Tensor], Tensor] = divergence
) -> None:
    """D_h(phi_1, phi_2) = D_{h*}(z_2, z_1) with the library's potential, conjugate, point and
    inverse.
    """

    @for_all(slug=st.sampled_from(["entropy", "hypentropy", "barrier", "pnorm"]), seed=seeds())
    def _(slug: str, seed: int) -> None:
        x, y = torch.tensor(np.exp(np.random.default_rng(seed).standard_normal((2, 3))))
        h = built(slug, x)
        other = conjugate_divergence(h, dual(h, y), dual(h, x))
        run.close(
            form(h, x, y), other, tolerance=1e-10 * (1 + float(other)), what=f"duality of {slug}"
        )


library_duality.mutant("swapped arguments of D_h", form=swapped)


@claim.check("exact", part="strong")
def stated_strong(run: Run, *, stated: Formula) -> None:
    """The library's quadratic map attains the printed bound, and its p-norm map lies above it."""
    x, y = vector(1.0, 2.0), vector(0.5, -1.0)
    for h, sigma, tight in (
        (built("quadratic", x, matrix=2.0), 0.5, True),
        (built("identity", x), 1.0, True),
        (built("pnorm", x, p=1.5), 0.5, False),
    ):
        at = {stated.left: float(divergence(h, x, y)), r"\sigma": sigma}
        at[r"\|\phi-\psi\|"] = float((x - y).norm())
        run.stands(stated, at, slack=1e-12)
        if tight:
            run.attained(stated, at, tolerance=1e-12)


@claim.check("exact", about="printed")
def stated_quadratic(run: Run, *, stated: Formula) -> None:
    """The library's quadratic map with P = diag(2, 1/2): its potential is the printed h, its
    divergence the printed one.
    """
    x, y, metric = vector(1.0, -2.0), vector(0.3, 0.4), vector(2.0, 0.5)
    h = built("quadratic", x, matrix={"phi": metric})
    for a, b in ((x, y), (y, x)):
        far, size = (float((v**2 / metric).sum().sqrt()) for v in (a - b, a))
        run.stands(stated, {stated.left: float(divergence(h, a, b)), _FAR: far}, slack=1e-12)
        found = float(h.potential(h.own(), {"phi": a}))
        run.close(found, float(stated.terms["h"].subs(_SIZE, size)), tolerance=1e-12, what="h")


@claim.check("exact", part="example")
def stated_example(run: Run, *, stated: Formula) -> None:
    """The same formula, read by the same check."""
    stated_quadratic.function(run, stated=stated)


@claim.check("property", part="nonnegative")
def stated_sign(run: Run, *, stated: Formula) -> None:
    """Divergences of four maps of the library, at near and equal arguments."""
    x, y = vector(1.0, 2.0), vector(1.1, 1.7)
    for slug in ("entropy", "hypentropy", "pnorm", "quadratic"):
        for other in (x, y):
            found = float(divergence(built(slug, x), x, other))
            run.stands(stated, {stated.left: found}, slack=1e-15)


@claim.check("exact", part="duality")
def stated_duality(run: Run, *, stated: Formula) -> None:
    """Both sides by the library's maps."""
    x, y = vector(1.0, 2.0), vector(0.4, 1.7)
    for slug in ("entropy", "pnorm"):
        h = built(slug, x)
        other = float(conjugate_divergence(h, dual(h, y), dual(h, x)))
        at = {stated.left: float(divergence(h, x, y)), "D_{h^*}(z_2,z_1)": other}
        run.stands(stated, at, slack=1e-12)
