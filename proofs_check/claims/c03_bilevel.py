r"""C03: the bilevel problem of the poster, with an explicit R or an implicit one.

*Proof.* The inner minimiser must be a singleton and $C^1$ in $\theta$, for which strong convexity
suffices. Differentiate $\nabla f(\phi^*)+\Lambda(\phi^*-\theta)=0$:
$(\nabla^2f+\Lambda)\partial_\theta\phi^*=\Lambda$. In the implicit form for MAML the argmin
contains no $\theta$; with $f$ $\mu$-strongly convex $\partial_\theta\hat\phi=\prod_k(I-\alpha
H_k)$, of norm at most $(1-\alpha\mu)^K$. For least squares $\bar\phi(\theta)$ is the projection of
$\theta$ onto the solutions.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import sympy as sp
import torch
from torch import Tensor

from mdtheory import descend
from mdtheory.geometry.base import Geometry, geometries
from mdtheory.inner.estimators import estimators
from proofs_check.claim import Claim, Formula, Statement, Verdict
from proofs_check.run import Run
from proofs_check.tools import hypergradient as hg
from proofs_check.tools.models import hessian_of, problem_of, vector

_WELL_POSED = (
    r"\min_\theta\sum_t\mathcal L_t^{\rm val}(\phi_t^*(\theta)),\ \phi_t^*(\theta)=\arg\min_\phi"
    r"\mathcal L_t^{\rm trn}(\phi)"
    r"+\mathcal R(\phi;\theta)\text{ is a well-posed, differentiable problem in }\theta"
)

_MU, _ALPHA, _L = sp.symbols(r"\mu \alpha L", positive=True)
_K = sp.Symbol("K", integer=True, positive=True)
VANISHING = Formula(
    left=sp.Symbol(r"\|\nabla_\theta\ell(\hat\phi(\theta))\|"),
    relation="<=",
    right=(1 - _ALPHA * _MU) ** _K * sp.Symbol(r"\|\nabla\ell\|", positive=True),
    text=r"\text{implicit form for MAML, }f\ \mu\text{-s.c. and }L\text{-smooth}, {given}:\ "
    r"{formula}",
    given={"rate": sp.Le(_ALPHA, 1 / _L)},
)
_HESSIAN, _WEIGHT = sp.MatrixSymbol(r"\nabla^2f", 2, 2), sp.MatrixSymbol(r"\Lambda", 2, 2)
_ROW = sp.MatrixSymbol("X", 1, 3)
IFT = Formula(
    left=sp.MatrixSymbol(r"\partial_\theta\phi^*", 2, 2),
    relation="==",
    right=(_HESSIAN + _WEIGHT).I * _WEIGHT,
    text=r"R={half}\|\phi-\theta\|_\Lambda^2:\ \partial_\theta\phi^*=-(\nabla^2_{\phi\phi})^{-1}"
    r"\nabla^2_{\phi\theta}={right}",
    terms={"half": sp.Rational(1, 2)},
)
PROJECTION = Formula(
    left=sp.MatrixSymbol(r"\partial_\theta\bar\phi", 3, 3),
    relation="==",
    right=sp.Identity(3) - _ROW.T * _ROW / sp.Symbol(r"\|X\|", positive=True) ** 2,
    text=r"f\text{ least squares: }\bar\phi(\theta)\text{ projects }\theta,\ \partial_\theta"
    r"\bar\phi=I-X^+X;\text{ for one equation }{formula}",
)

claim = Claim(
    id="C03",
    title="Bilevel form of meta-learning, with explicit or implicit prior",
    source="Problem statement, bilevel learning",
    printed=Statement(then=_WELL_POSED),
    amended=Statement(
        then=_WELL_POSED,
        given={
            "singleton": (
                r"f_t+\mathcal R(\cdot;\theta)\text{ strongly convex near the singleton }"
                r"\phi_t^*(\theta)"
            )
        },
        parts={
            "ift": IFT,
            "vanishing": VANISHING,
            "projection": PROJECTION,
        },
        scopes={"projection": "limit"},
    ),
    expected=Verdict("NEEDS_CONDITIONS", "PROVED"),
)


def prior_geometry(precision: Tensor) -> Geometry:
    """The library's explicit Gaussian prior."""
    geometry = geometries.get("prior")()
    geometry.build({"phi": precision})
    geometry.log_precision.phi.data = precision.log()
    return geometry


