r"""T7: where a map is not monotone there is a strongly convex quadratic on which the dual iteration
diverges for every rate.

*Proof.* Let $v^\top Jv<0$, $\|v\|=1$, $H=I+cvv^\top$. $\mathrm{tr}(JH)=\mathrm{tr}J+c\,v^\top Jv<0$
for $c>\mathrm{tr}J/|v^\top Jv|$, so some eigenvalue has $\mathrm{Re}\lambda<0$; $z_0$ is a fixed
point of $z\mapsto z-\alpha H(g(z)-g(z_0))$, whose derivative $I-\alpha HJ$ has the eigenvalue
$1-\alpha\lambda$, and $|1-\alpha\lambda|^2=1-2\alpha\mathrm{Re}\lambda+\alpha^2|\lambda|^2>1$.
(exists): by T2 there are $z,z'$ with $\langle g(z')-g(z),z'-z\rangle<0$; this is $\int_0^1v^\top
J(z+tv)v\,dt$ for $v=z'-z$, so $v^\top Jv<0$ somewhere on the segment.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import sympy as sp
import torch
from torch import Tensor
from torch.func import vjp

from mdtheory import descend
from mdtheory.geometry.base import Geometry
from proofs_check.claim import Claim, Formula, Statement, Verdict
from proofs_check.run import Run
from proofs_check.tools import iaf
from proofs_check.tools.iaf import Flat
from proofs_check.tools.models import vector
from proofs_check.tools.strategies import for_all, seeds

_TRACE = sp.Symbol(r"\mathrm{tr}J", positive=True)
_LOW = sp.Symbol("|v^\\top Jv|", positive=True)
UNSTABLE = Formula(
    left=sp.Symbol("c", positive=True),
    relation=">",
    right=_TRACE / _LOW,
    text=r"{formula}\iff\mathrm{tr}(HJ)\text{ is negative; then an eigenvalue of }HJ\text{ has a "
    r"negative real part, and }I-\alpha HJ\text{ grows for every }\alpha",
)
EXPLICIT = Formula(
    left=sp.Symbol(r"\alpha", positive=True),
    relation="<",
    right=sp.Rational(4, 3),
    text=r"s\equiv{scale},\ \mu_2={slope}z_1,\ A=\begin{psmallmatrix}1&{off}\\{off}&1"
    r"\end{psmallmatrix}:\ \mathrm{spec}(JA)=\{{least},{largest}\}\text{; GD converges for "
    r"}{formula}",
    terms={
        "scale": sp.Rational(1, 2),
        "slope": sp.Integer(4),
        "off": -sp.Rational(1, 2),
        "least": -sp.Rational(3, 4),
        "largest": -sp.Rational(1, 4),
    },
)

claim = Claim(
    id="T7",
    title="Without monotonicity the dual iteration can diverge for every rate",
    source="Theorem, for the poster's dual iteration with g",
    printed=Statement(
        given={"map": r"g\ C^1\text{ near }z_0,\ v^\top J_g(z_0)v<0,\ \|v\|=1"},
        then=r"f=\tfrac12\|\phi-g(z_0)\|_H^2,\ H=I+c\,vv^\top:\ z_0\text{ is a fixed point of "
        r"}z^+=z-\alpha\nabla f(g(z)),"
        r"\text{ linearly unstable for every }\alpha>0",
        parts={
            "unstable": UNSTABLE,
            "exists": r"\text{every }C^1\text{ BlockIAF with a non-constant scale has such a }z_0",
            "explicit": EXPLICIT,
        },
        scopes={"explicit": "instance"},
    ),
    expected=Verdict("HOLDS", "PROVED"),
    uses=("T2",),
    remark=(
        "Monotonicity is necessary for a guarantee uniform over strongly convex quadratics, not "
        "for one given task."
    ),
)


@claim.check("symbolic", about="printed", part="unstable")
def trace_argument(
    run: Run, *, least_c: Callable[[sp.Expr, sp.Expr], sp.Expr] = lambda trace, low: trace / -low
) -> None:
    """tr(HJ) = tr J + c v^T J v for general 3 x 3 J; negative beyond the threshold; then |1 - alpha
    lambda| > 1.
    """
    j = sp.Matrix(3, 3, sp.symbols("j0:9", real=True))
    v, c = sp.Matrix(sp.symbols("v0:3", real=True)), sp.Symbol("c", positive=True)
    run.zero(
        sp.expand((((sp.eye(3) + c * v * v.T) * j).trace()) - j.trace() - c * (v.T * j * v)[0]),
        "tr(HJ)",
    )
    trace, low, extra = (
        sp.Symbol("T", positive=True),
        sp.Symbol("q", negative=True),
        sp.Symbol("e", positive=True),
    )
    run.that(
        (trace + (least_c(trace, low) + extra) * low).simplify().is_negative,
        "negative beyond the threshold",
    )
    run.zero(trace + least_c(trace, low) * low, "zero at the threshold")
    alpha, down, b = (
        sp.Symbol("alpha", positive=True),
        sp.Symbol("r", negative=True),
        sp.Symbol("b", real=True),
    )
    growth = sp.expand((1 - alpha * down) ** 2 + (alpha * b) ** 2 - 1)
    run.that(
        sp.simplify(growth).is_positive,
        "|1 - alpha lambda|^2 - 1 = -2 alpha Re lambda + alpha^2 |lambda|^2 > 0",
    )


trace_argument.mutant("half the threshold", least_c=lambda trace, low: trace / (-2 * low))


def worst_point(map: Flat, seed: int, points: int = 6) -> tuple[Tensor, Tensor]:
    """z_0 on the segment between the pair of T2 where v^T J v is least, and v; of two pairs, the
    larger delta.
    """
    draws = [
        iaf.directed_pair(map, map.random("t7", "a", seed, k), map.random("t7", "b", seed, k))
        for k in range(2)
    ]
    pair = max(draws, key=lambda p: abs(p.delta))
    v = pair.other - pair.z
    direction = v / torch.linalg.vector_norm(v)
    on_segment = [pair.z + t * v for t in torch.linspace(0.0, 1.0, points, dtype=torch.float64)]
    return min(
        on_segment, key=lambda z: float(vjp(map.at, z)[1](direction)[0] @ direction)
    ), direction


def as_is(map: Flat) -> Flat:
    """The library's map."""
    return map


