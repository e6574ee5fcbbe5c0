r"""C27: the poster's Lemma, second half: g is Lipschitz. False on R^d once a scale is not constant;
true on bounded sets.

*Refutation.* $g=(z_1/2,z_2\,\mathrm{sigmoid}\,z_1)$: between $(0,t)$ and $(1,t)$ the difference
quotient is at least $|t|(\mathrm{sigmoid}\,1-\mathrm{sigmoid}\,0)$. A bounded $\sigma$ does not
help: its slope is multiplied by $z_i$. *What is true*: T2 (Lipschitz iff all scales are constant
and all $\mu_i$ are Lipschitz) and T4 (explicit constants on a bounded set), the latter certified
here for real weights by interval arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import sympy as sp
import torch
from hypothesis import assume

from mdtheory.maps.iaf.base import Scale
from proofs_check.claim import Claim, Formula, Statement, Verdict
from proofs_check.claims import t4_local_lipschitz
from proofs_check.run import Run
from proofs_check.tools import iaf
from proofs_check.tools.iaf import Flat
from proofs_check.tools.interval_recheck import RejectedError, recheck
from proofs_check.tools.intervals import Box, Certificate, UndecidedError, certify
from proofs_check.tools.local_lipschitz import Constants, constants
from proofs_check.tools.models import vector
from proofs_check.tools.quoting import quoted
from proofs_check.tools.strategies import for_all, seeds

_STEP = sp.Symbol(r"\|\Delta\|", positive=True)
CONSTANT = Formula(
    left=sp.Symbol(r"\|g(z)-g(z')\|"),
    relation="<=",
    right=(sp.Symbol(r"\max s", positive=True) + sp.Symbol(r"\mathrm{Lip}(\mu)")) * _STEP,
    text=r"s\text{ constant: }{formula}",
)
LOCAL = Formula(
    left=sp.Symbol(r"\mathrm{Lip}(g)"),
    relation="<=",
    right=sp.Symbol(r"\|M\|_2", positive=True),
    text=r"\text{on the box of radii }R_i:\ {formula},\ M\text{ of T4}",
)

claim = Claim(
    id="C27",
    title="Lemma: for any partition g is Lipschitz continuous",
    source="Learning inverse mirror map with a NN model, Lemma",
    printed=Statement(
        given={"map": r"\text{any partition, }\sigma\text{ positive and bounded}"},
        then=r"\exists L:\ \|g(z)-g(z')\|\le L\|z-z'\|\text{ on }\mathbb R^d",
    ),
    amended=Statement(
        given={"map": r"\text{any partition, }\sigma>0"},
        then=r"g\text{ is Lipschitz on }\mathbb R^d\text{ iff all scales are constant and all }"
        r"\mu_i\text{ Lipschitz;}"
        r"\text{ on bounded sets, with T4's constant}",
        parts={
            "constant": CONSTANT,
            "local": LOCAL,
        },
    ),
    expected=Verdict("FALSE", "PROVED"),
    uses=("T2", "T4"),
    remark=(
        "The official code's scale is exp, unbounded; there the growth in ||z|| is exponential "
        "(T4, exp)."
    ),
)


def steepness(t: float, make: Callable[[], Flat]) -> float:
    """The difference quotient between (0, t) and (1, t)."""
    return iaf.ratio(make(), vector(0.0, t), vector(1.0, t))


def identity_map() -> Flat:
    """An impostor that is Lipschitz."""
    return iaf.flat(iaf.Linear(torch.eye(2, dtype=torch.float64)), 2)


def reflection() -> Flat:
    """An impostor that is Lipschitz and not monotone."""
    return iaf.flat(iaf.Linear(-torch.eye(2, dtype=torch.float64)), 2)


@claim.check("counterexample", about="printed")
def bounded_scale(run: Run, *, make: Callable[[], Flat] = iaf.gated) -> None:
    """sigma = sigmoid: the quotient exceeds any L at t = 2 L/delta, delta = sigmoid(1) - 1/2; L =
    1, 10^3, 10^6, 10^9.
    """
    delta = 1 / (1 + math.exp(-1)) - 0.5
    for constant in (1.0, 1e3, 1e6, 1e9):
        run.above(
            steepness(2 * constant / delta, make),
            constant,
            what=f"quotient against L = {constant:g}",
        )
    run.quantity(
        "growth of the quotient per unit of |z_2|",
        delta,
        tolerance=1e-12,
        meaning="sigmoid(1) - sigmoid(0)",
    )
    run.close(steepness(1e9, make) / 1e9, delta, tolerance=1e-9, what="quotient / t")


bounded_scale.mutant("impostor: the identity", make=identity_map)
bounded_scale.mutant("impostor: Lipschitz, not monotone", make=reflection)
bounded_scale.mutant("constant scales", make=lambda: iaf.shifted(2.0))


def as_is(map: Flat) -> Flat:
    """The library's map."""
    return map


