r"""C16: the families P(theta_P) of the literature as preconditioners; what makes each a descent
method.

*Proof.* $\langle u,Pu\rangle=\langle u,\operatorname{sym}(P)u\rangle$, so the step $-\alpha Pu$
descends to first order for every $u\ne0$ iff $\operatorname{sym}P\succ0$. Positive diagonals have
it, free ones need not; a product of free mode matrices need be neither symmetric nor definite;
warped GD has $P=JJ^\top\succeq0$ at the current state.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import sympy as sp
import torch
from hypothesis import strategies as st
from torch import Tensor

from mdtheory import descend
from mdtheory.geometry.base import Geometry, geometries
from proofs_check.claim import Claim, Formula, Statement, Verdict
from proofs_check.run import Run
from proofs_check.tools.models import vector
from proofs_check.tools.strategies import for_all, vectors

_DESCENT = (
    r"\phi^k=\phi^{k-1}-\alpha P(\theta_P)u\text{ descends, with }P\text{ diagonal, "
    r"block-diagonal, low-rank, ...}"
)

_ALPHA, _A, _U = sp.Symbol(r"\alpha", positive=True), sp.Symbol("a"), sp.Symbol("u")
FIRST_ORDER = Formula(
    left=sp.Symbol(r"\langle u,\phi^k-\phi^{k-1}\rangle"),
    relation="==",
    right=-_ALPHA * sp.exp(_A) * _U**2,
    text=r"\text{Meta-SGD with rates }e^a\text{: per coordinate }{formula}"
    r"\text{; with free rates it need not fall}",
)
DEFINITE = Formula(
    left=sp.Symbol(r"\lambda_{\min}(\operatorname{sym}P)", real=True),
    relation=">",
    right=sp.Integer(0),
    text=r"\text{it falls to first order for every }u\ne0\iff {formula}",
)

claim = Claim(
    id="C16",
    title="Families of learned preconditioners",
    source="Prior art, meta-learning with task-invariant preconditioner",
    printed=Statement(then=_DESCENT),
    amended=Statement(
        then=_DESCENT,
        given={"definite": r"\operatorname{sym}P(\theta_P)\succ0"},
        parts={
            "descent": DEFINITE,
            "metasgd": FIRST_ORDER,
            "metacurvature": (
                r"\text{Meta-Curvature: }P=M_o\otimes M_i\text{ need be neither "
                r"symmetric nor definite}"
            ),
            "warpgrad": r"\text{WarpGrad: }P=JJ^\top\text{ of the warp, dependent on the state}",
        },
        scopes={"metacurvature": "exists"},
    ),
    expected=Verdict("NEEDS_CONDITIONS", "PROVED"),
    remark="The upper-bound reading of C14 does not apply to unconstrained Meta-Curvature.",
)


def metasgd(form: str, scale: Tensor) -> Geometry:
    """The library's Meta-SGD with this ``scale`` parameter."""
    geometry = geometries.get("metasgd")(form=form)
    geometry.build({"phi": scale})
    geometry.rule.scale.phi.data = scale.clone()
    return geometry


def metacurvature(shape: tuple[int, int], out: Tensor, inner: Tensor) -> Geometry:
    """The library's Meta-Curvature on a matrix with these mode matrices."""
    geometry = geometries.get("metacurvature")()
    geometry.build({"phi": torch.zeros(shape, dtype=torch.float64)})
    geometry.get_parameter("rule.curvature.out.phi").data = out
    geometry.get_parameter("rule.curvature.in.phi").data = inner
    return geometry


@claim.check("counterexample", about="printed", drops=("definite",))
def indefinite(run: Run, *, sign: float = -1.0) -> None:
    """P = diag(1, -1), free Meta-SGD rates of the library: the loss rises at every step from (0,
    1), for every rate.
    """
    f = lambda v: 0.5 * v @ v  # noqa: E731
    for alpha in (1e-3, 0.1, 0.5):
        end = descend(
            f,
            vector(0.0, 1.0),
            task_lr=alpha,
            n_steps=5,
            geometry=metasgd("free", vector(1.0, sign)),
        )[-1]
        run.above(float(f(end)), 0.5, what=f"loss after five steps at rate {alpha}")


