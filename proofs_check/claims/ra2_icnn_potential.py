r"""RA2: an input-convex network with a certified Hessian bound: a universal convex potential, with
a loose certificate.

*Proof of (curvature).* For frozen $w\ge0$: $\nabla^2(w^\top y_l)=\partial
p_l^\top\mathrm{diag}(w\psi'')\partial p_l+ \nabla^2((A_{l-1}^\top(w\odot\psi'))^\top y_{l-1})$,
since $B_{l-1}z+b_{l-1}$ is affine; the frozen weights of the second term lie between $0$ and
$A_{l-1}^\top w$. $\|\partial p_{l+1}\|\le\|A_l\|\|\partial p_l\|+\|B_l\|$ by $0\le\psi'\le1$.
Recurse. *(dense)* A convex $K$-Lipschitz $f$ on a compact set is within $2K\delta$ of the maximum
of its tangents at a $\delta$-net;
$\max(\ell_1,\dots,\ell_n)=\ell_n+\mathrm{relu}(\max(\ell_1,\dots,\ell_{n-1})-\ell_n)$ is such a
network with ReLU units (one layer for each step, passing the affine parts through $B_l$); and
$0\le\frac1\beta\mathrm{softplus}(\beta x)-\mathrm{relu}(x)\le\frac{\log2}\beta$ adds at most
$\frac{\log2}\beta$ per layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import sympy as sp
import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.func import grad, jacrev

from mdtheory.maps.potential.icnn import SOFTPLUS_CURVATURE, InputConvexPotential
from proofs_check.claim import Claim, Formula, Statement, Verdict
from proofs_check.formula import tex
from proofs_check.run import Run
from proofs_check.tools import potentials
from proofs_check.tools.iaf import Flat, turned
from proofs_check.tools.strategies import for_all, seeds

_PSI, _V, _NORM = sp.symbols(r"\bar\psi \|v\|_\infty \Lambda_1", positive=True)
ONE_LAYER = Formula(
    left=sp.Symbol(r"\lambda_{\max}(\nabla^2\Phi)"),
    relation="<=",
    right=_PSI * _V * _NORM**2,
    text=r"N=1:\ {formula}=L_\Phi,\text{ attained; approached for every }N",
)
_MU, _L, _PHI = sp.symbols(r"\mu L L_\Phi", positive=True)
RECURSION = Formula(
    left=sp.Symbol(r"\Lambda_{l+1}"),
    relation="<=",
    right=sp.Symbol(r"\|A_l\|", nonnegative=True) * sp.Symbol(r"\Lambda_l", nonnegative=True)
    + sp.Symbol(r"\|B_l\|", nonnegative=True),
    text=r"\Lambda_l=\sup\|\partial p_l\|:\ \Lambda_1=\|B_0\|,\ {formula};\ v_N=v,\ "
    r"v_l=A_l^\top v_{l+1};\ \text{so }{quadratic}\|z\|^2+{share}\Phi\in\mathcal F_{\mu,L}",
    terms={"quadratic": _MU / 2, "share": (_L - _MU) / _PHI},
)
LOOSE = Formula(
    left=sp.Symbol(r"\lambda_{\max}(\nabla^2\Phi)"),
    relation="<=",
    right=_PHI / 20,
    text=r"\text{at the library's random starts of depth three }{formula}",
)

claim = Claim(
    id="RA2",
    title="A certified input-convex potential",
    source="Repair, for the poster's outlook 'model h*'",
    printed=Statement(
        given={
            "net": (
                r"p_1=B_0z+b_0,\ y_l=\psi(p_l),\ p_{l+1}=A_ly_l+B_lz+b_l,\ \Phi=v^\top y_N,\ A_l"
                r"\ge0,\ v\ge0"
            ),
            "psi": r"0\le\psi'\le1,\ 0\le\psi''\le\bar\psi",
        },
        then=r"0\preceq\nabla^2\Phi\preceq L_\Phi I,\ L_\Phi=\bar\psi\sum_l\|v_l\|_\infty"
        r"\Lambda_l^2;\quad "
        + tex(RECURSION.terms["quadratic"])
        + r"\|z\|^2+"
        + tex(RECURSION.terms["share"])
        + r"\Phi\in\mathcal F_{\mu,L}",
        parts={
            "curvature": RECURSION,
            "sharp": ONE_LAYER,
            "loose": LOOSE,
            "dense": (
                r"\psi\text{ softplus: }\{\Phi+\text{affine}\},\ L\text{ free, is dense in the "
                r"convex functions on compacts}"
            ),
        },
        scopes={"sharp": "limit"},
    ),
    expected=Verdict("VERIFIED", "VERIFIED"),
    remark=(
        "Dense for the un-normalised family only: not at fixed (mu, L). Gradients converge too "
        "(Rockafellar 25.7, cited)."
    ),
)


class Psi(sp.Function):
    """psi, psi', psi'', ... of an arbitrary smooth psi: Psi(k, x) is the k-th derivative at x."""

    def fdiff(self, argindex: int = 2) -> sp.Expr:
        order, x = self.args
        return Psi(order + 1, x)


