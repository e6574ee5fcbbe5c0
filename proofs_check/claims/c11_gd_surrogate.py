r"""C11: gradient descent minimises the linearisation plus a proximal term.

*Proof.* The surrogate is a strongly convex quadratic in $\phi$ for every $\alpha>0$; its gradient
$u+(\phi-\psi)/\alpha$ vanishes exactly at $\phi=\psi-\alpha u$. Nothing is asked of $f$ but a
gradient at $\psi$. (The poster's display lacks the transpose.)
"""

from __future__ import annotations

from collections.abc import Callable

import sympy as sp
import torch
from torch import Tensor

from mdtheory import descend
from proofs_check.claim import Claim, Formula, Statement, Verdict
from proofs_check.run import Run
from proofs_check.tools import hypergradient as hg
from proofs_check.tools.models import vector

_PSI, _U, _ALPHA = sp.Symbol(r"\phi^{k-1}"), sp.Symbol("u"), sp.Symbol(r"\alpha", positive=True)
STEP = Formula(
    left=sp.Symbol(r"\phi^k"),
    relation="==",
    right=_PSI - _ALPHA * _U,
    text=r"{formula}=\arg\min_\phi f(\phi^{k-1})+u^\top(\phi-\phi^{k-1})+{prox}"
    r"\|\phi-\phi^{k-1}\|_2^2",
    terms={"prox": 1 / (2 * _ALPHA)},
)

claim = Claim(
    id="C11",
    title="GD is the minimiser of linearisation plus proximal term",
    source="Prior art on accelerated task-specific optimization, GD recap",
    printed=Statement(
        given={"differentiable": r"f\text{ differentiable at }\phi^{k-1},\ \alpha>0"},
        then=STEP,
    ),
    expected=Verdict("HOLDS", "PROVED"),
)


def proximal(difference: sp.Matrix, alpha: sp.Symbol) -> sp.Expr:
    """|phi - psi|^2 / (2 alpha)."""
    return difference.dot(difference) / (2 * alpha)


@claim.check("symbolic", about="printed")
def unique_minimiser(
    run: Run, *, prox: Callable[[sp.Matrix, sp.Symbol], sp.Expr] = proximal
) -> None:
    """Hessian I/alpha > 0 and the only stationary point is psi - alpha u, for arbitrary u, psi in
    three dimensions.
    """
    phi, psi, u = (sp.Matrix(sp.symbols(f"{n}1:4", real=True)) for n in ("p", "q", "u"))
    alpha = sp.Symbol("alpha", positive=True)
    surrogate = u.dot(phi - psi) + prox(phi - psi, alpha)
    run.zero(sp.hessian(surrogate, list(phi)) - sp.eye(3) / alpha, "Hessian of the surrogate")
    (solution,) = sp.solve([sp.diff(surrogate, x) for x in phi], list(phi), dict=True)
    run.zero(phi.subs(solution) - (psi - alpha * u), "stationary point")
    run.quantity(
        "surrogate curvature times alpha",
        sp.simplify(alpha * sp.diff(surrogate, phi[0], 2)),
        meaning="Hessian of the surrogate is I/alpha",
    )


unique_minimiser.mutant("1/alpha for 1/(2 alpha)", prox=lambda v, a: v.dot(v) / a)
unique_minimiser.mutant("alpha/2", prox=lambda v, a: a * v.dot(v) / 2)


def loss(phi: Tensor) -> Tensor:
    """A loss that is neither convex nor smooth everywhere."""
    return (torch.sin(3 * phi) + phi.abs() ** 1.5).sum() + phi.prod()


@claim.check("exact", about="printed")
def library_step(run: Run, *, half: float = 0.5) -> None:
    """The library's step equals a Newton minimisation of the surrogate, for alpha from 0.01 to
    100.
    """
    psi = vector(0.7, -1.2, 0.4)
    u = torch.func.grad(loss)(psi)
    for alpha in (0.01, 1.0, 100.0):
        best = hg.newton(
            lambda p, a=alpha: u @ (p - psi) + half / a * (p - psi).square().sum(), psi
        )
        found = descend(loss, psi, task_lr=alpha, n_steps=1)[-1]
        run.close(found, best, tolerance=1e-13 * alpha + 1e-13, what=f"step at alpha = {alpha}")


library_step.mutant("1/alpha for 1/(2 alpha)", half=1.0)


@claim.check("exact", about="printed")
def stated_step(run: Run, *, stated: Formula) -> None:
    """The library's step, and the minimiser of the printed surrogate solved from its own
    coefficient, equal the printed right side.
    """
    psi, d = vector(0.7, -1.2, 0.4), sp.Symbol("d")
    u = torch.func.grad(loss)(psi)
    for alpha in (0.25, 2.0):
        after = descend(loss, psi, task_lr=alpha, n_steps=1)[-1]
        for before, slope, end in zip(psi, u, after, strict=True):
            at = {_PSI: float(before), _U: float(slope), _ALPHA: alpha}
            run.stands(stated, {**at, stated.left: float(end)}, slack=1e-14)
            weight = stated.terms["prox"].subs(_ALPHA, alpha)
            (best,) = sp.solve(sp.diff(float(slope) * d + weight * d**2, d), d)
            run.close(float(best), float(end - before), tolerance=1e-12, what="the argmin")
