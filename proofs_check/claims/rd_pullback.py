r"""RD: the pullback step z - alpha J^T u is gradient descent on f(g(z)): it descends for all smooth
bijections.

*Proof.* $\nabla(f\circ g)=J^\top u$ and $\nabla^2(f\circ
g)=J^\top\nabla^2f\,J+\sum_iu_i\nabla^2g_i$, of norm at most $LM^2+\|u\|L_J$; then the descent
lemma. $J$ is invertible (of BlockIAF by T1; of a bijection alone it need not be: $z^3$ at 0), so
$J^\top u=0$ iff $u=0$; and $\|u\|\le\|J^\top
u\|/\sigma_{\min}(J)$, which says nothing where a scale saturates: for
$g=(z_1/2,z_2\,\mathrm{sigmoid}\,z_1)$, $f=\frac12\|\phi-(-10,1)\|^2$ the run ends where the
pulled-back gradient is $2\cdot10^{-9}$ and the gradient itself is 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

import sympy as sp
import torch
from hypothesis import assume, strategies as st
from torch import Tensor

from mdtheory import descend
from mdtheory.geometry.base import Geometry, GradientStep, StepRule
from mdtheory.geometry.rules import PullbackStep
from mdtheory.inner import states
from proofs_check.claim import Claim, Formula, Statement, Verdict
from proofs_check.run import Run
from proofs_check.tools import iaf
from proofs_check.tools.iaf import Flat
from proofs_check.tools.models import hessian_of, problem_of, vector
from proofs_check.tools.strategies import for_all, numbers, seeds

_L, _M, _U, _LJ = sp.symbols(r"L M \|u\| L_J", positive=True)
SMOOTH = Formula(
    left=sp.Symbol(r"L_{f\circ g}"),
    relation="<=",
    right=_L * _M**2 + _U * _LJ,
    text=r"{formula};\ \text{a step of }\alpha={rate}\text{ gains at least }{gain}",
    terms={
        "rate": 1 / sp.Symbol(r"L_{f\circ g}", positive=True),
        "gain": sp.Symbol(r"\alpha", positive=True)
        * sp.Symbol(r"\|J^\top u\|", positive=True) ** 2
        / 2,
    },
)
STATIONARY = Formula(
    left=_U,
    relation="<=",
    right=sp.Symbol(r"\|J^\top u\|", positive=True) / sp.Symbol(r"\sigma_{\min}(J)", positive=True),
    text=r"J^\top u=0\text{ iff }u=0;\ {formula}",
)

claim = Claim(
    id="RD",
    title="The pullback step descends with every smooth bijection",
    source="Repair, for the poster's dual iteration with g",
    printed=Statement(
        given={
            "map": (
                r"g\text{ a bijection, }J\text{ invertible (BlockIAF: T1), }\|J\|\le M\text{ and }"
                r"J\ L_J\text{-Lipschitz on the level set (no ReLU)}"
            ),
            "loss": r"f\ L\text{-smooth}",
        },
        then=r"z^+=z-\alpha J_g(z)^\top u\text{ is GD on }f\circ g:\quad"
        r"\phi^+=\phi-\alpha JJ^\top u+O(\alpha^2),\ JJ^\top\succ0",
        parts={
            "gd": r"J^\top\nabla f(g(z))=\nabla(f\circ g)(z)",
            "descent": SMOOTH,
            "stationary": STATIONARY,
            "saturation": (
                r"\text{approximate stationary points differ: no rate without a positive }\inf"
                r"\sigma_{\min}(J)"
            ),
        },
        scopes={"saturation": "exists"},
    ),
    expected=Verdict("HOLDS", "PROVED"),
    uses=("T1/jacobian",),
)


def z_path(
    map: Flat,
    rule: StepRule,
    loss: Callable[[Tensor], Tensor],
    start: Tensor,
    *,
    task_lr: float,
    n_steps: int,
) -> list[Tensor]:
    """z^0, ..., z^K of the library's problem."""
    wrapped = iaf.OnVector(map)
    problem, meta, posed = problem_of(
        loss, start, task_lr=task_lr, n_steps=n_steps, geometry=Geometry(map=wrapped, rule=rule)
    )
    return [state["z.phi"] for state in states(problem, meta, posed)]


