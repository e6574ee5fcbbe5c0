r"""C10: the overall complexity grows linearly with K: per meta-step, in reverse mode.

*Proof of (smoothness).* $\phi^{k+1}=T(\phi^k)$, $\|DT\|\le a$, $DT$ $\alpha\rho$-Lipschitz:
$D(T^k)$ has norm $\le a^k$ and Lipschitz constant $c_{k+1}\le ac_k+\alpha\rho a^{2k}$, so
$c_K\le\alpha\rho a^{K-1}\frac{a^K-1}{a-1}$; and $\nabla F=D(T^K)^\top\nabla\ell(T^K)$. Attained in
one dimension at a fixed point with $T'(0)=a$, $T''=-\alpha\rho$ on one side.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import sympy as sp
import torch
from torch import Tensor

from mdtheory.inner.estimators import Estimator, estimators
from proofs_check.claim import Claim, Formula, Statement, Verdict
from proofs_check.run import Run
from proofs_check.tools import cost
from proofs_check.tools.models import problem_of, vector

_A, _LQ, _G, _ALPHA, _RHO = sp.symbols(r"a L_\ell G_\ell \alpha \rho", positive=True)
_K = sp.Symbol("K", integer=True, positive=True)
SMOOTHNESS = Formula(
    left=sp.Symbol("L_F"),
    relation="<=",
    right=_A ** (2 * _K) * _LQ + _G * _ALPHA * _RHO * _A ** (_K - 1) * (_A**_K - 1) / (_A - 1),
    text=r"F(\theta)=\ell(\phi^K),\ \phi^0=\theta,\ \ell\ L_\ell\text{-smooth},\ G_\ell=\sup"
    r"\|\nabla\ell\|,\ \nabla^2f\ \rho\text{-Lipschitz}:\ {formula},\ a=\sup\|I-\alpha\nabla^2f"
    r"\|\text{, where }a\text{ is one its limit}",
)
_KAPPA, _EPS = sp.symbols(r"\kappa \varepsilon", positive=True)
_HESSIAN, _AFTER = sp.symbols(r"H_k \lambda_{k+1}", real=True)
WORK = Formula(
    left=sp.Symbol(r"\text{task gradients}"),
    relation="==",
    right=_K,
    text=r"{formula},\text{ and as many Hessian-vector products (stepwise: }{stepwise}"
    r"\text{ gradients)}",
    terms={"stepwise": 2 * _K},
)
MEMORY = Formula(
    left=sp.Symbol(r"\text{states with checkpoints}"),
    relation="==",
    right=2 * sp.sqrt(_K),
    text=r"\text{graph and saved numbers affine; stepwise: }K\text{ states; }{formula}",
)
RECURSION = Formula(
    left=sp.Symbol(r"\lambda_k"),
    relation="==",
    right=(1 - _ALPHA * _HESSIAN) * _AFTER,
    text=r"{formula}\text{ is the exact gradient (}H_k\text{ the Hessian)}",
)
ACCURACY = Formula(
    left=sp.Symbol(r"K_\varepsilon"),
    relation="==",
    right=_KAPPA * sp.log(1 / _EPS),
    text=r"\text{error }\varepsilon\text{ needs }K_\varepsilon\sim{right}\text{ steps as }"
    r"\kappa\to\infty",
)

claim = Claim(
    id="C10",
    title="Overall complexity grows linearly with K",
    source="Bilevel optimization for meta-learning, accuracy versus complexity",
    printed=Statement(
        given={"step": r"\text{one meta-step, gradient by reverse mode}"},
        then=r"\text{time and memory grow linearly with }K",
    ),
    amended=Statement(
        given={"step": r"\text{one meta-step, gradient by reverse mode}"},
        then=(
            r"\text{cost}=K(c_f+c_b)+Kc_{\rm HVP}\text{ and memory }O(K);\text{ not linear at "
            r"fixed accuracy}"
        ),
        parts={
            "work": WORK,
            "memory": MEMORY,
            "others": (
                r"\text{first order: no HVP, saved numbers constant; AID: }n_{\rm CG}\text{ "
                r"HVPs, memory the same for every }K"
            ),
            "recursion": RECURSION,
            "accuracy": ACCURACY,
            "smoothness": SMOOTHNESS,
        },
    ),
    expected=Verdict("VERIFIED", "VERIFIED"),
)

STEPS = (2, 4, 6, 8)


def affine(values: list[int], steps: tuple[int, ...] = STEPS) -> tuple[float, float] | None:
    """(slope, intercept) of the line through all points, ``None`` if they lie on no line."""
    slope = (values[1] - values[0]) / (steps[1] - steps[0])
    start = values[0] - slope * steps[0]
    return (
        (slope, start)
        if all(v == start + slope * k for v, k in zip(values, steps, strict=True))
        else None
    )


def _line(run: Run, values: list[int], what: str) -> tuple[float, float]:
    found = affine(values)
    run.that(found is not None, f"{what} is affine in K: {values} at K = {STEPS}")
    return found or (0.0, 0.0)


@claim.check("exact", about="printed")
def work_and_memory_are_affine(run: Run, *, estimator: type[Estimator] | None = None) -> None:
    """Counted, not timed, K = 2, 4, 6, 8: loss evaluations, tensor operations, autograd nodes and
    saved numbers.
    """
    kind = estimators.get("unrolled") if estimator is None else estimator
    _line(run, [cost.loss_calls(kind(), k) for k in STEPS], "evaluations")
    _line(run, [cost.operations(kind(), k) for k in STEPS], "tensor operations")
    sizes = [cost.graph_size(k) for k in STEPS]
    _line(run, [nodes for nodes, _ in sizes], "graph nodes")
    _line(run, [saved for _, saved in sizes], "saved numbers")


work_and_memory_are_affine.mutant(
    "the inner loop run again inside the outer one", estimator=cost.Rerun
)


@claim.check("exact", part="work")
def counted_work(run: Run, *, kinds: dict[str, type[Estimator]] | None = None) -> None:
    """Task gradients per meta-gradient: K for unrolled and first order, 2K for stepwise."""
    slopes = {"unrolled": 1, "stepwise": 2, "first_order": 1}
    for slug, slope in slopes.items():
        kind = (kinds or {}).get(slug) or estimators.get(slug)
        found, start = _line(
            run, [cost.loss_calls(kind(), k) for k in STEPS], f"evaluations of {slug}"
        )
        run.that(
            (found, start) == (slope, 0),
            f"{slug} takes {slope} K evaluations, counted {found} K + {start}",
        )
        run.quantity(
            f"task gradients per step, {slug}",
            int(found),
            meaning="slope of counted loss evaluations in K",
        )


counted_work.mutant("the inner loop run again inside the outer one", kinds={"unrolled": cost.Rerun})
counted_work.mutant(
    "stepwise passed off as unrolled", kinds={"unrolled": estimators.get("stepwise")}
)


@claim.check("exact", part="memory")
def graph_grows_by_one_step(
    run: Run, *, first_order: bool = False, root: Callable[[sp.Symbol], sp.Expr] = sp.sqrt
) -> None:
    """Nodes and saved numbers of the library's unrolled graph are lines with slope > 0; K/s + s is
    least at s = sqrt K.
    """
    sizes = [cost.graph_size(k, first_order=first_order) for k in STEPS]
    nodes, _ = _line(run, [size[0] for size in sizes], "graph nodes")
    second = sizes[3][0] - 2 * sizes[2][0] + sizes[1][0]
    run.quantity(
        "second difference of graph nodes in K",
        second,
        theory=0,
        meaning="nodes counted at K = 4, 6, 8: a line",
    )
    saved, _ = _line(run, [size[1] for size in sizes], "saved numbers")
    run.above(saved, 0, what="saved numbers per step")
    run.above(nodes, 5, what="nodes per step, at least multiply, subtract and the gradient's own")
    steps, segments = sp.symbols("K s", positive=True)
    (best,) = sp.solve(sp.diff(steps / segments + segments, segments), segments)
    run.zero(best - root(steps), "segments with the least memory")
    run.quantity(
        "checkpointed memory / sqrt K",
        sp.simplify((steps / best + best) / sp.sqrt(steps)),
        theory=2,
        meaning="states",
    )


graph_grows_by_one_step.mutant("first order passed off as exact", first_order=True)
graph_grows_by_one_step.mutant("log K segments", root=sp.log)


@claim.check("exact", part="others")
def other_estimators(run: Run, *, slug: str = "first_order", cg_cost: int = 1) -> None:
    """First order saves the same numbers whatever K; AID: one evaluation per CG step, no more
    tensors held at larger K.
    """
    saved = [cost.graph_size(k, first_order=slug == "first_order")[1] for k in STEPS]
    run.that(len(set(saved)) == 1, f"saved numbers of first order: {saved}")
    slope = (saved[-1] - saved[0]) // (STEPS[-1] - STEPS[0])
    run.quantity(
        "saved numbers per step, first_order",
        slope,
        theory=0,
        meaning="no Hessian-vector product, so nothing kept",
    )
    calls, held = [], []
    for cg_steps in (1, 2, 3):
        task = cost.Counted(cost.bowl)
        how = {"task_lr": 0.1, "query": cost.query, "strongly_convex": True}
        problem, meta, posed = problem_of(task, cost.START, n_steps=5, **how)
        estimators.get("implicit")(cg_steps=cg_steps, cg_tolerance=0.0)(problem, meta, [posed])
        calls.append(task.calls)
    run.that(
        [b - a for a, b in pairwise(calls)] == [cg_cost] * 2, f"evaluations per CG step: {calls}"
    )
    for n_steps in (3, 7):
        rough = estimators.get("implicit")(tolerance=0.0, cg_steps=1)
        held.append(cost.growth_of_held_tensors(rough, n_steps, strongly_convex=True))
    run.that(held[0] == held[1], f"tensors held by AID at K = 3 and 7: {held}")
    kept = [
        cost.growth_of_held_tensors(estimators.get("stepwise")(), n_steps) for n_steps in (3, 7)
    ]
    run.that(kept[1] - kept[0] == 4, f"stepwise holds one state more per step: {kept}")
    run.quantity(
        "states held per step, stepwise", (kept[1] - kept[0]) // 4, meaning="memory K states"
    )
    run.quantity(
        "evaluations per CG step, AID", calls[1] - calls[0], meaning="n_CG Hessian-vector products"
    )


other_estimators.mutant("the exact gradient passed off as first order", slug="unrolled")
other_estimators.mutant("two evaluations per CG step", cg_cost=2)


@claim.check("exact", part="recursion")
def hand_written_adjoint(run: Run, *, slug: str = "unrolled", sign: float = -1.0) -> None:
    """The recursion with dense Hessians equals the library's unrolled and stepwise gradients to
    1e-12, K = 1..8.
    """
    for k in (1, 3, 8):
        by_hand = cost.hand_recursion(k, sign=sign)
        for name in (slug, "stepwise"):
            run.close(
                cost.meta_gradient(estimators.get(name)(), k),
                by_hand,
                tolerance=1e-12,
                what=f"{name} at K = {k}",
            )


hand_written_adjoint.mutant("FOMAML passed off as exact", slug="first_order")
hand_written_adjoint.mutant("+ alpha H", sign=1.0)


@claim.check("symbolic", part="accuracy")
def fixed_accuracy(run: Run, *, power: int = 1) -> None:
    """(1 - 1/kappa)^K = eps at K = log(1/eps)/(-log(1 - 1/kappa)): K/(kappa log(1/eps)) -> 1,
    attained by mu/2 x^2.
    """
    kappa, eps = sp.Symbol("kappa", positive=True), sp.Symbol("epsilon", positive=True)
    steps = sp.log(eps) / sp.log(1 - 1 / kappa)
    ratio = sp.limit(steps / (kappa**power * sp.log(1 / eps)), kappa, sp.oo)
    run.quantity(
        "K/(kappa log(1/eps)), kappa -> oo",
        sp.simplify(sp.expand_log(ratio)),
        theory=1,
        meaning="Theta(kappa log 1/eps)",
    )


fixed_accuracy.mutant("sqrt-free kappa^2", power=2)


@claim.check("certificate", part="smoothness")
def recursion_of_constants(run: Run, *, inner_power: int = 2) -> None:
    """c_{k+1} = a c_k + alpha rho a^{2k}, c_0 = 0, is solved by alpha rho a^{k-1}(a^k - 1)/(a - 1);
    at a = 1 by alpha rho k.
    """
    a, k, scale = sp.symbols("a k s", positive=True)
    c = scale * a ** (k - 1) * (a**k - 1) / (a - 1)
    run.zero(c.subs(k, 0), "c_0")
    run.zero(
        sp.powsimp(
            sp.expand(sp.simplify(c.subs(k, k + 1) - a * c - scale * a ** (inner_power * k)))
        ),
        "the recursion",
    )
    run.zero(sp.limit(c.subs(k, 5), a, 1) - 5 * scale, "a = 1: linear in K")


recursion_of_constants.mutant("a^k for a^{2k}", inner_power=1)


def measured_smoothness(
    *, a: float, big_lq: float, slope: float, alpha: float, rho: float, n_steps: int
) -> float:
    """Slope at 0+ of the library's meta-gradient for T(x) = a x - alpha rho x^2/2, l = -G x + L_l
    x^2/2.
    """

    def task(v: Tensor) -> Tensor:
        return ((1 - a) / (2 * alpha) * v**2 + rho / 6 * v**3).sum()

    gradients = []
    for start in (0.0, 1e-7):
        problem, meta, posed = problem_of(
            task,
            vector(start),
            task_lr=alpha,
            n_steps=n_steps,
            query=lambda v: (-slope * v + big_lq / 2 * v**2).sum(),
        )
        gradients.append(
            float(estimators.get("unrolled")()(problem, meta, [posed]).grads["anchor.phi"])
        )
    return (gradients[1] - gradients[0]) / 1e-7


@claim.check("exact", part="smoothness")
def smoothness_attained(run: Run, *, bound: Callable[..., float] = cost.smoothness) -> None:
    """The library's F'' at the fixed point reaches the bound for a = 0.8, 1, 1.25 and K = 1, 3,
    6.
    """
    for a in (0.8, 1.0, 1.25):
        for k in (1, 3, 6):
            how = {"a": a, "big_lq": 0.7, "slope": 1.3, "alpha": 0.5, "rho": 0.9, "n_steps": k}
            ratio = measured_smoothness(**how) / bound(**how)
            name = f"F''/bound, a={a}, K={k}"
            run.quantity(
                name,
                ratio,
                tolerance=1e-5,
                theory=1.0,
                meaning="smoothness of the K-step objective, attained",
            )


smoothness_attained.mutant(
    "a^{2K} dropped", bound=lambda *, big_lq, **how: big_lq + cost.smoothness(big_lq=0.0, **how)
)
smoothness_attained.mutant(
    "a^K for a^{K-1}",
    bound=lambda *, a, n_steps, **how: a * cost.smoothness(a=a, n_steps=n_steps, **how),
)


@claim.check("experiment", part="work")
def measured_time(run: Run, *, estimator: type[Estimator] | None = None) -> None:
    """CPU time: steps 5..16 take about three times as long as steps 1..4 (15 for K^2); the
    slope is positive with its interval. No time enters the ledger.
    """
    kind = (estimators.get("unrolled") if estimator is None else estimator)()
    torch.set_num_threads(1)
    steps = (0, 2, 4, 8, 16)
    seconds = dict(zip(steps, (cost.cpu_seconds(kind, k) for k in steps), strict=True))
    ratio = (seconds[16] - seconds[4]) / (seconds[4] - seconds[0])
    run.at_most(ratio, 6.0, what="time of 12 further steps over the first 4")
    run.above(ratio, 1.5, what="time of 12 further steps over the first 4")
    found = cost.line(steps, list(seconds.values()))
    run.above(found.slope - found.slope_error, 0.0, what="time per step, with its interval")


measured_time.mutant("the inner loop run again inside the outer one", estimator=cost.Rerun)


@claim.check("experiment", part="memory")
def measured_memory(run: Run, *, kinds: dict[str, str] | None = None) -> None:
    """Peak bytes at K = 1..16, lines with 95 % intervals: one state a step for stepwise and first
    order, more for unrolled.
    """
    steps = (1, 2, 4, 8, 16)
    for slug in ("stepwise", "first_order", "unrolled"):
        kind = estimators.get((kinds or {}).get(slug, slug))
        found = cost.line(steps, [cost.peak_states(kind(), k) for k in steps])
        run.at_most(found.slope_error, 0.01, what=f"half-width of the slope of {slug}")
        meaning = "in states; the 95 % interval is narrower than 0.01"
        if slug == "unrolled":
            run.above(found.slope, 2.0, what="states per step of unrolled, with a graph for each")
            run.quantity("memory per step, unrolled", found.slope, tolerance=1.0, meaning=meaning)
        else:
            run.quantity(
                f"memory per step, {slug}", found.slope, tolerance=0.02, theory=1.0, meaning=meaning
            )


measured_memory.mutant("unrolled passed off as stepwise", kinds={"stepwise": "unrolled"})
measured_memory.mutant("unrolled passed off as first order", kinds={"first_order": "unrolled"})


@claim.check("exact", part="smoothness")
def stated_smoothness(run: Run, *, stated: Formula) -> None:
    """The library's F'' at the fixed point against the printed bound: attained for a = 0.8 and
    1.25, and far below it on the other side of the fixed point.
    """
    how = {"big_lq": 0.7, "slope": 1.3, "alpha": 0.5, "rho": 0.9}
    names = {r"L_\ell": 0.7, r"G_\ell": 1.3, r"\alpha": 0.5, r"\rho": 0.9}
    for a in (0.8, 1.25):
        for k in (1, 3):
            at = {**names, "a": a, "K": k}
            found = measured_smoothness(a=a, n_steps=k, **how)
            run.attained(stated, {**at, "L_F": found}, tolerance=1e-5)
            other = measured_smoothness(a=a, n_steps=k, **{**how, "rho": -0.9})
            run.stands(stated, {**at, "L_F": other}, slack=1e-6)
