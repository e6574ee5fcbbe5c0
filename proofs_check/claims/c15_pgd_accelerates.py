r"""C15: a preconditioner can accelerate GD: an existence claim. Some P accelerate, others slow
down.

*Proof.* In $\psi=P^{-1/2}\phi$ PGD is GD on $f(P^{1/2}\psi)$, whose Hessian is
$P^{1/2}\nabla^2fP^{1/2}$. Hence C07(a) with $\mu_P,L_P$: contraction by $1-\mu_P/L_P$ in the norm
of $P^{-1}$. The guarantee improves iff $\kappa_P<\kappa$.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import sympy as sp
import torch
from torch import Tensor

from mdtheory import descend
from proofs_check.claim import Claim, Formula, Statement, Verdict
from proofs_check.run import Run
from proofs_check.tools.models import mirror, vector
from proofs_check.tools.strategies import for_all, seeds

_MU, _L, _K = sp.Symbol(r"\mu_P", positive=True), sp.Symbol("L_P", positive=True), sp.Symbol("K")
RATE = Formula(
    left=sp.Symbol(r"\|\phi^K-\phi^*\|_{P^{-1}}"),
    relation="<=",
    right=(1 - _MU / _L) ** _K * sp.Symbol(r"\|\phi^0-\phi^*\|_{P^{-1}}", positive=True),
    text=r"{formula},\text{ attained}",
)
_P, _H = sp.symbols("P H", positive=True)
NEWTON_STEP = Formula(
    left=sp.Symbol(r"\phi^1-\phi^*"),
    relation="==",
    right=(1 - _P * _H) * sp.Symbol(r"(\phi^0-\phi^*)"),
    text=r"f\text{ quadratic, rate one: }{formula},\text{ zero after one step for }P={newton}",
    terms={"newton": 1 / _H},
)
HURTS = Formula(
    left=sp.Symbol(r"\kappa_P"),
    relation="==",
    right=sp.Integer(100),
    text=r"H=P=\mathrm{diag}({one},{top}):\ {formula}\text{ against }\kappa={top}",
    terms={"one": sp.Integer(1), "top": sp.Integer(10)},
)

claim = Claim(
    id="C15",
    title="PGD can accelerate GD",
    source="Prior art on accelerated task-specific optimization, PGD",
    printed=Statement(
        then=r"\exists f,P:\text{ PGD with }P\text{ converges faster than GD}",
        scopes={"": "exists"},
    ),
    amended=Statement(
        given={
            "spectrum": (
                r"\mathrm{spec}(P^{1/2}\nabla^2fP^{1/2})\subset[\mu_P,L_P],\ \alpha=1/L_P,\ "
                r"\kappa_P=L_P/\mu_P"
            ),
        },
        then=r"\text{the guarantee improves iff }\kappa_P<\kappa",
        parts={
            "rate": RATE,
            "helps": NEWTON_STEP,
            "hurts": HURTS,
        },
        scopes={"hurts": "instance"},
    ),
    expected=Verdict("HOLDS", "PROVED"),
    uses=("C07/a", "C14"),
)


def pgd(
    f: Callable[[Tensor], Tensor], start: Tensor, metric: Tensor, *, alpha: float, n_steps: int
) -> Tensor:
    """The library's mirror descent with h = |.|^2_{P^{-1}}/2, from phi^0 = start. shape: (d,)"""
    geometry = mirror("quadratic", start, matrix={"phi": metric})
    return descend(
        f, torch.linalg.solve(metric, start), task_lr=alpha, n_steps=n_steps, geometry=geometry
    )[-1]


HESSIAN = torch.tensor([[3.0, 1.0], [1.0, 0.5]], dtype=torch.float64)
NEWTON = torch.linalg.inv(HESSIAN)


def _one_step(run: Run, metric: Tensor) -> None:
    start = vector(1.0, -2.0)
    top = float(torch.linalg.eigvals(metric @ HESSIAN).real.max())
    end = pgd(lambda v: 0.5 * v @ HESSIAN @ v, start, metric, alpha=1 / top, n_steps=1)
    run.close(end, torch.zeros(2), tolerance=1e-12, what="PGD after one step")