def wavy(target: Tensor) -> Callable[[Tensor], Tensor]:
    """A nonconvex loss."""
    return lambda phi: 0.5 * (phi - target).square().sum() + 0.2 * torch.cos(2 * phi).sum()


@claim.check("property", about="printed", part="gd")
def same_as_gd_on_the_composition(run: Run, *, rule: Callable[[], StepRule] = PullbackStep) -> None:
    """Both forms: the library's PullbackStep and its MAML on f o g give the same z^k. Draws on
    which the latter overflows in float64 are left out.
    """

    @for_all(map=iaf.block_maps(), seed=seeds(), task_lr=numbers(1e-3, 0.05))
    def _(map: Flat, seed: int, task_lr: float) -> None:
        loss, start = wavy(map.random("rd", "t", seed)), 0.3 * map.random("rd", "z", seed)
        pulled = z_path(map, rule(), loss, start, task_lr=task_lr, n_steps=3)
        composed = descend(lambda z: loss(map.at(z)), start, task_lr=task_lr, n_steps=3)
        assume(all(bool(torch.isfinite(z).all()) for z in composed))
        for a, b in zip(pulled, composed, strict=True):
            run.close(a, b, tolerance=1e-12 * (1 + float(b.abs().max())), what="z^k of the two")


same_as_gd_on_the_composition.mutant("the plain step: J^T forgotten", rule=GradientStep)


class WrongSide(StepRule):
    """z - alpha J u: the Jacobian itself, by two pulls of unit vectors."""

    def step(self, meta, state, grad, *, task_lr, k, pull):
        eye = torch.eye(len(grad["phi"]), dtype=torch.float64)
        rows = torch.stack([pull({"phi": row})["phi"] for row in eye])
        return {**state, "z.phi": state["z.phi"] - task_lr * rows @ grad["phi"]}


same_as_gd_on_the_composition.mutant("J in place of J^T", rule=WrongSide)


@claim.check("symbolic", about="printed", part="gd", covers="exact")
def chain_rule(run: Run, *, transposed: bool = True) -> None:
    """Two coordinates, arbitrary triangular g and f: the gradient of f(g(z)) is J^T u; JJ^T has
    positive leading minors.
    """
    z1, z2 = sp.symbols("z1 z2", real=True)
    s, m = sp.Function("s", positive=True)(z1), sp.Function("m", real=True)(z1)
    a, b, c, x, y = sp.symbols("a b c x y", real=True)
    g = sp.Matrix([sp.Rational(1, 2) * z1, s * z2 + m])
    f = a * x**2 + b * x * y**3 + c * y
    at = {x: g[0], y: g[1]}
    u = sp.Matrix([sp.diff(f, x), sp.diff(f, y)]).subs(at)
    jacobian = g.jacobian([z1, z2])
    pulled = (jacobian.T if transposed else jacobian) * u
    composed = f.subs(at)
    run.zero(
        sp.expand(pulled - sp.Matrix([sp.diff(composed, z1), sp.diff(composed, z2)])),
        "grad(f o g) - J^T u",
    )
    gram = jacobian * jacobian.T
    run.zero(sp.expand(gram.det() - (s / 2) ** 2), "det JJ^T = (det J)^2 > 0")


chain_rule.mutant("J in place of J^T", transposed=False)


def smoothness(big_l: sp.Expr, m: sp.Expr, u: sp.Expr, bend: sp.Expr) -> sp.Expr:
    """L M^2 + |u| L_J."""
    return big_l * m**2 + u * bend


