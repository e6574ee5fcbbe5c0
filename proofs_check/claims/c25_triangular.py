r"""C25: the poster's display defines a block-triangular, invertible map with a known
log-determinant. True: theorem T1.

The printed index ranges are corrected: encoders $e_1,\dots,e_{B-1}$, decoders $d_2,\dots,d_B$;
$d_1$ is a pair of constants.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise, permutations

import sympy as sp
import torch
from torch import Tensor

from proofs_check.claim import Claim, Formula, Statement, Verdict
from proofs_check.claims import t1_triangular
from proofs_check.run import Run
from proofs_check.tools import iaf
from proofs_check.tools.iaf import Flat
from proofs_check.tools.models import vector
from proofs_check.tools.quoting import quoted

LOG_DET = Formula(
    left=sp.Symbol(r"\log|\det J_g|"),
    relation="==",
    right=sp.log(sp.Symbol(r"\prod_c\sigma(\alpha_c)", positive=True)),
)

claim = Claim(
    id="C25",
    title="BlockIAF is block-triangular and invertible, with log-det",
    source="Learning inverse mirror map with a NN model, display",
    printed=Statement(
        given={
            "map": (
                r"[g(z)]_{\mathcal B_i}=[z]_{\mathcal B_i}\odot\sigma(\alpha_i)+\mu_i,\ "
                r"\sigma>0,\ \text{any partition}"
            )
        },
        then=(
            r"g\text{ is block-triangular and invertible, and }\log|\det J_g|=\sum_c\log\sigma("
            r"\alpha_c)"
        ),
        parts={
            "triangular": (
                r"[g(z)]_{\mathcal B_i}\text{ depends on }z_{\mathcal B_1},\dots,z_{"
                r"\mathcal B_i}\text{ only}"
            ),
            "invertible": r"g^{-1}\text{ by back-substitution, block after block}",
            "log_det": LOG_DET,
            "indices": (
                r"\text{in the library's form, }B\le5:\ e_1,\dots,e_{B-1},\ d_2,\dots,d_B;"
                r"\ d_1\text{ constant}"
            ),
        },
        scopes={"indices": "instance"},
    ),
    expected=Verdict("HOLDS", "PROVED"),
    uses=("T1/p_function", "T1/bijection", "T1/jacobian"),
)

SIZES = (1, 2, 1)


def dyadic(read: Callable[[Tensor], Tensor] = lambda z: z) -> Flat:
    """Blocks of 1, 2, 1 coordinates with polynomial conditioners whose values at quarters are exact
    floats.
    """
    return iaf.formula(
        lambda _: (vector(0.5), vector(0.25)),
        lambda z: (torch.cat([1 + z[:1] ** 2, 0.5 + 0 * z[:1]]), torch.cat([z[:1] / 2, -z[:1]])),
        lambda z: (0.25 + z[1:2] ** 2, z[:1] * z[2:3]),
        sizes=SIZES,
        scale=iaf.Identity(),
    )


def by_hand(z: list[Fraction]) -> tuple[list[Fraction], list[Fraction]]:
    """The same map, and its scales, in rational arithmetic."""
    a, b, c, _ = z
    half, quarter = Fraction(1, 2), Fraction(1, 4)
    scales = [half, 1 + a * a, half, quarter + b * b]
    shifts = [quarter, a / 2, -a, a * c]
    return [s * value + m for s, value, m in zip(scales, z, shifts, strict=True)], scales


POINTS = [
    [Fraction(1, 2), Fraction(-3), Fraction(5, 4), Fraction(2)],
    [Fraction(-2), Fraction(1, 4), Fraction(0), Fraction(-7, 2)],
]


def as_is(map: Flat) -> Flat:
    """The library's map."""
    return map


@claim.check("exact", about="printed", part="triangular")
def rational_values(run: Run, *, wrap: Callable[[Flat], Flat] = as_is) -> None:
    """The library's value equals the rational one exactly, and moving a block never moves an
    earlier one.
    """
    map = wrap(dyadic())
    for z in POINTS:
        at = map.at(vector(*map_floats(z)))
        run.that([Fraction(v) for v in at.tolist()] == by_hand(z)[0], "g(z), exactly")
        for i, block in enumerate(map.blocks):
            moved = vector(*map_floats(z))
            moved[list(block)] += 0.75
            change = map.at(moved) - at
            earlier = [c for other in map.blocks[:i] for c in other]
            run.that(
                not change[earlier].any() and bool(change[list(block)].all()),
                f"moving block {i + 1}",
            )


def map_floats(z: list[Fraction]) -> list[float]:
    """Exact floats."""
    return [float(value) for value in z]


rational_values.mutant(
    "impostor: a turn added", wrap=lambda m: m.altered(lambda z, phi: phi + iaf.turned(z))
)
rational_values.mutant(
    "conditioners peek at their own block",
    wrap=lambda m: m.altered(lambda z, phi: phi + z.roll(-1)),
)