@claim.check("counterexample", about="printed", drops=("singleton",))
def jump(run: Run, *, precision: float = 0.1) -> None:
    """f = (phi^2-1)^2/4 + R with lambda = 0.1: phi*(theta) jumps from -1 to 1 as theta passes 0,
    where it is no singleton.
    """
    ends = []
    for theta in (-1e-9, 1e-9):
        geometry = prior_geometry(vector(precision))
        end = descend(
            lambda v: (0.25 * (v**2 - 1) ** 2).sum(),
            vector(theta),
            task_lr=0.3,
            n_steps=200,
            geometry=geometry,
        )[-1]
        ends.append(float(end))
    run.above(ends[1] - ends[0], 1.5, what="jump of the minimiser for a change of theta by 2e-9")


jump.mutant("a strongly convex sum", precision=3.0)


@claim.check("symbolic", part="ift")
def derivative(
    run: Run, *, form: Callable[[sp.Matrix, sp.Matrix], sp.Matrix] = lambda h, w: (h + w).inv() * w
) -> None:
    """Stationarity H(phi - c) + Lambda(phi - theta) = 0 differentiated in theta: (H + Lambda) J =
    Lambda, with matrices of any size; and with symmetric H, Lambda of size 2.
    """
    h, w, j = sp.symbols("H W J", commutative=False)
    run.that(sp.expand(h * j + w * (j - 1) - ((h + w) * j - w)) == 0, "d/dtheta of stationarity")
    a, b, d, p, q, r = sp.symbols("a b d p q r", positive=True)
    hessian, weight = sp.Matrix([[a, b], [b, d]]), sp.Matrix([[p, q], [q, r]])
    theta, centre = sp.Matrix(sp.symbols("t1 t2")), sp.Matrix(sp.symbols("c1 c2"))
    best = (hessian + weight).inv() * (hessian * centre + weight * theta)
    run.zero(best.jacobian(theta) - form(hessian, weight), "Jacobian of the minimiser")


derivative.mutant("order swapped", form=lambda h, w: w * (h + w).inv())


@claim.check("exact", part="ift")
def library_jacobian(
    run: Run,
    *,
    form: Callable[[Tensor, Tensor], Tensor] = lambda h, w: torch.linalg.solve(h + w, w),
) -> None:
    """The implicit estimator's gradient by the anchor equals ((H + Lambda)^{-1} Lambda)^T grad l on
    a non-quadratic loss.
    """
    precision, anchor = vector(0.5, 2.0), vector(0.3, -0.2)
    mix = torch.tensor([[1.0, 0.4], [0.4, 0.8]], dtype=torch.float64)

    def task(v: Tensor) -> Tensor:
        return torch.cosh(mix @ v - 1.0).sum()

    def query(v: Tensor) -> Tensor:
        return (v * vector(1.0, -2.0)).sum() + v[0] ** 2

    problem, meta, posed = problem_of(
        task, anchor, task_lr=0.2, n_steps=200, query=query, geometry=prior_geometry(precision)
    )
    found = estimators.get("implicit")(tolerance=1e-14)(problem, meta, [posed]).grads["anchor.phi"]
    best = descend(task, anchor, task_lr=0.2, n_steps=200, geometry=prior_geometry(precision))[-1]
    hessian = hessian_of(task)(best)
    run.close(
        found,
        form(hessian, precision.diag()).T @ torch.func.grad(query)(best),
        tolerance=1e-9,
        what="meta-gradient",
    )


library_jacobian.mutant("order swapped", form=lambda h, w: torch.linalg.solve(h + w, w).T)


