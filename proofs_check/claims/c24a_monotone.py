r"""C24a: with h* as in P1, grad h* is increasing (a monotone operator) and Lipschitz; even
cocoercive.

*Proof.* Convexity of $h^*$ at two points, added: monotone. The rest is C20. Coordinatewise
increasing it need not be.
"""

from __future__ import annotations

import numpy as np
import sympy as sp
import torch
from hypothesis import strategies as st

from proofs_check.claim import Claim, Formula, Statement, Verdict
from proofs_check.run import Run
from proofs_check.tools.models import built, point, vector
from proofs_check.tools.strategies import for_all, seeds

_L = sp.Symbol("L", positive=True)
COCOERCIVE = Formula(
    left=sp.Symbol(r"\langle\nabla h^*(z)-\nabla h^*(z'),z-z'\rangle"),
    relation=">=",
    right=sp.Symbol(r"\|\nabla h^*(z)-\nabla h^*(z')\|", positive=True) ** 2 / _L,
)
COORDINATES = Formula(
    left=sp.Symbol(r"\partial_2h^*(z+e_1)-\partial_2h^*(z)"),
    relation="==",
    right=-sp.Rational(9, 10),
    text=r"h^*={half}z^\top\begin{psmallmatrix}1&{coupling}\\{coupling}&1\end{psmallmatrix}z:\ "
    r"{formula}",
    terms={"half": sp.Rational(1, 2), "coupling": -sp.Rational(9, 10)},
)

claim = Claim(
    id="C24a",
    title="grad h* is increasing and Lipschitz",
    source="Learning loss geometry priors via mirror descent, key idea",
    printed=Statement(
        given={"p1": r"h^*\text{ convex and }L\text{-smooth (P1)}"},
        then=r"\nabla h^*\text{ is increasing (a monotone operator) and Lipschitz}",
    ),
    amended=Statement(
        given={"p1": r"h^*\text{ convex and }L\text{-smooth (P1)}"},
        then=r"\nabla h^*\text{ is monotone, cocoercive and Lipschitz with the same }L\text{; not "
        r"coordinatewise increasing}",
        parts={"cocoercive": COCOERCIVE, "coordinates": COORDINATES},
        scopes={"coordinates": "exists"},
    ),
    expected=Verdict("HOLDS", "PROVED"),
    uses=("C20",),
)


@claim.check("certificate", about="printed")
def monotone(run: Run, *, sign: int = 1) -> None:
    """h*(z') - h*(z) - <g, z' - z> >= 0 and its mirror image add up to <g' - g, z' - z> >= 0;
    Lipschitz by C20.
    """
    a, b, x, y, z = sp.symbols(
        "a b x y z"
    )  # a = h*(z'), b = h*(z), x and y their gradients, z for z' - z
    run.zero((a - b - y * z) + (b - a + sign * x * z) - (x - y) * z, "sum of the two inequalities")


monotone.mutant("sign of the second", sign=-1)


@claim.check("certificate", part="cocoercive")
def cocoercive(run: Run, *, constant: sp.Expr = sp.S.Half) -> None:
    """Convex and L-smooth: h*(z') >= h*(z) + <g, d> + |g' - g|^2/(2L), from the lower bound at z
    and the upper one at z'.
    """
    a, b, x, y, z, w, big_l = sp.symbols(
        "a b x y z w L"
    )  # the point w that is best for the pair of bounds
    upper = a + x * (w - z) + big_l / 2 * (w - z) ** 2  # h*(w) <= this, with z' = z and z at 0
    lower = b + y * w
    best = sp.solve(sp.diff(upper - lower, w), w)[0]
    gap = (upper - lower).subs(w, best)  # >= 0 for all pairs
    run.zero(
        gap - (a - b - y * z - constant * (x - y) ** 2 / big_l),
        "h*(z') - h*(z) - <g, d> - |g' - g|^2/(2L)",
    )
    other = b - a + x * z - constant * (x - y) ** 2 / big_l
    run.zero(
        gap + other - ((x - y) * z - (x - y) ** 2 / big_l),
        "the two add up to cocoercivity with 1/L",
    )


cocoercive.mutant("1/L for 1/(2L)", constant=sp.S.One)