@claim.check("symbolic", about="printed", part="curvature", covers="exact")
def recursion(run: Run, *, inner: Callable[..., sp.Expr] = lambda a, slope: a * slope) -> None:
    """Width 1, depth 2 and 3, arbitrary psi: the second derivative is the sum over layers of frozen
    weight * psi'' * (p')^2.
    """
    z = sp.Symbol("z")
    b, c, a, v = sp.symbols("B0:3"), sp.symbols("c0:3"), sp.symbols("A0:3"), sp.Symbol("v")
    p = [b[0] * z + c[0]]
    for layer in (1, 2):
        p.append(a[layer] * Psi(0, p[-1]) + b[layer] * z + c[layer])
        output = v * Psi(0, p[-1])
        weight, total = v, sp.Integer(0)
        for back in range(layer, -1, -1):
            total += weight * Psi(2, p[back]) * sp.diff(p[back], z) ** 2
            weight = inner(weight * a[back], Psi(1, p[back])) if back else weight
        run.zero(sp.expand(sp.diff(output, z, 2) - total), f"depth {layer + 1}")


recursion.mutant("psi' forgotten in the frozen weights", inner=lambda a, slope: a)
recursion.mutant("psi'^2", inner=lambda a, slope: a * slope**2)


def library_bound(map: InputConvexPotential) -> float:
    """L_Phi with exact norms, as the library computes it."""
    return float(map.bound(dict(map.named_parameters()), exact=True).detach())


def network(map: InputConvexPotential, z: Tensor) -> Tensor:
    """Phi(z)."""
    return map._network({name: value.detach() for name, value in map.named_parameters()}, z)


def realised(map: InputConvexPotential, z: Tensor) -> tuple[float, float]:
    """The extreme eigenvalues of Phi's Hessian."""
    return potentials.spectrum(jacrev(grad(lambda x: network(map, x)))(z))


Bound = Callable[[InputConvexPotential], float]


@claim.check("property", about="printed", part="curvature")
def library_network_within_bound(run: Run, *, bound: Bound = library_bound) -> None:
    """The library's network, depth 1 to 3, small, typical and large weights, and the attaining
    ones: 0 <= spectrum <= L_Phi.
    """

    @for_all(
        seed=seeds(),
        depth=st.integers(1, 3),
        spread=st.sampled_from([0.0, 0.5, 2.0]),
        extreme=st.booleans(),
    )
    def _(seed: int, depth: int, spread: float, extreme: bool) -> None:
        map = attaining(depth) if extreme else potentials.icnn(seed % 1000, spread, depth=depth).map
        size = map.quadratic.numel()
        draw = torch.Generator().manual_seed(seed)
        z = (
            torch.zeros(size, dtype=torch.float64)
            if extreme
            else torch.randn(size, generator=draw, dtype=torch.float64)
        )
        low, high = realised(map, z)
        limit = bound(map)
        run.at_most(-low, 0.0, slack=1e-9 * (1 + limit), what="convexity")
        run.at_most(high, limit, slack=1e-9 * (1 + limit), what="L_Phi")


