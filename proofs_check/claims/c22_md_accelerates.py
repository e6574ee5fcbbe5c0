r"""C22: mirror descent with a proper h accelerates: an existence claim, with limits.

*Proof.* (one_step) $h=f$ s.c., $\alpha=1$: $z^1=\nabla f(\phi^0)-\nabla f(\phi^0)=0$, so
$\phi^1=\nabla f^*(0)=\arg\min f$. (rate) $h=f=x^4/4$, $\alpha=\frac12$: $z=x^3$ halves, $x$
contracts by $2^{-1/3}$, while GD is $\Theta(K^{-1/2})$ (C07 d). (bad) $h=50x^2$ on $x^2/2$:
$100x-x$. In the worst case over $h$ the guarantee $LD_h/K$ (C07 g) is exact, a factor $2+1/K$ above
GD's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import sympy as sp
import torch
from torch import Tensor

from mdtheory import descend
from mdtheory.core.types import Params
from mdtheory.maps.base import MirrorMap
from proofs_check.claim import Claim, Formula, Statement, Verdict
from proofs_check.claims.c07_rates import MIRROR, VALUE
from proofs_check.run import Run
from proofs_check.tools import sdp
from proofs_check.tools.models import FromPotential, dual, mirror, vector

_FASTER = r"\text{MD with proper }h\text{ accelerates convergence rate/constant over GD}"
_K = sp.Symbol("K", integer=True, positive=True)
RATE = Formula(
    left=sp.Symbol(r"\phi^K"),
    relation="==",
    right=2 ** (-_K / 3),
    text=r"f={loss}\text{ from one}:\text{ GD is }\Theta(K^{{order}});\ h=f\text{ with }"
    r"\alpha={rate}\text{ gives }{formula}",
    terms={
        "loss": sp.Symbol("x", positive=True) ** 4 / 4,
        "rate": sp.Rational(1, 2),
        "order": -sp.Rational(1, 2),
    },
)
_X = sp.Symbol("x", positive=True)
_ALPHA = sp.Symbol(r"\alpha", positive=True)
ONE_STEP = Formula(
    left=sp.Symbol("z^1"),
    relation="==",
    right=(1 - _ALPHA) * sp.Symbol(r"\nabla f(\phi^0)"),
    text=r"h=f\text{ s.c.: }{formula},\text{ so }\phi^1=\arg\min f\text{ at }\alpha={rate}",
    terms={"rate": sp.Integer(1)},
)
CONSTANT = Formula(
    left=sp.Symbol(r"L\,D_h(x^*,\phi^0)", real=True),
    relation="<",
    right=sp.Symbol(r"L_{\rm Eucl}", positive=True) * sp.Symbol("D", positive=True) ** 2 / 2,
    text=r"\text{there are }h,f\text{ with }{formula}",
)
WORST = Formula(
    left=sp.Symbol(r"\rho_K"),
    relation="==",
    right=2 + 1 / _K,
    text=r"\sup_{f,h}(f(\phi^K)-f^*)=LD_h/K,\text{ and at }h={h}\text{ that is }\rho_K\text{ times "
    r"GD's, }{formula}",
    terms={"h": sp.Symbol(r"\|\cdot\|", positive=True) ** 2 / 2},
)
BAD = Formula(
    left=sp.Symbol(r"\phi^k/\phi^{k-1}"),
    relation="==",
    right=sp.Rational(99, 100),
    text=r"h={h}\text{ on }{loss}:\ {formula},\text{ where GD needs one step}",
    terms={"h": 50 * _X**2, "loss": _X**2 / 2},
)

claim = Claim(
    id="C22",
    title="MD with a proper h accelerates over GD",
    source="Learning loss geometry priors via mirror descent",
    printed=Statement(
        then=_FASTER,
        given={"h": r"h\text{ strongly convex, the panel's only condition on }h"},
    ),
    amended=Statement(
        then=_FASTER,
        parts={
            "one_step": ONE_STEP,
            "rate": RATE,
            "constant": CONSTANT,
            "worst": WORST,
            "bad": BAD,
        },
        given={
            "h": r"h\text{ strongly convex, the panel's only condition on }h\text{ (in rate and "
            r"constant strictly convex and supercoercive, C21)}",
            "fits": r"h\text{ fits }f:\ " + CONSTANT.core,
        },
        scopes={"rate": "instance", "constant": "exists", "bad": "instance"},
    ),
    expected=Verdict("NEEDS_CONDITIONS", "VERIFIED"),
    uses=("C07/g", "C07/d"),
    remark=(
        "The panel does not say what a proper h is. O(1/K) is optimal for Bregman methods on this "
        "class (cited: Dragomir et al. 2021)."
    ),
)


class Quartic(MirrorMap):
    """h = sum x^4/4: grad h = x^3, grad h* = z^{1/3}. Strictly convex and supercoercive (C21)."""

    def point(self, meta: Params, z: Params) -> Params:
        return {name: value.sign() * value.abs() ** (1 / 3) for name, value in z.items()}

    def inverse(self, meta: Params, phi: Params) -> Params:
        return {name: value**3 for name, value in phi.items()}

    def potential(self, meta: Params, phi: Params) -> Tensor:
        return torch.stack([(value**4).sum() / 4 for value in phi.values()]).sum()

    def conjugate(self, meta: Params, z: Params) -> Tensor:
        return torch.stack([(value.abs() ** (4 / 3)).sum() * 0.75 for value in z.values()]).sum()


def mirrored(
    h: MirrorMap, f: Callable[[Tensor], Tensor], start: Tensor, *, alpha: float, n_steps: int
) -> Tensor:
    """The library's mirror descent from phi^0 = start. shape: (d,)"""
    geometry = mirror(h, start)
    return descend(f, dual(h, start), task_lr=alpha, n_steps=n_steps, geometry=geometry)[-1]