@claim.check("symbolic", about="printed", part="descent")
def hessian_of_the_composition(run: Run, *, constant: Callable[..., sp.Expr] = smoothness) -> None:
    """(f o g)'' = f'' g'^2 + f' g''; g = m z + b z^2/2, f = L phi^2/2 + u phi attain L m^2 + u b at
    0.
    """
    z, w = sp.symbols("z w", real=True)
    f, g = sp.Function("f"), sp.Function("g")
    second = sp.diff(f(g(z)), z, 2).doit()
    direct = sp.diff(f(w), w, 2).subs(w, g(z)) * sp.diff(g(z), z) ** 2 + sp.diff(f(w), w).subs(
        w, g(z)
    ) * sp.diff(g(z), z, 2)
    run.zero(sp.simplify(second - direct.doit()), "chain rule, second order")
    big_l, m, u, bend = sp.symbols("L m u b", positive=True)
    inner = m * z + bend * z**2 / 2
    found = sp.diff(big_l * inner**2 / 2 + u * inner, z, 2).subs(z, 0)
    run.zero(found - constant(big_l, m, u, bend), "L M^2 + |u| L_J is attained")
    lam, p = sp.symbols("lambda p", positive=True)
    change = (
        -p / lam + constant(big_l=lam, m=1, u=0, bend=0) / 2 * p / lam**2
    )  # the descent lemma at alpha = 1/L
    share = sp.simplify(-change * lam / p)
    run.quantity(
        "decrease / (alpha |J^T u|^2)",
        share,
        theory=Fraction(1, 2),
        meaning="at alpha = 1/L_{f o g}",
    )
    value = constant(big_l=sp.Integer(2), m=sp.Integer(3), u=sp.Integer(5), bend=sp.Integer(7))
    run.quantity("L_{f o g} at L=2, M=3, |u|=5, L_J=7", value, meaning="L M^2 + |u| L_J, attained")


hessian_of_the_composition.mutant(
    "L_J without |u|", constant=lambda big_l, m, u, bend: big_l * m**2 + bend
)
hessian_of_the_composition.mutant("L M", constant=lambda big_l, m, u, bend: big_l * m + u * bend)


@claim.check("property", about="printed", part="descent")
def library_descends(
    run: Run, *, factor: float = 1.0, rule: Callable[[], StepRule] = PullbackStep
) -> None:
    """The library's step on maps that are not monotone: f falls by alpha/2 |J^T u|^2 at alpha =
    1/L_fg.
    """

    @for_all(slope=st.sampled_from([4.0, -4.0, 20.0]), seed=seeds())
    def _(slope: float, seed: int) -> None:
        map, target = iaf.shifted(slope), vector(0.3, -0.7)
        loss = lambda phi: 0.5 * phi @ phi - 0.5 * phi[0] * phi[1] - target @ phi  # noqa: E731
        jacobian = map.jacobian(target)
        big_l = factor * 1.5 * iaf.norm(jacobian) ** 2  # L_J = 0
        points = z_path(
            map, rule(), loss, map.random("rd", "d", seed), task_lr=1 / big_l, n_steps=4
        )
        for before, after in pairwise(points):
            pulled = torch.func.grad(lambda z: loss(map.at(z)))(before)
            change = float(loss(map.at(after)) - loss(map.at(before)))
            run.at_most(
                change,
                -0.5 / big_l * float(pulled @ pulled),
                slack=1e-12,
                what="change of the loss",
            )


library_descends.mutant("the plain step", rule=GradientStep)
library_descends.mutant("a tenth of L_fg", factor=0.1)


@claim.check("exact", about="printed", part="descent")
def rescues_the_divergent_example(run: Run, *, rule: Callable[[], StepRule] = PullbackStep) -> None:
    """T7's example: with the library's PullbackStep the iterates converge, with the plain step they
    leave.
    """
    loss = lambda phi: 0.5 * phi @ phi - 0.5 * phi[0] * phi[1]  # noqa: E731
    map = iaf.shifted(4.0)
    points = z_path(map, rule(), loss, vector(1.0, 1.0), task_lr=0.04, n_steps=400)
    run.at_most(
        float(map.at(points[-1]).norm()),
        0.1,
        what="distance from the minimiser after 400 steps, from 4.5",
    )