@torch.no_grad()
def attaining(depth: int, through: float = 1e-4) -> InputConvexPotential:
    """Orthogonal last B, zero offsets, equal v, and A of size ``through``: curvature near 1/4 v
    ||B||^2 at 0.
    """
    map = InputConvexPotential(width=3, depth=depth)
    potentials.flat_potential(map, ((3,),))
    own = dict(map.named_parameters())
    for name, value in own.items():
        if name.endswith("direct"):
            value.copy_(torch.eye(3, dtype=torch.float64))
        elif name.endswith("through"):
            value.fill_(math.log(math.expm1(through)))
        elif name.endswith("bias") or name == "output":
            value.zero_()
    for layer in range(depth - 1):
        own[f"layers.{layer + 1}.bias"].fill_(-3 * through * math.log(2))  # centres p_{l+1} at 0
    return map


def halved_bound(map: InputConvexPotential) -> float:
    """Half of it."""
    return 0.5 * library_bound(map)


library_network_within_bound.mutant("half the bound", bound=halved_bound)
library_network_within_bound.mutant("psi-bar = 1/5", bound=lambda map: 0.8 * library_bound(map))


@claim.check("property", about="printed", part="curvature")
def library_map_within_certificate(
    run: Run, *, wrap: Callable[[Flat], Flat] = lambda map: map
) -> None:
    """The library's h*: spectrum of J within its certificate within [mu, L]; J symmetric; grad h
    inverts g.
    """
    mu, big_l = 0.2, 5.0

    @for_all(seed=seeds(), depth=st.integers(1, 3), spread=st.sampled_from([0.0, 0.5, 5.0]))
    def _(seed: int, depth: int, spread: float) -> None:
        plain = potentials.icnn(seed % 1000, spread, mu=mu, big_l=big_l, depth=depth)
        map, z = wrap(plain), plain.random("ra2", seed)
        jacobian = map.jacobian(z)
        run.close(jacobian, jacobian.T, tolerance=1e-10, what="asymmetry of J")
        low, high = potentials.certificate(plain)
        least, largest = potentials.spectrum(jacobian)
        for a, b in ((mu, low), (low, least), (least, largest), (largest, high), (high, big_l)):
            run.at_most(a, b, what="mu <= low <= spectrum <= high <= L", slack=1e-9)
        run.close(plain.inverse(map.at(z)), z, tolerance=1e-6, what="grad h (g(z)) - z")


library_map_within_certificate.mutant(
    "impostor: a turn added", wrap=lambda m: m.altered(lambda z, phi: phi + 0.1 * turned(z))
)
library_map_within_certificate.mutant(
    "steeper than certified", wrap=lambda m: m.altered(lambda z, phi: 6 * phi)
)


@claim.check("exact", about="printed", part="sharp")
def bound_is_attained(run: Run, *, factor: float = 1.0) -> None:
    """N = 1: ratio 1, exactly; N = 2, 3 with small A: .999; through the library's network and its
    own bound.
    """
    run.that(
        sp.Rational(str(SOFTPLUS_CURVATURE))
        == sp.diff(sp.log(1 + sp.exp(sp.Symbol("t"))), "t", 2).subs("t", 0),
        "psi-bar",
    )
    for depth, tolerance in ((1, 1e-12), (2, 2e-3), (3, 2e-3)):
        map = attaining(depth)
        ratio = realised(map, torch.zeros(3, dtype=torch.float64))[1] / (
            factor * library_bound(map)
        )
        run.at_most(ratio, 1.0, what="validity", slack=1e-12)
        run.quantity(
            f"curvature/L_Phi, N={depth}",
            ratio,
            tolerance=tolerance,
            theory=1.0 if depth == 1 else 0.999,
            meaning="sharp",
        )


bound_is_attained.mutant("twice the bound", factor=2.0)
bound_is_attained.mutant("half the bound", factor=0.5)


