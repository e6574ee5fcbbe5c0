r"""C04: "after K iterations the solver approximates the global optimum". It approaches a stationary
point.

*Counterexample.* $f(x)=\frac14(x^2-1)^2+\frac1{10}x$ from $x^0=0.9$ with $\alpha=1/8\le1/L$ on
$[-1.2,1.2]$: the start lies in the basin of the worse of two minima.

*Proofs of the amendment* ($\alpha=1/L$). Descent: $f(\phi^+)\le f(\phi)-\frac1{2L}\|u\|^2$ (C12).
Sum over $k$: part (stationary). With PL, $\|u\|^2\ge2\mu(f-f^*)$: part (pl). Convex:
$f(\phi^+)-f^*\le\langle u,\phi-\phi^*\rangle- \frac1{2L}\|u\|^2=\frac
L2(\|\phi-\phi^*\|^2-\|\phi^+-\phi^*\|^2)$; sum and monotonicity: part (convex).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import sympy as sp
import torch
from torch import Tensor

from mdtheory import descend
from proofs_check.claim import Claim, Formula, Statement, Verdict
from proofs_check.run import Run
from proofs_check.tools.models import hessian_of, vector
from proofs_check.tools.strategies import Loss, for_all, pl_losses

_BIG_L, _GAP, _MU, _ALPHA = sp.symbols(r"L \Delta_0 \mu \alpha", positive=True)
_K = sp.Symbol("K", integer=True, positive=True)
STATIONARY = Formula(
    left=sp.Symbol(r"\min_{k<K}\|\nabla f(\phi^k)\|^2"),
    relation="<=",
    right=2 * _BIG_L * _GAP / _K,
    text=r"{formula}\text{ for }{given}",
    given={"rate": sp.Eq(_ALPHA, 1 / _BIG_L)},
)
_D, _VALUE = sp.Symbol("D", positive=True), sp.Symbol("f(\\phi^K)-f^*", real=True)
PL = Formula(
    left=_VALUE,
    relation="<=",
    right=(1 - _MU / _BIG_L) ** _K * _GAP,
    text=r"f\ \mu\text{-PL}\Rightarrow {formula}",
)
CONVEX = Formula(
    left=_VALUE,
    relation="<=",
    right=_BIG_L * _D**2 / (2 * _K),
    text=r"f\text{ convex}\Rightarrow {formula}",
)

claim = Claim(
    id="C04",
    title="After K iterations the solver approximates the global optimum",
    source="Bilevel optimization for meta-learning, MAML",
    printed=Statement(
        then=r"\hat\phi_t(\theta)=\phi_t^K(\theta)\approx\phi_t^*(\theta)\in\arg\min_\phi f(\phi)"
    ),
    amended=Statement(
        given={
            "smooth": r"f\ L\text{-smooth, bounded below}",
            "rate": sp.Eq(_ALPHA, 1 / _BIG_L),
            "start": r"\Delta_0=f(\phi^0)-f^*,\ f^*=\inf f,\ D=\|\phi^0-\phi^*\|",
        },
        then=(
            r"\hat\phi_t\text{ approaches stationarity; the minimum too, in value, if }f\text{ is "
            r"convex or PL (and if PL in distance, C07)}"
        ),
        parts={
            "stationary": STATIONARY,
            "pl": PL,
            "convex": CONVEX,
        },
    ),
    expected=Verdict("FALSE", "PROVED"),
    uses=("C12",),
)


def double_well(phi: Tensor) -> Tensor:
    """1/4 (x^2 - 1)^2 + x / 10."""
    return (0.25 * (phi**2 - 1) ** 2 + 0.1 * phi).sum()


def gap_to_global(f: Callable[[Tensor], Tensor], phi: Tensor) -> float:
    """f(phi) - min f, the minimum by an exact root of f' among all real ones."""
    roots = np.roots([1.0, 0.0, -1.0, 0.1]).real
    return float(f(phi)) - min(float(f(vector(root))) for root in roots)


