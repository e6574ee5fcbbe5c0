r"""C13: the quadratic bound of GD is not adaptive to the step, the task or the coordinate.

*Proof.* The surrogate's Hessian is $\frac1\alpha I$ at every $(k,t)$. Equivalently, GD is
equivariant under orthogonal maps: it cannot prefer a coordinate. Mirror descent's surrogate has
Hessian $\frac1\alpha\nabla^2h$ at the iterate: it adapts to $k$ and $t$, but only through the
iterate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import sympy as sp
import torch
from torch import Tensor

from mdtheory import descend
from mdtheory.geometry.base import geometries
from mdtheory.maps.base import MirrorMap
from proofs_check.claim import Claim, Formula, Statement, Verdict
from proofs_check.formula import tex
from proofs_check.run import Run
from proofs_check.tools.models import built, hessian_of, vector

_ALPHA = sp.Symbol(r"\alpha", positive=True)
CURVATURE = Formula(
    left=sp.Symbol(r"\nabla^2_\phi Q_\alpha(\phi;\phi_t^{k-1})"),
    relation="==",
    right=1 / _ALPHA,
    text=r"{formula}\,I\text{ for all }k,t",
)
CONSTANT = replace(
    CURVATURE, text=r"{formula}\,I,\text{ and GD is equivariant under orthogonal maps}"
)
MIRROR = Formula(
    left=sp.Symbol(r"\nabla^2_\phi[D_h(\phi,\phi^{k-1})/\alpha]_{\phi^{k-1}}"),
    relation="==",
    right=sp.Symbol(r"\nabla^2h(\phi^{k-1})") / _ALPHA,
)

claim = Claim(
    id="C13",
    title="The quadratic bound does not adapt to k, t and coordinates",
    source="Prior art on accelerated task-specific optimization, GD recap",
    printed=Statement(
        given={"scalar": r"\alpha\text{ one constant scalar}"},
        then=CURVATURE,
    ),
    amended=Statement(
        given={"scalar": r"\alpha\text{ one constant scalar}"},
        then=r"\text{GD's surrogate has curvature }"
        + tex(CURVATURE.right)
        + r"\,I;\ \text{MD's }"
        + tex(MIRROR.right),
        parts={"constant": CONSTANT, "mirror": MIRROR},
    ),
    expected=Verdict("HOLDS", "PROVED"),
    uses=("C11",),
)


@claim.check("symbolic", about="printed")
def constant_curvature(
    run: Run,
    *,
    rate: Callable[[sp.Matrix], sp.Expr] = lambda psi: sp.Symbol("alpha", positive=True),
) -> None:
    """The Hessian of the surrogate contains neither psi nor u, whatever the loss and the task."""
    phi, psi, u = (sp.Matrix(sp.symbols(f"{n}1:3", real=True)) for n in ("p", "q", "u"))
    surrogate = u.dot(phi - psi) + (phi - psi).dot(phi - psi) / (2 * rate(psi))
    run.zero(
        sp.hessian(surrogate, list(phi)) - sp.eye(2) / sp.Symbol("alpha", positive=True), "Hessian"
    )


constant_curvature.mutant("a step that depends on the iterate", rate=lambda psi: 1 + psi.dot(psi))


@claim.check("exact", part="constant")
def equivariance(run: Run, *, geometry: str = "maml") -> None:
    """The library's GD on f(Q^T phi) from Q phi_0 is Q times GD on f: five steps, a rotation by
    0.7.
    """
    c, s = float(sp.cos(0.7)), float(sp.sin(0.7))
    turn = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)

    def loss(v: Tensor) -> Tensor:
        return (v**2 * vector(1.0, 3.0)).sum() + torch.cos(v[0] - v[1])

    def run_geometry(f: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
        chosen = geometries.get(geometry)()
        chosen.build({"phi": start})
        if geometry == "metasgd":
            chosen.rule.scale.phi.data = vector(0.5, -0.5)
        return descend(f, start, task_lr=0.1, n_steps=5, geometry=chosen)[-1]

    start = vector(1.0, -0.5)
    run.close(
        run_geometry(lambda v: loss(turn.T @ v), turn @ start),
        turn @ run_geometry(loss, start),
        tolerance=1e-13,
        what="equivariance",
    )


equivariance.mutant("Meta-SGD's diagonal", geometry="metasgd")


@claim.check("exact", part="mirror")
def mirror_curvature(
    run: Run,
    *,
    slug: str = "entropy",
    curvature: Callable[[Tensor], Tensor] = lambda phi: (1 / phi).diag(),
) -> None:
    """The Hessian of the library's D_h(., psi) at psi is the inverse of the Hessian of h* there,
    and changes with psi.
    """
    seen = []
    for psi in (vector(0.5, 2.0), vector(1.0, 4.0)):
        h: MirrorMap = built(slug, psi)
        found = hessian_of(lambda p, h=h, psi=psi: h.bregman({}, {"phi": p}, {"phi": psi}))(psi)
        z = h.inverse({}, {"phi": psi})["phi"]
        conjugate = hessian_of(lambda v, h=h: h.conjugate({}, {"phi": v}))(z)
        run.close(
            found @ conjugate,
            torch.eye(2),
            tolerance=1e-12,
            what="Hessian of h times Hessian of h*",
        )
        run.close(
            found,
            curvature(psi),
            tolerance=1e-12,
            what="Hessian of the negative entropy, diag(1/phi)",
        )
        seen.append(found)
    run.above(
        float((seen[0] - seen[1]).abs().max()), 0.1, what="change of the curvature with the iterate"
    )


mirror_curvature.mutant("h quadratic: no adaptation", slug="identity")
mirror_curvature.mutant("curvature phi for 1/phi", curvature=lambda phi: phi.diag())


@claim.check("symbolic", part="constant")
def turned_descent(run: Run, *, power: int = 1) -> None:
    """Q orthogonal, any size: the gradient of f(Q^T .) at Q phi is Q u, so a step from Q phi ends
    at Q (phi - alpha u); and the surrogate's Hessian is I/alpha.
    """
    q, phi, u = sp.symbols("Q phi u", commutative=False)
    alpha, d = sp.Symbol("alpha", positive=True), sp.Symbol("d")
    moved = sp.expand(q * phi - alpha * q**power * u - q * (phi - alpha * u))
    run.that(moved == 0, f"equivariance: {moved} is left over")
    run.zero(sp.diff(u * d + d**2 / (2 * alpha), d, 2) - 1 / alpha, "curvature of the surrogate")


turned_descent.mutant("the gradient turned twice", power=2)


@claim.check("symbolic", part="mirror")
def mirror_hessian(run: Run, *, power: int = 1) -> None:
    """D_h(phi, psi) = h(phi) - lin(h, psi)(phi) for an arbitrary h of two variables: its Hessian in
    phi is that of h.
    """
    phi, psi = (sp.Matrix(sp.symbols(f"{n}1:3", real=True)) for n in ("p", "q"))
    h = sp.Function("h")
    slope = [sp.diff(h(*psi), v) for v in psi]
    divergence = h(*phi) - h(*psi)
    divergence -= sum(s * (a - b) ** power for s, a, b in zip(slope, phi, psi, strict=True))
    run.zero(sp.hessian(divergence, list(phi)) - sp.hessian(h(*phi), list(phi)), "Hessian of D_h")


mirror_hessian.mutant("a quadratic correction", power=2)


@claim.check("exact", about="printed")
def stated_curvature(run: Run, *, stated: Formula) -> None:
    """The library's steps minimise quadratics of the printed curvature: displacement times it is
    minus the gradient, at three rates and two iterates.
    """
    for alpha in (0.25, 0.5, 3.0):
        for psi in (vector(1.0, -0.5), vector(0.2, 3.0)):
            u = torch.func.grad(lambda v: (v**3).sum())(psi)
            moved = descend(lambda v: (v**3).sum(), psi, task_lr=alpha, n_steps=1)[-1] - psi
            for slope, step in zip(u, moved, strict=True):
                at = {stated.left: -float(slope / step), r"\alpha": alpha}
                run.stands(stated, at, slack=1e-12)


@claim.check("exact", part="constant")
def stated_constant(run: Run, *, stated: Formula) -> None:
    """The same curvature, read by the same check."""
    stated_curvature.function(run, stated=stated)


@claim.check("exact", part="mirror")
def stated_mirror(run: Run, *, stated: Formula) -> None:
    """The Hessian of the library's entropy divergence over alpha at two points and rates; h'' there
    is 1/phi.
    """
    for phi, alpha in ((0.5, 0.25), (4.0, 3.0)):
        psi = vector(phi)
        h = built("entropy", psi)
        found = hessian_of(
            lambda p, h=h, psi=psi, a=alpha: h.bregman({}, {"phi": p}, {"phi": psi}) / a
        )(psi)
        at = {stated.left: float(found), r"\nabla^2h(\phi^{k-1})": 1 / phi, r"\alpha": alpha}
        run.stands(stated, at, slack=1e-12)