rescues_the_divergent_example.mutant("the plain step", rule=GradientStep)


@claim.check("property", about="printed", part="stationary")
def gradients_compare(
    run: Run, *, least: Callable[[Tensor], float] = lambda j: float(torch.linalg.svdvals(j)[-1])
) -> None:
    """|u| <= |J^T u|/sigma_min(J), with equality for u along the last left singular vector, on both
    forms; sigma_min > 0.
    """

    @for_all(map=iaf.block_maps(), seed=seeds(), worst=st.booleans())
    def _(map: Flat, seed: int, worst: bool) -> None:
        jacobian = map.jacobian(map.random("rd", "s", seed))
        left = torch.linalg.svd(jacobian)[0][:, -1]
        u = left if worst else map.random("rd", "u", seed)
        run.above(float(torch.linalg.svdvals(jacobian)[-1]), 0.0, what="sigma_min")
        bound = float(torch.linalg.vector_norm(jacobian.T @ u)) / least(jacobian)
        run.at_most(float(torch.linalg.vector_norm(u)), bound, slack=1e-9 * bound, what="|u|")


gradients_compare.mutant("sigma_max", least=iaf.norm)


SLOPE = sp.Symbol("s2", positive=True)


@claim.check("certificate", about="printed", part="stationary")
def invertible_jacobian(run: Run, *, lowest: int = 0, slope: sp.Expr = SLOPE) -> None:
    """J^T u = 0 with det J = product of positive scales: u = 0; |J^T u|^2 - sigma^2 |u|^2 >= 0 from
    JJ^T >= sigma^2 I.
    """
    s1, s2, n = sp.Symbol("s1", positive=True), slope, sp.Symbol("n", real=True)
    u = sp.symbols("u1 u2")
    jacobian = sp.Matrix([[s1, 0], [n, s2]])
    solution = sp.solve(list(jacobian.T * sp.Matrix(u) - sp.Matrix([0, lowest])), u, dict=True)
    run.that(solution == [{u[0]: 0, u[1]: 0}], f"the only solution: {solution}")


invertible_jacobian.mutant("J^T u = (0, 1)", lowest=1)
invertible_jacobian.mutant("a bijection whose slope vanishes: z^3 at 0", slope=sp.Integer(0))

GOAL = (-10.0, 1.0)


def far(phi: Tensor) -> Tensor:
    """1/2 |phi - (-10, 1)|^2."""
    return 0.5 * (phi - vector(*GOAL)).square().sum()


def scalar_step(z1: float, z2: float, alpha: float) -> tuple[float, float]:
    """The pullback step for g = (z_1/2, z_2 sigmoid z_1) and this loss, in plain floats."""
    p = 1 / (1 + math.exp(-z1))
    u1, u2 = z1 / 2 - GOAL[0], z2 * p - GOAL[1]
    return z1 - alpha * (u1 / 2 + u2 * z2 * p * (1 - p)), z2 - alpha * u2 * p


