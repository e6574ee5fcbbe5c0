r"""C29 (implicit): the dual iteration with g is mirror descent, and so converges for small rates.
False; true under T6.

*Refutation.* $s\equiv\frac12$, $\mu_2=4z_1$, $f=\frac12\phi^\top A\phi$: $\phi^k=(I-\alpha
JA)\phi^{k-1}$ with $\mathrm{spec}(JA)=\{-\frac14,-\frac34\}$ diverges from every $\phi^0\ne0$ for
every $\alpha>0$ (T7), while GD converges for $\alpha<\frac43$. *What is true*: descent and
$\min\|\nabla f\|^2=O(1/K)$ where $g$ is strongly monotone and Lipschitz along the steps (T6);
monotonicity is needed (T7).
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

import sympy as sp
import torch
from hypothesis import strategies as st
from torch import Tensor

from mdtheory import descend
from mdtheory.geometry.base import Geometry
from proofs_check.claim import Claim, Formula, Statement, Verdict
from proofs_check.claims import t6_descent, t6_statement
from proofs_check.claims.t6_descent import DESCENT, RATE
from proofs_check.formula import tex
from proofs_check.run import Run
from proofs_check.tools import iaf
from proofs_check.tools.iaf import Flat
from proofs_check.tools.models import vector
from proofs_check.tools.quoting import quoted
from proofs_check.tools.strategies import for_all, numbers, seeds

claim = Claim(
    id="C29",
    title="The dual iteration with g is mirror descent and converges",
    source="Learning inverse mirror map with a NN model, implicit in the choice grad h* = g",
    printed=Statement(
        given={
            "loss": r"f\text{ smooth and strongly convex}",
            "rate": r"\alpha\text{ small enough}",
        },
        then=(
            r"z^k=z^{k-1}-\alpha\nabla f(g(z^{k-1})),\ \phi^k=g(z^k)\text{ converges to the "
            r"minimiser of }f"
        ),
    ),
    amended=Statement(
        given={
            "loss": r"f\ L\text{-smooth, bounded below}",
            "map": r"g\ m\text{-strongly monotone and }M\text{-Lipschitz along the steps}",
            "rate": r"\alpha<" + tex(DESCENT.terms["largest"]),
        },
        then=r"f(\phi^k)\text{ decreases, and }"
        + RATE.core
        + r"\text{ at the best rate; without monotonicity it can diverge for every }\alpha",
        parts={
            "descent": DESCENT,
            "rate": RATE,
            "necessary": r"\text{no condition on }\alpha\text{ alone suffices}",
        },
        scopes={"necessary": "exists"},
    ),
    expected=Verdict("FALSE", "PROVED"),
    uses=("T6/descent", "T6/rate", "T7"),
)

HALF = sp.Rational(1, 2)
A = sp.Matrix([[1, -HALF], [-HALF, 1]])


def tilted(phi: Tensor) -> Tensor:
    """1/2 phi^T A phi."""
    return 0.5 * (phi @ phi) - 0.5 * phi[0] * phi[1]


def identity_map(slope: float) -> Flat:
    """The impostor for which all is well."""
    return iaf.flat(iaf.Linear(torch.eye(2, dtype=torch.float64)), 2)


@claim.check("counterexample", about="printed")
def diverges_for_every_rate(
    run: Run, *, make: Callable[[float], Flat] = iaf.shifted, slope: int = 4
) -> None:
    """Exact spectrum {-1/4, -3/4}; the library's solver with BlockIAF and GradientStep moves away
    at five decades of rates.
    """
    spectrum = set((sp.Matrix([[HALF, 0], [slope, HALF]]) * A).eigenvals())
    run.that(spectrum == {-sp.Rational(1, 4), -sp.Rational(3, 4)}, f"spec(JA) = {spectrum}")
    for map in (make(float(slope)), iaf.shifted_mlp(float(slope))):
        for alpha in (1e-4, 1e-2, 0.3, 1.0, 10.0):
            n_steps = 10 if alpha > 1 else 30
            points = descend(
                tilted,
                vector(1.0, 1.0),
                task_lr=alpha,
                n_steps=n_steps,
                geometry=Geometry(map=map.map),
            )
            growth = float(components(points[-1])) / float(components(points[0]))
            run.above(
                growth,
                (1 + alpha / 4) ** (len(points) - 1) * (1 - 1e-9),
                what=f"growth at alpha = {alpha}",
            )
    for name, value in zip(("least", "largest"), sorted(spectrum), strict=True):
        run.quantity(f"{name} eigenvalue of JA", value, meaning="s = 1/2, mu_2 = 4 z_1")


def components(phi: Tensor) -> Tensor:
    """max |w^T phi| over the left eigenvectors (-5, 1), (-3, 1) of JA: both grow."""
    return torch.stack([vector(-5.0, 1.0) @ phi, vector(-3.0, 1.0) @ phi]).abs().min()


diverges_for_every_rate.mutant("slope 1, monotone", slope=1)
diverges_for_every_rate.mutant("impostor: the identity", make=identity_map)


@claim.check("counterexample", about="printed")
def while_gd_converges(
    run: Run, *, edge: Fraction = Fraction(4, 3), make: Callable[[float], Flat] = iaf.shifted
) -> None:
    """The same loss, the same start: the library's GD converges at 99% of 4/3, where the dual
    iteration has left.
    """
    run.that(
        max(abs(1 - edge * Fraction(eta.p, eta.q)) for eta in A.eigenvals()) == 1,
        "GD contracts up to the edge, exactly",
    )
    alpha = 0.99 * float(edge)
    gd = descend(tilted, vector(1.0, 1.0), task_lr=alpha, n_steps=40)
    dual = descend(
        tilted, vector(1.0, 1.0), task_lr=alpha, n_steps=40, geometry=Geometry(map=make(4.0).map)
    )
    run.at_most(float(gd[-1].norm()), float(gd[0].norm()), what="distance of GD")
    run.above(float(dual[-1].norm()), 1e4, what="distance of the dual iteration")
    run.quantity(
        "largest rate of GD",
        sp.Rational(edge.numerator, edge.denominator),
        meaning="2/lambda_max(A)",
    )


while_gd_converges.mutant("edge 2", edge=Fraction(2))
while_gd_converges.mutant("impostor: the identity", make=identity_map)


@claim.check("counterexample", about="printed")
def no_mirror_descent(run: Run, *, make: Callable[[float], Flat] = iaf.shifted) -> None:
    """Mirror descent's step is a symmetric matrix times the gradient; this one is exactly J =
    ((1/2,0),(4,1/2)).
    """
    map = make(4.0)
    for u in (vector(1.0, 0.0), vector(0.0, 1.0)):
        f = lambda phi, u=u: u @ phi  # noqa: E731
        before, after = descend(
            f, vector(0.5, -2.0), task_lr=0.25, n_steps=1, geometry=Geometry(map=map.map)
        )
        run.that(
            torch.equal(
                (before - after) / 0.25,
                torch.tensor([[0.5, 0.0], [4.0, 0.5]], dtype=torch.float64) @ u,
            ),
            "J u",
        )


no_mirror_descent.mutant("impostor: the identity", make=identity_map)


def constants_of(map: Flat) -> tuple[float, float]:
    """(m, M) of a linear map."""
    jacobian = map.jacobian(vector(0.0, 0.0))
    return iaf.least(jacobian), iaf.norm(jacobian)


@claim.check("certificate", part="descent", covers="exact")
def monotone_shift_descends(run: Run, *, factor: float = 1.0) -> None:
    """Slope m_2 < 1 = 2s: m = 1/2 - m_2/2 exactly, so the step of T6 descends on A; the library's
    solver, step by step.
    """
    s, shift = sp.Rational(1, 2), sp.Symbol("t", positive=True)
    modulus = min(
        sp.Matrix([[s, shift / 2], [shift / 2, s]]).eigenvals(), key=lambda e: e.subs(shift, HALF)
    )
    run.zero(modulus - (s - shift / 2), "modulus of the linear shift")
    for slope in (0.2, 0.5, 0.8):
        map = iaf.shifted(slope)
        m, big_m = constants_of(map)
        run.close(m, 0.5 - slope / 2, tolerance=1e-12, what="m")
        alpha = m / (1.5 * big_m**2)
        points = descend(
            tilted, vector(2.0, -1.0), task_lr=alpha, n_steps=30, geometry=Geometry(map=map.map)
        )
        for before, after in pairwise(points):
            u = torch.func.grad(tilted)(before)
            promised = factor * alpha * (m - alpha * 1.5 * big_m**2 / 2) * float(u @ u)
            run.at_most(
                float(tilted(after) - tilted(before)),
                -promised,
                slack=1e-15,
                what="change of the loss",
            )


monotone_shift_descends.mutant("ten times the descent", factor=10.0)


@claim.check("certificate", part="rate")
def rate_telescopes(run: Run, *, constant: int = 2) -> None:
    """K times the decrease m^2/(2LM^2) min |u|^2 is at most Delta_0."""
    m, big_m, big_l, delta, k = sp.symbols("m M L Delta K", positive=True)
    decrease = m**2 / (2 * big_l * big_m**2)
    run.zero(delta / (k * decrease) - constant * big_l * big_m**2 * delta / (m**2 * k), "the bound")


rate_telescopes.mutant("constant 1", constant=1)
rate_telescopes.mutant("constant 4", constant=4)


@claim.check("property", part="rate")
def library_rate(run: Run, *, share: float = 1.0) -> None:
    """Linear shifts inside the threshold and the scaled rotation, nonconvex losses: min |grad f|^2
    <= the bound.
    """

    @for_all(
        seed=seeds(),
        slope=numbers(0.0, 0.9),
        turn=st.booleans(),
        n_steps=st.sampled_from([1, 4, 12]),
    )
    def _(seed: int, slope: float, turn: bool, n_steps: int) -> None:
        b = slope + 0.5
        rotation = iaf.flat(iaf.Linear(torch.tensor([[0.5, -b], [b, 0.5]], dtype=torch.float64)), 2)
        map = rotation if turn else iaf.shifted(slope)
        m, big_m = constants_of(map)
        target = map.random("c29", seed)
        bowl = turn and seed % 2 == 0  # the attaining case of T6
        f = (
            (lambda phi: 0.65 * phi @ phi)
            if bowl
            else lambda phi: 0.5 * (phi - target).square().sum() + 0.3 * torch.cos(phi).sum()
        )
        big_l, low = 1.3, 0.0 if bowl else -0.6
        alpha = m / (big_l * big_m**2)
        points = descend(
            f,
            map.random("c29", "z", seed),
            task_lr=alpha,
            n_steps=n_steps,
            geometry=Geometry(map=map.map),
        )
        least = min(float(torch.func.grad(f)(phi).square().sum()) for phi in points[:n_steps])
        bound = share * 2 * big_l * big_m**2 * float(f(points[0]) - low) / (m**2 * n_steps)
        run.at_most(least, bound, slack=1e-12, what=f"min |grad f|^2 over {n_steps} steps")


library_rate.mutant("a thousandth of the bound", share=1e-3)


@claim.check("exact", part="necessary")
def threshold_of_divergence(run: Run, *, edge: Fraction = Fraction(2)) -> None:
    """tr(JA) = 1 - mu/2 and det(JA) = 3/16 for a shift of slope mu: unstable exactly from mu = 2
    on.
    """
    mu = sp.Symbol("mu", positive=True)
    matrix = sp.Matrix([[HALF, 0], [mu, HALF]]) * A
    run.zero(matrix.trace() - (1 - mu / 2), "tr(JA)")
    run.zero(matrix.det() - sp.Rational(3, 16), "det(JA) > 0 always")
    edge_mu = sp.solve(matrix.trace(), mu)
    run.that(edge_mu == [sp.Integer(int(edge))], f"the trace vanishes at {edge_mu}")
    run.quantity(
        "slope from which the example is unstable",
        edge_mu[0],
        meaning="twice the monotone threshold 2s = 1",
    )


threshold_of_divergence.mutant("edge 1", edge=Fraction(1))
threshold_of_divergence.mutant("edge 4", edge=Fraction(4))


@claim.check("symbolic", part="descent")
def multipliers_of_t6(run: Run, *, wrong: bool = False) -> None:
    """T6's multipliers, in symbols."""
    quoted(run, t6_descent.multipliers, wrong)


multipliers_of_t6.mutant("T6's own first mutant", wrong=True)


@claim.check("exact", part="descent")
def stated_descent(run: Run, *, stated: Formula) -> None:
    """T6's statement, read by T6's check."""
    t6_statement.stated_descent.function(run, stated=stated)


@claim.check("symbolic", part="rate")
def stated_rate(run: Run, *, stated: Formula) -> None:
    """T6's statement, read by T6's check."""
    t6_statement.stated_rate.function(run, stated=stated)