@claim.check("property", about="printed", part="exists")
def library_maps_have_one(
    run: Run, *, wrap: Callable[[Flat], Flat] = as_is, factor: float = 1.5
) -> None:
    """Both forms: a z_0 with v^T J v < 0; then spec(HJ) reaches Re < 0, and |1 - alpha lambda| > 1
    for all alpha.
    """

    @for_all(map=iaf.block_maps(min_blocks=2), seed=seeds())
    def _(map: Flat, seed: int) -> None:
        map = wrap(map)
        z, v = worst_point(map, seed)
        jacobian = map.jacobian(z)
        low = float(v @ jacobian @ v)
        run.above(-low, 0.0, what="-v^T J v")
        c = factor * float(jacobian.trace()) / -low
        spectrum = torch.linalg.eigvals(jacobian + c * torch.outer(v, v @ jacobian))
        least = spectrum[spectrum.real.argmin()]
        run.above(-float(least.real), 0.0, what="-Re lambda")
        for alpha in (1e-3, 1.0, 1e3):
            run.above(
                float((1 - alpha * least / spectrum.abs().max()).abs()),
                1.0,
                what=f"growth at alpha = {alpha}",
            )


library_maps_have_one.mutant(
    "impostor: monotone, not a gradient", wrap=lambda m: m.altered(lambda z, _: z + iaf.turned(z))
)
library_maps_have_one.mutant("dead conditioners", wrap=lambda m: m.altered(lambda z, _: 2 * z))
library_maps_have_one.mutant("c = 0: the plain quadratic", factor=0.0)