@claim.check("counterexample", about="printed")
def every_live_map_refutes(run: Run, *, wrap: Callable[[Flat], Flat] = as_is) -> None:
    """Both forms of the library, random partitions and weights, conditioners asserted alive, where
    float64 tells the library's scales at both prefixes apart: a quotient above 10^4.
    """

    @for_all(map=iaf.block_maps(min_blocks=2), seed=seeds())
    def _(map: Flat, seed: int) -> None:
        a, b = map.random("c27", "a", seed), map.random("c27", "b", seed)
        assume(iaf.told_apart(map, a, b))
        map = wrap(map)
        iaf.alive(run, map, a)
        pair = iaf.directed_pair(map, a, b)
        moved = pair.other - pair.z
        last = torch.isin(torch.arange(map.size), torch.tensor(map.blocks[-1]))
        before = torch.where(last, 0.0, moved)
        far = (
            torch.where(last, moved, 0.0)
            * 2e4
            * float(torch.linalg.vector_norm(before))
            / abs(pair.delta)
        )
        base = torch.where(last, 0.0, pair.z)
        run.above(iaf.ratio(map, base + far, base + before + far), 1e4, what="difference quotient")


every_live_map_refutes.mutant("dead conditioners", wrap=lambda m: m.altered(lambda z, _: 2 * z))
every_live_map_refutes.mutant(
    "impostor: Lipschitz, not monotone", wrap=lambda m: m.altered(lambda z, _: -z + iaf.turned(z))
)


@claim.check("certificate", part="constant", covers="exact")
def constant_scales(run: Run, *, factor: float = 1.0) -> None:
    """|g - g'|_2 <= s |y - w| + |mu - mu'|; s = 1/2 with a linear shift of slope m: ||J|| <= 1/2 +
    m, within 1% at m = 100.
    """
    s, m = sp.symbols("s m", positive=True)
    square = sp.Matrix([[s, 0], [m, s]])
    gram = square.T * square
    room = (s + m) ** 2 * sp.eye(2) - gram
    run.that(
        all(
            sp.expand(entry).is_nonnegative
            for entry in (room[0, 0], room[1, 1], sp.expand(room.det()))
        ),
        "||J|| <= s + m",
    )
    norm = iaf.norm(iaf.shifted(100.0).jacobian(vector(3.0, -7.0)))
    run.at_most(norm, factor * 100.5, what="||J|| of the library's map")
    run.above(norm, factor * 0.99 * 100.5, what="and nearly that")


constant_scales.mutant("half", factor=0.5)
constant_scales.mutant("twice", factor=2.0)


def certified() -> tuple[Flat, Certificate]:
    """A library map with random weights, three blocks, and its Lipschitz certificate on [-1/2,
    1/2]^3.
    """
    map = iaf.mlp([[1], [0], [2]], seed=11, size=0.4, hidden=3, code=1)
    return map, certify(map.map, Box.cube(0.5, 3), "lipschitz", tolerance=0.15, max_boxes=600)


@claim.check("certificate", part="local", covers="exact")
def local_constant(
    run: Run, *, change: Callable[[Certificate], Certificate] = lambda certificate: certificate
) -> None:
    """Balls, then a second routine: attained <= Lip <= certified <= ||M||; no sampled pair is above
    the certificate.
    """
    map, found = certified()
    found = change(found)
    try:
        boxes = recheck(map.map, found)
    except RejectedError as reason:
        run.that(False, f"the second routine rejects: {reason}")
    run.that(found.settled, "the search knew enough")
    theorem = constants(map.map, found.box).lipschitz()
    run.at_most(found.bound, theorem, what="certified against T4's")
    for k in range(40):
        z, other = (
            map.random("c27", "box", part, k, scale=0.2).clamp(-0.5, 0.5) for part in ("z", "w")
        )
        run.at_most(iaf.ratio(map, z, other), found.bound, what="a sampled quotient")
    run.quantity(
        "certified local constant, B=3, |z|<=0.5",
        found.bound,
        tolerance=0.16,
        meaning="library's MLP form",
    )
    run.quantity(
        "attained local constant, B=3, |z|<=0.5",
        found.attained,
        tolerance=0.16,
        meaning="||J|| at the witness",
    )
    run.quantity(
        "T4's ||M||, B=3, |z|<=0.5",
        theorem,
        tolerance=1e-6,
        meaning="product of norms of the weights",
    )
    run.quantity(
        "boxes of the certificate",
        len(found.leaves),
        meaning=f"{boxes} looked at by the second routine",
    )
    run.quantity(
        "narrowest box of the certificate",
        found.width,
        tolerance=1e-9,
        meaning="where bisection stopped",
    )


local_constant.mutant("a bound a fifth lower", change=lambda c: replace(c, bound=0.8 * c.bound))
local_constant.mutant("a box left out", change=lambda c: replace(c, leaves=c.leaves[1:]))
local_constant.mutant(
    "a witness that claims too much", change=lambda c: replace(c, attained=1.2 * c.attained)
)


