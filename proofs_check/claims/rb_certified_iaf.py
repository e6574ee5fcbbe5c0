r"""RB: a block-triangular bijection that is strongly monotone and Lipschitz on all of R^d, with
sharp modulus.

*Proof of (modulus).* With $k_i$ the norm of block row $i$ of $N$ and $\eta^2=\sum k_i^2$, $v^\top
Nv\le\sum_ik_i\|v_i\|\|v_{<i}\|\le\eta\bigl(\sum_{i\ge2}\|v_i\|^2\|v_{<i}\|^2\bigr)^{1/2}$ by
Cauchy-Schwarz, and for $\sum x_i^2=1$: $\sum_{i\ge2}x_i^2\sum_{j<i}x_j^2=\frac12(1-\sum
x_i^4)=\frac{B-1}{2B}-\frac12\sum(x_i^2-\frac1B)^2$. *(form)* The gated term's own slope is
$\tau\rho'\gamma$, its slope in the prefix at most $\tau c|\gamma'|\ell^\alpha$: $\frac14\tau
c\ell^\alpha$ for a sigmoid gate, $\frac12\tau c\ell^\alpha$ for the library's $\tanh(\alpha/2)$,
whose free sign costs $-\tau$ in $m$. *(lipschitz)* Triangle inequality; $\|N\|\le\eta$.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import sympy as sp
import torch
from hypothesis import strategies as st

from mdtheory.core.seeding import generator
from mdtheory.maps.iaf.certified import monotone_modulus
from mdtheory.maps.iaf.certified_forms import CertifiedKroneckerIAF, CertifiedMLPIAF
from proofs_check.claim import Claim, Formula, Statement, Verdict
from proofs_check.formula import tex
from proofs_check.run import Run
from proofs_check.tools import iaf
from proofs_check.tools.iaf import Flat
from proofs_check.tools.models import vector
from proofs_check.tools.strategies import for_all, seeds

_A, _AMIN, _TAU, _OFF = sp.symbols(r"a_{\max} a_{\min} \tau \tau_-", nonnegative=True)
_ETA, _B = sp.Symbol(r"\eta", nonnegative=True), sp.Symbol("B", integer=True, positive=True)
_C, _LA, _LN = sp.symbols(r"c \ell^\alpha_i \ell^\nu_i", nonnegative=True)
MODULUS = Formula(
    left=sp.Symbol(r"\lambda_{\min}(\operatorname{sym}J)", real=True),
    relation=">=",
    right=_AMIN - _OFF - _ETA * sp.sqrt((_B - 1) / (2 * _B)),
    text=r"{formula}=m,\ \eta^2=\sum_{i\ge2}k_i^2",
)
LIPSCHITZ = Formula(
    left=sp.Symbol(r"\|J\|", nonnegative=True),
    relation="<=",
    right=_A + _TAU + _ETA,
    text=r"{formula}=M,\ \eta^2=\sum_{i\ge2}k_i^2,\ k_i={row}\text{ (sigmoid)}"
    r"\text{; not attained at }B=2",
    terms={"row": _C * _TAU * _LA / 4 + _LN},
)
_KAPPA, _M, _BIG, _L = sp.symbols(r"\kappa m M L", positive=True)
SHARP = Formula(
    left=MODULUS.left,
    relation="==",
    right=_AMIN - _KAPPA * (_B - 1) / 2,
    text=r"\tau=0,\text{ scalar blocks, }N_{ij}=-\kappa\text{ below the diagonal}:\ {formula},"
    r"\text{ which is }m;\ \text{T5's cosine is as good for two blocks only}",
)
GATES = Formula(
    left=sp.Symbol(r"\sup|\partial_\alpha\tanh\tfrac\alpha2|", positive=True),
    relation="==",
    right=sp.Rational(1, 2),
    text=r"{formula},\text{ of a sigmoid }{sigmoid}",
    terms={"sigmoid": sp.Rational(1, 4)},
)
SCALING = Formula(
    left=sp.Symbol("s", positive=True),
    relation="==",
    right=(_AMIN - _OFF - _M) / (_ETA * sp.sqrt((_B - 1) / (2 * _B))),
    text=r"\text{where it is below one, the factor }{formula}\text{ on the conditioners makes the "
    r"modulus }m",
)
INVERSE = Formula(
    left=sp.Symbol(r"\mathrm{Lip}(g^{-1})", positive=True),
    relation="<=",
    right=1 / _M,
    text=r"g^{-1}\text{ exists, one increasing scalar equation a coordinate, }{formula}",
)
DESCENT = Formula(
    left=sp.Symbol(r"\alpha", positive=True),
    relation="<",
    right=2 * _M / (_L * _BIG**2),
    text=r"{formula}:\text{ the dual step descends (T6)}",
)

claim = Claim(
    id="RB",
    title="A monotone, Lipschitz block-triangular map",
    source="Repair, for the poster's Lemma",
    printed=Statement(
        given={
            "map": r"g_i(z)=a_i\odot z_i+\tau c\,\rho(z_i/c)\,\gamma(\alpha_i(z_{<i}))+"
            r"\nu_i(z_{<i}),"
            r"\ a_{\min}\le a_i\le a_{\max}",
            "units": r"\tau\ge0,\ c>0,\ |\rho|\le1,\ 0\le\rho'\le1",
            "room": r"m>0;\text{ the }m\text{ that a scaling asks for is below }a_{\min}-\tau_-",
            "gate": r"\gamma=\mathrm{sigmoid}:\ k_i="
            + tex(LIPSCHITZ.terms["row"])
            + r",\ \tau_-=0;\quad\gamma(\alpha)=\tanh\tfrac\alpha2:\ k_i="
            + tex(_C * _TAU * _LA * GATES.right + _LN)
            + r",\ \tau_-=\tau",
        },
        then=r"g\text{ is }m\text{-strongly monotone and }M\text{-Lipschitz on all of }\mathbb R^d",
        parts={
            "modulus": MODULUS,
            "sharp": SHARP,
            "lipschitz": LIPSCHITZ,
            "form": GATES,
            "scaling": SCALING,
            "inverse": INVERSE,
            "descent": DESCENT,
        },
        scopes={"sharp": "exists"},
    ),
    expected=Verdict("HOLDS", "PROVED"),
    uses=("T6/descent",),
    remark=(
        "Still no mirror map, unless its conditioners are constant (then one coordinate by "
        "coordinate, and Meta-SGD only where the gated term vanishes): monotone dual-space "
        "preconditioning. Its simplest member has constant scales (tau = 0)."
    ),
)

Modulus = Callable[..., float]


@claim.check("certificate", about="printed", part="modulus", covers="exact")
def fourth_powers(
    run: Run, *, constant: Callable[[int], sp.Rational] = lambda b: sp.Rational(b - 1, 2 * b)
) -> None:
    """For sum x^2 = 1: sum_i x_i^2 sum_{j<i} x_j^2 = (B-1)/(2B) - 1/2 sum (x_i^2 - 1/B)^2, B =
    2..6; and the quantities.
    """
    for blocks in range(2, 7):
        y = list(sp.symbols(f"y1:{blocks + 1}", nonnegative=True))  # squares
        y[-1] = 1 - sum(y[:-1])
        pairs = sum(y[i] * y[j] for i in range(blocks) for j in range(i))
        squares = sum((value - sp.Rational(1, blocks)) ** 2 for value in y) / 2
        run.zero(sp.expand(pairs - (constant(blocks) - squares)), f"B = {blocks}")
        root = sp.sqrt(constant(blocks))
        run.quantity(f"sqrt((B-1)/(2B)) at B={blocks}", root, meaning="sharp factor of eta")
        found = monotone_modulus(diagonal=0.0, coupling=-1.0, n_blocks=blocks)
        run.close(found, float(root), tolerance=1e-15, what="the library's constant")


fourth_powers.mutant("(B-1)/B", constant=lambda b: sp.Rational(b - 1, b))
fourth_powers.mutant("1/2", constant=lambda b: sp.Rational(1, 2))


def constant_coupling(blocks: int, kappa: float, diagonal: float = 1.0) -> Flat:
    """g_i = a z_i - kappa sum_{j<i} z_j."""
    later = lambda z: (vector(diagonal), -kappa * z.sum().reshape(1))  # noqa: E731
    return iaf.formula(
        lambda _: (vector(diagonal), vector(0.0)), *[later] * (blocks - 1), scale=iaf.Identity()
    )


@claim.check("exact", about="printed", part="sharp")
def attained_by_constant_coupling(run: Run, *, modulus: Modulus = monotone_modulus) -> None:
    """N_ij = -kappa through the library's BlockIAF: lambda_min(sym J) = a - eta sqrt((B-1)/(2B)) to
    1e-12, B = 2..7.
    """
    for blocks in range(2, 8):
        kappa = 0.3
        eta = kappa * math.sqrt(blocks * (blocks - 1) / 2)
        jacobian = constant_coupling(blocks, kappa).jacobian(
            torch.zeros(blocks, dtype=torch.float64)
        )
        run.close(
            modulus(diagonal=1.0, coupling=eta, n_blocks=blocks),
            iaf.least(jacobian),
            tolerance=1e-12,
            what="the modulus",
        )
    run.quantity(
        "modulus at B=4, kappa=0.3, a=1",
        modulus(diagonal=1.0, coupling=0.3 * 6**0.5, n_blocks=4),
        tolerance=1e-12,
        meaning="1 - 3 kappa/2",
    )


def cosine_form(*, diagonal: float, coupling: float, n_blocks: int) -> float:
    """a - eta cos(pi/(B+1))."""
    return diagonal - coupling * math.cos(math.pi / (n_blocks + 1))


attained_by_constant_coupling.mutant("the cosine form", modulus=cosine_form)
attained_by_constant_coupling.mutant(
    "sqrt((B-1)/B)",
    modulus=lambda *, diagonal, coupling, n_blocks: (
        diagonal - coupling * math.sqrt((n_blocks - 1) / n_blocks)
    ),
)


@claim.check("certificate", about="printed", part="sharp")
def cosine_is_weaker(run: Run, *, first: int = 2) -> None:
    """(B-1)/(2B) <= cos^2(pi/(B+1)) for B = 2..40, equality at B = 2 only; from B = 3 on below 1/2
    against at least 1/2.
    """
    for blocks in range(2, 41):
        gap = sp.cos(sp.pi / (blocks + 1)) ** 2 - sp.Rational(blocks - 1, 2 * blocks)
        if blocks == first:
            run.zero(gap, f"equality at B = {blocks}")
        else:
            run.above(float(gap.evalf(30)), 0.0, what=f"cosine against root at B = {blocks}")
    b = sp.Symbol("B", positive=True)  # B >= 3: the angle is at most pi/4
    run.zero(sp.cos(sp.pi / 4) ** 2 - (b - 1) / (2 * b) - 1 / (2 * b), "1/2 is above, for every B")


cosine_is_weaker.mutant("equality at 3", first=3)


@claim.check("certificate", about="printed", part="lipschitz", covers="exact")
def upper_bound_not_attained(
    run: Run, *, bound: Callable[[float, float], float] = lambda a, eta: a + eta
) -> None:
    """B = 2, tau = 0: ||((a, 0), (k, a))|| = (k + sqrt(k^2 + 4 a^2))/2, 1.161 at a = 1, k = .3,
    where M = 1.3; exact.
    """
    a, k = sp.symbols("a k", positive=True)
    matrix = sp.Matrix([[a, 0], [k, a]])
    top = (k + sp.sqrt(k**2 + 4 * a**2)) / 2
    run.zero(
        sp.expand((matrix.T * matrix - top**2 * sp.eye(2)).det()), "top^2 is an eigenvalue of J^T J"
    )
    run.zero((matrix.T * matrix).trace() - 2 * a**2 - k**2, "and the larger: their product is a^4")
    found = iaf.norm(constant_coupling(2, -0.3).jacobian(vector(0.0, 0.0)))
    run.close(
        found,
        float(top.subs({a: 1, k: sp.Rational(3, 10)})),
        tolerance=1e-12,
        what="the library's map",
    )
    run.at_most(found, bound(1.0, 0.3), what="M")
    run.above(bound(1.0, 0.3) - found, 0.13, what="slack of M")
    run.quantity(
        "sup ||J|| at B=2, a=1, eta=0.3",
        found,
        tolerance=1e-3,
        theory=1.161,
        meaning="(k + sqrt(k^2 + 4))/2",
    )
    run.quantity(
        "M at B=2, a=1, eta=0.3",
        bound(1.0, 0.3),
        tolerance=1e-12,
        theory=1.3,
        meaning="a_max + tau + eta",
    )


upper_bound_not_attained.mutant("M without eta", bound=lambda a, eta: a)
upper_bound_not_attained.mutant("M = a + 2 eta", bound=lambda a, eta: a + 2 * eta)


@claim.check("symbolic", about="printed", part="form")
def slopes_of_the_gates(run: Run, *, share: sp.Rational = sp.S.One) -> None:
    """sigmoid' <= 1/4, (tanh(a/2))' <= 1/2, tanh in (-1, 1) with slope in (0, 1]: squares and
    positive functions.
    """
    x = sp.Symbol("x", real=True)
    p = 1 / (1 + sp.exp(-x))
    run.zero(
        share * sp.Rational(1, 4) - sp.diff(p, x) - (p - sp.Rational(1, 2)) ** 2, "1/4 - sigmoid'"
    )
    run.quantity(
        "factor of c tau in eta",
        sp.diff(p, x).subs(x, 0),
        meaning="largest slope of the sigmoid, in c tau l/4",
    )
    half = sp.tanh(x / 2)
    run.zero(
        (share * sp.Rational(1, 2) - sp.diff(half, x) - half**2 / 2).rewrite(sp.exp),
        "1/2 - (tanh(a/2))'",
    )
    run.zero((1 - sp.diff(sp.tanh(x), x) - sp.tanh(x) ** 2).rewrite(sp.exp), "1 - tanh'")


slopes_of_the_gates.mutant("half the slopes", share=sp.Rational(1, 2))


def certified(
    seed: int, spread: float, *, kronecker: bool, m: float = 0.1, big_m: float = 4.0
) -> Flat:
    """A certified map of the library, parameters moved by ``spread`` times normal noise."""
    if kronecker:
        like = {
            f"t{i}": torch.zeros(shape, dtype=torch.float64)
            for i, shape in enumerate([(2,), (2, 2), (1,)])
        }
        map: CertifiedKroneckerIAF | CertifiedMLPIAF = CertifiedKroneckerIAF(
            1, m=m, M=big_m, seed=seed
        )
        blocks: tuple[tuple[int, ...], ...] = ((0, 1), (2, 3, 4, 5), (6,))
    else:
        like = {"phi": torch.zeros(4, dtype=torch.float64)}
        map, blocks = (
            CertifiedMLPIAF([[1], [0, 3], [2]], m=m, M=big_m, hidden=3, code=2, seed=seed),
            ((1,), (0, 3), (2,)),
        )
    map.build(like)
    draw = generator("proofs", "certified", seed)
    with torch.no_grad():
        for parameter in map.parameters():
            parameter.add_(
                spread * torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
            )
    return Flat(map, like, blocks)


def library_certificate(map: Flat) -> tuple[float, float]:
    """(m, M) of these parameters."""
    return map.map.certificate(map.own())


CASES = {
    "seed": seeds(),
    "spread": st.sampled_from([0.0, 0.3, 3.0, 30.0]),
    "kronecker": st.booleans(),
}


def as_is(map: Flat) -> Flat:
    """The library's map."""
    return map