@claim.check("certificate", part="vanishing")
def product_of_contractions(
    run: Run, *, gain: Callable[[sp.Expr], sp.Expr] = lambda x: 1 - x
) -> None:
    """|1 - alpha eta| <= 1 - alpha mu for mu <= eta <= L, alpha <= 1/L: both signs, so each factor
    has that norm at most.
    """
    mu = sp.Symbol("mu", positive=True)
    above, beyond = sp.symbols(
        "above beyond", nonnegative=True
    )  # eta = mu + above, 1/alpha = eta + beyond
    alpha = 1 / (mu + above + beyond)
    room = gain(alpha * mu) - (1 - alpha * (mu + above))
    run.that(
        sp.simplify(room).is_nonnegative,
        f"1 - alpha mu - (1 - alpha eta) = {sp.simplify(room)} >= 0",
    )
    run.that(sp.simplify(1 - alpha * (mu + above)).is_nonnegative, "no factor is negative")


product_of_contractions.mutant("1 - 2 alpha mu", gain=lambda x: 1 - 2 * x)


@claim.check("exact", part="vanishing")
def meta_gradient_vanishes(run: Run, *, estimator: str = "unrolled") -> None:
    """The library's unrolled gradient for K = 1, 10, 40 against (1 - alpha mu)^K |grad l|; equality
    on the flat eigenvector.
    """
    weights = vector(0.1, 1.0)

    def task(v: Tensor, t: Tensor) -> Tensor:
        return 0.5 * (weights * v) @ v + 0.0 * t.sum()

    for k in (1, 10, 40):
        for query, equal in (
            (lambda v, t: v[0] + 0.0 * t.sum(), True),
            (lambda v, t: v.sum() + 0.0 * t.sum(), False),
        ):
            start = vector(1.0, 2.0)
            _, found = hg.unrolled_gradients(
                task, query, start, vector(0.0), alpha=1.0, n_steps=k, estimator=estimator
            )
            size = float(
                torch.linalg.vector_norm(
                    torch.func.grad(lambda v, q=query: q(v, vector(0.0)))(start)
                )
            )
            ratio = float(torch.linalg.vector_norm(found)) / (0.9**k * size)
            run.at_most(ratio, 1.0, what=f"|meta-gradient| / bound at K = {k}", slack=1e-12)
            if equal:
                run.quantity(
                    f"|meta-gradient|/bound, flat direction, K={k}",
                    ratio,
                    tolerance=1e-9,
                    theory=1.0,
                    meaning="(1-alpha mu)^K",
                )


meta_gradient_vanishes.mutant("detached inner loop (first order)", estimator="first_order")


@claim.check("exact", part="projection")
def least_squares(
    run: Run,
    *,
    jacobian: Callable[[np.ndarray], np.ndarray] = lambda x: np.eye(3) - np.linalg.pinv(x) @ x,
) -> None:
    """K = 60 on one equation in three unknowns: the library's limit is theta's projection, its
    Jacobian I - X^+ X.
    """
    x, y, theta = np.array([[1.0, 2.0, -1.0]]), np.array([3.0]), np.array([0.5, -1.0, 2.0])

    def task(v: Tensor) -> Tensor:
        return 0.5 * (torch.tensor(x) @ v - torch.tensor(y)).square().sum()

    alpha = 0.5 / float((x @ x.T)[0, 0])
    end = descend(task, torch.tensor(theta), task_lr=alpha, n_steps=60)[-1]
    run.close(
        end,
        torch.tensor(theta + np.linalg.pinv(x) @ (y - x @ theta)),
        tolerance=1e-12,
        what="projection of theta",
    )
    rows = []
    for i in range(3):
        _, row = hg.unrolled_gradients(
            lambda v, t: task(v) + 0.0 * t.sum(),
            lambda v, t, i=i: v[i] + 0.0 * t.sum(),
            torch.tensor(theta),
            vector(0.0),
            alpha=alpha,
            n_steps=60,
        )
        rows.append(row)
    run.close(
        torch.stack(rows), torch.tensor(jacobian(x)), tolerance=1e-12, what="Jacobian of the limit"
    )
    a, b, c = sp.symbols("a b c", real=True)
    row = sp.Matrix([[a, b, c]])
    project = sp.eye(3) - row.T * row / row.dot(row)
    run.zero(row * project, "the Jacobian maps into ker X")
    run.zero(project * project - project, "it is a projection")