indefinite.mutant("P = I", sign=1.0)


@claim.check("symbolic", part="descent")
def symmetric_part_decides(run: Run, *, share: sp.Expr = sp.S.Half) -> None:
    """u^T P u = u^T sym(P) u for every P: the antisymmetric part does no work."""
    p, u = sp.Matrix(3, 3, sp.symbols("p1:10")), sp.Matrix(sp.symbols("u1:4"))
    run.zero(u.dot(p * u) - u.dot(share * (p + p.T) * u), "quadratic forms of P and sym P")


symmetric_part_decides.mutant("P + P^T", share=sp.S.One)


@claim.check("exact", part="metasgd")
def exponential_rates(run: Run, *, form: str = "exp") -> None:
    """Whatever the parameters, the library's step on <u, phi> lowers it: -alpha sum e^a u^2 < 0, to
    the last bit's sign.
    """

    @for_all(u=vectors(4), a=vectors(4), alpha=st.floats(1e-3, 1.0))
    def _(u: np.ndarray, a: np.ndarray, alpha: float) -> None:
        slope, logs = torch.tensor(u), torch.tensor(a).clamp(-30, 30)
        end = descend(
            lambda v: slope @ v,
            torch.zeros(4, dtype=torch.float64),
            task_lr=alpha,
            n_steps=1,
            geometry=metasgd(form, logs),
        )[-1]
        run.above(0.0, float(slope @ end), what="change of the loss to first order")
        run.close(
            end,
            -alpha * logs.exp() * slope,
            tolerance=1e-12 * float(end.abs().max()),
            what="P = diag(e^a)",
        )


exponential_rates.mutant("free rates", form="free")


@claim.check("exact", part="metacurvature")
def unconstrained_modes(run: Run, *, out: Tensor | None = None) -> None:
    """P = M_o (x) M_i on the library's step (dense, 4 x 4); with these M_o, M_i not symmetric, and
    <u, P u> < 0 for some u.
    """
    out = torch.tensor([[1.0, 4.0], [0.0, 1.0]], dtype=torch.float64) if out is None else out
    inner = torch.tensor([[1.0, 0.0], [0.5, 1.0]], dtype=torch.float64)
    rows = []
    for unit in torch.eye(4, dtype=torch.float64):
        slope = unit.reshape(2, 2)
        start = torch.zeros(2, 2, dtype=torch.float64)
        end = descend(
            lambda v, s=slope: (s * v).sum(),
            start,
            task_lr=1.0,
            n_steps=1,
            geometry=metacurvature((2, 2), out, inner),
        )[-1]
        rows.append(-end.reshape(-1))
    p = torch.stack(rows, dim=1)
    run.close(p, torch.kron(out, inner), tolerance=1e-15, what="P is the Kronecker product")
    run.above(float((p - p.T).abs().max()), 0.1, what="asymmetry")
    run.above(
        0.0, float(torch.linalg.eigvalsh((p + p.T) / 2)[0]), what="smallest eigenvalue of sym P"
    )


unconstrained_modes.mutant("M_o = I", out=torch.eye(2, dtype=torch.float64))