@claim.check("exact", about="printed", part="invertible")
def rational_inverse(run: Run, *, wrap: Callable[[Flat], Flat] = as_is) -> None:
    """g^{-1}(g(z)) = z to rounding at rational points, far ones included."""
    map = wrap(dyadic())
    for z in POINTS:
        for far in (1, 64):
            point = vector(*(far * value for value in map_floats(z)))
            run.close(
                map.inverse(map.at(point)) / far, point / far, tolerance=1e-13, what="g^-1(g(z))"
            )


rational_inverse.mutant(
    "a shift that the inverse forgets", wrap=lambda m: m.altered(lambda z, phi: phi + 0.125)
)


def determinant(rows: list[list[Fraction]]) -> Fraction:
    """By Leibniz' formula, so that triangularity is not used."""
    n, total = len(rows), Fraction(0)
    for order in permutations(range(n)):
        inversions = sum(order[i] > order[j] for i in range(n) for j in range(i + 1, n))
        total += (-1) ** inversions * math.prod(
            (rows[i][order[i]] for i in range(n)), start=Fraction(1)
        )
    return total


@claim.check("exact", about="printed", part="log_det")
def rational_determinant(run: Run, *, wrap: Callable[[Flat], Flat] = as_is) -> None:
    """det J by Leibniz' formula in rationals is the product of the scales, and the library's
    log-determinant is its log.
    """
    map = wrap(dyadic())
    for z in POINTS:
        point = vector(*map_floats(z))
        rows = [[Fraction(v) for v in row] for row in map.jacobian(point).tolist()]
        run.that(
            determinant(rows) == math.prod(by_hand(z)[1], start=Fraction(1)),
            "det J = product of the scales, exactly",
        )
        run.close(
            map.log_abs_det(point),
            math.log(abs(determinant(rows))),
            tolerance=1e-14,
            what="log |det J|",
        )


rational_determinant.mutant("twice the map", wrap=lambda m: m.altered(lambda z, phi: 2 * phi))
rational_determinant.mutant(
    "impostor: a turn added", wrap=lambda m: m.altered(lambda z, phi: phi + iaf.turned(z))
)


@claim.check("exact", about="printed", part="indices")
def networks_of_the_library(
    run: Run, *, encoders: Callable[[int], range] = lambda n: range(1, n)
) -> None:
    """The library's MLP form with B = 1..5 blocks has encoders 1..B-1, decoders 2..B, and two
    vectors of constants.
    """
    for n in range(1, 6):
        map = iaf.mlp([[k] for k in range(n)]).map
        names = {name.split(".")[0] + " " + name.split(".")[1] for name in map.own()}
        wanted = {f"encoders {i}" for i in encoders(n)} | {f"decoders {i}" for i in range(2, n + 1)}
        run.that(
            names == wanted | {"first log_scale", "first shift"},
            f"networks at B = {n}: {sorted(names)}",
        )
    for first, second in pairwise(range(2, 6)):
        run.quantity(
            f"encoders at B={first}", len(encoders(first)), theory=second - 2, meaning="B - 1"
        )


networks_of_the_library.mutant("one common range 1..B", encoders=lambda n: range(1, n + 1))


@claim.check("symbolic", about="printed", part="triangular")
def zeros_above(run: Run, *, wrong: bool = False) -> None:
    """Arbitrary conditioners, all 8 partitions of 4 coordinates (T1): no coordinate depends on a
    later block.
    """
    quoted(run, t1_triangular.jacobian_structure, wrong)


@claim.check("symbolic", about="printed", part="invertible")
def undone(run: Run, *, wrong: bool = False) -> None:
    """Arbitrary conditioners, all 8 partitions (T1): back-substitution is the inverse, on both
    sides.
    """
    quoted(run, t1_triangular.inverse_undoes, wrong)


@claim.check("symbolic", about="printed", part="log_det")
def product_of_scales(run: Run, *, wrong: bool = False) -> None:
    """Arbitrary differentiable conditioners, all 8 partitions (T1): every principal minor, the
    determinant among them, is the product of its scales.
    """
    quoted(run, t1_triangular.jacobian_structure, wrong)


for quotation in (zeros_above, undone, product_of_scales):
    quotation.mutant("T1's own first mutant", wrong=True)


@claim.check("exact", about="printed", part="log_det")
def stated_log_det(run: Run, *, stated: Formula) -> None:
    """The determinant in rationals and the library's log-determinant against the printed log of the
    product of the scales.
    """
    for z in POINTS:
        _, scales = by_hand(z)
        whole = sp.Integer(1)
        for s in scales:
            whole *= sp.Rational(s)
        found = dyadic().log_abs_det(torch.tensor(map_floats(z), dtype=torch.float64))
        run.stands(stated, {stated.left: found, r"\prod_c\sigma(\alpha_c)": whole}, slack=1e-12)