@claim.check("exact", about="printed", part="exists")
def solver_leaves_the_minimum(
    run: Run, *, make: Callable[[], Flat] = iaf.gated, factor: float = 4.0
) -> None:
    """(z_1/2, z_2 sigmoid z_1) at (-log 2, 20): the library's solver, started 1e-6 off the minimum,
    moves away at all rates.
    """
    map, z = make(), vector(-0.6931471805599453, 20.0)
    jacobian = map.jacobian(z)
    values, vectors = torch.linalg.eigh((jacobian + jacobian.T) / 2)
    v, low = vectors[:, 0], float(values[0])
    c = factor * float(jacobian.trace()) / abs(low)
    hessian, best = torch.eye(2, dtype=torch.float64) + c * torch.outer(v, v), map.at(z)
    loss = lambda phi: 0.5 * (phi - best) @ hessian @ (phi - best)  # noqa: E731
    for alpha, n_steps in ((0.01, 300), (0.1, 60), (1.0, 10)):
        points = descend(
            loss, z + 1e-6 * v, task_lr=alpha, n_steps=n_steps, geometry=Geometry(map=map.map)
        )
        far = [float(torch.linalg.vector_norm(phi - best)) for phi in (points[0], points[-1])]
        run.above(
            far[1], 2 * far[0], what=f"distance from the minimum after {n_steps} steps of {alpha}"
        )
    run.quantity(
        "least c at (-log 2, 20), s_1=1/2", c / factor, tolerance=1e-9, meaning="tr J/|v^T J v|"
    )


solver_leaves_the_minimum.mutant(
    "inside the strip",
    make=lambda: iaf.formula(
        lambda _: (vector(0.0), vector(0.0)), lambda z: (z / 10, 0 * z), scale=iaf.Sigmoid()
    ),
)
solver_leaves_the_minimum.mutant("c far below the threshold", factor=-0.5)


A = sp.Matrix([[1, -sp.Rational(1, 2)], [-sp.Rational(1, 2), 1]])


LEFT = (((-5.0, 1.0), 0.25), ((-3.0, 1.0), 0.75))
"""Left eigenvectors w of J A with their -lambda: the component along w grows by exactly 1 - alpha
lambda a step.
"""


def tilted(phi: Tensor) -> Tensor:
    """1/2 phi^T A phi, with minimum 0 at 0."""
    return 0.5 * (phi @ phi) - 0.5 * phi[0] * phi[1]


@claim.check("exact", about="printed", part="explicit")
def explicit_divergence(
    run: Run, *, slope: int = 4, make: Callable[[float], Flat] = iaf.shifted
) -> None:
    """Exact spectrum of JA; in the library's solver both components grow by 1 + alpha/4 and 1 + 3
    alpha/4 a step.
    """
    half = sp.Rational(1, 2)
    spectrum = set((sp.Matrix([[half, 0], [slope, half]]) * A).eigenvals())
    run.that(spectrum == {-sp.Rational(3, 4), -sp.Rational(1, 4)}, f"spec(JA) = {spectrum}")
    for name, value in zip(("least", "largest"), sorted(spectrum), strict=True):
        run.quantity(
            f"{name} eigenvalue of JA", value, meaning="s = 1/2, mu_2 = 4 z_1: both negative"
        )
    for alpha in (1e-3, 0.1, 1.0, 10.0):
        for start in (vector(1.0, 0.0), vector(-0.3, 2.0), vector(1e-8, 1e-8)):
            points = descend(
                tilted,
                start,
                task_lr=alpha,
                n_steps=10,
                geometry=Geometry(map=make(float(slope)).map),
            )
            for left, rate in LEFT:
                first, last = (abs(float(vector(*left) @ phi)) for phi in (points[0], points[-1]))
                run.close(
                    last / (first * (1 + alpha * rate) ** 10),
                    1.0,
                    tolerance=1e-9,
                    what=f"growth along {left} at {alpha}",
                )


explicit_divergence.mutant("slope 1, inside the threshold", slope=1)
explicit_divergence.mutant(
    "impostor: the identity",
    make=lambda slope: iaf.flat(iaf.Linear(torch.eye(2, dtype=torch.float64)), 2),
)


