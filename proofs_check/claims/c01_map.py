r"""C01: the regularised loss is a maximum a posteriori estimate.

*Proof.* Bayes: $-\log p(\phi|y,X)=-\log p(y|\phi;X)-\log p(\phi)+\log p(y|X)=f+R+\text{const}$ in
$\phi$, the prior independent of $X$. The constant holds $R$'s normaliser: it may be dropped while
$\theta$ is fixed, and not when $R(\cdot;\theta)$ is compared across $\theta$.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import sympy as sp
import torch
from torch import Tensor

from mdtheory.geometry.base import geometries
from proofs_check.claim import Claim, Formula, Statement, Verdict
from proofs_check.run import Run
from proofs_check.tools.models import hessian_of, problem_of, vector

_MAP = (
    r"\arg\max_\phi p(\phi|y,X)=\arg\min_\phi\mathcal L(\phi)+\mathcal R(\phi),"
    r"\ \mathcal L=-\log p(y|\phi;X),\ \mathcal R=-\log p(\phi)"
)

_PHI, _LAM = sp.Symbol(r"\phi", real=True), sp.Symbol(r"\lambda", positive=True)
NORMALISED = Formula(
    left=sp.Symbol(r"\mathcal R(\phi;\lambda)"),
    relation="==",
    right=_LAM * _PHI**2 / 2 - sp.log(_LAM / (2 * sp.pi)) / 2,
    text=r"\int e^{-\mathcal R(\phi;\lambda)}d\phi={whole}\ \forall\lambda\text{ for }{formula}"
    r"\text{, and only with its normaliser}",
    terms={"whole": sp.Integer(1)},
)
BAYES = Formula(
    left=sp.Symbol(r"-\log p(\phi|y,X)"),
    relation="==",
    right=sp.Symbol(r"\mathcal L") + sp.Symbol(r"\mathcal R") + sp.Symbol(r"\log p(y|X)"),
    text=r"{formula},\text{ the last constant in }\phi",
)

claim = Claim(
    id="C01",
    title="Regularised loss minimisation is MAP estimation",
    source="Motivating context, conventional supervised learning",
    printed=Statement(
        then=_MAP, given={"densities": r"p(y|\phi;X)>0,\ p(\phi)>0\text{ independent of }X"}
    ),
    amended=Statement(
        then=_MAP
        + r";\ \text{across }\theta,\ \mathcal R(\cdot;\theta)\text{ with its normaliser}",
        given={"densities": r"p(y|\phi;X)>0,\ p(\phi)>0\text{ independent of }X"},
        parts={
            "bayes": BAYES,
            "normaliser": NORMALISED,
        },
    ),
    expected=Verdict("HOLDS", "PROVED"),
)


def objective(f: sp.Expr, r: sp.Expr) -> sp.Expr:
    """f + R."""
    return f + r


def _bayes(run: Run, regularised: Callable[[sp.Expr, sp.Expr], sp.Expr]) -> None:
    phi = sp.Symbol("phi", real=True)
    likelihood, prior, evidence = (
        sp.Function("l", positive=True)(phi),
        sp.Function("p", positive=True)(phi),
        sp.Symbol("Z", positive=True),
    )
    rest = -sp.log(likelihood * prior / evidence) - regularised(-sp.log(likelihood), -sp.log(prior))
    run.zero(sp.diff(sp.expand_log(rest, force=True), phi), "dependence of the difference on phi")


@claim.check("symbolic", about="printed")
def same_minimisers(
    run: Run, *, regularised: Callable[[sp.Expr, sp.Expr], sp.Expr] = objective
) -> None:
    """-log posterior - (f + R) does not depend on phi, for arbitrary positive densities: the same
    minimisers.
    """
    _bayes(run, regularised)


same_minimisers.mutant("sign of R flipped", regularised=lambda f, r: f - r)


@claim.check("symbolic", part="bayes")
def bayes(run: Run, *, regularised: Callable[[sp.Expr, sp.Expr], sp.Expr] = objective) -> None:
    """The same difference is the constant log p(y|X): exact, for arbitrary densities."""
    _bayes(run, regularised)


bayes.mutant("R halved", regularised=lambda f, r: f + r / 2)


@claim.check("symbolic", part="normaliser")
def normalised_across_theta(
    run: Run,
    *,
    normaliser: Callable[[sp.Symbol], sp.Expr] = lambda lam: -sp.log(lam / (2 * sp.pi)) / 2,
) -> None:
    """Gaussian R with precision lambda: its density integrates to one for every lambda; then the
    type-II optimum is 1/phi^2.
    """
    phi, lam = sp.Symbol("phi", real=True), sp.Symbol("lambda", positive=True)
    r = lam * phi**2 / 2 + normaliser(lam)
    run.zero(sp.integrate(sp.exp(-r), (phi, -sp.oo, sp.oo)) - 1, "integral of the prior")
    best = sp.solve(sp.diff(r, lam), lam)
    run.that(
        best == [1 / phi**2],
        "argmin of R over lambda at fixed phi; without a normaliser it would be lambda = 0",
    )


normalised_across_theta.mutant(
    "theta-dependent normaliser dropped", normaliser=lambda lam: sp.log(2 * sp.pi) / 2
)


def library_objective(
    x: Tensor, y: Tensor, noise: float, anchor: Tensor, precision: Tensor
) -> Callable[[Tensor], Tensor]:
    """The library's task objective: Gaussian loss plus the penalty of geometry ``prior``."""
    geometry = geometries.get("prior")()
    geometry.build({"phi": anchor})
    problem, meta, posed = problem_of(
        lambda v: 0.5 * (y - x @ v).square().sum() / noise**2,
        anchor,
        task_lr=1.0,
        n_steps=0,
        geometry=geometry,
    )
    meta["geometry.log_precision.phi"] = precision.log()
    return lambda phi: problem.task_objective(meta, {"phi": phi}, posed)[0]