@claim.check("property", about="printed", part="modulus")
def library_within_certificate(
    run: Run,
    *,
    wrap: Callable[[Flat], Flat] = as_is,
    certificate: Callable[[Flat], tuple[float, float]] = library_certificate,
) -> None:
    """Both certified forms, all parameter sizes, near and far points: m <= certified <= lambda_min,
    ||J|| <= certified <= M.
    """

    @for_all(**CASES, far=st.sampled_from([1.0, 1e3, 1e6]))
    def _(seed: int, spread: float, kronecker: bool, far: float) -> None:
        map = wrap(certified(seed % 1000, spread, kronecker=kronecker))
        low, high = certificate(map)
        jacobian = map.jacobian(map.random("rb", seed, scale=far))
        for a, b in (
            (0.1, low),
            (low, iaf.least(jacobian)),
            (iaf.norm(jacobian), high),
            (high, 4.0),
        ):
            run.at_most(a, b, what="m <= low <= lambda_min, ||J|| <= high <= M", slack=1e-9)


library_within_certificate.mutant(
    "impostor: Lipschitz, not monotone",
    wrap=lambda m: m.altered(lambda z, phi: 3 * phi.roll(1) - phi),
)
library_within_certificate.mutant(
    "unsaturated: a live scale", wrap=lambda m: m.altered(lambda z, phi: phi + z * torch.tanh(z[0]))
)
library_within_certificate.mutant(
    "twice the modulus", certificate=lambda m: (2.5 * library_certificate(m)[0], 4.0)
)