def valley(phi: Tensor) -> Tensor:
    """A strongly convex, badly conditioned, non-quadratic loss with minimiser (1, -1)."""
    return (
        20 * (phi[0] - 1) ** 2
        + 0.05 * (phi[1] + 1) ** 2
        + torch.cosh(phi[0] - 1)
        + 0.2 * torch.cosh(phi[1] + 1)
    )


def euclidean(potential: Callable[[Tensor], Tensor]) -> MirrorMap:
    """An h that ignores the loss: 40 |phi|^2 / 2, plain GD with a safe step."""
    return FromPotential(lambda v: 20.5 * v @ v)


def _one_step(run: Run, build: Callable[[Callable[[Tensor], Tensor]], MirrorMap]) -> None:
    end = mirrored(build(valley), valley, vector(3.0, 2.0), alpha=1.0, n_steps=1)
    run.close(end, vector(1.0, -1.0), tolerance=1e-10, what="MD with h = f after one step")
    slow = descend(valley, vector(3.0, 2.0), task_lr=1 / 45, n_steps=20)[-1]
    run.above(float((slow - vector(1.0, -1.0)).abs().max()), 1.0, what="GD after 20 steps")


@claim.check("exact", part="one_step", covers="all")
def newton_like(
    run: Run, *, build: Callable[[Callable[[Tensor], Tensor]], MirrorMap] = FromPotential
) -> None:
    """The same, and z^1 = 0 in symbols for any f."""
    _one_step(run, build)
    x, alpha = sp.Symbol("x"), sp.Integer(1)
    slope = sp.diff(sp.Function("f")(x), x)
    run.zero(slope - alpha * slope, "z^1 = grad h(phi^0) - grad f(phi^0)")


newton_like.mutant("h = 20.5 |phi|^2", build=euclidean)