@claim.check("counterexample", about="printed")
def wrong_basin(
    run: Run, *, distance_to_optimum: Callable[..., float] = gap_to_global, start: float = 0.9
) -> None:
    """The library's MAML solver converges (|f'| < 1e-12) at a value 0.2 above the global
    minimum.
    """
    end = descend(double_well, vector(start), task_lr=0.125, n_steps=400)[-1]
    curvature = [
        float(hessian_of(double_well)(point))
        for point in descend(double_well, vector(start), task_lr=0.125, n_steps=9)
    ]
    run.at_most(max(curvature), 8.0, what="alpha <= 1/L along the path")
    run.at_most(float(torch.func.grad(double_well)(end).abs()), 1e-12, what="it has converged")
    run.above(distance_to_optimum(double_well, end), 0.1, what="gap to the global minimum")
    run.quantity(
        "f at the limit",
        float(double_well(end)),
        tolerance=1e-4,
        theory=0.0974,
        meaning="1/4(x^2-1)^2+x/10 from x0=0.9",
    )
    low = float(double_well(end)) - gap_to_global(double_well, end)
    run.quantity(
        "global minimum of f",
        low,
        tolerance=1e-4,
        theory=-0.1024,
        meaning="minimum of 1/4(x^2-1)^2+x/10",
    )


wrong_basin.mutant(
    "a harness that measures only the gradient norm",
    distance_to_optimum=lambda f, phi: float(torch.func.grad(f)(phi).abs()),
)
wrong_basin.mutant("a start in the good basin", start=-0.9)


@claim.check("symbolic", part="stationary")
def telescoped_descent(run: Run, *, constant: int = 2) -> None:
    """Summing Delta_k - Delta_{k+1} >= |u_k|^2/(2L) over k < K, each |u_k|^2 at least the minimum
    m.
    """
    big_l, minimum, start, steps = sp.symbols("L m Delta K", positive=True)
    lost = (
        steps * minimum / (2 * big_l)
    )  # at least this much is lost in K steps, and at most Delta_0
    run.zero(
        sp.solve(sp.Eq(lost, start), minimum)[0] - constant * big_l * start / steps,
        "min |u|^2 <= 2 L Delta_0 / K",
    )
    run.quantity(
        "textbook nonconvex constant", constant, meaning="min |grad f|^2 <= 2 L Delta_0 / K"
    )


telescoped_descent.mutant("constant 1", constant=1)


@claim.check("symbolic", part="pl")
def linear_rate(
    run: Run, *, factor: Callable[[sp.Expr, sp.Expr], sp.Expr] = lambda mu, big_l: 1 - mu / big_l
) -> None:
    """Delta - |u|^2/(2L) with |u|^2 >= 2 mu Delta contracts by 1 - mu/L (not claimed tight)."""
    mu, big_l, gap = sp.symbols("mu L Delta", positive=True)
    run.zero(gap - 2 * mu * gap / (2 * big_l) - factor(mu, big_l) * gap, "one step under PL")


linear_rate.mutant("1 - mu/(2L)", factor=lambda mu, big_l: 1 - mu / (2 * big_l))


@claim.check("certificate", part="convex")
def convex_value(run: Run, *, coefficient: sp.Expr = sp.S.Half) -> None:
    """<u, x> - |u|^2/(2L) = L/2 (|x|^2 - |x - u/L|^2) for x = phi - phi*; K steps telescope to L
    D^2 / 2.
    """
    big_l, x, u = sp.symbols("L x u", positive=True)
    run.zero(
        u * x - u**2 / (2 * big_l) - coefficient * big_l * (x**2 - (x - u / big_l) ** 2),
        "three-point identity",
    )
    run.quantity(
        "textbook convex constant", coefficient, meaning="f(phi^K) - f* <= c L D^2 / K with c = 1/2"
    )


convex_value.mutant("coefficient 1/4", coefficient=sp.Rational(1, 4))


