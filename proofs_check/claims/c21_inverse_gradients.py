r"""C21: property P2: grad h* is the inverse of grad h. True for strongly convex C^1 h; the poster's
line drops the convexity.

The poster states strong convexity of $h$ two lines earlier as a standing assumption, but P2 is
printed as "if $h\in C^1(\mathbb R^d)$": as printed it needs the condition.

*Proof.* $\phi=\nabla h^*(z)\iff z\in\partial h(\phi)=\{\nabla h(\phi)\}$ (Fenchel); C20 gives
exactly one $\phi$ for every $z$.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import sympy as sp
import torch
from hypothesis import strategies as st
from torch import Tensor

from mdtheory.maps.base import MirrorMap
from proofs_check.claim import Claim, Formula, Statement, Verdict
from proofs_check.run import Run
from proofs_check.tools.models import FromPotential, built, dual, point, vector
from proofs_check.tools.strategies import for_all, seeds

_INVERSE = r"\nabla h^*=(\nabla h)^{-1},\text{ a bijection of }\mathbb R^d"

_X, _Z = sp.Symbol("x", positive=True), sp.Symbol("z", positive=True)
QUARTIC = Formula(
    left=sp.Symbol(r"\nabla h^*(z)"),
    relation="==",
    right=_Z ** sp.Rational(1, 3),
    text=r"h={h}\text{, strictly convex and supercoercive but not s.c., satisfies it: }{formula}",
    terms={"h": _X**4 / 4},
)
SOFTPLUS = Formula(
    left=sp.Symbol(r"\sup\nabla h"),
    relation="==",
    right=sp.Integer(1),
    text=r"\text{strict convexity alone: softplus has }{formula},\ \inf\nabla h={low};"
    r"\ z-\alpha u\text{ can leave the range}",
    terms={"low": sp.Integer(0)},
)
SOFT_THRESHOLD = Formula(
    left=sp.Symbol(r"\nabla h^*(z)"),
    relation="==",
    right=_Z - 1,
    text=r"\text{s.c. but not }C^1:\ h=|x|+{square}:\ {formula}\text{ beyond the kink and zero in "
    r"it, not injective}",
    terms={"square": _X**2 / 2},
)

claim = Claim(
    id="C21",
    title="P2: grad h* is the inverse of grad h",
    source="Learning loss geometry priors via mirror descent, P2",
    printed=Statement(then=_INVERSE, given={"smooth": r"h\in C^1(\mathbb R^d)"}),
    amended=Statement(
        then=_INVERSE,
        given={"smooth": r"h\in C^1(\mathbb R^d)", "strong": r"h\text{ strongly convex}"},
        parts={
            "bijection": (
                r"\nabla h^*(\nabla h(\phi))=\phi,\ \nabla h(\nabla h^*(z))=z\ \forall"
                r"\phi,z"
            ),
            "softplus": SOFTPLUS,
            "smooth": SOFT_THRESHOLD,
            "not_necessary": QUARTIC,
        },
        scopes={"softplus": "exists", "smooth": "exists", "not_necessary": "exists"},
    ),
    expected=Verdict("NEEDS_CONDITIONS", "PROVED"),
    uses=("C20",),
)


def huber_slope(x: Fraction) -> Fraction:
    """The derivative of x^2/2 inside [-1, 1], |x| - 1/2 outside: convex, C^1."""
    return max(Fraction(-1), min(Fraction(1), x))


@claim.check("counterexample", about="printed", drops=("strong",))
def huber(run: Run, *, slope: Callable[[Fraction], Fraction] = huber_slope) -> None:
    """Huber's function: grad h(2) = grad h(3) = 1, so grad h has no inverse; h* = z^2/2 + indicator
    of [-1, 1].
    """
    run.that(slope(Fraction(2)) == slope(Fraction(3)), "two points with the same gradient")
    far = [2 * x - (abs(x) - Fraction(1, 2)) for x in (Fraction(10), Fraction(10**6))]
    run.that(far[1] > far[0] > 0, "h*(2) = oo: 2x - h(x) has no bound")
    run.quantity(
        "edge of dom h* for Huber",
        slope(Fraction(100)),
        theory=1,
        meaning="h* = z^2/2 on [-1, 1], infinite outside",
    )


huber.mutant("x^2/2 everywhere", slope=lambda x: x)


def conjugate_point(h: Callable[[float], float], z: float) -> float:
    """argmax of z x - h(x) on [-50, 50] by golden-section search, far from any formula for h*."""
    low, high, ratio = -50.0, 50.0, (5**0.5 - 1) / 2
    for _ in range(200):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if z * left - h(left) > z * right - h(right):
            high = right
        else:
            low = left
    return (low + high) / 2


def smooth_h(x: float) -> float:
    """x^2/2 + sqrt(1 + x^2)."""
    return 0.5 * x * x + (1 + x * x) ** 0.5


def relu_h(x: float) -> float:
    """x^2/2 + max(x, 0): strongly convex, not C^1."""
    return 0.5 * x * x + max(x, 0.0)


@claim.check("exact", part="bijection")
def conjugate_undoes_the_gradient(run: Run, *, h: Callable[[float], float] = smooth_h) -> None:
    """argmax of z x - h(x) by search, then h' by differences: back at z, for z on a grid through
    the centre.
    """
    for z in np.linspace(-3, 3, 25):
        x = conjugate_point(h, float(z))
        slope = (h(x + 1e-5) - h(x - 1e-5)) / 2e-5
        run.close(slope, float(z), tolerance=1e-5, what=f"grad h(grad h*({z:.2f}))")


conjugate_undoes_the_gradient.mutant("a ReLU-based h", h=relu_h)


@claim.check("certificate", part="bijection")
def fenchel(run: Run, *, sign: int = -1) -> None:
    """phi maximises <z, .> - h iff grad h(phi) = z: the first-order condition of a concave
    function, for arbitrary h.
    """
    x, z = sp.symbols("x z")
    h = sp.Function("h")
    run.zero(sp.diff(z * x + sign * h(x), x) - (z - sp.diff(h(x), x)), "stationarity of z x - h(x)")


fenchel.mutant("sup of z x + h(x)", sign=1)


def closed(slug: str, like: Tensor) -> MirrorMap:
    """A closed map of the library, the quadratic one with P = 2.5 I."""
    return built(slug, like, **({"matrix": 2.5} if slug == "quadratic" else {}))


@claim.check("property", part="bijection")
def library_round_trip(run: Run, *, shift: float = 0.0) -> None:
    """Newton's inverse and every closed map of the library on R^d: both round trips to 1e-10."""

    @for_all(
        kind=st.sampled_from(["numeric", "pnorm", "hypentropy", "quadratic"]),
        seed=seeds(),
        size=st.floats(-1, 0.6),
    )
    def _(kind: str, seed: int, size: float) -> None:
        phi = 10.0**size * torch.tensor(np.random.default_rng(seed).standard_normal(3))
        h = (
            FromPotential(lambda v: (0.5 * v**2 + torch.cosh(v)).sum())
            if kind == "numeric"
            else closed(kind, phi)
        )
        back = point(h, dual(h, phi) + shift)
        run.close(
            back,
            phi,
            tolerance=1e-10 * (1 + float(phi.abs().max())),
            what=f"grad h*(grad h(phi)) of {kind}",
        )
        run.close(
            dual(h, point(h, phi)),
            phi,
            tolerance=1e-9 * (1 + float(phi.abs().max())),
            what=f"grad h(grad h*(z)) of {kind}",
        )