@claim.check("symbolic", part="warpgrad", covers="exact")
def warp(run: Run, *, bend: Callable[[sp.Expr], sp.Expr] = sp.tanh) -> None:
    """GD through a warp w: the warped point moves by -alpha J J^T u + O(alpha^2), positive
    semidefinite, and J changes.
    """
    x, y, alpha, p, q = sp.symbols("x y alpha p q", real=True)
    warped = sp.Matrix([bend(x) + x, y + bend(x) * x])
    jacobian, u = warped.jacobian([x, y]), sp.Matrix([p, q])
    moved = warped.subs(
        {x: x - alpha * (jacobian.T * u)[0], y: y - alpha * (jacobian.T * u)[1]}, simultaneous=True
    )
    run.zero(
        sp.diff(moved, alpha).subs(alpha, 0) + jacobian * jacobian.T * u,
        "first order of the warped step",
    )
    run.zero(
        u.dot(jacobian * jacobian.T * u) - (jacobian.T * u).dot(jacobian.T * u),
        "u^T P u is a square",
    )
    run.that(sp.simplify(sp.diff((jacobian * jacobian.T)[0, 0], x)) != 0, "P depends on the state")


warp.mutant("a linear warp: fixed P", bend=lambda x: 2 * x)


@claim.check("symbolic", part="metasgd")
def exponentials_are_positive(run: Run, *, rate: Callable[[sp.Symbol], sp.Expr] = sp.exp) -> None:
    """-alpha e^a u^2 <= 0 for all real a and u: each coordinate lowers the loss to first order."""
    a, u = sp.symbols("a u", real=True)
    run.that((rate(a) * u**2).is_nonnegative, "e^a u^2 >= 0")


exponentials_are_positive.mutant("free rates", rate=lambda a: a)


@claim.check("symbolic", part="warpgrad")
def any_warp(run: Run, *, transposed: bool = True) -> None:
    """Arbitrary differentiable warps of two variables: d/d alpha of w(x - alpha J^T u) at 0 is -J
    J^T u, and u^T J J^T u = |J^T u|^2.
    """
    x, y, p, q = sp.symbols("x y p q", real=True)
    w = sp.Matrix([sp.Function("w1")(x, y), sp.Function("w2")(x, y)])
    jacobian, u = w.jacobian([x, y]), sp.Matrix([p, q])
    back = (jacobian.T if transposed else jacobian) * u
    velocity = jacobian * (-back)  # chain rule at alpha = 0
    run.zero(velocity + jacobian * jacobian.T * u, "first order of the warped step")
    run.zero(u.dot(jacobian * jacobian.T * u) - (jacobian.T * u).dot(jacobian.T * u), "a square")


any_warp.mutant("J for J^T", transposed=False)


@claim.check("exact", part="metasgd")
def stated_first_order(run: Run, *, stated: Formula) -> None:
    """The library's Meta-SGD step on a linear loss, coordinate by coordinate, against the printed
    change.
    """
    slope, logs = vector(1.5, -2.0, 0.5), vector(-1.0, 0.3, 2.0)
    end = descend(
        lambda v: slope @ v,
        torch.zeros(3, dtype=torch.float64),
        task_lr=0.7,
        n_steps=1,
        geometry=metasgd("exp", logs),
    )[-1]
    for u, a, moved in zip(slope, logs, end, strict=True):
        at = {stated.left: float(u * moved), r"\alpha": 0.7, "a": float(a), "u": float(u)}
        run.stands(stated, at, slack=1e-12)


@claim.check("exact", part="descent")
def stated_definite(run: Run, *, stated: Formula) -> None:
    """Three matrices that are not symmetric: <u, P u> over 720 directions against the printed
    condition on the least eigenvalue.
    """
    angles = torch.linspace(0, 2 * torch.pi, 721, dtype=torch.float64)
    around = torch.stack([angles.cos(), angles.sin()])
    for rows in ([[1.0, 1.0], [0.0, 0.5]], [[1.0, 3.0], [0.0, 1.0]], [[0.4, -2.0], [2.0, 0.4]]):
        p = torch.tensor(rows, dtype=torch.float64)
        least = float(torch.linalg.eigvalsh((p + p.T) / 2)[0])
        falls = bool((around * (p @ around)).sum(0).min() > 0)
        run.decides(stated, {stated.left: least}, falls)
