r"""RB, second file: its two constants for every number of blocks, and as they are printed.

*Proof.* The diagonal of $J$ lies in $[a_{\min}-\tau_-,a_{\max}+\tau]$; row $i$ of the rest has norm
at most $k_i$ since $|c\rho|\le c$ and the gate's slope is bounded. $\|J\|\le\|D\|+\|N\|$ with
$\|Nv\|^2\le\sum_ik_i^2\|v\|^2$ (Cauchy-Schwarz). $v^\top Nv\le\eta(\sum_ix_i^2
\sum_{j<i}x_j^2)^{1/2}$, and with $\sum x_i^2=1$, $s=\sum x_i^4$ the bracket is
$\frac12(1-s)\le\frac12(1-\frac1B)$.
"""

from __future__ import annotations

import numpy as np
import sympy as sp
import torch

from mdtheory.core import tree
from mdtheory.core.types import Params
from mdtheory.maps.iaf.certified_forms import CertifiedKroneckerIAF
from proofs_check import formula
from proofs_check.claim import Formula
from proofs_check.claims.rb_certified_iaf import certified, claim, constant_coupling
from proofs_check.run import Run
from proofs_check.tools import iaf
from proofs_check.tools.models import vector


@claim.check("symbolic", about="printed", part="modulus")
def any_number_of_blocks(run: Run, *, count: int = 1) -> None:
    """sum_i y_i sum_{j<i} y_j = ((sum y)^2 - sum y^2)/2 with sum y = 1, and sum y^2 - 1/B = sum (y
    - 1/B)^2 >= 0: at most (B - 1)/(2B), for every B.
    """
    b, squares = sp.symbols("B s", positive=True)  # s = sum of y_i^2, y_i = x_i^2
    pairs = (1 - squares) / 2
    spread = squares - 2 / b + count * b / b**2  # sum (y_i - 1/B)^2
    run.zero(pairs - ((b - 1) / (2 * b) - spread / 2), "the pairs")


any_number_of_blocks.mutant("2 B terms", count=2)


@claim.check("symbolic", about="printed", part="lipschitz")
def rows_and_diagonal(run: Run, *, top: int = 1) -> None:
    """a + tau r g <= a + tau for slopes r and gates g in [0, 1]; a row's change is at most c tau/4
    l_alpha + l_nu, for 1/4 - p(1 - p) is a square and |c rho| <= c; norms add.
    """
    tau, c = sp.symbols("tau c", nonnegative=True)
    r, g = (1 / (1 + sp.Symbol(n, nonnegative=True)) for n in "xy")  # in (0, 1]
    room = sp.factor(sp.together(top * tau - tau * r * g))
    run.that(room.is_nonnegative, f"room on the diagonal: {room}")
    p = sp.Symbol("p", real=True)
    run.zero(sp.Rational(1, 4) - p * (1 - p) - (p - sp.S.Half) ** 2, "the gate's slope")
    size = 1 / (1 + sp.Symbol("w", nonnegative=True))  # |rho|
    run.that(sp.factor(sp.together(c - c * size)).is_nonnegative, "|c rho| <= c")
    n, k, v = sp.symbols("n k v", nonnegative=True)  # |N_i| <= k_i = n + slack
    run.zero((n + k) ** 2 * v**2 - n**2 * v**2 - (2 * n * k + k**2) * v**2, "row by row")


rows_and_diagonal.mutant("no room for tau", top=0)


@claim.check("exact", about="printed", part="modulus")
def stated_modulus(run: Run, *, stated: Formula) -> None:
    """Constant couplings through the library's BlockIAF attain the printed modulus, B = 2..5; a
    single coupling lies above it.
    """
    for blocks in range(2, 6):
        kappa, diagonal = 0.3, 0.8
        eta = kappa * (blocks * (blocks - 1) / 2) ** 0.5
        start = torch.zeros(blocks, dtype=torch.float64)
        found = iaf.least(constant_coupling(blocks, kappa, diagonal).jacobian(start))
        at = {stated.left: found, r"a_{\min}": diagonal, r"\tau_-": 0, r"\eta": eta, "B": blocks}
        run.attained(stated, at, tolerance=1e-12)
    run.stands(stated, {**at, stated.left: diagonal - 0.1})


