r"""C24b: the converse that the next panel uses: an increasing Lipschitz g is some grad h*. False
for d >= 2.

*Counterexample.* The rotation $g(z)=(-z_2,z_1)$ is monotone ($\langle g(z),z\rangle=0$),
1-Lipschitz, and has a positive cycle.

*Proof of the amendment.* Adding $h^*(z_{i+1})\ge h^*(z_i)+\langle g(z_i),z_{i+1}-z_i\rangle$ around
a cycle gives $\sum\langle g(z_i),z_{i+1}-z_i\rangle\le0$: necessary. Sufficient for $C^1$ maps:
with symmetric $J_g$, the function $H(z)=\int_0^1\langle g(tz),z\rangle dt$ has
$\partial_iH=\int_0^1\frac d{dt}[t\,g_i(tz)]dt=g_i(z)$, $\nabla^2H=J_g\succeq0$. For $d=1$ every
$J_g$ is symmetric.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import sympy as sp
import torch
from hypothesis import strategies as st
from torch import Tensor

from mdtheory.core.types import Params
from mdtheory.maps.base import DualMap
from proofs_check.claim import Claim, Formula, Statement, Verdict
from proofs_check.run import Run
from proofs_check.tools.models import FromPotential, built, point, vector
from proofs_check.tools.strategies import for_all, seeds

CYCLIC = Formula(
    left=sp.Symbol(r"\sum_i\langle g(z_i),z_{i+1}-z_i\rangle"),
    relation="==",
    right=-sp.Symbol(r"\sum_iD_{h^*}(z_{i+1},z_i)", nonnegative=True),
    text=r"g=\nabla h^*,\ h^*\text{ convex}\Rightarrow{formula}\text{, not positive, on cycles}",
)
SYMMETRIC = Formula(
    left=sp.Symbol(r"\lambda_{\min}(J_g)", real=True),
    relation=">=",
    right=sp.Integer(0),
    text=r"g\in C^1:\ g=\nabla h^*\text{ for a convex }h^*\iff J_g=J_g^\top,\ {formula}",
)

claim = Claim(
    id="C24b",
    title="Increasing and Lipschitz suffices for an inverse mirror map",
    source="Learning loss geometry priors via mirror descent, key idea, as used on the next panel",
    printed=Statement(
        then=(
            r"g\text{ increasing and Lipschitz}\Rightarrow g=\nabla h^*\text{ for some }h\text{ as "
            r"in P1}"
        )
    ),
    amended=Statement(
        given={"smooth": r"g\text{ monotone, Lipschitz, and }C^1\text{ (in parts sym, line)}"},
        then=(
            r"g=\nabla h^*\text{ needs cyclic monotonicity; for }C^1\text{ maps, exactly a "
            r"symmetric Jacobian}"
        ),
        parts={
            "cyclic": CYCLIC,
            "sym": SYMMETRIC,
            "line": r"d=1:\text{ the converse is true}",
        },
    ),
    expected=Verdict("FALSE", "PROVED"),
    uses=("C24a",),
    remark="Cyclic monotonicity is also sufficient (Rockafellar 24.8), without any smoothness.",
)


class Turn(DualMap):
    """z -> (cos a, -sin a; sin a, cos a) z: for a = 90 degrees the impostor, monotone, 1-Lipschitz,
    bijective, no gradient.
    """

    def __init__(self, degrees: float = 90.0):
        super().__init__()
        a = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
        self.matrix = torch.stack(
            [torch.stack([a.cos(), -a.sin()]), torch.stack([a.sin(), a.cos()])]
        )

    def point(self, meta: Params, z: Params) -> Params:
        return {name: self.matrix @ value for name, value in z.items()}

    def inverse(self, meta: Params, phi: Params) -> Params:
        return {name: self.matrix.T @ value for name, value in phi.items()}


def cycle_sum(g: DualMap, corners: list[Tensor]) -> float:
    """sum <g(z_i), z_{i+1} - z_i> around the cycle."""
    following = corners[1:] + corners[:1]
    return float(
        sum(point(g, here) @ (there - here) for here, there in zip(corners, following, strict=True))
    )


def triangle() -> list[Tensor]:
    """The three cube roots of 1 in the plane."""
    half = 3**0.5 / 2
    return [vector(1.0, 0.0), vector(-0.5, half), vector(-0.5, -half)]


@claim.check("counterexample", about="printed")
def rotation(run: Run, *, g: Callable[[], DualMap] = Turn) -> None:
    """Monotone and 1-Lipschitz, exactly; the 3-cycle sum is 3 sqrt(3)/2 > 0, which no gradient of a
    convex function has.
    """
    turn = g()
    jacobian = torch.func.jacrev(lambda z: point(turn, z))(vector(0.3, -0.7))
    least = float(torch.linalg.eigvalsh((jacobian + jacobian.T) / 2)[0])
    most = float(torch.linalg.matrix_norm(jacobian, 2))
    run.quantity(
        "modulus of the rotation",
        least,
        tolerance=1e-15,
        theory=0.0,
        meaning="monotone, not strongly",
    )
    run.quantity(
        "Lipschitz constant of the rotation",
        most,
        tolerance=1e-15,
        theory=1.0,
        meaning="1-Lipschitz",
    )
    found = cycle_sum(turn, triangle())
    run.above(found, 0.1, what="sum around the triangle")
    run.quantity(
        "3-cycle sum of the rotation",
        found,
        tolerance=1e-9,
        theory=3 * 3**0.5 / 2,
        meaning="2.598 = 3 sqrt(3)/2 > 0",
    )


rotation.mutant("the identity", g=lambda: Turn(0.0))
rotation.mutant("a rotation by 120 degrees, not monotone", g=lambda: Turn(120.0))


@claim.check("certificate", part="cyclic")
def cycles_of_gradients(run: Run, *, sign: int = -1) -> None:
    """Around a cycle of three the values of h* cancel: minus the sum is a sum of three non-negative
    divergences; and so around longer ones, a corner put in between two at a time.
    """
    values, products = sp.symbols("h1:4"), sp.symbols("p1:4")  # h*(z_i), <g(z_i), z_{i+1} - z_i>
    divergences = [
        values[(i + 1) % 3] - values[i] - products[i] for i in range(3)
    ]  # D_{h*}(z_{i+1}, z_i) >= 0
    run.zero(sum(divergences) - sign * sum(products), "sum of the divergences")
    here, new, there, first, second, old = sp.symbols("hi hn hj p q r")  # in place of D(z_j, z_i)
    longer = (new - here - first) + (there - new - second) - (there - here - old)
    run.zero(longer - sign * (first + second - old), "one corner more")


cycles_of_gradients.mutant("the sum is >= 0", sign=1)


@claim.check("property", part="cyclic")
def library_cycles(run: Run, *, impostor: DualMap | None = None) -> None:
    """Every mirror map of the library on cycles of 3 to 6 points, near and far: the sum is <= 0;
    the rotation fails.
    """

    @for_all(
        slug=st.sampled_from(["pnorm", "hypentropy", "quadratic", "entropy"]),
        seed=seeds(),
        n=st.integers(3, 6),
    )
    def _(slug: str, seed: int, n: int) -> None:
        corners = [torch.tensor(z) for z in np.random.default_rng(seed).standard_normal((n, 2))]
        g = built(slug, corners[0]) if impostor is None else impostor
        run.at_most(cycle_sum(g, corners), 0.0, slack=1e-12, what=f"cycle sum of {slug}")


library_cycles.mutant("the rotation as an impostor", impostor=Turn())


def symmetric(g: DualMap, z: Tensor) -> bool:
    """The certificate of a mirror map: a symmetric positive semidefinite Jacobian."""
    jacobian = torch.func.jacrev(lambda v: point(g, v))(z)
    return bool(
        (jacobian - jacobian.T).abs().max() < 1e-9 and torch.linalg.eigvalsh(jacobian)[0] >= -1e-12
    )


def monotone_and_lipschitz(g: DualMap, z: Tensor) -> bool:
    """What the poster asks for."""
    jacobian = torch.func.jacrev(lambda v: point(g, v))(z)
    return bool(
        torch.linalg.eigvalsh((jacobian + jacobian.T) / 2)[0] >= -1e-12
        and jacobian.abs().max() < 1e3
    )


@claim.check("exact", part="sym")
def certificate(run: Run, *, accepts: Callable[[DualMap, Tensor], bool] = symmetric) -> None:
    """Accepts the library's mirror maps, rejects the rotation and a shear that is monotone:
    symmetry of J is the test.
    """
    z = vector(0.4, -0.9)
    for g in (
        built("hypentropy", z),
        built("pnorm", z),
        FromPotential(lambda v: (v**2).sum() + torch.cosh(v.sum())),
    ):
        run.that(accepts(g, z), "a mirror map is accepted")
    for degrees in (90.0, 30.0):
        run.that(not accepts(Turn(degrees), z), f"a rotation by {degrees} degrees is rejected")


certificate.mutant("monotone + Lipschitz accepted as a certificate", accepts=monotone_and_lipschitz)


@claim.check("symbolic", part="sym")
def poincare(run: Run, *, twist: int = 0) -> None:
    """d/dt[t g_i(t z)] = g_i(tz) + t sum_j z_j d_j g_i(tz), and d_i <g(tz), z> has d_i g_j there:
    equal iff J is symmetric.
    """
    t, x, y = sp.symbols("t x y")
    potential = x**4 / 4 + x**2 * y**2 + sp.exp(x + 2 * y)
    g = sp.Matrix([sp.diff(potential, x) + twist * y, sp.diff(potential, y) - twist * x])
    along = g.subs({x: t * x, y: t * y}, simultaneous=True)
    integrand = along.dot(sp.Matrix([x, y]))
    for i, v in enumerate((x, y)):
        run.zero(
            sp.diff(integrand, v) - sp.diff(t * along[i], t),
            f"integrand of the derivative by coordinate {i}",
        )
    a, b = (
        sp.Function("a")(x, y),
        sp.Function("b")(x, y),
    )  # arbitrary g = (a, b): what is left over is the asymmetry
    rest = sp.diff(x * a + y * b, x) - (a + x * sp.diff(a, x) + y * sp.diff(a, y))
    run.zero(rest - y * (sp.diff(b, x) - sp.diff(a, y)), "the remainder for arbitrary g")


poincare.mutant("a map with a rotation added", twist=1)


@claim.check("symbolic", part="line")
def one_dimension(run: Run, *, sign: int = 1) -> None:
    """Any continuous g on the line is the derivative of its integral, whose slope grows with g:
    convex iff g increases.
    """
    t, z, a, b = (
        sp.Symbol("t"),
        sp.Symbol("z"),
        sp.Symbol("a", real=True),
        sp.Symbol("b", positive=True),
    )
    g = sp.Function("g")
    run.zero(
        sp.diff(sp.Integral(g(t), (t, 0, z)), z) - g(z),
        "derivative of the integral of an arbitrary g",
    )
    example = sign * (t**3 + t)  # an increasing one: its integral lies above every tangent
    potential = sp.integrate(example, (t, 0, z))
    above = potential.subs(z, a + b) - potential.subs(z, a) - example.subs(t, a) * b
    run.that(
        sp.expand(above - sign * (b**2 / 2 + (b**2 / 4) * ((b + 2 * a) ** 2 + 2 * a**2))) == 0,
        "excess over the tangent",
    )
    run.that(
        (b**2 / 2 + (b**2 / 4) * ((b + 2 * a) ** 2 + 2 * a**2)).is_positive and sign > 0,
        "the excess is positive",
    )


one_dimension.mutant("a decreasing g", sign=-1)


@claim.check("exact", part="cyclic")
def stated_cycles(run: Run, *, stated: Formula) -> None:
    """The sums and divergences of the library's quadratic and p-norm maps around two triangles."""
    for size in (1.0, 2.5):
        corners = [size * corner for corner in triangle()]
        for h in (built("quadratic", corners[0], matrix=2.0), built("pnorm", corners[0], p=1.5)):
            own, total = h.own(), 0.0
            for here, there in zip(corners, corners[1:] + corners[:1], strict=True):
                values = [float(h.conjugate(own, {"phi": z})) for z in (here, there)]
                total += values[1] - values[0] - float(point(h, here) @ (there - here))
            at = {stated.left: cycle_sum(h, corners), r"\sum_iD_{h^*}(z_{i+1},z_i)": total}
            run.stands(stated, at, slack=1e-9)


@claim.check("exact", part="sym")
def stated_symmetric(run: Run, *, stated: Formula) -> None:
    """Three symmetric J: whether z^T J z/2 lies above its tangents on a grid, against the printed
    condition.
    """
    grid = torch.linspace(-1, 1, 9, dtype=torch.float64)
    points = torch.cartesian_prod(grid, grid)
    for rows in ([[0.5, 0.2], [0.2, 0.3]], [[1.0, 1.5], [1.5, 1.0]], [[0.3, 0.0], [0.0, 0.0]]):
        j = torch.tensor(rows, dtype=torch.float64)
        excess = ((points @ j) * points).sum(1) / 2
        least = float(torch.linalg.eigvalsh(j)[0])
        run.decides(stated, {stated.left: least}, bool(excess.min() >= -1e-15))