@claim.check("exact", part="rate")
def quartic(run: Run, *, rate: float = 0.5) -> None:
    """x^4/4 from 1, K = 40 on the library: 0.18 by GD (alpha = 1/3), 2^{-40/3} by MD; the
    contraction is 2^{-1/3} per step.
    """
    f = lambda v: 0.25 * (v**4).sum()  # noqa: E731
    plain = descend(f, vector(1.0), task_lr=1 / 3, n_steps=40)[-1]
    bent = mirrored(Quartic(), f, vector(1.0), alpha=rate, n_steps=40)
    run.quantity(
        "GD on x^4/4, K=40",
        float(plain),
        tolerance=6e-3,
        theory=0.18,
        meaning="alpha = 1/3 from x = 1",
    )
    run.quantity(
        "MD with h=f on x^4/4, K=40",
        float(bent),
        tolerance=5e-6,
        theory=9.9e-5,
        meaning="2^(-40/3) = 9.69e-5",
    )
    slow = descend(f, vector(1.0), task_lr=1 / 3, n_steps=4000)[-1]
    far = descend(f, vector(1.0), task_lr=1 / 3, n_steps=1000)[-1]
    order = float(torch.log(slow / far)) / math.log(4)
    run.quantity(
        "order of GD on x^4/4",
        order,
        tolerance=2e-3,
        theory=-0.5,
        meaning="x_K from K = 1000 to 4000: K^{-1/2}",
    )
    z = sp.Symbol("z", positive=True)
    factor = sp.simplify(((z**3 - sp.Rational(rate) * z**3) ** sp.Rational(1, 3)) / z)
    run.zero(factor - sp.Rational(1, 2) ** sp.Rational(1, 3), "contraction in closed form")
    run.quantity("MD contraction on x^4/4", factor, meaning="2^(-1/3) per step at alpha = 1/2")


quartic.mutant("alpha = 1/4", rate=0.25)


@claim.check("exact", part="constant")
def constants(run: Run, *, relative: Fraction = Fraction(1)) -> None:
    """f = x^4/4 on [0, 1]: L D_h = 3/4 with h = f (L = 1), against L_Eucl D^2/2 = 3/2."""
    h, one, zero = Quartic(), {"phi": vector(1.0)}, {"phi": vector(0.0)}
    here = float(h.bregman({}, zero, one)) * float(relative)
    x = sp.Symbol("x", positive=True)
    there = sp.maximum(sp.diff(x**4 / 4, x, 2), x, sp.Interval(0, 1)) / 2
    run.quantity(
        "L D_h for h=f=x^4/4, D=1", here, tolerance=1e-12, theory=0.75, meaning="relative constant"
    )
    run.quantity("L_Eucl D^2/2 for x^4/4, D=1", there, theory=1.5, meaning="Euclidean constant")
    run.above(float(there), here, what="the Euclidean constant")


constants.mutant("twice the relative constant", relative=Fraction(2))


@claim.check("sdp", part="worst", rests_on="drori2014performance for GD's own constant at every K")
def worst_case(run: Run, *, factor: Callable[[int], float] = lambda k: 2 + 1 / k) -> None:
    """(L D^2/2)/K over the SDP's worst gap of GD is 2 + 1/K for K = 1..5, and the SDP over all h
    attains L D_h/K.
    """
    for k in (1, 2, 3, 4, 5):
        run.close(
            sdp.mirror_descent(k) * k, 1.0, tolerance=1e-3, what=f"worst case over h, K = {k}"
        )
        ratio = 0.5 / k / sdp.convex_gap(k)
        run.quantity(
            f"MD guarantee / GD worst case, K={k}",
            ratio,
            tolerance=1e-3,
            theory=factor(k),
            meaning="2 + 1/K at h = |.|^2/2",
        )


worst_case.mutant("no worse than GD", factor=lambda k: 1.0)
worst_case.mutant("2 - 1/K", factor=lambda k: 2 - 1 / k)


@claim.check("counterexample", about="printed", drops=("fits",))
def any_strongly_convex_h(run: Run, *, scale: float = 100.0) -> None:
    """h = 50 x^2 is strongly convex, and MD with it on x^2/2 is behind GD after one step and after
    ten.
    """
    f, h = (lambda v: 0.5 * v @ v), FromPotential(lambda v: 0.5 * scale * v @ v)
    for k in (1, 10):
        slow = mirrored(h, f, vector(1.0), alpha=1.0, n_steps=k)
        fast = descend(f, vector(1.0), task_lr=1.0, n_steps=k)[-1]
        run.above(float(f(slow)), float(f(fast)) + 0.3, what=f"loss of MD over GD's at K = {k}")


any_strongly_convex_h.mutant("h = f", scale=1.0)