@claim.check("exact", about="printed", part="lipschitz")
def stated_constant(run: Run, *, stated: Formula) -> None:
    """The norm of two coupled coordinates against the printed M: below it, and above nine tenths of
    it where the coupling is large; k_i against the steepest row of the library's gated map.
    """
    for a, eta, share in ((0.5, 0.3, 0.8), (0.5, 20.0, 0.97), (2.0, 0.0, 0.999)):
        found = iaf.norm(constant_coupling(2, -eta, a).jacobian(vector(0.0, 0.0)))
        at = {stated.left: found, r"a_{\max}": a, r"\tau": 0, r"\eta": eta}
        run.stands(stated, at, slack=1e-12)
        run.above(found, share * float(formula.value(stated.right, at)), what="share of M")
    row = float(iaf.gated().jacobian(vector(0.0, 3.0))[1, 0])  # c tau = 3, l_alpha = 1
    at = {"c": 1.5, r"\tau": 2, r"\ell^\alpha_i": 1, r"\ell^\nu_i": 0}
    run.close(row, float(formula.value(stated.terms["row"], at)), tolerance=1e-12, what="k_i")


@claim.check("certificate", about="printed", part="descent")
def constants_for_t6(run: Run, *, power: int = 2) -> None:
    """m and M hold on all of R^d, so every segment [z, z - alpha u] is covered: T6's alpha <
    2m/(LM^2).
    """
    alpha, m, big_m, big_l = sp.symbols("alpha m M L", positive=True)
    change = -alpha * (m - alpha * big_l * big_m**2 / 2)
    (edge,) = sp.solve(change, alpha)
    run.that(edge == 2 * m / (big_l * big_m**power), "the largest rate")
    run.quantity(
        "largest alpha L M^2 / m, on all of R^d",
        edge * big_l * big_m**2 / m,
        theory=2,
        meaning="2m/(L M^2)",
    )


constants_for_t6.mutant("2m/(LM)", power=1)


@claim.check("exact", about="printed", part="form")
def no_mirror_map(run: Run, *, spread: float = 3.0) -> None:
    """The Jacobian of a disturbed certified map is not symmetric; that of an undisturbed one is."""
    map = certified(3, spread, kronecker=False)
    jacobian = map.jacobian(map.random("rb", "type"))
    run.above(float(np.abs((jacobian - jacobian.T).numpy()).max()), 1e-6, what="asymmetry")


no_mirror_map.mutant("the undisturbed map, an identity", spread=0.0)


claim.kernel("sigmoid_slope_bound", part="form", about="printed")
claim.kernel("gate_lipschitz", part="form", about="printed")
claim.kernel("inverse_lipschitz", part="inverse", about="printed")


class Halved(CertifiedKroneckerIAF):
    """Conditioners counted with half their Lipschitz constants."""

    def lipschitz(self, meta: Params) -> list[tuple[float, float]]:
        return [(gates / 2, shifts / 2) for gates, shifts in super().lipschitz(meta)]


def least_modulus(
    kind: type[CertifiedKroneckerIAF], *, seed: int, steps: int = 100
) -> tuple[float, float]:
    """(lambda_min of sym J, certified m) of two coupled numbers whose parameters and point an
    ascent has turned against the modulus.
    """
    like = {f"t{i}": torch.zeros(1, dtype=torch.float64) for i in range(2)}
    map = kind(1, m=0.1, M=4.0, reach=1000.0, seed=seed)
    map.build(like)
    map.double()
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in map.parameters():
            p.add_(3.0 * torch.randn(p.shape, generator=draw, dtype=p.dtype))
    z = vector(0.3, 3000.0).requires_grad_()
    ascent = torch.optim.Adam([*map.parameters(), z], lr=0.1)
    found = iaf.Flat(map, like, ((0,), (1,)))
    for _ in range(steps):
        ascent.zero_grad()
        own = dict(map.named_parameters())
        jacobian = torch.func.jacrev(
            lambda v, own=own: tree.flatten(map.point(own, tree.unflatten(v, like)))
        )(z)
        torch.linalg.eigvalsh((jacobian + jacobian.T) / 2)[0].backward()
        ascent.step()
    return iaf.least(found.jacobian(z.detach())), map.certificate(found.own())[0]


@claim.check("property", about="printed", part="modulus")
def an_adversary_comes_near(
    run: Run, *, kind: type[CertifiedKroneckerIAF] = CertifiedKroneckerIAF
) -> None:
    """An ascent over all parameters of the Kronecker form and the point: lambda_min of sym J stays
    above the certified m, and nine tenths of the way to it.
    """
    for seed in (2, 3):
        least, low = least_modulus(kind, seed=seed)
        run.at_most(low, least, what="the certified m", slack=1e-9)
        run.above((1 - least) / (1 - low), 0.85, what="share of the certificate that is used")


an_adversary_comes_near.mutant("Lipschitz constants halved", kind=Halved)
