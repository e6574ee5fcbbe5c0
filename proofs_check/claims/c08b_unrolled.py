r"""C08b: the same statement for the unrolled gradient, which is what MAML uses. False; what holds
has an extra factor K.

*Counterexample.* $\theta$ the initialisation: distance 0 after one step, yet
$\nabla_\theta\ell(\hat\phi)=(0.9^K,0)\ne0$.

*Proof of the amendment.* $J_k=\partial_\theta\phi^k$, $J_*=\partial_\theta\phi^*$:
$J_k-J_*=(I-\alpha H_{k-1})(J_{k-1}-J_*) -\alpha(H_{k-1}-H_*)J_*-\alpha(G_{k-1}-G_*)^\top$ with
$\|J_*\|\le J/\mu$ and $\|\phi^{k-1}-\phi^*\|\le q^{k-1}D$. Since $\sum_{k\le
K}q^{K-k}q^{k-1}=Kq^{K-1}$, the bound on $E_K$ follows; the error is
$\nabla_\theta\hat\ell-\nabla_\theta\ell +J_K^\top\hat b-J_*^\top b$.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import sympy as sp
import torch
from hypothesis import strategies as st
from torch import Tensor

from mdtheory import descend
from proofs_check.claim import Claim, Formula, Statement, Verdict
from proofs_check.run import Run
from proofs_check.tools import hypergradient as hg
from proofs_check.tools.models import hessian_of, vector
from proofs_check.tools.strategies import for_all, seeds

_MU, _RHO, _TAU, _J, _ALPHA = sp.symbols(r"\mu \rho \tau J \alpha", positive=True)
_Q, _D, _E0 = sp.symbols("q D E_0", nonnegative=True)
_K = sp.Symbol("K", integer=True, positive=True)
JACOBIAN = Formula(
    left=sp.Symbol("E_K"),
    relation="<=",
    right=_Q**_K * _E0 + _ALPHA * (_RHO * _J / _MU + _TAU) * _K * _Q ** (_K - 1) * _D,
    text=r"E_K=\|\partial_\theta(\phi^K-\phi^*)\|,\ {formula}",
)
_LQ, _DIRECT, _BIG = sp.symbols(r"L_\ell L' M", positive=True)
_FAR, _GAP, _P, _THETA = sp.symbols(r"e_K E_K p \theta", nonnegative=True)
ERROR = Formula(
    left=sp.Symbol(r"\text{error}"),
    relation="<=",
    right=_DIRECT * _FAR + _J * _LQ / _MU * _FAR + (_BIG + _LQ * _FAR) * _GAP,
    text=r"{formula},\ e_K=\|\phi^K-\phi^*\|",
)
TIGHT = Formula(
    left=sp.Symbol(r"\lim_{D\to0}\text{error}/e_K"),
    relation="==",
    right=_ALPHA * _RHO * _K / (_MU * _Q),
    text=r"f={task},\ \partial\phi^0={start},\ \ell=p:\ E_K\sim{jacobian},\ {formula}",
    terms={
        "task": _MU / 2 * _P**2 + _RHO / 6 * _P**3 - _THETA * _P,
        "start": 1 / _MU,
        "jacobian": _ALPHA * _RHO / _MU * _K * _Q ** (_K - 1) * _D,
    },
)

claim = Claim(
    id="C08b",
    title="Hypergradient error is linear in the distance: unrolled, as in MAML",
    source="Bilevel optimization for meta-learning, accuracy versus complexity (Zhang et al. 2023)",
    printed=Statement(
        then=(
            r"\|\nabla_\theta\ell(\hat\phi_t(\theta))-\nabla_\theta\ell(\bar\phi_t(\theta))\|\le C"
            r"\|\hat\phi_t-\bar\phi_t\|"
        )
    ),
    amended=Statement(
        given={
            "inner": (
                r"f(\cdot,\theta)\ \mu\text{-s.c.},\ L\text{-smooth},\ \alpha\le1/L,\ q=1-"
                r"\alpha\mu,\ D=\|\phi^0-\phi^*\|"
            ),
            "smooth": (
                r"\text{Lipschitz constants }\rho,\tau,L_\ell,L'\text{ and }J,M\text{ as in "
                r"C08a}"
            ),
        },
        then=ERROR.core + r",\quad " + JACOBIAN.core,
        parts={"jacobian": JACOBIAN, "error": ERROR, "tight": TIGHT},
        scopes={"tight": "limit"},
    ),
    expected=Verdict("FALSE", "PROVED"),
    remark="Not linear with a K-free constant: delta log(1/delta) in the distance delta.",
)


@claim.check("counterexample", about="printed")
def zero_distance_nonzero_error(
    run: Run, *, estimator: str = "unrolled", flat: float = 0.1
) -> None:
    """f = (0.1 x1^2 + x2^2)/2, alpha = 1, theta = (0, 2), l = x1 + x2: phi_hat = phi_bar = 0,
    gradient (0.9^K, 0), not 0.
    """
    weights, start = vector(flat, 1.0), vector(0.0, 2.0)

    def task(v: Tensor, t: Tensor) -> Tensor:
        return 0.5 * (weights * v) @ v + 0.0 * t.sum()

    for k in (1, 2, 5, 10):
        end = descend(lambda v: task(v, v), start, task_lr=1.0, n_steps=k)[-1]
        run.close(end, torch.zeros(2), tolerance=0.0, what="the distance to phi_bar = 0")
        _, found = hg.unrolled_gradients(
            task,
            lambda v, t: v.sum() + 0.0 * t.sum(),
            start,
            vector(0.0),
            alpha=1.0,
            n_steps=k,
            estimator=estimator,
        )
        run.close(found, vector(0.9**k, 0.0), tolerance=1e-14, what=f"meta-gradient at K = {k}")
        if k in (1, 10):
            run.quantity(
                f"gradient error at distance 0, K={k}",
                float(found[0]),
                tolerance=1e-12,
                theory=0.9**k,
                meaning="0.9^K",
            )


zero_distance_nonzero_error.mutant("first-order gradient", estimator="first_order")
zero_distance_nonzero_error.mutant("a well-conditioned task", flat=1.0)


@claim.check("certificate", part="jacobian")
def recursion(run: Run, *, transported: int = 1) -> None:
    """J_k - J_* as an identity of non-commuting symbols (J_* from H J + G^T = 0), and the sum of
    the remainders.
    """
    a, h, hs, gs, g, j, js = sp.symbols("a H Hs Gs G J Js", commutative=False)
    step = j - a * (h * j + g)  # J_k = (I - a H) J_{k-1} - a G^T
    claimed = (j - js) - a * h * (j - js) - transported * a * (h - hs) * js - a * (g - gs)
    rest = sp.expand(step - js - claimed).subs(
        a * hs * js, -a * gs
    )  # stationarity: H_* J_* = -G_*^T
    run.that(sp.expand(rest) == 0, f"J_k - J_*: {rest} is left over")
    q, k, n = sp.symbols("q k K", positive=True)
    total = sp.summation(sp.powsimp(q ** (n - k) * q ** (k - 1)), (k, 1, n))
    run.zero(total - n * q ** (n - 1), "sum of q^{K-k} q^{k-1}")


recursion.mutant("the term with H - H_* dropped", transported=0)


@claim.check("certificate", part="error")
def assembled(run: Run, *, cross: int = 1) -> None:
    """J_K^T b_hat - J_*^T b = (J_K - J_*)^T b_hat + J_*^T (b_hat - b); |b_hat| <= M + L_l e."""
    jk, js, bh, b = sp.symbols("Jk Js bh b", commutative=False)
    run.that(
        sp.expand(jk * bh - js * b - cross * (jk - js) * bh - js * (bh - b)) == 0,
        "the product rule of differences",
    )
    m, big_lq, e, big_e, j, mu, direct = sp.symbols("M Ll e E J mu Lp", positive=True)
    run.zero(
        direct * e
        + (j / mu) * (big_lq * e)
        + cross * (m + big_lq * e) * big_e
        - hg.unrolled_bound(_symbols(j, mu, m, big_lq, direct), e=e, jacobian=big_e),
        "the bound that the library is held to",
    )


def _symbols(j: sp.Expr, mu: sp.Expr, m: sp.Expr, big_lq: sp.Expr, direct: sp.Expr) -> object:
    """The constants of a problem as symbols, with M given."""
    return type("Symbols", (), {"j": j, "mu": mu, "m": m, "big_lq": big_lq, "direct": direct})


assembled.mutant("(M + Ll e) E dropped", cross=0)


def without_k(b: hg.Bilevel, *, n_steps: int, **how: float) -> float:
    """The bound without its factor K."""
    return hg.jacobian_bound(b, n_steps=n_steps, **how) / n_steps


@claim.check("property", part="jacobian")
def library_jacobian(
    run: Run, *, limit: Callable[..., float] = hg.jacobian_bound, estimator: str = "unrolled"
) -> None:
    """Random strongly convex problems: the library's unrolled Jacobian by theta against the bound,
    K up to 6.
    """

    @for_all(
        seed=st.integers(0, 40),
        direction=seeds(),
        n_steps=st.integers(1, 6),
        share=st.floats(0.2, 1.0),
    )
    def _(seed: int, direction: int, n_steps: int, share: float) -> None:
        b, start, alpha = _start(seed, direction, share)
        columns = []
        for query in [lambda v, t, i=i: v[i] + 0.0 * t.sum() for i in range(3)]:
            columns.append(
                hg.unrolled_gradients(
                    b.task, query, start, b.theta, alpha=alpha, n_steps=n_steps, estimator=estimator
                )[0]
            )
        jacobian, best = torch.stack(columns), minimiser_jacobian(b)
        found, first = (
            float(torch.linalg.matrix_norm(value, 2)) for value in (jacobian - best, best)
        )
        distance = float(torch.linalg.vector_norm(start - b.best))
        bound = limit(b, alpha=alpha, n_steps=n_steps, distance=distance, start=first)
        run.at_most(found, bound, what=f"E_K at K = {n_steps}", slack=1e-10)


def _start(seed: int, direction: int, share: float) -> tuple[hg.Bilevel, Tensor, float]:
    b = hg.random_bilevel(seed)
    shift = torch.tensor(np.random.default_rng(direction).standard_normal(3))
    return b, b.best + 0.3 * shift, share / b.big_l


def minimiser_jacobian(b: hg.Bilevel) -> Tensor:
    """d phi*/d theta = -H^{-1} G^T. shape: (d, p)"""
    hessian = hessian_of(lambda v: b.task(v, b.theta))(b.best)
    mixed = torch.func.jacrev(lambda t: torch.func.grad(b.task)(b.best, t))(b.theta)
    return -torch.linalg.solve(hessian, mixed)


library_jacobian.mutant(
    "a hundredth of the bound", limit=lambda b, **how: hg.jacobian_bound(b, **how) / 100
)
library_jacobian.mutant("first-order gradient", estimator="first_order")


@claim.check("property", part="error")
def library_error(run: Run, *, share_of_m: float = 1.0) -> None:
    """The library's whole unrolled hypergradient against the true one (C08a's estimator at
    phi*).
    """

    @for_all(seed=st.integers(0, 40), direction=seeds(), n_steps=st.integers(1, 12))
    def _(seed: int, direction: int, n_steps: int) -> None:
        b, start, alpha = _start(seed, direction, 1.0)
        truth = hg.implicit_gradient(b.task, b.query, b.best, b.theta)
        found, _ = hg.unrolled_gradients(
            b.task, b.query, start, b.theta, alpha=alpha, n_steps=n_steps
        )
        end = descend(lambda v: b.task(v, b.theta), start, task_lr=alpha, n_steps=n_steps)[-1]
        e, first = (
            float(torch.linalg.vector_norm(end - b.best)),
            float(torch.linalg.matrix_norm(minimiser_jacobian(b), 2)),
        )
        distance = float(torch.linalg.vector_norm(start - b.best))
        jacobian = hg.jacobian_bound(
            b, alpha=alpha, n_steps=n_steps, distance=distance, start=first
        )
        bound = hg.unrolled_bound(b, e=e, jacobian=share_of_m * jacobian)
        run.at_most(
            float(torch.linalg.vector_norm(found - truth)),
            bound,
            what=f"error at K = {n_steps}",
            slack=1e-10,
        )


library_error.mutant("as if E_K were 0: linear in the distance", share_of_m=0.0)


@claim.check("exact", part="tight")
def attained(
    run: Run, *, limit: Callable[..., float] = hg.jacobian_bound, estimator: str = "unrolled"
) -> None:
    """The attaining family with d phi^0 = 1/mu at D = 1e-7: both ratios reach their limits for K =
    1, 3, 10.
    """
    mu, rho, alpha, distance = 0.5, 0.8, 0.9, 1e-7
    q = 1 - alpha * mu

    def task(p: Tensor, t: Tensor) -> Tensor:
        return (0.5 * mu * p**2 + rho / 6 * p**3 - t * p).sum()

    def query(p: Tensor, t: Tensor) -> Tensor:
        return p.sum() + 0.0 * t.sum()

    family = hg.Bilevel(task, query, vector(0.0), vector(0.0), mu, 1.0, rho, 0.0, 1.0, 0.0, 0.0)
    for k in (1, 3, 10):
        by_theta, by_start = hg.unrolled_gradients(
            task, query, vector(distance), vector(0.0), alpha=alpha, n_steps=k, estimator=estimator
        )
        error = abs(float(by_theta + by_start / mu) - 1 / mu)
        ratio = error / limit(family, alpha=alpha, n_steps=k, distance=distance, start=0.0)
        run.quantity(
            f"E_K/bound, attaining family, K={k}",
            ratio,
            tolerance=1e-5,
            theory=1.0,
            meaning="tends to 1 as D -> 0",
        )
        run.at_most(ratio, 1.0, what="validity", slack=1e-7)
        end = float(
            descend(lambda p: task(p, vector(0.0)), vector(distance), task_lr=alpha, n_steps=k)[-1]
        )
        slope = alpha * rho / (mu * q) * k
        run.quantity(
            f"error/distance at mu=.5,rho=.8,alpha=.9, K={k}",
            error / end,
            tolerance=1e-4,
            theory=slope,
            meaning="alpha rho K/(mu q): grows with K",
        )


attained.mutant("the factor K dropped", limit=without_k)
attained.mutant("first-order gradient", estimator="first_order")


@claim.check("symbolic", part="tight", covers="limit")
def first_order_in_the_distance(run: Run, *, shift: int = 1) -> None:
    """To first order in D: p_k = q^k D and J_k - 1/mu = -(alpha rho/mu) k q^{k-1} D, by induction
    in a symbolic k; so both ratios tend to what is printed, for every K.
    """
    k = sp.Symbol("k", integer=True, nonnegative=True)
    q = sp.Symbol("q", positive=True)

    def moved(n: sp.Expr) -> sp.Expr:
        return -(_ALPHA * _RHO / _MU) * n * q ** (n - shift)

    step = q * moved(k) - _ALPHA * _RHO * q**k / _MU  # J_{k+1} = (1 - a(mu + rho p)) J_k + a
    run.zero(moved(k).subs(k, 0), "start")
    run.zero(sp.powsimp(sp.expand(step - moved(k + 1))), "from k to k + 1")
    run.zero(sp.simplify(-moved(k) / q**k - _ALPHA * _RHO / (_MU * q) * k), "error over distance")


first_order_in_the_distance.mutant("q^k for q^{k-1}", shift=0)


@claim.check("exact", part="jacobian")
def stated_jacobian(run: Run, *, stated: Formula) -> None:
    """The attaining family on the library's unrolled gradient against the printed bound: attained
    at D = 1e-7, and strict from a start that does not depend on theta.
    """
    mu, rho, alpha, distance = 0.5, 0.8, 0.9, 1e-7
    for k in (1, 3):
        by_theta, by_start = hg.unrolled_gradients(
            lambda p, t: (0.5 * mu * p**2 + rho / 6 * p**3 - t * p).sum(),
            lambda p, t: p.sum() + 0.0 * t.sum(),
            vector(distance),
            vector(0.0),
            alpha=alpha,
            n_steps=k,
        )
        at = {r"\mu": mu, r"\rho": rho, r"\tau": 0, "J": 1, r"\alpha": alpha, "q": 1 - alpha * mu}
        at |= {"D": distance, "K": k}
        for start, tight in ((1 / mu, True), (0.0, k == 1)):
            error = abs(float(by_theta + by_start * start) - 1 / mu)
            here = {**at, "E_K": error, "E_0": abs(start - 1 / mu)}
            run.stands(stated, here, slack=1e-12)
            if tight:
                run.attained(stated, here, tolerance=1e-5)
    run.stands(stated, {**at, "E_K": 0.0, "E_0": 2.0})


@claim.check("exact", part="error")
def stated_error(run: Run, *, stated: Formula) -> None:
    """One dimension, all terms of one sign, in rationals: J_K b_hat - J_* b plus the direct part
    attains the printed bound; with the direct part against them it lies below.
    """
    j, mu, big_lq, direct, m = 2, sp.Rational(1, 2), sp.Rational(3, 4), sp.Rational(1, 5), 3
    for e, big_e in ((sp.Rational(1, 3), sp.Rational(1, 4)), (sp.Rational(1, 7), sp.Integer(2))):
        for sign in (1, -1):
            moved = (j / mu + big_e) * (m + big_lq * e) - j / mu * m + sign * direct * e
            at = {stated.left: moved, "J": j, r"\mu": mu, r"L_\ell": big_lq, "L'": direct, "M": m}
            at |= {"e_K": e, "E_K": big_e}
            run.stands(stated, at)
            if sign > 0:
                run.attained(stated, at, tolerance=1e-12)


@claim.check("symbolic", part="tight", covers="limit")
def stated_limits(run: Run, *, stated: Formula) -> None:
    """For the printed f and start: J_k - 1/mu = minus the printed E_k to first order in D, by
    induction in a symbolic k, and over p_k = q^k D it is the printed limit.
    """
    task, q = stated.terms["task"], sp.Symbol("q", positive=True)
    run.zero(sp.diff(task, _P, 2).subs(_P, 0) - _MU, "curvature at 0")
    run.zero(sp.diff(task, _P, 3) - _RHO, "its slope")
    run.zero(sp.diff(task, _P, _THETA) + 1, "the mixed derivative")
    run.zero(stated.terms["start"] * sp.diff(task, _P, 2).subs(_P, 0) - 1, "J_* at the start")
    k = sp.Symbol("k", integer=True, nonnegative=True)
    far = stated.terms["jacobian"].subs({_K: k, _Q: q})
    run.zero(far.subs(k, 0), "start")
    step = q * far + _ALPHA * _RHO * q**k * _D / _MU
    run.zero(sp.powsimp(sp.expand(step - far.subs(k, k + 1))), "from k to k + 1")
    limit = stated.right.subs({_K: k, _Q: q})
    run.zero(sp.simplify(far / (q**k * _D) - limit), "error over distance")