@claim.check("exact", part="bad")
def bad_geometry(run: Run, *, scale: float = 100.0) -> None:
    """h = 50 x^2 on x^2/2 at alpha = 1: the library contracts by 0.99 per step; GD is done after
    one.
    """
    f = lambda v: 0.5 * v @ v  # noqa: E731
    end = mirrored(
        FromPotential(lambda v: 0.5 * scale * v @ v), f, vector(1.0), alpha=1.0, n_steps=10
    )
    run.quantity(
        "contraction with h=50x^2",
        float(end) ** 0.1,
        tolerance=1e-9,
        theory=0.99,
        meaning="factor per step on x^2/2",
    )
    run.close(
        descend(f, vector(1.0), task_lr=1.0, n_steps=1)[-1],
        vector(0.0),
        tolerance=0.0,
        what="GD after one step",
    )


bad_geometry.mutant("only a good h is tried: h = f", scale=1.0)


@claim.check("exact", part="rate")
def stated_contraction(run: Run, *, stated: Formula) -> None:
    """The printed loss as its own h at the printed rate, on the library: the iterates are the
    printed powers; in symbols z = x^3 is multiplied by 1 - alpha.
    """
    x = sp.Symbol("x", positive=True)
    slope = sp.diff(stated.terms["loss"], x)
    run.zero(slope - x**3, "the loss of the library's quartic map")
    alpha = float(stated.terms["rate"])
    for k in (1, 3, 9):
        end = mirrored(
            Quartic(), lambda v: 0.25 * (v**4).sum(), vector(1.0), alpha=alpha, n_steps=k
        )
        run.stands(stated, {stated.left: float(end), "K": k}, slack=1e-12)
    near, far = (
        float(descend(lambda v: (v**4).sum() / 4, vector(1.0), task_lr=1 / 3, n_steps=k)[-1])
        for k in (250, 1000)
    )
    order = math.log(far / near) / math.log(4)
    run.close(order, float(stated.terms["order"]), tolerance=1e-2, what="order of GD")


@claim.check("exact", part="one_step")
def stated_newton(run: Run, *, stated: Formula) -> None:
    """The dual point of the library's mirror descent with h = f after one step, at two rates."""
    start = vector(3.0, 2.0)
    h, slope = FromPotential(valley), torch.func.grad(valley)(start)
    for alpha in (0.25, 0.5):
        end = dual(h, mirrored(h, valley, start, alpha=alpha, n_steps=1))
        for z, u in zip(end, slope, strict=True):
            at = {stated.left: float(z), r"\alpha": alpha, r"\nabla f(\phi^0)": float(u)}
            run.stands(stated, at, slack=1e-8)
    run.zero(stated.right.subs(_ALPHA, stated.terms["rate"]), "z^1 at the printed rate")


@claim.check("exact", part="constant")
def stated_constants(run: Run, *, stated: Formula) -> None:
    """h = f = x^4/4 on [0, 1/2]: D_h by the library, the Euclidean constant by calculus."""
    far = vector(0.5)
    found = float(Quartic().bregman({}, {"phi": vector(0.0)}, {"phi": far}))
    steep = sp.maximum(sp.diff(_X**4 / 4, _X, 2), _X, sp.Interval(0, sp.Rational(1, 2)))
    run.that(stated.holds({stated.left: found, r"L_{\rm Eucl}": steep, "D": 0.5}), "the example")


@claim.check(
    "symbolic", part="worst", rests_on="drori2014performance for GD's own constant at every K"
)
def stated_factor(run: Run, *, stated: Formula) -> None:
    """C07's two printed worst cases, divided: MD's at the printed h by GD's own."""
    size, d = next(iter(stated.terms["h"].free_symbols)), sp.Symbol("D", positive=True)
    divergence = next(one for one in MIRROR.right.free_symbols if one.name.startswith("D_h"))
    mirror_bound = MIRROR.right.subs(divergence, stated.terms["h"].subs(size, d))
    run.zero(sp.simplify(mirror_bound / VALUE.right) - stated.right, "the ratio")


@claim.check("exact", part="bad")
def stated_slowness(run: Run, *, stated: Formula) -> None:
    """h' at the next point is h' - f' of the printed two, solved."""
    after = sp.Symbol("y", positive=True)
    slope = sp.diff(stated.terms["h"], _X)
    (end,) = sp.solve(slope.subs(_X, after) - slope + sp.diff(stated.terms["loss"], _X), after)
    run.stands(stated, {stated.left: sp.simplify(end / _X)})