@claim.check("certificate", part="local", covers="exact")
def refuses_what_it_cannot_decide(run: Run, *, most: int = 12) -> None:
    """With 12 enclosures 'below 2' stays open and decide() refuses; with 600 it is decided. Never a
    silent answer.
    """
    map, box = iaf.mlp([[1], [0], [2]], seed=11, size=0.4, hidden=3, code=1), Box.cube(0.5, 3)
    level = certified()[1].bound + 0.02
    few = certify(map.map, box, "lipschitz", threshold=level, max_boxes=most)
    run.raises(UndecidedError, lambda: few.decide(level), "too few boxes")
    run.that(not few.settled, "and says so")
    enough = certify(map.map, box, "lipschitz", threshold=level, max_boxes=600)
    run.that(enough.decide(level), "enough boxes decide")


refuses_what_it_cannot_decide.mutant("enough boxes at once", most=600)


@claim.check("property", part="local")
def bound_needs_the_radius(
    run: Run, *, change: Callable[[Constants], Constants] = lambda c: c
) -> None:
    """Along the directed pairs of T2, far out, quotients stay below T4's bound for the box that
    holds them, and only there.
    """

    @for_all(seed=seeds())
    def _(seed: int) -> None:
        map = iaf.mlp([[0], [1]], seed=seed % 500, size=0.5, scale=(0.5, 1.5))
        pair = iaf.directed_pair(map, map.random("c27", "r", seed), map.random("c27", "s", seed))
        radius = float(torch.stack([pair.z, pair.other]).abs().max())
        other = torch.stack([pair.other[0], pair.z[1]])
        bound = change(constants(map.map, Box.cube(radius, 2))).lipschitz()
        run.at_most(
            iaf.ratio(map, pair.z, other),
            bound,
            what=f"quotient at radius {radius:.3g}",
            slack=1e-9 * bound,
        )
        run.that(isinstance(map.map.scale, Scale), ("the library's own scale"))


bound_needs_the_radius.mutant(
    "no R in the bound",
    change=lambda c: replace(c, radius=0 * c.radius, shifts=0 * c.shifts, top=0 * c.top + 1e-3),
)


@claim.check("symbolic", part="constant")
def triangle(run: Run, *, power: int = 1) -> None:
    """g - g' = D Delta + (mu - mu') (T2), and |D Delta| <= max s |Delta|: coordinate by coordinate
    (max s)^2 - s_c^2 >= 0; then the triangle inequality.
    """
    s, room, d = sp.symbols("s r d", positive=True)  # max s = s + r
    run.zero(
        (s + room) ** 2 * d**2 - (s * d) ** 2 - (2 * s * room + room**2) * d**2, "a coordinate"
    )
    run.that((((s + room) ** power) ** 2 - s**2).expand().is_positive, "(max s)^2 - s_c^2 > 0")


triangle.mutant("max s forgotten", power=0)


@claim.check("symbolic", part="local")
def splitting_of_t4(run: Run, *, wrong: bool = False) -> None:
    """T4's splitting of g - g', in symbols."""
    quoted(run, t4_local_lipschitz.splitting, wrong)


splitting_of_t4.mutant("T4's own first mutant", wrong=True)


@claim.check("exact", part="constant")
def stated_constant(run: Run, *, stated: Formula) -> None:
    """The library's linear shifts: nearly attained at slope 100, strict at slope 1, attained
    without a shift.
    """
    for slope, step in ((100.0, (1.0, 0.0)), (1.0, (0.3, 0.4)), (0.0, (0.0, 2.0))):
        gap = iaf.shifted(slope).at(vector(*step)) - iaf.shifted(slope).at(vector(0.0, 0.0))
        at = {stated.left: float(gap.norm()), r"\max s": 0.5, r"\mathrm{Lip}(\mu)": slope}
        at[r"\|\Delta\|"] = float(vector(*step).norm())
        run.stands(stated, at, slack=1e-12)
        if slope != 1.0:
            run.attained(stated, at, tolerance=1e-2)


@claim.check("exact", part="local")
def stated_local(run: Run, *, stated: Formula) -> None:
    """Linear shifts of the library attain T4's norm; the gated map lies below it on its box."""
    for slope in (0.5, 3.0):
        m = t4_local_lipschitz.local_matrix(
            radius=1.0, top=[0.5, 0.5], bend=0.25, scales=0.0, shifts=slope
        )
        found = iaf.norm(iaf.shifted(slope).jacobian(vector(0.0, 0.0)))
        at = {stated.left: found, r"\|M\|_2": float(np.linalg.norm(m, 2))}
        run.attained(stated, at, tolerance=1e-12)
    m = t4_local_lipschitz.local_matrix(
        radius=4.0, top=[0.5, 1.0], bend=0.25, scales=1.0, shifts=0.0
    )
    found = iaf.norm(iaf.gated().jacobian(vector(2.0, 4.0)))
    run.stands(stated, {stated.left: found, r"\|M\|_2": float(np.linalg.norm(m, 2))})