@claim.check("exact", about="printed", part="explicit")
def gd_converges(run: Run, *, edge: Fraction = Fraction(4, 3)) -> None:
    """spec(A) = {1/2, 3/2}: |1 - alpha eta| < 1 for both iff alpha < 4/3; the library's GD, either
    side of it.
    """
    spectrum = sorted(A.eigenvals())
    run.that(
        max(abs(1 - edge * Fraction(eta.p, eta.q)) for eta in spectrum) == 1,
        "contraction exactly 1 at the edge",
    )
    for factor, contracts in ((0.99, True), (1.01, False)):
        points = descend(tilted, vector(1.0, -1.0), task_lr=factor * float(edge), n_steps=60)
        run.that(
            float(points[-1].norm()) < float(points[0].norm())
            if contracts
            else float(points[-1].norm()) > 1.5,
            f"{factor}",
        )
    run.quantity(
        "largest rate of GD on the example",
        sp.Rational(edge.numerator, edge.denominator),
        meaning="2/lambda_max(A)",
    )


gd_converges.mutant("2", edge=Fraction(2))
gd_converges.mutant("2/3", edge=Fraction(2, 3))


@claim.check("symbolic", about="printed", part="exists")
def mean_value(run: Run, *, direction: int = 1) -> None:
    """Along the segment of T2's pair, v = z' - z: d/dt <g(z + t v), v> = v^T J v for arbitrary
    conditioners; its mean is T2's product, -1 for a non-constant scale, so it is negative
    somewhere.
    """
    a, b, y, w, t = sp.symbols("a b y w t", real=True)
    s1, m1 = sp.Symbol("s1", positive=True), sp.Symbol("m1", real=True)
    s, m = sp.Function("s", positive=True), sp.Function("m", real=True)
    first, second = sp.symbols("z1 z2", real=True)
    g = sp.Matrix([s1 * first + m1, s(first) * second + m(first)])
    v = sp.Matrix([b - a, w - y])
    on_segment = {first: a + t * v[0], second: y + t * v[1]}
    along = sp.diff(direction * g.subs(on_segment, simultaneous=True).dot(v), t)
    inside = v.dot(g.jacobian([first, second]) * v).subs(on_segment, simultaneous=True)
    run.zero(sp.simplify((along - inside).doit()), "derivative along the segment")


mean_value.mutant("the other direction", direction=-1)


@claim.check("exact", about="printed", part="unstable")
def stated_threshold(run: Run, *, stated: Formula) -> None:
    """The linear shift of slope 4 in rationals, v along its most negative direction: the trace of
    HJ is negative exactly where the printed condition says so.
    """
    j = sp.Matrix([[sp.S.Half, 0], [4, sp.S.Half]])
    for v in (sp.Matrix([3, -4]) / 5, sp.Matrix([5, -12]) / 13):
        low = (v.T * j * v)[0]
        run.that(low < 0, "v^T J v < 0")
        for c in (sp.Rational(1, 3), sp.Rational(3, 5), sp.Rational(3, 4), 1, 2, 5):
            trace = ((sp.eye(2) + c * v * v.T) * j).trace()
            at = {"c": c, r"\mathrm{tr}J": j.trace(), "|v^\\top Jv|": -low}
            run.decides(stated, at, bool(trace < 0))


claim.kernel("spectrum", part="explicit", about="printed")
claim.kernel("dual_iteration_diverges", part="explicit", about="printed")
claim.kernel("gd_converges_iff", part="explicit", about="printed")


@claim.check("exact", about="printed", part="explicit")
def stated_spectrum(run: Run, *, stated: Formula) -> None:
    """The eigenvalues of the printed matrices' product, exactly; and where GD contracts."""
    terms = stated.terms
    loss = sp.Matrix([[1, terms["off"]], [terms["off"], 1]])
    jacobian = sp.Matrix([[terms["scale"], 0], [terms["slope"], terms["scale"]]])
    found = set((jacobian * loss).eigenvals())
    run.that(found == {terms["least"], terms["largest"]}, f"spectrum {found}")
    for alpha in (sp.Rational(1, 2), sp.Integer(1), sp.Rational(13, 10), sp.Rational(3, 2), 3):
        contracts = all(abs(1 - alpha * value) < 1 for value in loss.eigenvals())
        run.decides(stated, {r"\alpha": alpha}, bool(contracts))