def typical(depth: int, seeds_of: range, points: int = 20) -> float:
    """The largest curvature/L_Phi met at normal points, over some of the library's random starts, d
    = 6, width 16.
    """
    worst = 0.0
    for seed in seeds_of:
        map = InputConvexPotential(depth=depth, seed=seed)
        flat = potentials.flat_potential(map, ((6,),))
        top = max(
            realised(map, flat.random("ra2", "typical", k, scale=2.0))[1] for k in range(points)
        )
        worst = max(worst, top / library_bound(map))
    return worst


@claim.check("experiment", about="printed", part="loose")
def typical_networks(run: Run, *, depths: tuple[int, ...] = (1, 2, 3)) -> None:
    """Depth 3, mu = 0.2, L = 1.5: the realised curvature is a small part of the allowed one; depth
    1 is not so bad.
    """
    ratios = {depth: typical(depth, range(3)) for depth in depths}
    for depth, ratio in ratios.items():
        run.quantity(
            f"realised/certified curvature, depth {depth}",
            ratio,
            tolerance=0.005,
            meaning="library's random starts",
        )
    deepest = ratios[depths[-1]]
    run.at_most(deepest, 0.15, what="share of the certificate that depth 3 uses")
    run.quantity(
        "realised lambda_max at mu=0.2, L=1.5, depth 3",
        0.2 + 1.3 * deepest,
        tolerance=0.03,
        meaning="allowed: 1.5",
    )


typical_networks.mutant("one layer", depths=(1,))


@claim.check("exact", about="printed", part="loose")
def an_explicit_loose_case(run: Run, *, through: float = 1.0) -> None:
    """Two layers of width 1, A = B_0 = 1, B_1 = 0: sup of the curvature below 0.6 L_Phi, on a fine
    grid with slack.
    """
    z, v = torch.linspace(-12, 12, 4801, dtype=torch.float64), through
    p1 = torch.nn.functional.softplus(z)
    s1, s2 = torch.sigmoid(z), torch.sigmoid(v * p1)
    curvature = s2 * (1 - s2) * (v * s1) ** 2 + v * s2 * s1 * (1 - s1)
    bound = 0.25 * (v**2 + v)
    top = float(curvature.max()) + 0.005 * 1.0  # the curvature is 1-Lipschitz for A <= 1
    run.at_most(top, 0.6 * bound, what="sup of the curvature")
    run.quantity(
        "curvature/L_Phi, two layers of width 1, B_1=0",
        float(curvature.max()) / bound,
        tolerance=1e-3,
        meaning="loose",
    )


an_explicit_loose_case.mutant("A = 0.05: nearly one layer", through=0.05)


def layered_max(values: list[Tensor], unit: Callable[[Tensor], Tensor]) -> Tensor:
    """l_n + unit(max(l_1..l_{n-1}) - l_n), layer by layer: an input-convex network plus an affine
    function.
    """
    total = values[0]
    for value in values[1:]:
        total = value + unit(total - value)
    return total


@claim.check("exact", about="printed", part="dense")
def maxima_are_networks(run: Run, *, layers_error: float = 1.0) -> None:
    """Integers: the layered form is the maximum with ReLU; with softplus_beta the error is in [0,
    (n - 1) log 2 / beta].
    """
    rng = np.random.default_rng(2)
    for n in (2, 3, 5):
        values = [torch.tensor(rng.integers(-9, 9, 50), dtype=torch.float64) for _ in range(n)]
        best = torch.stack(values).amax(0)
        run.that(torch.equal(layered_max(values, torch.relu), best), f"max of {n}, exactly")
        for beta in (4.0, 64.0):
            soft = layered_max(values, lambda x, beta=beta: torch.logaddexp(beta * x, 0 * x) / beta)
            allowed = layers_error * (n - 1) * math.log(2) / beta
            run.at_most(
                float((soft - best).max()),
                allowed,
                slack=1e-12,
                what=f"error of {n - 1} layers at beta = {beta}",
            )
            run.at_most(float((best - soft).max()), 0.0, slack=1e-12, what="softplus is above ReLU")
    equal = [torch.zeros(1, dtype=torch.float64)] * 2
    attained = float(layered_max(equal, lambda x: torch.nn.functional.softplus(x)))
    run.close(
        attained, layers_error * math.log(2), tolerance=1e-12, what="log 2 is attained at a tie"
    )