@claim.check("exact", part="bayes")
def library_is_the_posterior(
    run: Run, *, build: Callable[..., Callable[[Tensor], Tensor]] = library_objective
) -> None:
    """The library's objective is the -log posterior of the *joint* Gaussian of (phi, y),
    conditioned by blocks, + const.
    """
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((2, 4)), rng.standard_normal(2)
    anchor, precision, noise = rng.standard_normal(4), rng.uniform(0.5, 2.0, 4), 0.7
    found = build(
        *(torch.tensor(v) for v in (x, y)), noise, torch.tensor(anchor), torch.tensor(precision)
    )
    prior = np.diag(1 / precision)
    gain = prior @ x.T @ np.linalg.inv(x @ prior @ x.T + noise**2 * np.eye(2))
    mean, inverse = anchor + gain @ (y - x @ anchor), np.linalg.inv(prior - gain @ x @ prior)
    constants = []
    for point in rng.standard_normal((6, 4)):
        constants.append(
            float(found(torch.tensor(point))) - 0.5 * (point - mean) @ inverse @ (point - mean)
        )
    run.at_most(np.ptp(constants), 1e-12, what="spread of the constant over phi")
    scalar = build(vector(1.0)[None], vector(2.0), 1.0, vector(0.0), vector(1.0))
    at = float(-torch.func.grad(scalar)(vector(0.0)) / hessian_of(scalar)(vector(0.0)).squeeze())
    run.quantity(
        "MAP at y=2, s=1, theta=0, lambda=1",
        at,
        tolerance=1e-12,
        theory=1.0,
        meaning="(y/s^2)/(1/s^2 + lambda)",
    )


library_is_the_posterior.mutant(
    "precision for covariance",
    build=lambda x, y, s, a, precision: library_objective(x, y, s, a, 1 / precision),
)
library_is_the_posterior.mutant(
    "noise variance not squared", build=lambda x, y, s, a, p: library_objective(x, y, s**0.5, a, p)
)


@claim.check("property", part="normaliser")
def stated_prior_integrates_to_one(run: Run, *, stated: Formula) -> None:
    """The printed R at lambda = 1/2, 1, 3: exp(-R) integrates to one, by quadrature."""
    for lam in (0.5, 1.0, 3.0):
        nodes = np.linspace(-40, 40, 40_001)
        density = sp.lambdify(_PHI, sp.exp(-stated.right.subs(_LAM, lam)), "numpy")
        with np.errstate(over="ignore"):
            total = np.trapezoid(density(nodes), nodes)
        whole = float(stated.terms["whole"])
        run.close(total, whole, tolerance=1e-9, what=f"integral at lambda = {lam}")


@claim.check("exact", part="bayes")
def stated_bayes(run: Run, *, stated: Formula) -> None:
    """A prior of two values in rationals, by counting: both posteriors against the printed sum."""
    prior, likelihood = (Fraction(1, 3), Fraction(2, 3)), (Fraction(1, 2), Fraction(1, 7))
    evidence = sum(p * q for p, q in zip(prior, likelihood, strict=True))
    for p, q in zip(prior, likelihood, strict=True):
        at = {stated.left: -sp.log(sp.Rational(p * q / evidence))}
        at[r"\mathcal L"], at[r"\mathcal R"] = -sp.log(sp.Rational(q)), -sp.log(sp.Rational(p))
        run.stands(stated, {**at, r"\log p(y|X)": sp.log(sp.Rational(evidence))}, slack=1e-20)