@claim.check("property", about="printed", part="lipschitz")
def directed_pairs_do_not_refute(run: Run, *, make: Callable[..., Flat] = certified) -> None:
    """Pairs made as in T2, one coordinate up to 10^6: the product is at least m |z' - z|^2 and the
    quotient at most M.
    """

    @for_all(**CASES, exponent=st.floats(0.0, 6.0), tau=st.sampled_from([-1.0, 1.0]))
    def _(seed: int, spread: float, kronecker: bool, exponent: float, tau: float) -> None:
        map = make(seed % 1000, spread, kronecker=kronecker)
        low, high = library_certificate(certified(seed % 1000, spread, kronecker=kronecker))
        z, other = map.random("rb", "z", seed), map.random("rb", "w", seed)
        last = map.blocks[-1][0]
        z[last], other[last] = 10**exponent, 10**exponent + tau
        gap = other - z
        run.at_most(
            low * float(gap @ gap), iaf.inner(map, z, other), what="m |z' - z|^2", slack=1e-6
        )
        run.at_most(iaf.ratio(map, z, other), high, what="quotient", slack=1e-6)


def uncertified(seed: int, spread: float, *, kronecker: bool) -> Flat:
    """The plain BlockIAF in its place."""
    return (
        iaf.kronecker([(2,), (2, 2), (1,)], seed=seed)
        if kronecker
        else iaf.mlp([[1], [0, 3], [2]], seed=seed)
    )