maxima_are_networks.mutant("half the error", layers_error=0.5)


@claim.check("exact", about="printed", part="dense")
def tangents_approximate(run: Run, *, constant: float = 2.0) -> None:
    """f - max of tangents at a delta-net is in [0, 2 K delta]: |z|^2/2 on the unit disc, K = 1;
    sharp for |z|.
    """
    for n in (5, 9, 17):
        axis = np.linspace(-1, 1, n)
        net = np.array([(a, b) for a in axis for b in axis if a * a + b * b <= 1])
        delta = (
            (axis[1] - axis[0]) / math.sqrt(2) * 2
        )  # every point of the disc is this near to a net point of the disc
        points = np.random.default_rng(n).uniform(-1, 1, (2000, 2))
        points = points[(points**2).sum(1) <= 1]
        tangents = points @ net.T - (net**2).sum(1) / 2
        gap = (points**2).sum(1) / 2 - tangents.max(1)
        run.at_most(-float(gap.min()), 0.0, slack=1e-12, what="tangents are below f")
        run.at_most(float(gap.max()), constant * delta, what=f"error of a net of {len(net)} points")
    # f = |z| on the line, slopes -1 and 1: the tangent at -delta, seen from delta, is off by 2 K
    # delta
    delta = 0.25
    run.close(abs(delta) - (-delta), constant * delta, tolerance=0.0, what="2 K delta is attained")


tangents_approximate.mutant("K delta", constant=1.0)


@claim.check("exact", about="printed", part="sharp")
def stated_bound(run: Run, *, stated: Formula) -> None:
    """One layer of softplus units by autograd: orthogonal B and equal v attain the printed bound at
    0, other points and unequal v lie below it.
    """
    turn = torch.linalg.qr(torch.arange(9.0, dtype=torch.float64).reshape(3, 3) + torch.eye(3)).Q
    for norm, weights, at_zero in ((1.5, (0.7, 0.7, 0.7), True), (2.0, (0.3, 0.6, 0.1), False)):
        v = torch.tensor(weights, dtype=torch.float64)
        z = torch.zeros(3, dtype=torch.float64) + (0.0 if at_zero else 0.4)
        phi = lambda z, v=v, b=norm * turn: v @ torch.nn.functional.softplus(b @ z)  # noqa: E731
        top = float(torch.linalg.eigvalsh(jacrev(grad(phi))(z))[-1])
        at = {stated.left: top, r"\bar\psi": 0.25, r"\|v\|_\infty": max(weights)}
        at[r"\Lambda_1"] = norm
        run.stands(stated, at, slack=1e-12)
        if at_zero:
            run.attained(stated, at, tolerance=1e-12)


@claim.check("exact", about="printed", part="curvature")
def stated_recursion(run: Run, *, stated: Formula) -> None:
    """Width one: the derivative of a psi(p) + b z at psi' = 1 and 1/2, p' = Lambda_l; and the
    ends of the curvature of mu |z|^2/2 + (L - mu)/L_Phi Phi.
    """
    for slope in (1, sp.Rational(1, 2)):
        found = sp.Rational(3, 2) * slope * 4 + 5
        at = {r"\|A_l\|": sp.Rational(3, 2), r"\Lambda_l": 4, r"\|B_l\|": 5}
        run.stands(stated, {**at, stated.left: found})
        if slope == 1:
            run.attained(stated, {**at, stated.left: found}, tolerance=1e-12)
    run.zero(2 * stated.terms["quadratic"] - _MU, "the least curvature")
    run.zero(_MU + stated.terms["share"] * _PHI - _L, "the largest curvature")


@claim.check("experiment", about="printed", part="loose")
def stated_share(run: Run, *, stated: Formula) -> None:
    """The largest realised share at depth three, over three starts."""
    run.stands(stated, {stated.left: typical(3, range(3)) / 2, r"L_\Phi": 0.5})
