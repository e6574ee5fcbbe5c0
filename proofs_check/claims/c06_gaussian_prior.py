r"""C06: the implicit Gaussian prior N(theta, Lambda^{-1}) exists exactly where Lambda is positive
definite.

*Proof.* Per eigenvalue, $x=\alpha\eta$, $r=1-x$: $\lambda=r^K/s_K$ with $s_K=\alpha\sum_{k<K}r^k$
(C05). For $x<1$, $r>0$ and so $\lambda>0$: every symmetric $H\prec I/\alpha$, indefinite or
singular too. At $x=1$, $r=0$. For $x>1$, $r<0$: $r^K$ has the sign of $(-1)^K$, and $s_K>0$ unless
$K$ is even and $x\ge2$. $1/\lambda=\alpha\sum_{j=1}^Kr^{-j}$ has derivative
$-\alpha\sum_jjr^{-j-1}<0$ in $r>0$, so it increases and $\lambda$ decreases with $\eta$ on
$(-\infty,1/\alpha)$.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

import numpy as np
import sympy as sp
from hypothesis import strategies as st

from mdtheory import descend
from proofs_check import formula
from proofs_check.claim import Claim, Formula, Statement, Verdict
from proofs_check.run import Run
from proofs_check.tools import prior
from proofs_check.tools.models import vector
from proofs_check.tools.strategies import for_all, hessians, rates

_PRIOR = r"p(\phi_t;\theta)=\mathcal N(\theta,\Lambda_t^{-1})\text{ is a (proper) Gaussian prior}"

_R, _ETA, _ALPHA = sp.Symbol("r", positive=True), sp.Symbol(r"\eta"), sp.Symbol(r"\alpha")
_K = sp.Symbol("K", integer=True, positive=True)
VALUE = Formula(
    left=sp.Symbol(r"\lambda"),
    relation="==",
    right=_ETA * _R**_K / (1 - _R**_K),
    text=r"r={keep}:\ {formula},\ \eta+\lambda={whole}",
    terms={"keep": 1 - _ALPHA * _ETA, "whole": _ETA / (1 - _R**_K)},
)
PROPER = Formula(
    left=_ALPHA * _ETA,
    relation="<",
    right=sp.Integer(1),
    text=r"\Lambda\succ0,\ H+\Lambda\succ0\text{ for every }K\iff {formula}\ \forall\eta",
)
TABLE = Formula(
    left=_ALPHA * _ETA,
    relation="<",
    right=sp.Integer(2),
    text=r"\text{flat at }\alpha\eta={flat};\text{ beyond it }\lambda\text{ is negative for }K"
    r"\text{ odd; for }K\text{ even positive}\iff {formula}\text{, else negative or infinite}",
    terms={"flat": sp.Integer(1)},
)
DECREASING = Formula(
    left=sp.Symbol(r"\lambda(\eta')-\lambda(\eta)", real=True),
    relation="<",
    right=sp.Integer(0),
    text=r"{formula}\text{ where }\eta\text{ rises to }\eta'\text{ below }{edge}:\text{ flat "
    r"directions are held more tightly}",
    terms={"edge": 1 / _ALPHA},
)

claim = Claim(
    id="C06",
    title="MAML has an implicit Gaussian prior",
    source="Bilevel optimization for meta-learning, after the Lemma",
    printed=Statement(then=_PRIOR),
    amended=Statement(
        given={
            "rate": (
                r"\alpha H\prec I,\ H=\nabla^2f(\theta)\text{ symmetric, possibly indefinite or "
                r"singular}"
            )
        },
        then=_PRIOR,
        parts={
            "value": VALUE,
            "proper": PROPER,
            "table": TABLE,
            "decreasing": DECREASING,
        },
    ),
    expected=Verdict("NEEDS_CONDITIONS", "PROVED"),
    uses=("C05",),
    remark=(
        "Lambda_t depends on the task's own training data: an empirical regulariser, not a prior "
        "in the Bayesian sense."
    ),
)

Sign = int | str
"""-1, 0, 1, or "inf" where S_K is singular."""


def weight(x: Fraction, n_steps: int) -> Fraction | None:
    """alpha lambda = r^K / sum_{k<K} r^k, exactly; ``None`` where the sum is zero."""
    total = sum((1 - x) ** k for k in range(n_steps))
    return None if total == 0 else (1 - x) ** n_steps / total


def table(x: Fraction, odd: bool) -> tuple[Sign, bool]:
    """(sign of lambda, whether the argmin exists) as the amended statement has it."""
    if x < 1:
        return 1, True
    if x == 1:
        return 0, True
    if odd:
        return -1, True
    return (1, True) if x < 2 else ("inf", False) if x == 2 else (-1, False)


def gd_implies(eta: float, alpha: float, n_steps: int) -> float:
    """The lambda with which the library's GD on eta/2 phi^2 + phi from 0 is a penalised minimiser:
    -1/delta - eta.
    """
    delta = float(
        descend(
            lambda phi: (0.5 * eta * phi**2 + phi).sum(),
            vector(0.0),
            task_lr=alpha,
            n_steps=n_steps,
        )[-1]
    )
    return -1.0 / delta - eta


@claim.check("counterexample", about="printed", drops=("rate",))
def improper_beyond_one(run: Run, *, x: float = 1.5) -> None:
    """alpha eta = 3/2, K = 3: the library's GD is a penalised minimiser with lambda = -1/6 < 0
    only: no Gaussian.
    """
    found = gd_implies(x, 1.0, 3)
    run.above(0.0, found, what="lambda is negative")
    run.close(found, float(weight(Fraction(x), 3)), tolerance=1e-12, what="closed form")
    run.quantity(
        "alpha*lambda at alpha*eta=3/2, K=3",
        weight(Fraction(x), 3),
        theory=Fraction(-1, 6),
        meaning="negative weight",
    )


improper_beyond_one.mutant("alpha eta = 1/2", x=0.5)


@claim.check("symbolic", part="value")
def value(
    run: Run, *, sum_to_eta: Callable[..., sp.Expr] = lambda eta, r, n: eta / (1 - r**n)
) -> None:
    """r^K/s_K = eta r^K/(1 - r^K) and eta + lambda = 1/s_K = eta/(1 - r^K), K symbolic."""
    alpha, n, r = (
        sp.Symbol("alpha", positive=True),
        sp.Symbol("K", integer=True, positive=True),
        sp.Symbol("r", nonzero=True),
    )
    eta = (1 - r) / alpha
    s = alpha * (1 - r**n) / (1 - r)
    run.zero(r**n / s - eta * r**n / (1 - r**n), "lambda")
    run.zero(eta + r**n / s - sum_to_eta(eta, r, n), "eta + lambda")


value.mutant("eta r^K / (1 - r^K) itself", sum_to_eta=lambda eta, r, n: eta * r**n / (1 - r**n))


@claim.check("exact", part="proper")
def proper_below_one(run: Run, *, limit: Fraction = Fraction(1)) -> None:
    """alpha eta < 1, K = 1..8: lambda > 0 and eta + lambda > 0, in rationals; both are sums and
    powers of r > 0 (see above).
    """
    for n_steps in range(1, 9):
        for x in (Fraction(n, 8) for n in range(-24, 33)):
            found = weight(x, n_steps)
            if x < limit:
                run.that(
                    found is not None and found > 0 and x + found > 0,
                    f"alpha eta = {x}, K = {n_steps}",
                )
    r = sp.Symbol("r", positive=True)
    run.that(
        all((r**n / sum(r**k for k in range(n))).is_positive for n in range(1, 9)),
        "lambda > 0 for every r > 0",
    )
    run.that(weight(limit, 3) == 0, "improper at the limit")
    (edge,) = sp.solve(sp.together((1 - sp.Symbol("x")) ** 3), sp.Symbol("x"))
    run.that(edge == limit, f"r^K vanishes at alpha eta = {edge}")
    run.quantity(
        "sup of alpha*eta with a proper prior",
        edge,
        meaning="Lambda is positive definite iff alpha eta < 1, K odd",
    )


proper_below_one.mutant("alpha < 2/L", limit=Fraction(2))
proper_below_one.mutant("alpha < 1/(2L)", limit=Fraction(1, 2))


@claim.check("exact", part="table")
def sign_table(run: Run, *, says: Callable[[Fraction, bool], tuple[Sign, bool]] = table) -> None:
    """Every cell for K = 1..8 in rationals: sign of lambda, and whether eta + lambda > 0."""
    for n_steps in range(1, 9):
        for x in (Fraction(n, 8) for n in range(-24, 33)):
            found, (sign, valid) = weight(x, n_steps), says(x, n_steps % 2 == 1)
            here = "inf" if found is None else (found > 0) - (found < 0)
            run.that(here == sign, f"sign of lambda at alpha eta = {x}, K = {n_steps}: {here}")
            run.that(
                (found is not None and x + found > 0) == valid,
                f"argmin at alpha eta = {x}, K = {n_steps}",
            )
    flat = next(x for x in (Fraction(n, 8) for n in range(-24, 33)) if weight(x, 3) == 0)
    run.quantity(
        "alpha*eta of the flat (improper) prior",
        flat,
        meaning="lambda = 0 at alpha = 1/L in the top direction",
    )
    even = next(x for x in (Fraction(n, 8) for n in range(9, 33)) if weight(x, 2) is None)
    run.quantity(
        "alpha*eta where lambda is infinite, K even",
        even,
        theory=2,
        meaning="lambda^{-1} = 0: S_K is singular",
    )
    run.quantity(
        "alpha*lambda at alpha*eta=3/2, K=2",
        weight(Fraction(3, 2), 2),
        meaning="positive again for even K",
    )


sign_table.mutant(
    "positive on (1, 2) for odd K too", says=lambda x, odd: (1, True) if x < 2 else table(x, odd)
)
sign_table.mutant("argmin valid for even K beyond 2", says=lambda x, odd: (table(x, odd)[0], True))
sign_table.mutant(
    "lambda = 0 at 2 for even K",
    says=lambda x, odd: (0, False) if x == 2 and not odd else table(x, odd),
)


@claim.check("symbolic", part="proper")
def proper_for_every_k(run: Run, *, sign: int = 1) -> None:
    """r = 1 - alpha eta > 0: the sum has a first term 1 and no negative one, so s_K > 0; lambda =
    r^K/s_K and eta + lambda = 1/s_K are positive for every K. Only then: at K = 1 lambda = r/alpha.
    """
    r, s = sp.symbols("r s", positive=True)  # s = s_K, positive by its terms
    k, n = sp.symbols("k K", integer=True, nonnegative=True)
    run.that((sign * r**k).is_positive, "each term of s_K")
    run.that((r**n / s).is_positive and (1 / s).is_positive, "lambda and eta + lambda")
    beyond, alpha = sp.Symbol("b", nonnegative=True), sp.Symbol("alpha", positive=True)
    run.that((-beyond / alpha).is_nonpositive, "K = 1, r = -b <= 0: no proper prior")


proper_for_every_k.mutant("alternating terms: r < 0", sign=-1)


@claim.check("symbolic", part="table")
def table_for_every_k(
    run: Run, *, says: Callable[[Fraction, bool], tuple[Sign, bool]] = table
) -> None:
    """lambda has the sign of r^K s_K and the argmin exists iff s_K > 0; s_K has its sign from C05
    (condition): positive for r >= 0 and for odd K, that of 1 - t for r = -t and even K.
    """
    for x in (Fraction(1, 2), Fraction(1), Fraction(3, 2), Fraction(2), Fraction(5, 2)):
        r, j = 1 - x, sp.Symbol("j", integer=True, positive=True)
        for odd in (True, False):
            power = r if odd else abs(r)  # the sign of r^K
            inside = 1 if r >= 0 or odd else (1 + r > 0) - (1 + r < 0)
            sign = (power > 0) - (power < 0)
            expected = "inf" if inside == 0 else sign * inside
            run.that(says(x, odd) == (expected, inside > 0), f"cell alpha eta = {x}, odd = {odd}")
    t = sp.Symbol("t", positive=True)
    run.that(((-t) ** (2 * j)).is_positive and ((-t) ** (2 * j + 1)).is_negative, "signs of r^K")


table_for_every_k.mutant(
    "argmin valid for even K beyond 2", says=lambda x, o: (table(x, o)[0], True)
)


@claim.check("symbolic", part="decreasing")
def decreasing(run: Run, *, sign: int = 1) -> None:
    """d(1/lambda)/dr = -alpha sum j r^{-j-1} < 0 for r > 0; the exact values fall along a grid of
    eta.
    """
    r, alpha, j = sp.symbols("r alpha j", positive=True)
    run.that(
        sp.simplify(sign * sp.diff(alpha * r ** (-j), r)).is_negative,
        "each term of 1/lambda falls with r",
    )
    for n_steps in range(1, 7):
        values = [weight(Fraction(n, 16), n_steps) for n in range(-48, 16)]
        run.that(all(a > b for a, b in pairwise(values)), f"lambda falls with eta at K = {n_steps}")


decreasing.mutant("increasing", sign=-1)


@claim.check("property", part="proper")
def library_prior_is_proper(run: Run, *, step: float = 1.0) -> None:
    """Random symmetric H, alpha H <= 0.95 I: Lambda, H + Lambda positive definite; GD has that
    lambda per eigenvalue.
    """

    @for_all(scaled=hessians(-1.0, 0.95), alpha=rates(), n_steps=st.integers(1, 8))
    def _(scaled: np.ndarray, alpha: float, n_steps: int) -> None:
        hessian = step * scaled / alpha
        lam = prior.precision(hessian, alpha, n_steps)
        run.above(np.linalg.eigvalsh(lam)[0] * alpha, -1e-13, what="smallest eigenvalue of Lambda")
        run.above(
            np.linalg.eigvalsh(hessian + lam)[0], 0.0, what="smallest eigenvalue of H + Lambda"
        )

    for eta in (-1.0, 0.0, 0.3, 0.95):
        for n_steps in (1, 2, 5):
            closed = float(prior.precision(np.array([[eta]]), 1.0, n_steps)[0, 0])
            run.close(
                gd_implies(step * eta, 1.0, n_steps),
                closed,
                tolerance=1e-10,
                what=f"eta = {eta}, K = {n_steps}",
            )


library_prior_is_proper.mutant("spectrum up to 1.9", step=2.0)


@claim.check("exact", part="value")
def stated_value(run: Run, *, stated: Formula) -> None:
    """The printed lambda in rationals against r^K/s_K summed term by term, K = 1, 2, 3, 5, and eta
    + lambda against 1/s_K.
    """
    for eta, alpha in ((Fraction(1, 2), Fraction(2, 3)), (Fraction(-3), Fraction(1, 5))):
        for steps in (1, 2, 3, 5):
            found = weight(alpha * eta, steps)
            run.that(found is not None, "s_K is not zero")
            at = {r"\eta": eta, r"\alpha": alpha, "K": steps}
            keep = stated.terms["keep"].subs({_ETA: eta, _ALPHA: alpha})
            at |= {"r": keep, r"\lambda": found / alpha}
            run.stands(stated, at)
            whole = formula.value(stated.terms["whole"], at)
            run.zero(whole - sp.Rational(eta) - sp.Rational(found / alpha), "eta + lambda")


@claim.check("exact", part="proper")
def stated_edge(run: Run, *, stated: Formula) -> None:
    """The exact weights for K = 1..4 are all positive just where the printed condition says so."""
    for x in (Fraction(-3), Fraction(1, 4), Fraction(3, 4), Fraction(1), Fraction(3, 2)):
        found = [weight(x, steps) for steps in range(1, 5)]
        truth = all(one is not None and one > 0 and x + one > 0 for one in found)
        run.decides(stated, {r"\alpha": 1, r"\eta": x}, truth)


@claim.check("exact", part="table")
def stated_table(run: Run, *, stated: Formula) -> None:
    """The exact weights at the flat point and beyond it, K even and odd."""
    flat = Fraction(str(stated.terms["flat"]))
    run.that(all(weight(flat, steps) == 0 for steps in (1, 2, 3)), "flat")
    for x in (Fraction(5, 4), Fraction(3, 2), Fraction(5, 2), Fraction(3)):
        for steps in (2, 4):
            found = weight(x, steps)
            run.decides(stated, {r"\alpha": 1, r"\eta": x}, found is not None and found > 0)
        odd = weight(x, 3)
        run.that(odd is not None and odd < 0, f"K odd at {x}")


@claim.check("exact", part="decreasing")
def stated_fall(run: Run, *, stated: Formula) -> None:
    """The exact weights fall up to the printed edge; at K = 2 they rise from there on."""
    for alpha in (Fraction(1), Fraction(1, 3)):
        edge = Fraction(str(stated.terms["edge"].subs(_ALPHA, sp.Rational(alpha)))) * alpha
        for a, b in ((edge - 1, edge - Fraction(1, 4)), (edge - Fraction(1, 4), edge)):
            for steps in (1, 2, 3):
                first, second = weight(a, steps), weight(b, steps)
                run.that(first is not None and second is not None, "no pole below the edge")
                run.stands(stated, {stated.left: (second - first) / alpha})
        beyond = weight(edge + Fraction(1, 4), 2)
        run.that(beyond is not None and beyond > weight(edge, 2), "it rises beyond the edge")