least_squares.mutant("X^+ X", jacobian=lambda x: np.linalg.pinv(x) @ x)


@claim.check("symbolic", part="projection", covers="limit")
def limit_of_descent(run: Run, *, power: int = 1) -> None:
    """The part in ker X never moves (P X^T = 0), and along a singular value s the Jacobian (1 - a
    s^2)^K tends to 0: what is left is I - X^+ X.
    """
    p, xt, x, phi, y = sp.symbols("P Xt X phi y", commutative=False)
    alpha, k = sp.symbols("alpha K", positive=True)
    moved = sp.expand(p * (phi - alpha * xt * (x * phi - y))).subs(p * xt, 0)
    run.that(moved == p * phi, f"P phi stays: {moved}")
    keep = 1 / (1 + sp.Symbol("e", positive=True))  # |1 - a s^2| < 1, for 0 < a < 2/s^2
    run.zero(sp.limit(keep ** (power * k), k, sp.oo), "the Jacobian along row X")


limit_of_descent.mutant("steps that undo themselves", power=-1)


@claim.check("exact", part="vanishing")
def stated_contraction(run: Run, *, stated: Formula) -> None:
    """The library's unrolled gradient on diag(mu, L) against the printed bound: attained along the
    flat eigenvector, strict across it, false at a rate of 1.9/L.
    """
    weights = vector(0.2, 1.0)
    for alpha, slope, tight in (
        (0.9, (1.0, 0.0), True),
        (0.9, (0.3, 1.0), False),
        (1.9, (0.3, 1.0), False),
    ):
        query = vector(*slope)
        for k in (1, 5):
            _, found = hg.unrolled_gradients(
                lambda v, t: 0.5 * (weights * v) @ v + 0.0 * t.sum(),
                lambda v, t, q=query: q @ v + 0.0 * t.sum(),
                vector(0.4, -0.7),
                vector(0.0),
                alpha=alpha,
                n_steps=k,
            )
            at = {
                r"\|\nabla_\theta\ell(\hat\phi(\theta))\|": float(found.norm()),
                r"\|\nabla\ell\|": float(query.norm()),
                r"\mu": 0.2,
                r"\alpha": alpha,
                "L": 1,
                "K": k,
            }
            run.stands(stated, at, slack=1e-14)
            if tight:
                run.attained(stated, at, tolerance=1e-12)


@claim.check("exact", part="ift")
def stated_ift(run: Run, *, stated: Formula) -> None:
    """Rational H and Lambda: the minimiser of a quadratic plus the printed R, by its normal
    equations, differentiated in theta.
    """
    for hessian, weight in (
        (sp.Matrix([[2, 1], [1, 3]]), sp.Matrix([[1, 0], [0, 4]])),
        (sp.Matrix([[1, -1], [-1, 2]]), sp.Matrix([[2, 1], [1, 2]])),
    ):
        phi, theta = sp.Matrix(sp.symbols("p1 p2")), sp.Matrix(sp.symbols("t1 t2"))
        far = phi - theta
        whole = (phi.T * hessian * phi)[0] / 2 + stated.terms["half"] * (far.T * weight * far)[0]
        (best,) = sp.solve([sp.diff(whole, x) for x in phi], list(phi), dict=True)
        jacobian = phi.subs(best).jacobian(theta)
        at = {r"\partial_\theta\phi^*": jacobian, r"\nabla^2f": hessian, r"\Lambda": weight}
        run.stands(stated, at)


@claim.check("exact", part="projection")
def stated_projection(run: Run, *, stated: Formula) -> None:
    """One equation in three unknowns, rationally: the identity less the projection on the row."""
    for row in (sp.Matrix([[1, 2, -1]]), sp.Matrix([[0, 3, 4]])):
        unit = row.T / row.dot(row)
        size = sp.sqrt(row.dot(row))
        at = {r"\partial_\theta\bar\phi": sp.eye(3) - unit * row, "X": row, r"\|X\|": size}
        run.stands(stated, at)
