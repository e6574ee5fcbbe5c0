r"""C05: the implicit-prior lemma of Grant et al. (2018): K steps of MAML are a Gaussian MAP
estimate, in the right norm.

*Proof of (quadratic).* All matrices are functions of $H$, so one eigenvalue $\eta$ at a time,
$r=1-\alpha\eta$, $s_K=\alpha\sum_{k<K}r^k$. GD from $\theta$ on $q$: $\delta_{k+1}=r\delta_k-\alpha
g$, hence $\delta_K=-s_Kg$. The penalised problem has $(\eta+\lambda)\delta=-g$, so
$\lambda=1/s_K-\eta=r^K/s_K$, because $s_K\eta=1-r^K$; and it is a minimum because
$\eta+\lambda=1/s_K>0$.

*Proof of the error bounds.* $\nabla f(\phi)=g+H(\phi-\theta)+R$,
$\|R\|\le\frac\rho2\|\phi-\theta\|^2$ (Taylor); with $e_k=\phi^k-\psi^k$, $e_{k+1}=(I-\alpha
H)e_k-\alpha R(\phi^k)$. Convex, $\alpha\le1/L$: $\|I-\alpha H\|\le1$ and gradient norms do not
increase, so $\|\phi^k-\theta\|\le\alpha kG$. Strongly convex: $\|I-\alpha H\|\le1-\alpha\mu$ and
$\|\phi^k-\theta\|\le G/\mu$. Nonconvex: $1+\alpha L$ and $G((1+\alpha L)^k-1)/L$. Sum. For
(true_loss): $\nabla(f+\frac12\|\cdot-\theta\|_\Lambda^2)(\psi^K)=R(\psi^K)$, and that function is
$m$-strongly convex.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import sympy as sp
import torch
from hypothesis import strategies as st

from mdtheory import descend
from proofs_check.claim import Claim, Formula, Statement, Verdict
from proofs_check.run import Run
from proofs_check.tools import prior
from proofs_check.tools.models import vector
from proofs_check.tools.strategies import for_all, hessians, rates, vectors

_RHO, _ALPHA, _G, _MU, _L = sp.symbols(r"\rho \alpha G \mu L", positive=True)
_K = sp.Symbol("K", integer=True, positive=True)
_ERROR = sp.Symbol(r"\|\phi^K-\psi^K\|")
CONVEX = Formula(
    left=_ERROR,
    relation="<=",
    right=_RHO * _ALPHA**3 * _G**2 * prior.error_constant(_K),
    text=r"{formula}\ (f\text{ convex},\ {given})",
    given={"rate": sp.Le(_ALPHA, 1 / _L)},
)
STRONG = Formula(
    left=_ERROR,
    relation="<=",
    right=prior.strong_error(rho=_RHO, mu=_MU, slope=_G),
    text=r"{formula}\ (f\ \mu\text{-s.c.},\ {given})",
    given={"rate": sp.Le(_ALPHA, 1 / _L)},
)
_ETA = sp.Symbol(r"\eta", real=True)
_SUM, _LAMBDA, _M = sp.Symbol("s_K"), sp.Symbol(r"\lambda"), sp.Symbol("m", positive=True)
_J, _P, _k = sp.Symbol("j", integer=True), sp.Symbol("P", commutative=False), sp.Symbol("k")
_HM, _I = sp.symbols("H I", commutative=False)
QUADRATIC = Formula(
    left=_LAMBDA,
    relation="==",
    right=(1 - _ALPHA * _ETA) ** _K / _SUM,
    text=r"\psi^K=\arg\min_\phi q(\phi)+{prox}\|\phi-\theta\|_\Lambda^2\text{ for GD on }q,"
    r"\text{ any signature of }H;\text{ per eigenvalue of }H:\ {formula},\ s_K={sum}",
    terms={
        "prox": sp.Rational(1, 2),
        "sum": sp.Sum(_ALPHA * (1 - _ALPHA * _ETA) ** _k, (_k, 0, _K - 1)),
    },
)
INVERSE = Formula(
    left=1 / _LAMBDA,
    relation="==",
    right=sp.Sum(_ALPHA * (1 - _ALPHA * _ETA) ** (-_J), (_J, 1, _K)),
    text=r"{formula}\text{ where }\alpha\eta\text{ is not one}",
)
CONDITION = Formula(
    left=_ALPHA * _ETA,
    relation="<",
    right=sp.Integer(2),
    text=r"K\text{ odd: }S_K\succ0\text{ always; }K\text{ even: }S_K\succ0\iff {formula}\ "
    r"\forall\eta\in\mathrm{spec}H",
)
ONE_STEP = Formula(
    left=_ETA + sp.Symbol(r"\lambda_1"),
    relation="==",
    right=1 / _ALPHA,
    text=r"{formula}\ \forall\eta:\ \phi^1=\psi^1\text{ for every twice differentiable }f",
)
NONCONVEX = Formula(
    left=_ERROR,
    relation="<=",
    right=sp.Sum(
        sp.Symbol(r"\gamma", positive=True) ** (_K - 1 - _k)
        * (_ALPHA * _RHO / 2)
        * (_G * (sp.Symbol(r"\gamma", positive=True) ** _k - 1) / _L) ** 2,
        (_k, 0, _K - 1),
    ),
    text=r"{formula},\ \gamma={growth}",
    terms={"growth": 1 + _ALPHA * _L},
)
TRUE_LOSS = Formula(
    left=sp.Symbol(r"\|\hat m-\psi^K\|"),
    relation="<=",
    right=_RHO * sp.Symbol(r"\|S_Kg\|", positive=True) ** 2 / (2 * _M),
    text=r"\hat m=\arg\min f+{prox}\|\cdot-\theta\|_\Lambda^2:\ {formula},"
    r"\ m=\mu+\lambda_{\min}(\Lambda)",
    terms={"prox": sp.Rational(1, 2)},
)
PGD = Formula(
    left=sp.Symbol(r"\Lambda_P^{-1}"),
    relation="==",
    right=sp.Sum(_ALPHA * (_I - _ALPHA * _P * _HM) ** (-_J) * _P, (_J, 1, _K)),
    text=r"\text{PGD: }{formula}",
)

claim = Claim(
    id="C05",
    title="MAML's implicit prior (lemma of Grant et al. 2018)",
    source="Bilevel optimization for meta-learning, Lemma",
    printed=Statement(
        given={
            "taylor": (
                r"\text{second-order Taylor approximation of }\mathcal L_t^{\rm trn}\text{ at "
                r"}\theta"
            )
        },
        then=(
            r"\hat\phi_t(\theta)\approx\arg\min_\phi\mathcal L_t^{\rm trn}(\phi)+\tfrac12\|\phi-"
            r"\theta\|_2^2"
        ),
    ),
    amended=Statement(
        given={
            "taylor": (
                r"q\text{ the Taylor model of order 2 of }f\text{ at }\theta,\ H=\nabla^2f("
                r"\theta),\ g=\nabla f(\theta)"
            ),
            "sum": r"S_K=\alpha\sum_{k<K}(I-\alpha H)^k\succ0\ (K\text{ odd, or }"
            + CONDITION.core
            + r"\ \forall\eta\in\mathrm{spec}H)",
            "errors": (
                r"\text{for the error bounds: }f\ L\text{-smooth},\ \nabla^2f\ \rho"
                r"\text{-Lipschitz},\ G=\|g\|;\text{ for }\hat m\text{: }f\ \mu\text{-s.c. (of any "
                r"sign)},\ m>0;\text{ for PGD: }P=P^\top\succ0"
            ),
        },
        then=QUADRATIC,
        parts={
            "quadratic": QUADRATIC,
            "inverse": INVERSE,
            "condition": CONDITION,
            "one_step": ONE_STEP,
            "convex": CONVEX,
            "strong": STRONG,
            "nonconvex": NONCONVEX,
            "true_loss": TRUE_LOSS,
            "pgd": PGD,
        },
    ),
    expected=Verdict("FALSE", "PROVED"),
)


@claim.check("counterexample", about="printed")
def unweighted_norm(run: Run, *, library: Callable[..., torch.Tensor] = descend) -> None:
    """f = phi^2/4, alpha = 1, K = 3, theta = 1 (its own Taylor model): GD gives 1/8, the printed
    argmin 2/3.
    """
    reached = library(lambda phi: 0.25 * phi @ phi, vector(1.0), task_lr=1.0, n_steps=3)[-1]
    printed = Fraction(1) / (1 + Fraction(1, 2))  # eta phi + (phi - 1) = 0
    run.close(reached, float((1 - Fraction(1, 2)) ** 3), tolerance=1e-15, what="GD")
    run.above(abs(float(reached) - float(printed)), 0.5, what="distance of the two")
    run.quantity(
        "GD, eta=1/2, alpha=1, K=3, theta=1",
        float(reached),
        tolerance=1e-12,
        theory=0.125,
        meaning="phi^3",
    )
    run.quantity(
        "printed argmin in the same case",
        printed,
        theory=Fraction(2, 3),
        meaning="argmin f + (phi - 1)^2/2",
    )


unweighted_norm.mutant("the prior's own minimiser", library=lambda *a, **k: vector(2 / 3)[None])


def weight(r: sp.Expr, s: sp.Expr, n_steps: sp.Expr) -> sp.Expr:
    """lambda = r^K / s_K."""
    return r**n_steps / s


@claim.check("symbolic", part="quadratic")
def closed_form(run: Run, *, form: Callable[..., sp.Expr] = weight) -> None:
    """Per eigenvalue, by induction in a symbolic K: delta_K = -s_K g, and (eta + lambda) delta_K =
    -g; also at eta = 0.
    """
    alpha, n, g = (
        sp.Symbol("alpha", positive=True),
        sp.Symbol("K", integer=True, positive=True),
        sp.Symbol("g"),
    )
    r = sp.Symbol("r", nonzero=True)
    eta = (1 - r) / alpha
    s = alpha * (1 - r**n) / (1 - r)  # the geometric sum; r = 1 separately below
    run.zero(sp.simplify(s.subs(n, 1) - alpha), "s_1 = alpha")
    run.zero(r * s + alpha - s.subs(n, n + 1), "s_{K+1} = alpha + r s_K")
    run.zero(
        r * (-s * g) - alpha * g - (-s.subs(n, n + 1) * g), "delta_{K+1} = r delta_K - alpha g"
    )
    run.zero((eta + form(r, s, n)) * s - 1, "stationarity of the penalised problem")
    flat = form(sp.Integer(1), alpha * n, n)  # r = 1, s_K = alpha K
    run.zero(flat * alpha * n - 1, "stationarity at eta = 0")
    at = sp.Rational(1, 10), 5
    run.quantity(
        "lambda at eta=0, alpha=1/10, K=5",
        flat.subs({alpha: at[0], n: at[1]}),
        theory=2,
        meaning="1/(alpha K)",
    )


closed_form.mutant("exponent K + 1", form=lambda r, s, n: r ** (n + 1) / s)
closed_form.mutant("exponent K - 1", form=lambda r, s, n: r ** (n - 1) / s)
closed_form.mutant("unweighted", form=lambda r, s, n: sp.Integer(1))


@claim.check("symbolic", part="inverse")
def boxed_sum(run: Run, *, first: int = 1) -> None:
    """c_K = s_K/r^K has c_1 = alpha/r, c_{K+1} = c_K + alpha r^{-(K+1)}: the boxed sum, and the
    form with 1 - r^K.
    """
    alpha, n = sp.Symbol("alpha", positive=True), sp.Symbol("K", integer=True, positive=True)
    r = sp.Symbol("r", nonzero=True)
    c = alpha * (1 - r**n) / (1 - r) / r**n
    run.zero(c.subs(n, 1) - alpha * r ** (-first), "the first term")
    run.zero(c.subs(n, n + 1) - c - alpha * r ** -(n + first), "each further term")
    eta = (1 - r) / alpha
    run.zero(
        1 / c - eta * r**n / (1 - r**n), "H (I - aH)^K [I - (I - aH)^K]^{-1} for nonsingular H"
    )


boxed_sum.mutant("sum from j = 0", first=0)


@claim.check("exact", part="inverse")
def boxed_sum_is_no_algorithm(
    run: Run, *, n_steps: int = 10, precision: Callable[..., np.ndarray] = prior.precision
) -> None:
    """alpha H in [-1, 0.95]: the boxed sum has condition 10^13 at K = 10; inverted in float64 it is
    wrong, S_K^{-1} is not.
    """
    most, least = (
        sum(r**-j for j in range(1, n_steps + 1)) for r in (Fraction(1, 20), Fraction(2))
    )
    condition = run.quantity(
        f"condition of the boxed sum, K={n_steps}",
        most / least,
        meaning="spectrum of alpha H in [-1, 0.95]",
    )
    run.above(condition, 10**13, what="condition")
    turn, _ = np.linalg.qr(np.random.default_rng(5).standard_normal((3, 3)))
    hessian = (turn * [-1.0, 0.3, 0.95]) @ turn.T
    s = (
        turn * [float(sum((1 - x) ** k for k in range(n_steps))) for x in (-1.0, 0.3, 0.95)]
    ) @ turn.T

    def residual(lam: np.ndarray) -> float:
        return float(np.abs((hessian + lam) @ s - np.eye(3)).max())

    run.at_most(
        residual(precision(hessian, 1.0, n_steps)), 1e-10, what="residual of (I - aH)^K S_K^{-1}"
    )
    run.above(
        residual(np.linalg.inv(prior.covariance(hessian, 1.0, n_steps))),
        1e-6,
        what="residual of the inverted sum",
    )


boxed_sum_is_no_algorithm.mutant("K = 5", n_steps=5)
boxed_sum_is_no_algorithm.mutant(
    "the inverted sum", precision=lambda h, a, k: np.linalg.inv(prior.covariance(h, a, k))
)


@claim.check("exact", part="quadratic")
def rational_matrices(run: Run, *, shift: int = 0) -> None:
    """Exact 2x2 rationals, K = 1, 2, 3, 5, H definite, indefinite, singular, zero: GD is the
    penalised stationary point.
    """
    alpha, half, third = sp.Rational(2, 3), sp.Rational(1, 2), sp.Rational(1, 3)
    for entries in (
        [1, third, third, half],
        [half, third, third, -half],
        [half, half, half, half],
        [0, 0, 0, 0],
    ):
        hessian, g, eye = sp.Matrix(2, 2, entries), sp.Matrix([1, -2]), sp.eye(2)
        for steps in (1, 2, 3, 5):
            delta, s = sp.zeros(2, 1), sp.zeros(2)
            for k in range(steps):
                delta, s = (
                    delta - alpha * (g + hessian * delta),
                    s + alpha * (eye - alpha * hessian) ** k,
                )
            lam = (eye - alpha * hessian) ** (steps + shift) * s.inv()
            run.zero((hessian + lam) * delta + g, f"stationarity, H = {entries}, K = {steps}")
            run.that(
                ((hessian + lam) * s).equals(eye) and (lam - lam.T).is_zero_matrix,
                "H + Lambda = S_K^{-1}",
            )


rational_matrices.mutant("exponent K + 1", shift=1)


def nan_at_singular(hessian: np.ndarray, alpha: float, n_steps: int) -> np.ndarray:
    """The form that divides by 1 - r^K."""
    values, columns = np.linalg.eigh(hessian)
    with np.errstate(all="ignore"):
        keep = (1 - alpha * values) ** n_steps
        return (columns * (values * keep / (1 - keep))) @ columns.T


@claim.check("property", part="quadratic")
def library_gd_is_the_map(
    run: Run, *, precision: Callable[..., np.ndarray] = prior.precision, centre: str = "theta"
) -> None:
    """The library's K-step MAML on random quadratics (spectrum of alpha H in [-1, 0.95], zeros
    included), residual <= 1e-10.
    """

    @for_all(data=st.data(), scaled=hessians(-1.0, 0.95), alpha=rates(), n_steps=st.integers(1, 10))
    def _(data: st.DataObject, scaled: np.ndarray, alpha: float, n_steps: int) -> None:
        d = len(scaled)
        hessian, g, anchor = scaled / alpha, data.draw(vectors(d)), data.draw(vectors(d))
        reached = descend(
            prior.quadratic(hessian, g, anchor),
            torch.tensor(anchor),
            task_lr=alpha,
            n_steps=n_steps,
        )[-1].numpy()
        lam = precision(hessian, alpha, n_steps)
        around = anchor if centre == "theta" else reached
        residual = g + hessian @ (reached - anchor) + lam @ (reached - around)
        size = np.abs(g).max() + np.abs(hessian).max() * np.abs(reached - anchor).max()
        run.at_most(np.abs(residual).max() / size, 1e-10, what=f"residual at K = {n_steps}")


library_gd_is_the_map.mutant(
    "exponent K + 1", precision=lambda h, a, k: prior.precision(h, a, k) @ (np.eye(len(h)) - a * h)
)
library_gd_is_the_map.mutant("unweighted norm", precision=lambda h, a, k: np.eye(len(h)))
library_gd_is_the_map.mutant("prior centred at phi^K", centre="phi^K")
library_gd_is_the_map.mutant("dividing by I - (I - aH)^K at singular H", precision=nan_at_singular)
library_gd_is_the_map.mutant(
    "inverting the boxed sum", precision=lambda h, a, k: np.linalg.inv(prior.covariance(h, a, k))
)


@claim.check("exact", part="condition")
def positive_sum(
    run: Run, *, allowed: Callable[[Fraction, int], bool] = lambda x, k: k % 2 == 1 or x < 2
) -> None:
    """Signs of s_K/alpha = sum r^k, exactly: r^K has the sign of r for odd K; for even K, 1 - r^K >
    0 iff 0 < x < 2 (x > 0).
    """
    for k in range(1, 9):
        for x in (Fraction(n, 4) for n in range(-12, 17)):
            total = sum((1 - x) ** j for j in range(k))
            run.that((total > 0) == allowed(x, k), f"sign of S_K at alpha eta = {x}, K = {k}")
    first_zero = sp.solve(sum((1 - sp.Symbol("x", real=True)) ** j for j in range(4)))
    run.quantity(
        "largest alpha*eta with S_K > 0, K even",
        first_zero[0],
        meaning="S_K is singular at alpha eta = 2 for even K",
    )


positive_sum.mutant("alpha eta < 2 demanded of odd K too", allowed=lambda x, k: x < 2)
positive_sum.mutant("nothing demanded", allowed=lambda x, k: True)


@claim.check("exact", part="one_step", covers="all")
def one_step_is_exact(run: Run, *, steps: int = 1) -> None:
    """H + Lambda_1 = I/alpha whatever H, so psi^1 = theta - alpha g = phi^1; the library on a loss
    far from quadratic.
    """
    h, alpha = sp.symbols("eta alpha")
    run.zero(h + (1 - alpha * h) / alpha - 1 / alpha, "eta + lambda_1 = 1/alpha")
    f, _, _ = prior.logistic(np.array([[3.0, 1.0], [-2.0, 4.0], [0.5, -1.0]]))
    gap = prior.deviation(
        lambda phi: f(phi) + torch.sin(phi).sum(), vector(0.3, -0.4), alpha=0.7, n_steps=steps
    )
    run.at_most(gap, 1e-15, what="deviation of GD from its Taylor model at K = 1")


one_step_is_exact.mutant("two steps", steps=2)


@claim.check("symbolic", part="condition")
def signs_for_every_k(run: Run, *, odd_steps: int = 1) -> None:
    """sum_{k<K} r^k for every K: r >= 0 has a first term 1 and no negative one; r = -t, K = 2j + 1:
    (1 + t^K)/(1 + t) > 0; K = 2j: (1 - t)(1 + t^2 + ... + t^{2j-2}), the sign of 1 - t.
    """
    t = sp.Symbol("t", positive=True)
    j, i = sp.symbols("j i", integer=True, positive=True)
    odd = (1 + t ** (2 * j + odd_steps)) / (1 + t)
    run.that(odd.is_positive, "K odd, r < 0")
    run.zero(sp.simplify(odd * (1 + t) - (1 - (-t) ** (2 * j + 1))), "the geometric sum at odd K")
    run.that((t ** (2 * i)).is_positive, "K even: each term of the second factor")
    run.zero((1 - t**2) / (1 + t) - (1 - t), "K = 2")
    run.zero(
        sp.expand((1 - t ** (2 * j + 2)) - (1 - t ** (2 * j)) - (1 - t**2) * t ** (2 * j)),
        "1 - t^{2j} = (1 - t^2) (1 + t^2 + ... + t^{2j-2}), from j to j + 1",
    )


signs_for_every_k.mutant("an even power", odd_steps=2)


claim.kernel("implicit_prior", part="quadratic")
claim.kernel("boxed_sum", part="inverse")
