r"""T5: moduli of strong monotonicity of a BlockIAF on a convex set, and the exact criterion for two
blocks.

*Proof of (cosine)*, which derives the constant of Haagerup and de la Harpe (1992). Let $N^B=0$,
$\|N\|\le1$, $D=(I-N^\top N)^{1/2}$, $y_k=DN^kv$ (zero from $k=B$ on). Then
$\sum_k\|y_k\|^2=\sum_k\|N^kv\|^2-\|N^{k+1}v\|^2=\|v\|^2$ and $\sum_k\langle
y_k,y_{k+1}\rangle=\sum_k\langle N^kv,N^{k+1}v\rangle-\langle N^{k+1}v,N^{k+2}v\rangle=\langle
v,Nv\rangle$ (``dilation``). With $\theta=\pi/(B+1)$, $s_j=\sin j\theta>0$ and
$s_{j-1}+s_{j+1}=2\cos\theta\,s_j$, $\cos\theta\sum x_j^2-\sum
x_jx_{j+1}=\frac12\sum_j(\sqrt{s_{j+1}/s_j}\,x_j-\sqrt{s_j/s_{j+1}}\,x_{j+1})^2\ge0$
(``path_lemma``); take $x_j=\|y_j\|$. So $|\langle v,Nv\rangle|\le\cos\theta\,\|N\|\|v\|^2$.
*(comparison)* $v^\top Jv\ge x^\top Cx$ with $x_i=\|v_i\|$. *(two)* Schur complement.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import sympy as sp
import torch
from hypothesis import strategies as st
from torch import Tensor

from proofs_check.claim import Claim, Formula, Statement, Verdict
from proofs_check.run import Run
from proofs_check.tools import iaf
from proofs_check.tools.iaf import Flat
from proofs_check.tools.interval_recheck import recheck
from proofs_check.tools.intervals import Box, certify, entry_bounds
from proofs_check.tools.models import vector
from proofs_check.tools.strategies import for_all, seeds

_B = sp.Symbol("B", integer=True, positive=True)
COSINE = Formula(
    left=sp.Symbol(r"\lambda_{\min}(\operatorname{sym}J)", real=True),
    relation=">=",
    right=sp.Symbol(r"s_{\min}") - sp.cos(sp.pi / (_B + 1)) * sp.Symbol(r"\sup\|N\|_2"),
    text=r"{formula}=m,\text{ sharp for every }B",
)
COMPARISON = Formula(
    left=sp.Symbol("C_{ij}"),
    relation="==",
    right=-sp.Symbol(r"\sup\|J_{ij}\|", nonnegative=True) / 2,
    text=r"m=\lambda_{\min}(C),\ C_{ii}=s_{\min,i},\ {formula}",
)
TWO = Formula(
    left=sp.Symbol(r"\|D_2^{-1/2}J_{21}D_1^{-1/2}\|_2", nonnegative=True),
    relation="<=",
    right=sp.Integer(2),
    text=r"B=2:\ g\text{ monotone on }\mathcal C\iff {formula}\text{ everywhere}",
)

claim = Claim(
    id="T5",
    title="Monotonicity of BlockIAF on a convex set",
    source="Theorem, for the poster's Lemma",
    printed=Statement(
        given={
            "set": (
                r"g\text{ locally Lipschitz, }\mathcal C\text{ convex with interior, }J=D+N"
                r"\text{ a.e., }D\succeq s_{\min}I"
            ),
        },
        then=r"\langle g(z)-g(z'),z-z'\rangle\ge m\|z-z'\|^2\text{ on }\mathcal C",
        parts={
            "cosine": COSINE,
            "comparison": COMPARISON,
            "two": TWO,
        },
    ),
    expected=Verdict("HOLDS", "PROVED"),
    remark=(
        "With J a.e. alone the theorem fails (a Cantor shift). On R^d bounded N forces constant "
        "scales (T2)."
    ),
)


def defect(n: sp.Matrix) -> sp.Matrix:
    """D^2 = I - N^T N."""
    return sp.eye(n.rows) - n.T * n


@claim.check("symbolic", about="printed", part="cosine", covers="exact")
def dilation(run: Run, *, square: Callable[[sp.Matrix], sp.Matrix] = defect) -> None:
    """General strictly triangular N, B = 2, 3, 4: sum_k |y_k|^2 = |v|^2 and sum_k <y_k, y_{k+1}> =
    v^T N v.
    """
    for size in (2, 3, 4):
        n = sp.Matrix(size, size, lambda i, j: sp.Symbol(f"n{i}{j}") if j < i else 0)
        v = sp.Matrix(sp.symbols(f"v0:{size}"))
        d = square(n)
        lengths = sum(((n**k * v).T * d * (n**k * v) for k in range(size)), sp.zeros(1))
        products = sum(((n**k * v).T * d * (n ** (k + 1) * v) for k in range(size)), sp.zeros(1))
        run.zero(sp.expand((lengths - v.T * v)[0]), f"sum of squares, B = {size}")
        run.zero(sp.expand((products - v.T * n * v)[0]), f"sum of products, B = {size}")


dilation.mutant("D^2 = I", square=lambda n: sp.eye(n.rows))
dilation.mutant("D^2 = I - N N^T", square=lambda n: sp.eye(n.rows) - n * n.T)


def angle(blocks: int) -> sp.Expr:
    """pi / (B + 1)."""
    return sp.pi / (blocks + 1)


@claim.check("certificate", about="printed", part="cosine", covers="exact")
def path_lemma(run: Run, *, theta: Callable[[int], sp.Expr] = angle) -> None:
    """sin((j-1)t) + sin((j+1)t) = 2 cos t sin(jt); the multipliers are positive and the sum of
    squares has the right ends.
    """
    j, t = sp.symbols("j t", real=True)
    run.zero(
        sp.expand_trig(sp.sin((j - 1) * t) + sp.sin((j + 1) * t))
        - sp.expand_trig(2 * sp.cos(t) * sp.sin(j * t)),
        "recursion",
    )
    for blocks in range(2, 9):
        s = [sp.sin(k * theta(blocks)) for k in range(blocks + 2)]
        run.that(
            all(value.evalf() > 0 for value in s[1:-1]), f"multipliers s_1..s_B > 0, B = {blocks}"
        )
        run.that(
            sp.simplify(s[0]) == 0 and sp.simplify(s[-1]) == 0, f"s_0 = s_(B+1) = 0, B = {blocks}"
        )


path_lemma.mutant("pi/B", theta=lambda blocks: sp.pi / blocks)
path_lemma.mutant("pi/(B+2)", theta=lambda blocks: sp.pi / (blocks + 2))


def cosine(blocks: int) -> float:
    """cos(pi / (B + 1))."""
    return math.cos(math.pi / (blocks + 1))


def chain(blocks: int, *, diagonal: float = 1.0, coupling: float = -1.0) -> Flat:
    """g_i = a z_i + nu z_(i-1): N = nu S with the shift S."""
    first = lambda _: (vector(diagonal), vector(0.0))  # noqa: E731
    later = lambda z: (vector(diagonal), coupling * z[-1:])  # noqa: E731
    return iaf.formula(first, *[later] * (blocks - 1), scale=iaf.Identity())


@claim.check("exact", about="printed", part="cosine")
def attained_by_the_shift(run: Run, *, constant: Callable[[int], float] = cosine) -> None:
    """The chain of scalar blocks through the library's BlockIAF: lambda_min(sym J) = a - |nu|
    cos(pi/(B+1)), B = 2..8.
    """
    for blocks in range(2, 9):
        jacobian = chain(blocks, diagonal=1.5, coupling=-0.7).jacobian(
            torch.zeros(blocks, dtype=torch.float64)
        )
        run.close(
            iaf.least(jacobian),
            1.5 - 0.7 * constant(blocks),
            tolerance=1e-12,
            what=f"modulus of the chain, B = {blocks}",
        )
        run.quantity(
            f"cos(pi/(B+1)) at B={blocks}",
            constant(blocks),
            tolerance=1e-12,
            meaning="numerical radius of the shift",
        )


attained_by_the_shift.mutant("cos(pi/B)", constant=lambda blocks: math.cos(math.pi / blocks))
attained_by_the_shift.mutant(
    "cos(pi/(B+2))", constant=lambda blocks: math.cos(math.pi / (blocks + 2))
)


def parts_of(map: Flat, z: Tensor) -> tuple[Tensor, Tensor]:
    """D and N at z."""
    jacobian = map.jacobian(z)
    diagonal = torch.diag(jacobian.diagonal())
    return diagonal, jacobian - diagonal


def near_chains() -> st.SearchStrategy[Flat]:
    """Random maps of both forms, and chains, whose bound is attained."""
    chains = st.builds(chain, st.integers(2, 6), coupling=st.sampled_from([-1.0, 1.0, -3.0]))
    return st.one_of(iaf.block_maps(min_blocks=2), chains)


@claim.check("property", about="printed", part="cosine")
def library_moduli(run: Run, *, constant: Callable[[int], float] = cosine) -> None:
    """lambda_min(sym J) >= min D - cos(pi/(B+1)) ||N|| at random points of both forms and of
    near-worst chains.
    """

    @for_all(map=near_chains(), seed=seeds())
    def _(map: Flat, seed: int) -> None:
        z = map.random("t5", seed)
        diagonal, rest = parts_of(map, z)
        bound = float(diagonal.diagonal().min()) - constant(len(map.blocks)) * iaf.norm(rest)
        run.at_most(
            bound, iaf.least(diagonal + rest), what="the bound", slack=1e-10 * (1 + iaf.norm(rest))
        )


library_moduli.mutant("cos(pi/B)", constant=lambda blocks: math.cos(math.pi / blocks))
library_moduli.mutant("0.99 of it", constant=lambda blocks: 0.99 * cosine(blocks))


def comparison(
    jacobian: Tensor, blocks: tuple[tuple[int, ...], ...], share: float = 0.5
) -> np.ndarray:
    """C_ii = min s_i, C_ij = -||J_ij||/2. shape: (B, B)"""
    found = np.zeros((len(blocks), len(blocks)))
    for i, rows in enumerate(blocks):
        found[i, i] = float(jacobian.diagonal()[list(rows)].min())
        for j, columns in enumerate(blocks[:i]):
            found[i, j] = found[j, i] = -share * iaf.norm(jacobian[list(rows)][:, list(columns)])
    return found


@claim.check("certificate", about="printed", part="comparison")
def comparison_matrix(run: Run, *, share: float = 0.5) -> None:
    """v^T J v >= x^T C x block by block: <v_i, J_ij v_j> = (w - 1) n x_i x_j with w >= 0
    (Cauchy-Schwarz), and the diagonals exceed C's; equality for scalar blocks with J_ij <= 0 and
    v >= 0, exactly.
    """
    a, b, n, x, y = sp.symbols("a b n x y", positive=True)
    quadratic = sp.Matrix([x, y]).T * sp.Matrix([[a, 0], [-n, b]]) * sp.Matrix([x, y])
    c = sp.Matrix([[a, -share * n], [-share * n, b]])
    run.zero(
        sp.nsimplify(sp.expand((quadratic - sp.Matrix([x, y]).T * c * sp.Matrix([x, y]))[0])),
        "attained by one coupling < 0",
    )
    e, f, w = sp.symbols("e f w", nonnegative=True)
    whole = (a + e) * x**2 + (b + f) * y**2 + (w - 1) * n * x * y
    room = sp.nsimplify(sp.expand(whole - (sp.Matrix([[x, y]]) * c * sp.Matrix([x, y]))[0]))
    run.zero(room - (e * x**2 + f * y**2 + w * n * x * y), "what C gives away is not negative")
    for blocks in (3, 5):
        jacobian = chain(blocks, coupling=-1.3).jacobian(torch.zeros(blocks, dtype=torch.float64))
        c = comparison(jacobian, tuple((k,) for k in range(blocks)), share)
        run.close(
            np.linalg.eigvalsh(c)[0],
            iaf.least(jacobian),
            tolerance=1e-12,
            what="lambda_min(C) of a chain",
        )


comparison_matrix.mutant("C_ij = -||J_ij||", share=1.0)
comparison_matrix.mutant("C_ij = -||J_ij||/4", share=0.25)


@claim.check("property", about="printed", part="comparison")
def library_comparison(run: Run, *, share: float = 0.5) -> None:
    """lambda_min(sym J) >= lambda_min(C) at random points of both forms and of chains."""

    @for_all(map=near_chains(), seed=seeds())
    def _(map: Flat, seed: int) -> None:
        jacobian = map.jacobian(map.random("t5", "c", seed))
        bound = float(np.linalg.eigvalsh(comparison(jacobian, map.blocks, share))[0])
        run.at_most(
            bound, iaf.least(jacobian), what="the bound", slack=1e-10 * (1 + iaf.norm(jacobian))
        )


library_comparison.mutant("C_ij = -||J_ij||/4", share=0.25)


@claim.check("certificate", about="printed", part="comparison", covers="exact")
def certified_on_a_box(run: Run, *, share: float = 0.5) -> None:
    """A library map on a box: lambda_min(C) from certified sup |J_21| and min J_22 is below the
    certified modulus.
    """
    map, box = iaf.mlp([[0], [1]], seed=5, size=0.5, hidden=3, code=1), Box.cube(0.5, 2)
    found = certify(map.map, box, "monotone", tolerance=0.02)
    recheck(map.map, found)
    low, high = entry_bounds(map.map, box)
    coupling = max(abs(low[1, 0]), abs(high[1, 0]))
    c = np.array([[low[0, 0], -share * coupling], [-share * coupling, low[1, 1]]])
    bound = float(np.linalg.eigvalsh(c)[0])
    run.at_most(bound, found.attained, what="lambda_min(C) of the box")
    run.at_most(found.bound, found.attained, what="the certificate brackets the modulus")
    run.quantity(
        "certified modulus, B=2, |z|<=0.5",
        found.bound,
        tolerance=0.03,
        meaning="library's MLP form, random weights",
    )
    run.quantity(
        "lambda_min(C), B=2, |z|<=0.5",
        bound,
        tolerance=1e-6,
        meaning="the same map, from certified entries",
    )


certified_on_a_box.mutant("C_ij = 0", share=0.0)


def criterion(jacobian: Tensor, blocks: tuple[tuple[int, ...], ...]) -> float:
    """||D_2^{-1/2} J_21 D_1^{-1/2}||_2."""
    first, second = (list(block) for block in blocks)
    diagonal = jacobian.diagonal()
    return iaf.norm(
        jacobian[second][:, first]
        / diagonal[second].sqrt()[:, None]
        / diagonal[first].sqrt()[None, :]
    )


@claim.check("certificate", about="printed", part="two")
def schur_complement(run: Run, *, threshold: int = 2) -> None:
    """After congruence by D^{-1/2}, elimination: [[I, K^T/2], [K/2, I]] > 0 iff I - K K^T/4 > 0 iff
    ||K|| < 2.
    """
    k = sp.Matrix(2, 2, sp.symbols("k0:4", real=True))
    whole = sp.Matrix(sp.BlockMatrix([[sp.eye(2), k.T / 2], [k / 2, sp.eye(2)]]))
    step = sp.Matrix(sp.BlockMatrix([[sp.eye(2), sp.zeros(2)], [-k / 2, sp.eye(2)]]))
    run.zero(step * whole * step.T - sp.diag(sp.eye(2), sp.eye(2) - k * k.T / 4), "elimination")
    edge = k.subs(dict(zip(k, (threshold, 0, 0, 0), strict=True)))
    run.zero((sp.eye(2) - edge * edge.T / 4).det(), "singular exactly at the threshold")
    size = sp.Symbol("s", positive=True)
    (found,) = sp.solve(1 - size**2 / 4, size)
    run.quantity(
        "threshold of ||D_2^-1/2 J_21 D_1^-1/2||",
        found,
        meaning="B = 2: monotone iff at most this",
    )


schur_complement.mutant("threshold 1", threshold=1)
schur_complement.mutant("threshold 4", threshold=4)


@claim.check("property", about="printed", part="two")
def library_two_blocks(run: Run, *, measure: Callable[..., float] = criterion) -> None:
    """Both forms with B = 2, z_2 moved until the coupling crosses the threshold: lambda_min changes
    sign exactly there.
    """

    @for_all(
        seed=seeds(),
        form=st.booleans(),
        blocks=st.sampled_from([([0], [1]), ([2, 0], [1]), ([0], [1, 2])]),
    )
    def _(seed: int, form: bool, blocks: tuple[list[int], ...]) -> None:
        map = (
            iaf.mlp(blocks, seed=seed % 1000)
            if form
            else iaf.kronecker([(2,), (1,)], seed=seed % 1000)
        )
        z = map.random("t5", "two", seed)
        for far in (1.0, 30.0):
            moved = z.clone()
            moved[list(map.blocks[1])] *= far
            jacobian = map.jacobian(moved)
            value, modulus = measure(jacobian, map.blocks), iaf.least(jacobian)
            if abs(value - 2) > 1e-6:
                run.that(
                    (value < 2) == (modulus > 0), f"criterion {value:.6g}, modulus {modulus:.6g}"
                )


library_two_blocks.mutant(
    "no weights",
    measure=lambda jacobian, blocks: iaf.norm(jacobian[list(blocks[1])][:, list(blocks[0])]),
)
library_two_blocks.mutant(
    "half the criterion", measure=lambda jacobian, blocks: criterion(jacobian, blocks) / 2
)


@claim.check("symbolic", about="printed", part="cosine")
def any_number_of_blocks(run: Run, *, shift: int = 1) -> None:
    """Any B: with x_k = N^k v the terms |x_k|^2 - |N x_k|^2 and <x_k, N x_k> - <N x_k, N N x_k>
    telescope to |v|^2 and v^T N v (N^B = 0); and sin(jt) is the eigenvector of the path with
    eigenvalue cos t, which vanishes at j = 0 and j = B + 1 for t = pi/(B + 1).
    """
    x, xt, n, nt = sp.symbols("x xt N Nt", commutative=False)
    rest = sp.expand(xt * (1 - nt * n) * x - (xt * x - xt * nt * n * x))
    run.that(rest == 0, "squares telescope")
    rest = sp.expand(xt * (1 - nt * n) * n * x - (xt * n * x - xt * nt * n * n * x))
    run.that(rest == 0, "products telescope")
    j, t = sp.symbols("j t", real=True)
    path = sp.sin((j - 1) * t) + sp.sin((j + shift) * t) - 2 * sp.cos(t) * sp.sin(j * t)
    run.zero(sp.expand_trig(sp.expand(path)), "the path's eigenvector")
    run.zero(sp.sin((_B + 1) * sp.pi / (_B + 1)), "its end")


any_number_of_blocks.mutant("two steps ahead", shift=2)


@claim.check("exact", about="printed", part="cosine")
def stated_modulus(run: Run, *, stated: Formula) -> None:
    """Chains of the library attain the printed modulus for B = 2..6; a chain with the other sign
    of one coupling at B = 3 and a single coupling lie above it.
    """
    for blocks in range(2, 7):
        start = torch.zeros(blocks, dtype=torch.float64)
        jacobian = chain(blocks, diagonal=1.5, coupling=-0.7).jacobian(start)
        at = {stated.left: iaf.least(jacobian), r"s_{\min}": 1.5, r"\sup\|N\|_2": 0.7, "B": blocks}
        run.attained(stated, at, tolerance=1e-12)
    run.stands(stated, {stated.left: 1.5, r"s_{\min}": 1.5, r"\sup\|N\|_2": 0.7, "B": 3})


@claim.check("exact", about="printed", part="comparison")
def stated_comparison(run: Run, *, stated: Formula) -> None:
    """The off-diagonal entry of sym J of the library's negative shifts, where the bound is
    attained.
    """
    for slope in (0.5, 3.0):
        jacobian = iaf.shifted(-slope).jacobian(vector(0.3, 1.0))
        entry = float((jacobian + jacobian.T)[1, 0]) / 2
        run.stands(stated, {stated.left: entry, r"\sup\|J_{ij}\|": slope}, slack=1e-12)


@claim.check("exact", about="printed", part="two")
def stated_two(run: Run, *, stated: Formula) -> None:
    """Linear shifts of the library on either side of the printed threshold."""
    for slope in (0.4, 0.7, 0.99, 1.01, 1.7, 2.5):
        map = iaf.shifted(slope)
        jacobian = map.jacobian(vector(0.0, 0.0))
        at = {stated.left: criterion(jacobian, map.blocks)}
        run.decides(stated, at, iaf.least(jacobian) >= 0)