@claim.check("exact", about="printed")
def newton_in_one_step(run: Run, *, metric: Tensor = NEWTON) -> None:
    """P = H^{-1} reaches the minimiser in one step of the library; GD at its best rate is still
    away after 20.
    """
    _one_step(run, metric)
    top = float(torch.linalg.eigvalsh(HESSIAN)[-1])
    slow = descend(lambda v: 0.5 * v @ HESSIAN @ v, vector(1.0, -2.0), task_lr=1 / top, n_steps=20)[
        -1
    ]
    run.above(float(torch.linalg.vector_norm(slow)), 0.1, what="GD after 20 steps")


newton_in_one_step.mutant("P = I", metric=torch.eye(2, dtype=torch.float64))


@claim.check("exact", part="helps")
def one_step(run: Run, *, metric: Tensor = NEWTON) -> None:
    """kappa_P = 1 for P = H^{-1}, exactly and on the library."""
    _one_step(run, metric)
    h = sp.Matrix([[3, 1], [1, sp.S.Half]])
    run.quantity("kappa_P at P = H^{-1}", condition(h, h.inv()), theory=1, meaning="one step")


one_step.mutant("P = H", metric=HESSIAN)


def condition(hessian: sp.Matrix, metric: sp.Matrix) -> sp.Expr:
    """The ratio of the extreme eigenvalues of P H."""
    values = sorted((metric * hessian).eigenvals(), key=float)
    return sp.simplify(values[-1] / values[0])


@claim.check("exact", part="hurts")
def any_metric_accelerates(run: Run, *, metric: tuple[int, int] = (1, 10)) -> None:
    """H = P = diag(1, 10): kappa_P = 100, the rate 1 - 1/100 per step against 1 - 1/10, on the
    library too.
    """
    h, p = sp.diag(1, 10), sp.diag(*metric)
    run.quantity(
        "kappa_P at H=P=diag(1,10)",
        condition(h, p),
        theory=100,
        meaning="kappa is 10: P slows down",
    )
    run.quantity("kappa at H=diag(1,10)", condition(h, sp.eye(2)), theory=10, meaning="without P")
    dense, weights = torch.diag(vector(*map(float, metric))), vector(1.0, 10.0)
    end = pgd(
        lambda v: 0.5 * (weights * v) @ v,
        vector(1.0, 0.0),
        dense,
        alpha=1 / float(10 * metric[1]),
        n_steps=10,
    )
    run.close(
        end[0],
        float(Fraction(99, 100) ** 10),
        tolerance=1e-12,
        what="flat coordinate after ten steps",
    )


any_metric_accelerates.mutant("any P accelerates: P = H^{-1}", metric=(10, 1))


@claim.check("symbolic", part="rate")
def change_of_variables(
    run: Run, *, side: Callable[[sp.Matrix, sp.Matrix], sp.Matrix] = lambda root, u: root * root * u
) -> None:
    """psi = P^{-1/2} phi: GD on f(P^{1/2} psi) moves phi by -alpha P u, matrices of any size, and
    |phi|_{P^{-1}} = |psi|.
    """
    r, s, v = sp.symbols("R s v", commutative=False)  # R = P^{1/2}, gradient R v by the chain rule
    rate = sp.Symbol("alpha", positive=True)
    run.that(sp.expand(r * (s - rate * r * v) - (r * s - rate * r**2 * v)) == 0, "the step")
    root = sp.Matrix([[2, 1], [1, 3]]) * sp.Symbol("c", positive=True)
    psi, u, alpha = (
        sp.Matrix(sp.symbols("s1 s2")),
        sp.Matrix(sp.symbols("u1 u2")),
        sp.Symbol("alpha"),
    )
    phi = root * psi
    run.zero(
        root * (psi - alpha * root * u) - (phi - alpha * side(root, u)),
        "the step, chain rule: gradient root * u",
    )
    run.zero(phi.dot((root * root).inv() * phi) - psi.dot(psi), "the norms")


change_of_variables.mutant("P^{1/2} for P", side=lambda root, u: root * u)