library_round_trip.mutant("z off by 0.01", shift=0.01)


@claim.check("counterexample", part="softplus")
def softplus(run: Run, *, ridge: float = 0.0) -> None:
    """grad softplus lies in (0, 1): a dual step with alpha u = -1 from z = 1/2 leaves it; grad h* =
    logit inside.
    """
    x = vector(-800.0, -5.0, 0.0, 5.0, 30.0)
    slope = torch.sigmoid(x) + ridge * x
    run.that(bool(((slope >= 0) & (slope <= 1)).all()), "the range of grad h")
    run.that(not 0 < 0.5 + 1.0 < 1, "z - alpha u is outside dom h*")
    t = sp.Symbol("t", real=True)
    for end, place, theory in (("lower", -sp.oo, 0), ("upper", sp.oo, 1)):
        limit = sp.limit(sp.diff(sp.log(1 + sp.exp(t)), t) + sp.nsimplify(ridge) * t, t, place)
        run.quantity(
            f"{end} end of grad softplus", limit, theory=theory, meaning="grad h(R) = (0, 1)"
        )
    inside = vector(0.1, 0.5, 0.9)
    run.close(
        torch.sigmoid(torch.logit(inside)), inside, tolerance=1e-15, what="round trip on (0, 1)"
    )


softplus.mutant("softplus + x^2/20", ridge=0.1)