@claim.check("exact", about="printed", part="saturation")
def saturated_scale(
    run: Run, *, rule: Callable[[], StepRule] = PullbackStep, n_steps: int = 20000
) -> None:
    """From 0, alpha = .05: the library's steps equal the scalar recursion; after 20000, |J^T u| =
    2e-9, |u| = 1.000.
    """
    map, alpha = iaf.gated(0.5), 0.05
    points = z_path(map, rule(), far, vector(0.0, 0.0), task_lr=alpha, n_steps=60)
    z = (0.0, 0.0)
    for k in range(n_steps):
        if k < len(points):
            run.close(
                points[k], vector(*z), tolerance=1e-11, what=f"z^{k} of library and recursion"
            )
        z = scalar_step(*z, alpha)
    end = vector(*z)
    u = map.at(end) - vector(*GOAL)
    pulled = map.jacobian(end).T @ u
    sizes = float(torch.linalg.vector_norm(pulled)), float(torch.linalg.vector_norm(u))
    run.at_most(sizes[0], 1e-8, what="|grad (f o g)|")
    run.above(sizes[1], 0.99, what="|grad f|")
    run.quantity(
        "|grad(f o g)| after 20000 pullback steps",
        sizes[0],
        tolerance=2e-10,
        theory=2e-9,
        meaning="nearly stationary",
    )
    run.quantity(
        "|grad f| after 20000 pullback steps",
        sizes[1],
        tolerance=1e-3,
        theory=1.0,
        meaning="not stationary at all",
    )
    least = float(torch.linalg.svdvals(map.jacobian(end))[-1])
    run.quantity("sigma_min(J) there", least, tolerance=1e-10, meaning="the scale has saturated")
    run.at_most(sizes[1], sizes[0] / least, what="|u| <= |J^T u|/sigma_min", slack=1e-9)


saturated_scale.mutant("60 steps only", n_steps=60)
saturated_scale.mutant("the plain step", rule=GradientStep)


@claim.check("symbolic", about="printed", part="gd")
def any_map(run: Run, *, transposed: bool = True) -> None:
    """Arbitrary g of two variables: to first order f is u . phi, and d/dz_i of u . g(z) is (J^T
    u)_i; |J^T u|^2 = u^T J J^T u.
    """
    z = sp.symbols("z1 z2", real=True)
    g = sp.Matrix([sp.Function("g1")(*z), sp.Function("g2")(*z)])
    u, jacobian = sp.Matrix(sp.symbols("u1 u2", real=True)), g.jacobian(z)
    pulled = (jacobian.T if transposed else jacobian) * u
    run.zero(sp.Matrix([sp.diff(u.dot(g), x) for x in z]) - pulled, "the chain rule")
    run.zero(pulled.dot(pulled) - u.dot(jacobian * jacobian.T * u), "J J^T >= 0")


any_map.mutant("J for J^T", transposed=False)


@claim.check("exact", about="printed", part="descent")
def stated_smoothness(run: Run, *, stated: Formula) -> None:
    """f = L phi^2/2 + u phi and g = m z + b z^2/2: the curvature of f o g at 0 by autograd attains
    the printed bound, and without the linear term lies below it.
    """
    big_l, m, b, u = 1.5, 2.0, 0.7, 3.0
    for linear in (u, 0.0):
        composed = lambda z, c=linear: (  # noqa: E731
            big_l / 2 * (m * z + b * z**2 / 2) ** 2 + c * (m * z + b * z**2 / 2)
        ).sum()
        found = hessian_of(composed)(vector(0.0))
        at = {stated.left: float(found), "L": big_l, "M": m, r"\|u\|": u, "L_J": b}
        run.stands(stated, at, slack=1e-12)
        if linear:
            run.attained(stated, at, tolerance=1e-12)
    lam, p, alpha = (
        sp.Symbol(name, positive=True) for name in (r"L_{f\circ g}", r"\|J^\top u\|", r"\alpha")
    )
    gain = alpha * p**2 - lam * alpha**2 * p**2 / 2  # of a bowl of curvature lam
    rate = stated.terms["rate"]
    run.zero((gain - stated.terms["gain"]).subs(alpha, rate), "the gain at the printed rate")


@claim.check("exact", about="printed", part="stationary")
def stated_stationary(run: Run, *, stated: Formula) -> None:
    """J = diag(1/2, 3): attained along the first axis, strict along the second."""
    jacobian = torch.diag(vector(0.5, 3.0))
    for u, tight in ((vector(2.0, 0.0), True), (vector(0.0, 0.4), False)):
        at = {stated.left: float(u.norm()), r"\|J^\top u\|": float((jacobian.T @ u).norm())}
        at[r"\sigma_{\min}(J)"] = 0.5
        run.stands(stated, at, slack=1e-12)
        if tight:
            run.attained(stated, at, tolerance=1e-12)
