r"""C28: "grad h* = g is a desirable choice". False as an identity: g is a gradient iff all its
conditioners are constant (T3).

*Refutation.* $g=\nabla H$ has no circulation. For $s\equiv\frac12$, $\mu_2=2z_1$ the circulation
around the unit square is 2; every live map of the library has an asymmetric Jacobian. *What is
left*: with constant conditioners the dual iteration is Meta-SGD, rate by rate; and no fixed
preconditioner repairs a live scale.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

import sympy as sp
import torch
from torch import Tensor

from mdtheory import descend
from mdtheory.geometry.base import Geometry, geometries
from proofs_check.claim import Claim, Formula, Statement, Verdict
from proofs_check.claims.t3_integrable import POTENTIAL, stated_potential
from proofs_check.run import Run
from proofs_check.tools import iaf
from proofs_check.tools.iaf import Flat
from proofs_check.tools.models import vector
from proofs_check.tools.strategies import for_all, seeds

_ALPHA = sp.Symbol(r"\alpha", positive=True)
METASGD = Formula(
    left=sp.Symbol(r"\phi^k_c"),
    relation="==",
    right=sp.Symbol(r"\phi^{k-1}_c")
    - _ALPHA * sp.Symbol("s_c") * sp.Symbol(r"\partial_cf(\phi^{k-1})"),
)

claim = Claim(
    id="C28",
    title="grad h* = g is a desirable choice",
    source="Learning inverse mirror map with a NN model, below the Lemma",
    printed=Statement(
        given={"map": r"g\text{ a BlockIAF with networks as conditioners}"},
        then=(
            r"\nabla h^*=g\text{ is a desirable choice, that is, }g=\nabla h^*\text{ for some }h"
            r"\text{ as in P1, P2}"
        ),
    ),
    amended=Statement(
        given={"map": r"g\text{ a BlockIAF with continuous conditioners}"},
        then=(
            r"g=\nabla h^*\iff\text{all conditioners are constant; the dual iteration is then "
            r"exactly Meta-SGD}"
        ),
        parts={
            "only_if": r"\text{the circulation vanishes only for constant conditioners}",
            "if": POTENTIAL,
            "metasgd": METASGD,
            "preconditioner": (
                r"\text{no fixed }Q\succ0\text{ makes }JQ\text{ symmetric for a live "
                r"differentiable last scale}"
            ),
        },
    ),
    expected=Verdict("FALSE", "PROVED"),
    uses=("T3",),
    remark="The model is a mirror map exactly when it is no more expressive than the Meta-SGD row "
    "of the poster's table. "
    "Gains may have other causes; they cannot be credited to an exact Bregman geometry.",
)


def around_square(map: Flat) -> Fraction:
    """The circulation around (0,0), (1,0), (1,1), (0,1): trapezoids, exact for affine maps."""
    corners = [vector(*c) for c in ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0), (0.0, 0.0))]
    total = Fraction(0)
    for here, there in pairwise(corners):
        mean = (map.at(here) + map.at(there)) / 2
        total += sum(
            (
                Fraction(float(m)) * Fraction(float(d))
                for m, d in zip(mean, there - here, strict=True)
            ),
            Fraction(0),
        )
    return total


def spd() -> Flat:
    """An impostor that is a gradient: a symmetric positive definite matrix."""
    return iaf.flat(iaf.Linear(torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64)), 2)


@claim.check("counterexample", about="printed")
def circulation_of_a_shift(
    run: Run, *, make: Callable[[], Flat] = lambda: iaf.shifted(2.0)
) -> None:
    """s = 1/2, mu_2 = 2 z_1 through the library's BlockIAF: the circulation around the unit square
    is exactly 2, curl 2.
    """
    found = around_square(make())
    run.that(found == 2, f"circulation {found}")
    jacobian = make().jacobian(vector(0.3, 0.7))
    run.that(Fraction(float(jacobian[1, 0] - jacobian[0, 1])) == 2, "curl")
    run.quantity(
        "circulation around the unit square", found, theory=2, meaning="zero for every gradient"
    )


circulation_of_a_shift.mutant("impostor: a gradient", make=spd)
circulation_of_a_shift.mutant("constant conditioners", make=lambda: iaf.shifted(0.0))


def as_is(map: Flat) -> Flat:
    """The library's map."""
    return map


@claim.check("counterexample", about="printed")
def every_live_map_is_no_gradient(run: Run, *, wrap: Callable[[Flat], Flat] = as_is) -> None:
    """Both forms, random weights, conditioners asserted alive: J is not symmetric (entry by entry,
    J_ij = 0 != J_ji).
    """

    @for_all(map=iaf.block_maps(min_blocks=2), seed=seeds())
    def _(map: Flat, seed: int) -> None:
        map = wrap(map)
        z, number = map.random("c28", seed), iaf.number_of(map)
        iaf.alive(run, map, z)
        jacobian = map.jacobian(z)
        above = number[:, None] < number[None, :]
        run.that(not jacobian[above].any(), "zero above the block diagonal")
        run.above(float((jacobian - jacobian.T).abs().max()), 1e-12, what="asymmetry")


every_live_map_is_no_gradient.mutant(
    "dead conditioners", wrap=lambda m: m.altered(lambda z, _: 2 * z)
)
every_live_map_is_no_gradient.mutant(
    "impostor: a gradient", wrap=lambda m: m.altered(lambda z, _: z + torch.tanh(z.sum()))
)