@claim.check("property", part="rate")
def library_rate(run: Run, *, condition_power: float = 1.0) -> None:
    """Random H and P: the library's PGD obeys the rate, and attains it from the flat eigenvector of
    P H.
    """

    @for_all(seed=seeds())
    def _(seed: int) -> None:
        rng = np.random.default_rng(seed)
        roots = rng.standard_normal((2, 3, 3))
        hessian, metric = (torch.tensor(r @ r.T + 0.3 * np.eye(3)) for r in roots)
        half = torch.linalg.cholesky(metric)
        values, vectors = torch.linalg.eigh(half.T @ hessian @ half)
        rate = 1 - float(values[0] / values[-1]) ** condition_power
        for direction, attains in (
            (vectors[:, 0], True),
            (torch.tensor(rng.standard_normal(3)), False),
        ):
            end = pgd(
                lambda v: 0.5 * v @ hessian @ v,
                half @ direction,
                metric,
                alpha=1 / float(values[-1]),
                n_steps=4,
            )
            ratio = float(
                torch.linalg.vector_norm(torch.linalg.solve(half, end))
                / torch.linalg.vector_norm(direction)
            )
            run.at_most(ratio, rate**4, slack=1e-9, what="|phi^4| / |phi^0| in the norm of P^{-1}")
            if attains:
                run.close(ratio, rate**4, tolerance=1e-9, what="attained")


library_rate.mutant("rate 1 - sqrt(mu/L)", condition_power=0.5)
library_rate.mutant("rate 1 - (mu/L)^2", condition_power=2.0)


@claim.check("symbolic", part="helps")
def newton(run: Run, *, power: int = 1) -> None:
    """phi - H^{-1} H (phi - c) = c, matrices of any size."""
    h, inverse, phi, c = sp.symbols("H Q phi c", commutative=False)
    end = sp.expand(phi - inverse * h**power * (phi - c)).subs(inverse * h, 1)
    run.that(sp.expand(end - c) == 0, f"one step ends at {end}")


newton.mutant("P = H^{-1} on H^2", power=2)


@claim.check("exact", part="rate")
def stated_rate(run: Run, *, stated: Formula) -> None:
    """The library's PGD on diagonal cases against the printed rate: attained along the flat
    direction of P H, strict across it.
    """
    weights, metric = vector(1.0, 6.0), vector(0.5, 0.75)  # P H = (0.5, 4.5)
    for start, tight in ((vector(2.0, 0.0), True), (vector(1.0, 1.0), False)):
        for k in (1, 3):
            end = pgd(
                lambda v: 0.5 * (weights * v) @ v, start, metric.diag(), alpha=1 / 4.5, n_steps=k
            )
            size = [float((v**2 / metric).sum().sqrt()) for v in (end, start)]
            at = {stated.left: size[0], r"\|\phi^0-\phi^*\|_{P^{-1}}": size[1]}
            at |= {r"\mu_P": 0.5, "L_P": 4.5, "K": k}
            run.stands(stated, at, slack=1e-12)
            if tight:
                run.attained(stated, at, tolerance=1e-12)


@claim.check("exact", part="helps")
def stated_newton(run: Run, *, stated: Formula) -> None:
    """The library's PGD with rate 1 on h x^2/2, and the printed P, with which nothing is left."""
    for p, h in ((0.5, 3.0), (0.25, 0.5)):
        end = pgd(lambda v, h=h: h / 2 * v @ v, vector(2.0), vector(p).diag(), alpha=1.0, n_steps=1)
        at = {stated.left: float(end), "P": p, "H": h, r"(\phi^0-\phi^*)": 2}
        run.stands(stated, at, slack=1e-12)
        best = stated.terms["newton"].subs(_H, h)
        run.zero(stated.right.subs({_P: best, _H: h}), "nothing is left")


@claim.check("exact", part="hurts")
def stated_slowdown(run: Run, *, stated: Formula) -> None:
    """The condition of diag(1, top) squared, by its eigenvalues."""
    h = sp.diag(stated.terms["one"], stated.terms["top"])
    run.stands(stated, {stated.left: condition(h, h)})
    run.zero(condition(h, sp.eye(2)) - stated.terms["top"], "kappa")