@claim.check("property", part="pl")
def library_reaches_pl_optimum(run: Run, *, faster: float = 1.0) -> None:
    """The solver on PL losses that are not strongly convex: the gap stays below (1 - mu/L)^K
    Delta_0.
    """
    grid = torch.linspace(0.01, 6.0, 24001, dtype=torch.float64)
    slopes, values = 2 * grid + 3 * torch.sin(2 * grid), grid**2 + 3 * torch.sin(grid) ** 2
    mu = float((slopes**2 / (2 * values)).min())
    run.quantity(
        "PL modulus of x^2+3sin^2 x on [-6,6]",
        mu,
        tolerance=1e-4,
        theory=0.1755,
        meaning="min f'^2 / (2 f), by a grid",
    )

    @for_all(loss=pl_losses())
    def _(loss: Loss) -> None:
        points = descend(loss.function, loss.start, task_lr=1 / loss.big_l, n_steps=6)
        gap = float(loss.function(points[0])) - loss.lowest
        for k, point in enumerate(points):
            bound = (1 - faster * loss.mu / loss.big_l) ** k * gap
            run.at_most(
                float(loss.function(point)) - loss.lowest,
                bound,
                slack=1e-12 * (1 + gap),
                what=f"gap of {loss.name} at k = {k}",
            )


library_reaches_pl_optimum.mutant("contraction by 1 - 40 mu/L", faster=40.0)


@claim.check("symbolic", part="stationary")
def stated_rate(run: Run, *, stated: Formula) -> None:
    """K m/(2L) <= Delta_0 solved for m is the printed right side; the library's descent stays below
    it at 1/L, and above it at a rate of a hundredth.
    """
    minimum = sp.Symbol("m", positive=True)
    (largest,) = sp.solve(_K * minimum / (2 * _BIG_L) - _GAP, minimum)
    run.zero(largest - stated.right, "the largest minimum that the telescope allows")
    for share in (1.0, 0.01):
        points = descend(lambda v: 2.0 * v @ v, vector(1.0), task_lr=share / 4, n_steps=5)
        least = min(float((4 * point).square().sum()) for point in points[:5])
        at = {stated.left: least, "L": 4, r"\Delta_0": 2, r"\alpha": share / 4, "K": 5}
        run.stands(stated, at)


claim.kernel("gradient_descent_rate", part="convex")


def gap_on_a_bowl(curvature: float, n_steps: int) -> tuple[float, float]:
    """f(phi^0) - f* and f(phi^K) - f* of the library's GD with 1/10 on c/2 x^2 from 1."""
    f = lambda v: curvature / 2 * v @ v  # noqa: E731
    end = descend(f, vector(1.0), task_lr=0.1, n_steps=n_steps)[-1]
    return curvature / 2, float(f(end))


@claim.check("exact", part="pl")
def stated_pl(run: Run, *, stated: Formula) -> None:
    """mu/2 x^2 with a small mu against the printed rate: below it, by less than a percent; and one
    step of linear_rate is K = 1, and each one more.
    """
    one, more = (stated.right.subs(_K, k) for k in (1, _K + 1))
    run.zero(one - (_GAP - _MU * _GAP / _BIG_L), "K = 1")
    run.zero(sp.powsimp(sp.expand(more - stated.right * (1 - _MU / _BIG_L))), "one step more")
    for steps in (1, 3):
        start, found = gap_on_a_bowl(0.01, steps)
        at = {stated.left: found, "L": 10, r"\mu": 0.01, r"\Delta_0": start, "K": steps}
        run.stands(stated, at)
        run.attained(stated, at, tolerance=1e-2)


@claim.check("symbolic", part="convex")
def stated_convex(run: Run, *, stated: Formula) -> None:
    """K gaps, each at most the last, against L D^2/2, solved for the gap; and a bowl lies below."""
    gap = sp.Symbol("g", positive=True)
    (largest,) = sp.solve(_K * gap - _BIG_L * _D**2 / 2, gap)
    run.zero(largest - stated.right, "the largest gap that the telescope allows")
    _, found = gap_on_a_bowl(2.0, 3)
    run.stands(stated, {stated.left: found, "L": 10, "D": 1, "K": 3})
