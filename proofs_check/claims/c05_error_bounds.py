r"""C05, second file: how far GD on the loss is from GD on its Taylor model, and preconditioned GD.

The proofs stand in the first file, with the statement.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import sympy as sp
import torch
from hypothesis import strategies as st

from mdtheory import descend
from mdtheory.geometry.base import geometries
from proofs_check.claim import Formula
from proofs_check.claims.c05_implicit_prior import TRUE_LOSS, claim
from proofs_check.run import Run
from proofs_check.tools import prior
from proofs_check.tools.models import vector
from proofs_check.tools.strategies import for_all, hessians, seeds, vectors


@claim.check("certificate", part="convex")
def convex_bound(
    run: Run, *, constant: Callable[[sp.Expr], sp.Expr] = prior.error_constant
) -> None:
    """Gradient norms do not increase (multipliers on co-coercivity), and sum_{k<K} alpha rho/2
    (alpha k G)^2 is the bound.
    """
    alpha, rho, big_g, n, k, big_l = sp.symbols("alpha rho G K k L", positive=True)
    d, g = sp.symbols("d g")  # d = g_+ - g; quadratic forms, so scalars stand for vectors
    cocoercive = d * (-alpha * g) - d**2 / big_l  # >= 0
    lost = g**2 - (g + d) ** 2 - (2 / alpha) * cocoercive - (2 / (alpha * big_l) - 1) * d**2
    run.zero(lost, "|g|^2 - |g_+|^2 = (2/alpha) * cocoercivity + (2/(alpha L) - 1)|d|^2")
    total = sp.summation(alpha * rho / 2 * (alpha * k * big_g) ** 2, (k, 0, n - 1))
    run.zero(total - rho * alpha**3 * big_g**2 * constant(n), "the sum of all remainders")
    for steps in (2, 3, 4, 5):
        run.quantity(
            f"K(K-1)(2K-1)/12 at K={steps}",
            sp.nsimplify(constant(sp.Integer(steps))),
            meaning="error constant",
        )
    run.quantity(
        "leading coefficient of the error constant",
        sp.limit(constant(n) / n**3, n, sp.oo),
        meaning="alpha^3 K^3 rho G^2/6",
    )


convex_bound.mutant("K for K - 1", constant=lambda n: n * (n + 1) * (2 * n + 1) / 12)
convex_bound.mutant("K^3/6", constant=lambda n: n**3 / 6)


@claim.check("exact", part="convex")
def convex_bound_attained(run: Run, *, bound: Callable[..., float] = prior.convex_error) -> None:
    """The library's GD: equality at K = 2 on the cubic, ratio -> 1 for K = 3, 4, 5 as alpha L K ->
    0, and never above 1.
    """
    rho = 0.3
    f = prior.cubic(-1.0, 0.5, rho, 0.9)
    ratio = prior.deviation(f, vector(0.0), alpha=0.9, n_steps=2) / bound(
        rho=rho, alpha=0.9, slope=1.0, n_steps=2
    )
    run.quantity(
        "deviation/bound, cubic, K=2",
        ratio,
        tolerance=1e-12,
        theory=1.0,
        meaning="equality on the cubic",
    )
    for steps in (3, 4, 5):
        f = prior.cubic(-1.0, 0.0, 1.0, 1.0)
        ratio = prior.deviation(f, vector(0.0), alpha=1e-4, n_steps=steps) / bound(
            rho=1.0, alpha=1e-4, slope=1.0, n_steps=steps
        )
        run.at_most(ratio, 1.0, what=f"validity at K = {steps}", slack=1e-9)
        run.quantity(
            f"deviation/bound, cubic, alpha L K -> 0, K={steps}",
            ratio,
            tolerance=1e-4,
            theory=1.0,
            meaning="tight",
        )


def for_other_steps(shift: int) -> Callable[..., float]:
    """The convex bound with K moved by ``shift``."""
    return lambda *, n_steps, **how: prior.convex_error(n_steps=n_steps + shift, **how)


convex_bound_attained.mutant("exponent K + 1", bound=for_other_steps(1))
convex_bound_attained.mutant(
    "half the constant", bound=lambda **how: 0.5 * prior.convex_error(**how)
)


@claim.check("property", part="convex")
def convex_bound_on_logistic(run: Run, *, bound: Callable[..., float] = prior.convex_error) -> None:
    """Random logistic losses with their own L and rho, alpha <= 1/L, K <= 8."""

    @for_all(seed=seeds(), share=st.floats(0.1, 1.0), n_steps=st.integers(2, 8))
    def _(seed: int, share: float, n_steps: int) -> None:
        rng = np.random.default_rng(seed)
        f, big_l, rho = prior.logistic(rng.standard_normal((4, 2)))
        anchor, alpha = torch.tensor(rng.standard_normal(2)), share / big_l
        slope = float(torch.linalg.vector_norm(torch.func.grad(f)(anchor)))
        limit = bound(rho=rho, alpha=alpha, slope=slope, n_steps=n_steps)
        run.at_most(
            prior.deviation(f, anchor, alpha=alpha, n_steps=n_steps),
            limit,
            what="deviation",
            slack=1e-14,
        )


convex_bound_on_logistic.mutant(
    "alpha^3 rho G^2 / 100, whatever K",
    bound=lambda *, n_steps, **how: prior.convex_error(n_steps=2, **how) / 50,
)


@claim.check("certificate", part="strong")
def strong_bound(run: Run, *, power: int = 3) -> None:
    """The sum is (1 - (1 - alpha mu)^K) rho G^2/(2 mu^3); the library approaches it as K grows and
    rho falls.
    """
    q, mu, rho, big_g, k, n = sp.symbols("q mu rho G k K", positive=True)
    alpha = (1 - q) / mu
    total = sp.summation(q ** (n - 1 - k) * alpha * rho / 2 * (big_g / mu) ** 2, (k, 0, n - 1))
    run.zero(
        sp.simplify(total - (1 - q**n) * rho * big_g**2 / (2 * mu**power)),
        "geometric sum of the remainders",
    )
    constant = sp.limit(total.subs(q, sp.S.Half), n, sp.oo) * mu**power / (rho * big_g**2)
    run.quantity(
        "constant of rho G^2/mu^3",
        sp.simplify(constant),
        theory=0.5,
        meaning="all K, strongly convex",
    )
    f = prior.cubic(-1.0, 1.0, 1e-3, 2.0)
    gap = prior.deviation(f, vector(0.0), alpha=0.9, n_steps=40)
    run.at_most(gap, prior.strong_error(rho=1e-3, mu=1.0, slope=1.0), what="validity")
    ratio = gap / prior.strong_error(rho=1e-3, mu=1.0, slope=1.0)
    run.quantity(
        "deviation/(rho G^2/(2 mu^3)), K=40",
        ratio,
        tolerance=3e-3,
        theory=1.0,
        meaning="tight as rho -> 0, K -> oo",
    )


strong_bound.mutant("mu^2", power=2)


@claim.check("certificate", part="nonconvex")
def nonconvex_bound(run: Run, *, bound: Callable[..., float] = prior.nonconvex_error) -> None:
    """x_{k+1} = x_k + alpha (G + L x_k) gives the travel; the library attains it at curvature -L as
    rho -> 0.
    """
    alpha, big_l, big_g, k = sp.symbols("alpha L G k", positive=True)
    travel = big_g * ((1 + alpha * big_l) ** k - 1) / big_l
    run.zero(
        travel + alpha * (big_g + big_l * travel) - travel.subs(k, k + 1), "how far GD can travel"
    )
    for steps in (2, 4, 6):
        f = prior.cubic(-1.0, -1.0, 1e-6, 100.0)
        limit = bound(rho=1e-6, alpha=0.5, slope=1.0, n_steps=steps, big_l=1.0)
        ratio = prior.deviation(f, vector(0.0), alpha=0.5, n_steps=steps) / limit
        run.quantity(
            f"deviation/bound at curvature -L, K={steps}",
            ratio,
            tolerance=1e-3,
            theory=1.0,
            meaning="tight as rho -> 0",
        )
        run.at_most(ratio, 1.0, what="validity", slack=1e-8)


nonconvex_bound.mutant(
    "the convex bound on a nonconvex loss", bound=lambda *, big_l, **how: prior.convex_error(**how)
)


@claim.check("certificate", part="true_loss", covers="exact")
def true_loss_bound(run: Run, *, half: float = 0.5) -> None:
    """The true loss inside the argmin: |R(psi)|/m with |R| <= rho/2 |S_K g|^2; tight as rho -> 0,
    and not zero at K = 1.
    """
    for steps in (1, 3):
        rho, alpha, eta = 1e-4, 0.5, 1.0
        f = prior.cubic(-1.0, eta, rho, 2.0)
        lam = float(prior.precision(np.array([[eta]]), alpha, steps)[0, 0])
        model = float(
            descend(
                prior.quadratic([[eta]], [-1.0], [0.0]), vector(0.0), task_lr=alpha, n_steps=steps
            )[-1]
        )
        penalised = descend(
            lambda phi, w=lam, f=f: f(phi) + 0.5 * w * phi @ phi,
            vector(0.0),
            task_lr=0.5 / (eta + lam),
            n_steps=60,
        )[-1]
        ratio = abs(float(penalised) - model) / (half * rho * model**2 / (eta + lam))
        run.at_most(ratio, 1.0, what="validity", slack=1e-9)
        run.quantity(
            f"|m_hat - psi|/bound, K={steps}",
            ratio,
            tolerance=1e-3,
            theory=1.0,
            meaning="extra term, tight; K=1 not exact",
        )


true_loss_bound.mutant("rho/4", half=0.25)
true_loss_bound.mutant("rho", half=1.0)


@claim.check("symbolic", part="true_loss")
def residual_over_modulus(run: Run, *, share: sp.Expr = sp.S.One) -> None:
    """d = S_K g: the gradient of f + |.|_Lambda^2/2 at psi is R, since (H + Lambda) S_K = I; |R| <=
    int_0^1 rho t |d| dt |d|; and m |x|^2 <= |R| |x| for x = m_hat - psi, solved, is the bound.
    """
    h, w, s, g, r = sp.symbols("H W S g R", commutative=False)
    gradient = sp.expand(g - h * s * g + r - w * s * g)  # psi - theta = -S g
    left = gradient.subs(h * s * g, g - w * s * g)
    run.that(sp.expand(left - r) == 0, f"the gradient at psi: {sp.expand(left)}")
    t, rho, d, m, x = sp.symbols("t rho d m x", positive=True)
    remainder = sp.integrate(share * rho * t * d, (t, 0, 1)) * d
    (largest,) = sp.solve(m * x**2 - remainder * x, x)
    names = {one.name: one for one in TRUE_LOSS.right.free_symbols}
    at = {names[r"\rho"]: rho, names[r"\|S_Kg\|"]: d, names["m"]: m}
    run.zero(largest - TRUE_LOSS.right.subs(at), "the largest distance")


residual_over_modulus.mutant("twice the remainder", share=sp.Integer(2))


@claim.check("exact", part="pgd")
def preconditioned(
    run: Run,
    *,
    conjugated: Callable[[sp.Matrix, sp.Matrix], sp.Matrix] = lambda inner, root: (
        root * inner * root
    ),
) -> None:
    """With phi = P^{1/2} psi the inner sum is conjugated by P^{1/2}: alpha sum (I - alpha P H)^{-j}
    P, exactly, K = 1, 2, 3.
    """
    root, hessian, alpha = (
        sp.Matrix([[2, 1], [1, 3]]) / 4,
        sp.Matrix([[1, 2], [2, -1]]) / 3,
        sp.Rational(1, 2),
    )
    metric, eye = root * root, sp.eye(2)
    for steps in (1, 2, 3):
        inner = sum(
            (alpha * (eye - alpha * root * hessian * root) ** -j for j in range(1, steps + 1)),
            sp.zeros(2),
        )
        outer = sum(
            (alpha * (eye - alpha * metric * hessian) ** -j * metric for j in range(1, steps + 1)),
            sp.zeros(2),
        )
        run.zero(conjugated(inner, root) - outer, f"K = {steps}")


preconditioned.mutant("no conjugation", conjugated=lambda inner, root: inner)


@claim.check("property", part="pgd")
def library_metasgd_is_the_map(
    run: Run, *, right: Callable[[np.ndarray], np.ndarray] = lambda p: p
) -> None:
    """The library's Meta-SGD (P diagonal) on random quadratics with alpha P H well inside (-1,
    0.95).
    """

    @for_all(data=st.data(), scaled=hessians(-0.5, 0.5), n_steps=st.integers(1, 5))
    def _(data: st.DataObject, scaled: np.ndarray, n_steps: int) -> None:
        d = len(scaled)
        g, logs = data.draw(vectors(d)), data.draw(vectors(d, scale=0.05))
        p, alpha = np.exp(logs), 0.5
        geometry = geometries.get("metasgd")()
        geometry.build({"phi": torch.zeros(d, dtype=torch.float64)})
        geometry.rule.scale.phi.data = torch.tensor(logs)
        f = prior.quadratic(scaled, g, np.zeros(d))
        reached = descend(
            f,
            torch.zeros(d, dtype=torch.float64),
            task_lr=alpha,
            n_steps=n_steps,
            geometry=geometry,
        )[-1].numpy()
        back = np.linalg.inv(np.eye(d) - alpha * p[:, None] * scaled)
        inverse = (
            alpha
            * sum(np.linalg.matrix_power(back, j) for j in range(1, n_steps + 1))
            @ np.diag(right(p))
        )
        residual = inverse @ (g + scaled @ reached) + reached
        run.at_most(
            np.abs(residual).max() / (1 + np.abs(reached).max()),
            1e-9,
            what="Lambda_P^{-1} grad q + phi - theta",
        )


library_metasgd_is_the_map.mutant("P forgotten on the right", right=np.ones_like)


@claim.check("experiment", part="nonconvex")
def real_network(run: Run, *, bound: Callable[..., float] = prior.nonconvex_error) -> None:
    """MAML's own K steps on a 13-parameter tanh network, against the bound with the L and rho met
    along the path.
    """
    f, anchor = prior.tanh_network()
    for steps in (2, 3, 5):
        gap, limit = prior.network_deviation(f, anchor, alpha=0.1, n_steps=steps, bound=bound)
        run.above(gap, 0.0, what="the network is not quadratic")
        run.at_most(gap, limit, what=f"deviation at K = {steps}")
        run.quantity(
            f"network: deviation/bound, K={steps}",
            gap / limit,
            tolerance=1e-3,
            meaning="13-parameter tanh net",
        )


real_network.mutant("bound a hundredth", bound=lambda **how: prior.nonconvex_error(**how) / 100)


@claim.check("exact", part="convex")
def stated_convex_bound(run: Run, *, stated: Formula) -> None:
    """The library on cubics against the printed bound: equality at K = 2, below it at K = 5, and
    above it at rates beyond 1/L.
    """
    for alpha, big_l, steps in ((0.5, 1.25, 2), (0.5, 1.25, 5), (10.0, 1.25, 4)):
        rho, eta = 0.25, 0.75
        f = prior.cubic(-2.0, eta, rho, 2.0)
        gap = prior.deviation(f, vector(0.0), alpha=alpha, n_steps=steps)
        at = {stated.left: gap, r"\rho": rho, r"\alpha": alpha, "G": 2, "L": big_l, "K": steps}
        run.stands(stated, at, slack=1e-12)
        if steps == 2:
            run.attained(stated, at, tolerance=1e-12)


@claim.check("exact", part="strong")
def stated_strong_bound(run: Run, *, stated: Formula) -> None:
    """The library on nearly quadratic cubics: the printed bound is approached as K grows, and
    broken where the rate is beyond 1/L.
    """
    for mu, alpha, steps in ((1.0, 0.9, 40), (0.5, 0.9, 80), (1.0, 2.5, 12)):
        rho = 1e-3
        f = prior.cubic(-2.0, mu, rho, 4.0 / mu)
        gap = prior.deviation(f, vector(0.0), alpha=alpha, n_steps=steps)
        at = {stated.left: gap, r"\rho": rho, r"\alpha": alpha, "G": 2, r"\mu": mu, "L": 1.01}
        run.stands(stated, at)
        if alpha < 1:
            run.attained(stated, at, tolerance=2e-2)


@claim.check("symbolic", part="pgd")
def conjugated(run: Run, *, side: int = 1) -> None:
    """R = P^{1/2}, matrices of any size: R (1 - a R H R) = (1 - a P H) R, hence R (...)^{-j} R =
    (1 - a P H)^{-j} P for every j, by induction.
    """
    r, h = sp.symbols("R H", commutative=False)
    a = sp.Symbol("a", positive=True)
    inner, outer = 1 - a * r * h * r, 1 - a * (r * r if side else r) * h
    rest = sp.expand(r * inner - outer * r)
    run.that(rest == 0, f"R intertwines: {rest} is left over")


conjugated.mutant("P^{1/2} for P", side=0)
