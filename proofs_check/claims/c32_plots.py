r"""C32: the convergence plots. What curves of loss and gradient norm can show, and what the
library's own curves show.

*Proof of (separable).* Let $V$ give every support image $x$ of class $y$ the logits $e_y$ (there is
one if the images are linearly independent). For the mean cross-entropy $F$ of a linear classifier,
$\langle\nabla F(W),V\rangle=-{\rm mean}(1-p_y(W))<0$ at every $W$: no stationary point exists. And
$F(tV)=\log(1+(n-1)e^{-t})\downarrow0$: the infimum 0 is not attained.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import pairwise

import sympy as sp
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss, one_hot

from mdtheory import descend
from mdtheory.core import tree
from mdtheory.core.seeding import generator
from mdtheory.core.types import Params
from mdtheory.inner.problem import Problem
from mdtheory.inner.solver import visits
from mdtheory.inner.task import Task
from mdtheory.meta.learner import MetaLearner
from proofs_check.claim import Claim, Formula, Statement, Verdict
from proofs_check.run import Run
from proofs_check.studies import trained_maps
from proofs_check.tools.models import vector

_MU = sp.Symbol(r"\mu", positive=True)
DISTANCE = Formula(
    left=sp.Symbol(r"{\rm dist}"),
    relation="<=",
    right=sp.Symbol(r"\|\nabla f\|", positive=True) / _MU,
    text=r"f={loss}:\ |f'({point})|={slope}\text{ at distance }{point}\text{; under an error bound "
    r"}{formula},\text{ tight}",
    terms={
        "loss": sp.Symbol("x", positive=True) ** 8 / 8,
        "point": sp.Rational(3, 10),
        "slope": sp.Rational(3, 10) ** 7,
    },
)
MOVED = Formula(
    left=sp.Symbol(r"\|\phi^k-\phi^{k-1}\|"),
    relation="==",
    right=sp.Symbol(r"\alpha", positive=True) * sp.Symbol(r"\|\nabla f\|", positive=True),
    text=r"\text{after }K\text{ steps the measured }\|\nabla f\|\text{ is far from zero; for MAML }"
    r"{formula}",
)

claim = Claim(
    id="C32",
    title="Convergence plots: faster reduction, proximity to a stationary point",
    source="Numerical tests, task loss and gradient norm against k",
    printed=Statement(
        given={"runs": r"\text{trained learners, each from its own start}"},
        then=r"\text{a versatile loss geometry accelerates: better initialization and faster "
        r"reduction; "
        r"proximity to a stationary point}",
    ),
    amended=Statement(
        given={"runs": r"\text{trained learners}"},
        then=(
            r"\text{curves from a common }\phi^0\text{ compare geometries; a small }\|\nabla f\|"
            r"\text{ is no proximity}"
        ),
        parts={
            "gap": DISTANCE,
            "separable": (
                r"\text{cross-entropy on separable data has no stationary point and no "
                r"minimiser}"
            ),
            "common": (
                r"\text{own starts differ before any step; from }z^0=g^{-1}(\phi^0)\text{ all "
                r"methods start alike}"
            ),
            "far": MOVED,
        },
        scopes={"gap": "exists"},
    ),
    expected=Verdict("EMPIRICAL", "VERIFIED"),
    remark="The runs here are 15 meta-iterations of a small network on glyphs: they say how the "
    "plots behave, not how good the "
    "methods are. In them MetaMiDA's own start is the worse one, and its loss falls faster; from "
    "the common start "
    "the curves nearly coincide.",
)

X0 = Fraction(3, 10)


@claim.check("exact", part="gap")
def small_gradient_far_away(run: Run, *, power: int = 8) -> None:
    """f = x^8/8 at 0.3, exactly; |f'|/|x| = x^6 has no positive lower bound; 200 steps of the
    library leave x above 0.29.
    """
    slope = X0 ** (power - 1)
    run.quantity(
        "|f'(0.3)| for f = x^8/8",
        slope,
        tolerance=5e-6,
        theory=2.2e-4,
        meaning="3^7/10^7, at distance 0.3 of the minimum",
    )
    ratios = [Fraction(1, 10**k) ** (power - 2) for k in (1, 2, 3)]
    run.that(ratios == [Fraction(1, 10 ** (6 * k)) for k in (1, 2, 3)], "|f'|/dist = x^6")

    def f(v: Tensor) -> Tensor:
        return (v**power / power).sum()

    run.close(
        torch.func.grad(f)(vector(float(X0))),
        float(slope),
        tolerance=1e-16,
        what="autograd's f'(0.3)",
    )
    last = float(descend(f, vector(float(X0)), task_lr=1 / (power - 1), n_steps=200)[-1])
    run.quantity(
        "x after 200 steps of 1/7 from 0.3",
        last,
        tolerance=1e-6,
        meaning="the library's steps on x^8/8",
    )
    run.above(last, 0.29, what="x after 200 steps")


small_gradient_far_away.mutant("x^4/4", power=4)
small_gradient_far_away.mutant("x^2/2", power=2)


@claim.check("exact", part="gap")
def error_bound_is_what_is_missing(
    run: Run, *, bound: Callable[[Fraction, Fraction], Fraction] = lambda g, mu: g / mu
) -> None:
    """||grad f|| >= mu dist gives dist <= ||grad f||/mu by division; mu/2 x^2 attains it for each
    mu.
    """
    for mu in (Fraction(1, 7), Fraction(1), Fraction(5)):
        slope = float(torch.func.grad(lambda v, c=float(mu): c / 2 * v @ v)(vector(0.5)))
        run.close(slope, float(mu) / 2, tolerance=1e-16, what="the gradient of mu/2 x^2 at 1/2")
        run.that(bound(mu / 2, mu) == Fraction(1, 2), f"distance 1/2 is attained at mu = {mu}")
        run.quantity(
            f"distance bound / distance, mu={mu}",
            bound(mu / 2, mu) * 2,
            theory=1,
            meaning="tight for mu/2 x^2",
        )


error_bound_is_what_is_missing.mutant("||grad f||/(2 mu)", bound=lambda g, mu: g / (2 * mu))
error_bound_is_what_is_missing.mutant("||grad f||", bound=lambda g, mu: g)


def few_shot() -> tuple[Tensor, Tensor]:
    """The support set of the first test task, flat. shapes: (5, 784), (5,)"""
    (episode,) = trained_maps.episodes(trained_maps.config_of("maml", iterations=0), 1)
    return episode.support_x.flatten(1), episode.support_y


def confused() -> tuple[Tensor, Tensor]:
    """The same with one image in two classes."""
    x, y = few_shot()
    return x[[0, 0, 2, 3, 4]], y


def squares(outputs: Tensor, y: Tensor) -> Tensor:
    """The mean squared distance from one-hot targets."""
    return mse_loss(outputs, one_hot(y, outputs.shape[1]).to(outputs.dtype))


@claim.check("exact", part="separable")
def no_finite_minimiser(
    run: Run,
    *,
    data: Callable[[], tuple[Tensor, Tensor]] = few_shot,
    loss: Callable[..., Tensor] = cross_entropy,
) -> None:
    """A linear classifier on a real 5-way 1-shot support set: the identity at many W, the values
    along tV, and descent.
    """
    x, y = data()
    n_way = int(y.max()) + 1
    v = torch.linalg.pinv(x) @ one_hot(y, n_way).double()

    def f(w: Tensor) -> Tensor:
        return loss(x @ w.reshape(x.shape[1], n_way), y)

    for seed, size in enumerate((0.0, 0.1, 1.0, 10.0)):
        w = (
            size
            * torch.randn(
                v.numel(), generator=generator("proofs", "c32", seed), dtype=torch.float64
            )
            / 28
        )
        wrong = 1 - torch.softmax(x @ w.reshape(v.shape), 1)[torch.arange(len(y)), y]
        along = torch.func.grad(f)(w) @ v.reshape(-1)
        run.close(along, -wrong.mean(), tolerance=1e-9, what="<grad F(W), V> + mean(1 - p_y)")
        run.above(-float(along), 0.0, what="descent along V")
    for t in (0.0, 1.0, 10.0, 30.0):
        expected = torch.log1p((n_way - 1) * torch.exp(torch.tensor(-t, dtype=torch.float64)))
        run.close(f(t * v.reshape(-1)), expected, tolerance=1e-9, what=f"F(tV) at t = {t}")
        run.above(float(f(t * v.reshape(-1))), 0.0, what="F(tV)")
    steps = descend(f, torch.zeros(v.numel(), dtype=torch.float64), task_lr=0.05, n_steps=40)
    norms = [float(torch.linalg.vector_norm(w)) for w in steps]
    run.that(norms == sorted(norms), "the norm of the weights grows at every step of the library")
    value = float(f(30 * v.reshape(-1)))
    run.quantity(
        "F(30 V), 5-way",
        value,
        tolerance=1e-15,
        theory=4 * 9.357622968840175e-14,
        meaning="log(1 + 4 e^-30), infimum 0",
    )


no_finite_minimiser.mutant("an image in two classes", data=confused)
no_finite_minimiser.mutant("squared loss", loss=squares)


# -- the library's own curves
# ---------------------------------------------------------------------------------------------

METHODS = ("maml", "metasgd", "metamida")
ITERATIONS, RATE, TASKS, STEPS = 15, 0.01, 8, 6


@dataclass(frozen=True)
class Curve:
    """Means over tasks at k = 0..K: f, ||grad f||, and ||phi^k - phi^{k-1}|| (k >= 1). shapes: (K +
    1,), (K + 1,), (K,)
    """

    loss: Tensor
    slope: Tensor
    moved: Tensor


def curve(problem: Problem, meta: Params, task: Task) -> Curve:
    """One adaptation."""
    points, losses, slopes = [], [], []
    for here in visits(problem, meta, task, {}, n_steps=STEPS, hold=tree.detach):
        points.append(tree.detach(here.point))
        losses.append(here.loss.detach())
        slopes.append(tree.norm(here.gradient).detach())
    moved = [tree.norm(tree.axpy(-1.0, a, b)) for a, b in pairwise(points)]
    return Curve(torch.stack(losses), torch.stack(slopes), torch.stack(moved))


@cache
def learner(method: str) -> MetaLearner:
    """A method after 15 meta-iterations; trained once per process."""
    return trained_maps.briefly(method, iterations=ITERATIONS, meta_lr=RATE)[0]


def dual_start(of: MetaLearner, phi: Params) -> Params:
    """z^0 = g^{-1}(phi^0)."""
    return of.geometry.map.inverse(tree.sub(tree.detach(of.meta()), "geometry.map."), phi)


def unmapped(of: MetaLearner, phi: Params) -> Params:
    """phi^0 taken for z^0."""
    return phi


@cache
def curves(method: str, *, start: Callable[[MetaLearner, Params], Params] | None = None) -> Curve:
    """The mean curve from the method's own start, or from MAML's point by way of ``start``."""
    of = learner(method)
    meta = tree.detach(of.meta())
    if start is not None:
        phi = tree.sub(tree.detach(learner("maml").meta()), "anchor.")
        meta |= tree.prefixed("anchor.", tree.detach(start(of, phi)))
    tasks = trained_maps.episodes(trained_maps.config_of(method, iterations=ITERATIONS), TASKS)
    found = [curve(of.problem(), meta, of.task(episode)) for episode in tasks]
    return Curve(
        *(
            torch.stack([getattr(c, name) for c in found]).mean(0)
            for name in ("loss", "slope", "moved")
        )
    )


def reduction(of: Curve) -> float:
    """f(phi^K)/f(phi^0), of means over tasks."""
    return float(of.loss[-1] / of.loss[0])


@claim.check("experiment", about="printed")
def own_starts(run: Run, *, method: str = "metamida") -> None:
    """From own starts the loss of MetaMiDA, trained for a moment, falls by a larger factor than
    MAML's, as in the plots.
    """
    first, ours = curves("maml"), curves(method)
    for name, one in (("MAML", first), ("MetaMiDA", ours)):
        run.that(
            bool((one.loss[1:] < one.loss[:-1]).all()),
            f"the mean task loss of {name} falls at each step",
        )
    run.at_most(
        reduction(ours),
        0.75 * reduction(first),
        what="f_K/f_0 of MetaMiDA against three quarters of MAML's",
    )
    for name, one in (("maml", first), ("metamida", ours)):
        run.quantity(
            f"f_0, own start, {name}",
            float(one.loss[0]),
            tolerance=0.1,
            meaning="mean of 8 glyph tasks, 15 meta-steps",
        )
        run.quantity(f"f_K/f_0, own start, {name}", reduction(one), tolerance=0.02, meaning="K = 6")


own_starts.mutant("MAML passed off as MetaMiDA", method="maml")


@claim.check("experiment", part="common")
def common_start(run: Run, *, start: Callable[[MetaLearner, Params], Params] = dual_start) -> None:
    """From MAML's trained point f and ||grad f|| agree at k = 0 for all methods; from own starts
    they do not.
    """
    first = curves("maml")
    for method in METHODS[1:]:
        own, common = curves(method), curves(method, start=start)
        run.above(
            abs(float(own.loss[0] - first.loss[0])),
            0.01,
            what=f"difference of f_0 from own starts, {method}",
        )
        run.close(
            common.loss[0],
            first.loss[0],
            tolerance=1e-6,
            what=f"f_0 from the common start, {method}",
        )
        run.close(
            common.slope[0],
            first.slope[0],
            tolerance=1e-5,
            what=f"||grad f|| from the common start, {method}",
        )
        ratio = float(common.loss[-1] / first.loss[-1])
        run.quantity(
            f"f_K over MAML's, common start, {method}",
            ratio,
            tolerance=0.1,
            meaning="K = 6, 15 meta-steps, 8 tasks",
        )
        run.above(ratio, 0.5, what="nothing dramatic: f_K over MAML's")


common_start.mutant("phi^0 taken for z^0", start=unmapped)


def slopes(one: Curve) -> Tensor:
    """||grad f(phi^k)||."""
    return one.slope


@claim.check("experiment", part="far")
def not_stationary(run: Run, *, measure: Callable[[Curve], Tensor] = slopes) -> None:
    """MAML's moves are exactly alpha ||grad f||; after K steps no method's gradient is below a
    twentieth of its first one.
    """
    first, alpha = curves("maml"), trained_maps.RUN["task"]["task_lr"]
    run.close(
        first.moved,
        alpha * measure(first)[:-1],
        tolerance=1e-9,
        what="||phi^k - phi^{k-1}|| - alpha ||grad f||",
    )
    for method in METHODS:
        one = curves(method)
        left = float(measure(one)[-1] / measure(one)[0])
        run.above(left, 0.05, what=f"||grad f|| after K steps over that at k = 0, {method}")
        run.quantity(
            f"||grad f_K||/||grad f_0||, own start, {method}",
            left,
            tolerance=0.02,
            meaning="K = 6, 8 tasks",
        )
        run.quantity(
            f"||phi^K - phi^(K-1)||, own start, {method}",
            float(one.moved[-1]),
            tolerance=0.02,
            meaning="K = 6, 8 tasks",
        )


not_stationary.mutant("the loss for its gradient", measure=lambda one: one.loss)
not_stationary.mutant("squared norms", measure=lambda one: one.slope.square())


@claim.check("symbolic", part="separable")
def no_stationary_point(run: Run, *, margin: int = 1) -> None:
    """One example of three classes, any logits: the derivative of its cross-entropy along logits
    with margins a, b > 0 is -(p_2 a + p_3 b) < 0; a sum of such has no zero.
    """
    x, y, z, t = sp.symbols("x y z t", real=True)
    a, b = sp.symbols("a b", positive=True)
    logits = [x + t * (a + b), y + t * (a + b - margin * a), z + t * (a + b - margin * b)]
    loss = sp.log(sum(sp.exp(value) for value in logits)) - logits[0]
    slope = sp.simplify(sp.diff(loss, t))
    total = sum(sp.exp(value) for value in logits)
    expected = -(a * sp.exp(logits[1]) + b * sp.exp(logits[2])) / total
    run.zero(sp.simplify(slope - expected), "slope along the separating direction")
    run.that(expected.is_negative, "it is negative at every point")


no_stationary_point.mutant("no margin", margin=0)


@claim.check("exact", part="gap")
def stated_distance(run: Run, *, stated: Formula) -> None:
    """mu/2 x^2 attains the printed distance, for three mu; and a steeper function lies below it."""
    for mu in (0.25, 1.0, 5.0):
        for steeper in (1.0, 1.5):
            slope = torch.func.grad(lambda v, c=mu * steeper: c / 2 * v @ v)(vector(0.5))
            at = {stated.left: 0.5, r"\mu": mu, r"\|\nabla f\|": float(slope)}
            run.stands(stated, at, slack=1e-14)
            if steeper == 1.0:
                run.attained(stated, at, tolerance=1e-12)
    x, point = sp.Symbol("x", positive=True), stated.terms["point"]
    slope = sp.diff(stated.terms["loss"], x).subs(x, point)
    run.zero(slope - stated.terms["slope"], "the slope at the printed point")


@claim.check("exact", part="far")
def stated_move(run: Run, *, stated: Formula) -> None:
    """MAML's steps on x^4/4 at two rates."""
    for alpha, start in ((0.1, 0.5), (0.3, 1.2)):
        end = descend(lambda v: (v**4).sum() / 4, vector(start), task_lr=alpha, n_steps=1)[-1]
        at = {stated.left: abs(float(end) - start), r"\alpha": alpha, r"\|\nabla f\|": start**3}
        run.stands(stated, at, slack=1e-12)