def soft_threshold(z: Tensor) -> Tensor:
    """grad h* of |x| + x^2/2."""
    return z.sign() * (z.abs() - 1).clamp(min=0)


@claim.check("counterexample", part="smooth")
def not_differentiable(run: Run, *, kink: float = 1.0) -> None:
    """h = |x| + x^2/2: by search, grad h* = 0 at z = -0.5, 0, 0.5: not injective, so no inverse; it
    is the soft threshold.
    """
    found = [
        conjugate_point(lambda x: kink * abs(x) + 0.5 * x * x, z) for z in (-0.5, 0.0, 0.5, 2.0)
    ]
    run.close(
        np.array(found),
        soft_threshold(vector(-0.5, 0.0, 0.5, 2.0)).numpy(),
        tolerance=1e-6,
        what="grad h*",
    )
    run.at_most(abs(found[2] - found[0]), 1e-6, what="difference of two images")


not_differentiable.mutant("h = x^2/2", kink=0.0)


@claim.check("exact", part="not_necessary")
def quartic(run: Run, *, power: int = 3) -> None:
    """x^4/4 is not strongly convex, yet x^3 is a bijection of R and the search finds its inverse
    z^{1/3}.
    """
    x = sp.Symbol("x", real=True)
    run.that(sp.diff(x**4 / 4, x, 2).subs(x, 0) == 0, "curvature 0 at 0: not strongly convex")
    for z in (-8.0, -1.0, 0.001, 27.0):
        found = conjugate_point(lambda v: 0.25 * v**4, z)
        run.close(found**power, z, tolerance=1e-5 * (1 + abs(z)), what=f"grad h(grad h*({z}))")


quartic.mutant("x^2 for grad h", power=2)


@claim.check("exact", part="not_necessary")
def stated_inverse(run: Run, *, stated: Formula) -> None:
    """h' = z for the printed h, solved, is the printed grad h*; and the search finds it."""
    slope = sp.diff(stated.terms["h"], _X)
    run.zero(slope.subs(_X, stated.right) - _Z, "grad h at the printed point")
    h = sp.lambdify(_X, stated.terms["h"])
    for z in (0.5, 8.0, 27.0):
        found = conjugate_point(lambda v: h(abs(v)), z)
        run.stands(stated, {stated.left: found, "z": z}, slack=1e-6)


@claim.check("exact", part="softplus")
def stated_range(run: Run, *, stated: Formula) -> None:
    """Both limits of the slope of softplus, exactly."""
    t = sp.Symbol("t", real=True)
    slope = sp.diff(sp.log(1 + sp.exp(t)), t)
    run.stands(stated, {stated.left: sp.limit(slope, t, sp.oo)})
    run.zero(sp.limit(slope, t, -sp.oo) - stated.terms["low"], "the infimum")


@claim.check("exact", part="smooth")
def stated_threshold(run: Run, *, stated: Formula) -> None:
    """The slope of the printed h beyond the kink, at the printed point; the search finds the same,
    and zero inside.
    """
    whole = _X + stated.terms["square"]
    run.zero(sp.diff(whole, _X).subs(_X, stated.right) - _Z, "grad h at grad h*")
    square = sp.lambdify(_X, stated.terms["square"])
    for z in (1.5, 3.0, 0.5):
        found = conjugate_point(lambda v: abs(v) + square(abs(v)), z)
        if z > 1:
            run.stands(stated, {stated.left: found, "z": z}, slack=1e-6)
        else:
            run.close(found, 0.0, tolerance=1e-6, what="inside the kink")