@claim.check("property", part="cocoercive")
def library_maps(run: Run, *, factor: float = 1.0) -> None:
    """Quadratic and p-norm maps of the library with their own L: cocoercive on near and far pairs,
    attained at the top.
    """

    @for_all(p=st.one_of(st.none(), st.floats(1.2, 1.9)), seed=seeds(), size=st.floats(-2, 2))
    def _(p: float | None, seed: int, size: float) -> None:
        rng = np.random.default_rng(seed)
        root, z, step = (
            rng.standard_normal((3, 3)),
            torch.tensor(rng.standard_normal(3)),
            torch.tensor(rng.standard_normal(3)),
        )
        metric = torch.tensor(root @ root.T + 0.1 * np.eye(3))
        h = (
            built("pnorm", z, p=p)
            if p is not None
            else built("quadratic", z, matrix={"phi": metric})
        )
        big_l, moved = h.curvature({})[1], 10.0**size * step
        change = point(h, z + moved) - point(h, z)
        slack = 1e-9 * float(moved.square().sum()) * big_l
        run.at_most(
            factor * change.square().sum() / big_l, change @ moved, slack=slack, what="cocoercivity"
        )

    top = built("quadratic", vector(0.0), matrix=3.0)
    change = point(top, vector(1.0)) - point(top, vector(0.0))
    run.close(factor * change**2 / 3.0, change, tolerance=1e-13, what="attained by L/2 |z|^2")


library_maps.mutant("2/L", factor=2.0)
library_maps.mutant("1/(2L)", factor=0.5)


@claim.check("counterexample", part="coordinates")
def not_coordinatewise(run: Run, *, coupling: float = -0.9) -> None:
    """The library's quadratic map with P = ((1, -.9), (-.9, 1)): raising z_1 by 1 lowers phi_2 by
    0.9, while it is monotone.
    """
    metric = torch.tensor([[1.0, coupling], [coupling, 1.0]], dtype=torch.float64)
    h = built("quadratic", vector(0.0, 0.0), matrix={"phi": metric})
    change = point(h, vector(1.0, 0.0)) - point(h, vector(0.0, 0.0))
    run.above(0.0, float(change[1]), what="change of phi_2 when z_1 grows")
    run.above(h.curvature({})[0], 0.0, what="it is strongly monotone")
    run.quantity(
        "change of phi_2 per z_1",
        float(change[1]),
        tolerance=1e-12,
        theory=-0.9,
        meaning="not coordinatewise increasing",
    )


not_coordinatewise.mutant("uncoupled coordinates", coupling=0.0)


@claim.check("exact", part="cocoercive")
def stated_bound(run: Run, *, stated: Formula) -> None:
    """The library's diagonal map diag(3, 1/2), L = 3: the printed bound is attained along its top
    axis and strict along the other.
    """
    h = built("quadratic", vector(0.0, 0.0), matrix={"phi": vector(3.0, 0.5)})
    for step, tight in ((vector(0.5, 0.0), True), (vector(0.0, 2.0), False)):
        change = point(h, step) - point(h, vector(0.0, 0.0))
        at = {stated.left: float(change @ step), "L": 3}
        at[r"\|\nabla h^*(z)-\nabla h^*(z')\|"] = float(change.norm())
        run.stands(stated, at, slack=1e-12)
        if tight:
            run.attained(stated, at, tolerance=1e-12)


@claim.check("exact", part="coordinates")
def stated_coordinates(run: Run, *, stated: Formula) -> None:
    """The printed quadratic, differentiated; and the library's map with its matrix."""
    a, b = sp.symbols("a b")
    half, c = stated.terms["half"], stated.terms["coupling"]
    slope = sp.diff(half * (a**2 + 2 * c * a * b + b**2), b)
    run.stands(stated, {stated.left: sp.expand(slope.subs(a, a + 1) - slope)})
    metric = torch.tensor([[1.0, float(c)], [float(c), 1.0]], dtype=torch.float64)
    h = built("quadratic", vector(0.0, 0.0), matrix={"phi": metric})
    change = point(h, vector(1.0, 0.0)) - point(h, vector(0.0, 0.0))
    run.stands(stated, {stated.left: float(change[1])}, slack=1e-12)
