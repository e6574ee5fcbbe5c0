r"""C14: preconditioned GD minimises the linearisation plus a proximal term in the norm of P^{-1}; P
must be symmetric.

*Proof.* With $P=P^\top\succ0$ the surrogate's gradient is $u+\frac1\alpha P^{-1}(\phi-\psi)$, zero
exactly at $\psi-\alpha Pu$. A quadratic form sees only the symmetric part: in general the minimiser
is $\psi-\alpha(\operatorname{sym}P^{-1})^{-1}u$, and
$\operatorname{sym}P^{-1}=P^{-1}\operatorname{sym}(P)P^{-\top}$. The gap to $f$ is $D_w$ with
$w=\frac1{2\alpha}\|\cdot\|_{P^{-1}}^2-f$ (as in C12).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import sympy as sp
import torch
from torch import Tensor

from mdtheory import descend
from mdtheory.geometry.base import geometries
from proofs_check.claim import Claim, Formula, Statement, Verdict
from proofs_check.formula import tex
from proofs_check.run import Run
from proofs_check.tools.models import mirror, point, vector
from proofs_check.tools.strategies import for_all, seeds

_ALPHA = sp.Symbol(r"\alpha", positive=True)
MAJORISER = Formula(
    left=_ALPHA * sp.Symbol(r"\lambda_{\max}(P\nabla^2f)", positive=True),
    relation="<=",
    right=sp.Integer(1),
    text=r"\text{it majorises }f\text{ for all base points iff }{formula}\text{ everywhere}",
)
_PSI, _U = sp.Symbol(r"\phi^{k-1}"), sp.Symbol("u")
_P, _INVERSE = sp.Symbol("P", positive=True), sp.MatrixSymbol("P", 2, 2)
ARGMIN = Formula(
    left=sp.Symbol(r"\phi^k"),
    relation="==",
    right=_PSI - _ALPHA * _P * _U,
    text=r"\text{the minimiser of }{\rm lin}+{prox}\|\cdot\|_{P^{-1}}^2\text{ is }{formula}",
    terms={"prox": 1 / (2 * _ALPHA)},
)
SYMMETRIC = Formula(
    left=sp.MatrixSymbol(r"\operatorname{sym}(P^{-1})", 2, 2),
    relation="==",
    right=_INVERSE.I * (_INVERSE / 2 + _INVERSE.T / 2) * _INVERSE.T.I,
    text=r"\text{otherwise it is }\phi^{k-1}-\alpha(\operatorname{sym}P^{-1})^{-1}u;\ {formula}"
    r"\text{: definite iff }\operatorname{sym}P\text{ is}",
)
_PGD = (
    r"\phi^{k-1}-\alpha Pu=\arg\min_\phi{\rm lin}(f,\phi^{k-1})(\phi)+"
    + tex(ARGMIN.terms["prox"])
    + r"\|\phi-\phi^{k-1}\|_{P^{-1}}^2"
)

claim = Claim(
    id="C14",
    title="PGD is the minimiser of linearisation plus P^{-1}-weighted prox",
    source="Prior art on accelerated task-specific optimization, PGD",
    printed=Statement(then=_PGD),
    amended=Statement(
        then=_PGD,
        given={"spd": r"P=P^\top\succ0"},
        parts={
            "argmin": ARGMIN,
            "nonsymmetric": SYMMETRIC,
            "majoriser": MAJORISER,
        },
    ),
    expected=Verdict("NEEDS_CONDITIONS", "PROVED"),
)

SHEAR = np.array([[1.0, 1.0], [0.0, 1.0]])


def minimiser(precondition: np.ndarray, u: np.ndarray, alpha: float) -> np.ndarray:
    """The displacement -alpha (sym P^{-1})^{-1} u that minimises the surrogate."""
    inverse = np.linalg.inv(precondition)
    return -alpha * np.linalg.solve((inverse + inverse.T) / 2, u)


def metacurvature_step(precondition: np.ndarray, u: Tensor, alpha: float) -> Tensor:
    """The displacement of the library's MetaCurvature on a (2, 1) tensor with M_out = P. shape:
    (2,)
    """
    start = torch.zeros(2, 1, dtype=torch.float64)
    geometry = geometries.get("metacurvature")()
    geometry.build({"phi": start})
    geometry.get_parameter("rule.curvature.out.phi").data = torch.tensor(precondition)
    return descend(
        lambda v: (u[:, None] * v).sum(), start, task_lr=alpha, n_steps=1, geometry=geometry
    )[-1][:, 0]


@claim.check("counterexample", about="printed", drops=("spd",))
def shear(run: Run, *, precondition: np.ndarray = SHEAR) -> None:
    """P = ((1,1),(0,1)): the library's preconditioned step is not the argmin, which uses
    ((4/3,2/3),(2/3,4/3)).
    """
    u = vector(1.0, -1.0)
    step = metacurvature_step(precondition, u, 0.5).numpy()
    run.close(
        step,
        -0.5 * precondition @ u.numpy(),
        tolerance=1e-15,
        what="the library's step is -alpha P u",
    )
    run.above(
        np.abs(step - minimiser(precondition, u.numpy(), 0.5)).max(),
        0.1,
        what="distance to the argmin",
    )


shear.mutant("a symmetric P", precondition=SHEAR @ SHEAR.T)


@claim.check("symbolic", part="argmin")
def unique_minimiser(
    run: Run, *, weight: Callable[[sp.Matrix], sp.Matrix] = lambda p: p.inv()
) -> None:
    """The surrogate's gradient u + P^{-1} d/alpha vanishes at d = -alpha P u, matrices of any size;
    and P = C C^T with a symbolic C of size 2.
    """
    whole, inverse, slope = sp.symbols("P Q u", commutative=False)
    rest = sp.expand(slope + inverse * (-whole * slope)).subs(inverse * whole, 1)
    run.that(rest == 0, f"gradient: {rest} is left over")
    a, b, c, alpha = sp.symbols("a b c alpha", positive=True)
    root = sp.Matrix([[a, 0], [b, c]])
    metric = root * root.T
    step, u = sp.Matrix(sp.symbols("d1 d2")), sp.Matrix(sp.symbols("u1 u2"))
    surrogate = u.dot(step) + step.dot(weight(metric) * step) / (2 * alpha)
    gradient = sp.Matrix([sp.diff(surrogate, x) for x in step])
    run.zero(
        gradient.subs(dict(zip(step, -alpha * metric * u, strict=True))),
        "gradient at psi - alpha P u",
    )


unique_minimiser.mutant("P^{-1} used as the preconditioner", weight=lambda p: p)


@claim.check("symbolic", part="nonsymmetric")
def symmetric_part(
    run: Run, *, inverse: Callable[[sp.Matrix], sp.Matrix] = lambda p: (p.inv() + p.inv().T) / 2
) -> None:
    """sym(P^{-1}) = P^{-1} sym(P) P^{-T} (a congruence: the same signs), and the shear's numbers,
    exactly.
    """
    p = sp.Matrix(2, 2, sp.symbols("p1:5"))
    run.zero(inverse(p) - p.inv() * (p + p.T) / 2 * p.inv().T, "congruence")
    seen = inverse(sp.Matrix([[1, 1], [0, 1]])).inv()
    expected = sp.Matrix([[4, 2], [2, 4]]) / 3
    run.zero(seen - expected, "what the prox makes of the shear")
    run.quantity(
        "diagonal of the shear's effective P",
        seen[0, 0],
        theory=4 / 3,
        meaning="(sym P^{-1})^{-1} for P = ((1,1),(0,1))",
    )
    run.quantity(
        "off-diagonal of the shear's effective P", seen[0, 1], theory=2 / 3, meaning="the same"
    )


symmetric_part.mutant("inverse of the symmetric part", inverse=lambda p: ((p + p.T) / 2).inv())


@claim.check("property", part="argmin")
def library_step(run: Run, *, used: Callable[[np.ndarray], np.ndarray] = lambda p: p) -> None:
    """The library's mirror descent with h = |.|^2_{P^{-1}}/2 takes exactly the PGD step, for random
    SPD P.
    """

    @for_all(seed=seeds())
    def _(seed: int) -> None:
        rng = np.random.default_rng(seed)
        root, u, start = rng.standard_normal((3, 3)), rng.standard_normal(3), rng.standard_normal(3)
        metric = root @ root.T + 0.1 * np.eye(3)
        geometry = mirror(
            "quadratic", torch.zeros(3, dtype=torch.float64), matrix={"phi": torch.tensor(metric)}
        )
        z = torch.linalg.solve(torch.tensor(metric), torch.tensor(start))
        run.close(point(geometry.map, z), torch.tensor(start), tolerance=1e-8, what="start")
        found = descend(
            lambda v: torch.tensor(u) @ v, z, task_lr=0.3, n_steps=1, geometry=geometry
        )[-1].numpy()
        run.close(
            found - start, minimiser(used(metric), u, 0.3), tolerance=1e-8, what="displacement"
        )


library_step.mutant("P^{-1} used as the preconditioner", used=np.linalg.inv)


@claim.check("exact", part="majoriser")
def majorises(run: Run, *, limit: float = 1.0) -> None:
    """f = x^T H x/2: the gap is d^T(P^{-1}/alpha - H)d/2, so its sign is that matrix's; negative
    just beyond the limit.
    """
    p, h, d = (
        sp.Matrix(2, n, sp.symbols(f"{c}1:{2 * n + 1}")) for c, n in (("p", 2), ("h", 2), ("d", 1))
    )
    alpha, x = sp.Symbol("alpha", positive=True), sp.Matrix(sp.symbols("x1 x2"))
    h = (h + h.T) / 2

    def f(v: sp.Matrix) -> sp.Expr:
        return v.dot(h * v) / 2

    gap = f(x) + (h * x).dot(d) + d.dot(p * d) / (2 * alpha) - f(x + d)
    run.zero(gap - d.dot((p / alpha - h) * d) / 2, "gap of the surrogate")
    hessian, metric = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([[1.0, 0.3], [0.3, 2.0]])
    largest = (
        1 / np.linalg.eigvals(metric @ hessian).real.max()
    )  # alpha H <= P^{-1} iff alpha <= 1/lambda_max(P H)
    for factor in (0.99, 1.01):
        smallest = np.linalg.eigvalsh(np.linalg.inv(metric) / (limit * factor * largest) - hessian)[
            0
        ]
        run.that(
            (smallest > 0) == (factor < 1), f"majorisation at alpha = {factor} times the limit"
        )


majorises.mutant("twice the limit", limit=2.0)
majorises.mutant("half the limit", limit=0.5)


@claim.check("symbolic", part="nonsymmetric")
def congruence(run: Run, *, half: sp.Expr = sp.S.Half) -> None:
    """Matrices of any size: P (P^{-1} + P^{-T})/2 P^T = (P + P^T)/2, a congruence, so both
    symmetric parts are positive definite together.
    """
    p, q, pt, qt = sp.symbols("P Q Pt Qt", commutative=False)  # Q = P^{-1}, t for transposes
    inside = sp.expand(p * (q + qt) * pt * half - (p + pt) / 2)
    rest = inside.subs(p * q, 1).subs(qt * pt, 1)
    run.that(sp.expand(rest) == 0, f"congruence: {rest} is left over")


congruence.mutant("without the half", half=sp.S.One)


@claim.check("symbolic", part="majoriser")
def gap_is_a_divergence(run: Run, *, share: sp.Expr = sp.S.Half) -> None:
    """Arbitrary f of two variables, symbolic symmetric W = P^{-1}: surrogate - f is the Bregman
    divergence of w = |.|^2_W/(2 alpha) - f, >= 0 for all pairs iff w is convex.
    """
    a, b, c = sp.symbols("a b c", real=True)
    weight, alpha = sp.Matrix([[a, b], [b, c]]), sp.Symbol("alpha", positive=True)
    x, y = (sp.Matrix(sp.symbols(f"{n}1 {n}2", real=True)) for n in "xy")
    f = sp.Function("f")

    def w(v: sp.Matrix) -> sp.Expr:
        return share * v.dot(weight * v) / alpha - f(*v)

    step = x - y
    slope = sp.Matrix([sp.diff(f(*y), v) for v in y])
    surrogate = f(*y) + slope.dot(step) + step.dot(weight * step) / (2 * alpha)
    gradient = sp.Matrix([sp.diff(w(y), v) for v in y])
    run.zero(surrogate - f(*x) - (w(x) - w(y) - gradient.dot(step)), "gap - D_w")


gap_is_a_divergence.mutant("w without its half", share=sp.S.One)


@claim.check("exact", part="majoriser")
def stated_majoriser(run: Run, *, stated: Formula) -> None:
    """The printed condition decides, for two quadratics and four rates, where the surrogate's
    smallest curvature is negative.
    """
    hessian, metric = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([[1.0, 0.3], [0.3, 2.0]])
    top = float(np.linalg.eigvals(metric @ hessian).real.max())
    for factor in (0.4, 0.6, 0.99, 1.01, 1.5):
        alpha = factor / top
        least = np.linalg.eigvalsh(np.linalg.inv(metric) / alpha - hessian)[0]
        at = {r"\alpha": alpha, r"\lambda_{\max}(P\nabla^2f)": top}
        run.decides(stated, at, bool(least >= 0))


@claim.check("exact", part="argmin")
def stated_argmin(run: Run, *, stated: Formula) -> None:
    """The library's step with a diagonal P, and the minimiser of the printed surrogate, coordinate
    by coordinate.
    """
    metric, u, start, d = (3.0, 0.5), (1.5, -2.0), (0.3, 0.7), sp.Symbol("d")
    how = {"matrix": {"phi": vector(*metric)}}
    geometry = mirror("quadratic", vector(0.0, 0.0), **how)
    z = vector(*start) / vector(*metric)
    for alpha in (0.25, 2.0):
        end = descend(lambda v: vector(*u) @ v, z, task_lr=alpha, n_steps=1, geometry=geometry)[-1]
        for p, slope, before, after in zip(metric, u, start, end, strict=True):
            at = {"P": p, "u": slope, r"\phi^{k-1}": before, r"\alpha": alpha}
            run.stands(stated, {**at, stated.left: float(after)}, slack=1e-12)
            weight = stated.terms["prox"].subs(_ALPHA, alpha) / p
            (best,) = sp.solve(sp.diff(slope * d + weight * d**2, d), d)
            run.close(float(best), float(after) - before, tolerance=1e-12, what="the argmin")


@claim.check("exact", part="nonsymmetric")
def stated_congruence(run: Run, *, stated: Formula) -> None:
    """The shear and a rational matrix of full rank: the symmetric part of the inverse, directly."""
    for p in (sp.Matrix([[1, 1], [0, 1]]), sp.Matrix([[2, -1], [3, 5]]) / 3):
        found = (p.inv() + p.inv().T) / 2
        run.stands(stated, {r"\operatorname{sym}(P^{-1})": found, "P": p})