directed_pairs_do_not_refute.mutant("the plain BlockIAF", make=uncertified)


@claim.check("property", about="printed", part="inverse")
def library_inverse(run: Run, *, wrap: Callable[[Flat], Flat] = as_is) -> None:
    """g^{-1}(g(z)) = z, and |g^{-1}(phi) - g^{-1}(phi')| <= |phi - phi'|/m."""

    @for_all(**CASES)
    def _(seed: int, spread: float, kronecker: bool) -> None:
        plain = certified(seed % 1000, spread, kronecker=kronecker)
        map = wrap(plain)
        z, other = (map.random("rb", part, seed, scale=3.0) for part in ("a", "b"))
        run.close(plain.inverse(map.at(z)), z, tolerance=1e-8, what="g^-1(g(z)) - z")
        run.at_most(
            iaf.ratio(plain.inverted(), z, other),
            1 / library_certificate(plain)[0],
            what="Lip(g^-1)",
            slack=1e-8,
        )


library_inverse.mutant(
    "impostor: a turn added", wrap=lambda m: m.altered(lambda z, phi: phi + 0.1 * iaf.turned(z))
)


@claim.check("certificate", about="printed", part="inverse")
def monotone_inverse(run: Run, *, power: int = 1) -> None:
    """m |Delta|^2 <= <g - g', Delta> <= |g - g'||Delta| gives |Delta| <= |g - g'|/m; the scalar
    equation rises.
    """
    m, delta, image = sp.symbols("m delta image", positive=True)
    run.zero(
        sp.solve(m * delta**2 - image * delta, delta)[0] - image / m**power, "the largest |Delta|"
    )
    a, tau, c, gate, x = sp.symbols("a tau c gate x", positive=True)
    slope = sp.diff(a * x + tau * c * sp.tanh(x / c) * gate, x)
    run.zero(
        slope - a - tau * gate * (1 - sp.tanh(x / c) ** 2),
        "slope of the scalar equation: at least a for gate >= 0",
    )


monotone_inverse.mutant("1/m^2", power=2)


@claim.check("symbolic", about="printed", part="scaling")
def scaling_enforces(
    run: Run, *, root: Callable[[sp.Symbol], sp.Expr] = lambda b: sp.sqrt((b - 1) / (2 * b))
) -> None:
    """Conditioners times s have eta s; at s = (a - m)/(eta sqrt((B-1)/(2B))) the modulus is m
    exactly.
    """
    a, m, eta, b = sp.symbols("a m eta B", positive=True)
    factor = (a - m) / (eta * root(b))
    run.zero(a - factor * eta * sp.sqrt((b - 1) / (2 * b)) - m, "the modulus after scaling")


scaling_enforces.mutant("the cosine form", root=lambda b: sp.cos(sp.pi / (b + 1)))