@claim.check("symbolic", part="only_if")
def symmetric_and_triangular(
    run: Run, *, shift: Callable[[sp.Symbol], sp.Expr] = lambda a: sp.Function("m")(a)
) -> None:
    """C^1, two blocks: J_12 = 0, so symmetry is y s'(a) + m'(a) = 0 for all y: coefficients s' and
    m' vanish.
    """
    a, y = sp.symbols("a y", real=True)
    s = sp.Function("s")(a)
    entry = sp.Poly(sp.diff(s * y + shift(a), a), y)
    run.zero(entry.coeff_monomial(y) - sp.diff(s, a), "coefficient of y")
    run.zero(entry.coeff_monomial(1) - sp.diff(sp.Function("m")(a), a), "the rest")


symmetric_and_triangular.mutant("the shift forgotten", shift=lambda a: sp.Integer(0))


@claim.check("symbolic", part="if")
def potential_of_constants(run: Run, *, half: sp.Rational = sp.S.Half) -> None:
    """d/dz (s z^2/2 + mu z) = s z + mu; second derivative s > 0."""
    z, s, m = sp.Symbol("z"), sp.Symbol("s", positive=True), sp.Symbol("m")
    potential = half * s * z**2 + m * z
    run.zero(sp.diff(potential, z) - (s * z + m), "gradient")
    run.that(sp.diff(potential, z, 2).is_positive, "convex")


potential_of_constants.mutant("no half", half=sp.Integer(1))


def bend(phi: Tensor) -> Tensor:
    """A loss whose gradient at dyadic points is dyadic: exact in floats for a few steps."""
    return 0.5 * (phi * phi).sum() + 0.25 * (phi[0] * phi[1]) + phi[1]


@claim.check("exact", part="metasgd")
def bit_for_bit(run: Run, *, live: float = 0.0, rates: tuple[float, float] = (0.5, 1.5)) -> None:
    """Scales 1/2 and 3/2, any shift: the library's dual iteration and its free-signed Meta-SGD
    agree to the last bit.
    """
    scales = (0.5, 1.5)
    map = iaf.formula(
        lambda _: (vector(scales[0]), vector(0.25)),
        lambda z: (vector(scales[1]), -2.0 + live * z),
        scale=iaf.Identity(),
    )
    start = vector(1.0, -0.5)
    dual = descend(bend, start, task_lr=0.25, n_steps=4, geometry=Geometry(map=map.map))
    metasgd = geometries.get("metasgd")(form="free")
    metasgd.build({"phi": start})
    metasgd.rule.scale.phi.data = vector(*rates)
    other = descend(bend, map.at(start), task_lr=0.25, n_steps=4, geometry=metasgd)
    run.that(all(torch.equal(a, b) for a, b in zip(dual, other, strict=True)), "the trajectories")


bit_for_bit.mutant("a live shift", live=0.5)
bit_for_bit.mutant("rates exchanged", rates=(1.5, 0.5))


@claim.check("certificate", part="preconditioner")
def rank_one_coefficient(run: Run, *, own: int = 0) -> None:
    """Two coordinates, v = (v_1, 0): e_2 v^T Q symmetric forces q_11 v_1 = 0, and q_11 > 0."""
    q11, q12, q22 = sp.symbols("q11 q12 q22", positive=True)
    v1 = sp.Symbol("v1", real=True)
    v = sp.Matrix([v1, own * v1])
    coefficient = sp.Matrix([[0, 0], list(v.T * sp.Matrix([[q11, q12], [q12, q22]]))])
    run.zero(
        sp.expand((coefficient - coefficient.T)[1, 0] - q11 * v1),
        "the asymmetry of the z_2-coefficient",
    )


rank_one_coefficient.mutant("a scale that reads its own coordinate", own=1)


@claim.check("symbolic", part="metasgd")
def dual_step(run: Run, *, rate: int = 1) -> None:
    """g(z) = s z + mu with constants: g(z - alpha u) = g(z) - alpha s u, whatever mu."""
    s, m, z, u, alpha = sp.symbols("s mu z u alpha")
    run.zero(s * (z - alpha * u) + m - (s * z + m - alpha * s**rate * u), "the point's step")


dual_step.mutant("s^2", rate=2)


@claim.check("exact", part="metasgd")
def stated_step(run: Run, *, stated: Formula) -> None:
    """Two dual steps of the library with constant conditioners against the printed one, coordinate
    by coordinate.
    """
    scales = (0.5, 1.5)
    map = iaf.formula(
        lambda _: (vector(scales[0]), vector(0.25)),
        lambda z: (vector(scales[1]), vector(-2.0)),
        scale=iaf.Identity(),
    )
    points = descend(
        bend, vector(1.0, -0.5), task_lr=0.25, n_steps=2, geometry=Geometry(map=map.map)
    )
    for before, after in pairwise(points):
        u = torch.func.grad(bend)(before)
        for old, new, slope, s in zip(before, after, u, scales, strict=True):
            at = {stated.left: float(new), r"\phi^{k-1}_c": float(old), "s_c": s}
            at |= {r"\alpha": 0.25, r"\partial_cf(\phi^{k-1})": float(slope)}
            run.stands(stated, at, slack=1e-12)


@claim.check("symbolic", part="if")
def stated_potential_of_t3(run: Run, *, stated: Formula) -> None:
    """T3's statement, read by T3's check."""
    stated_potential.function(run, stated=stated)
