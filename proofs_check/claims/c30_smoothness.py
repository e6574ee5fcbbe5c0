r"""C30, second file: the smoothness of the truncated objective, and why BlockIAF has none.

The proofs stand in the first file, with the statement.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import sympy as sp
import torch
from torch import Tensor

from mdtheory import descend
from proofs_check.claims.c10_complexity import SMOOTHNESS, measured_smoothness
from proofs_check.claims.c30_outlook import claim, rate
from proofs_check.run import CheckFailedError, Run
from proofs_check.tools import cost, iaf
from proofs_check.tools.iaf import Flat
from proofs_check.tools.models import vector
from proofs_check.tools.strategies import for_all, seeds


@claim.check("exact", part="smoothness")
def smoothness_in_the_number_of_steps(
    run: Run, *, measured: Callable[..., float] = measured_smoothness
) -> None:
    """The library's F'' at the attaining case: a line in K for a = 1; multiplied by a^2 per step
    for a = 1.25.
    """
    how = {"big_lq": 0.7, "slope": 1.3, "alpha": 0.5, "rho": 0.9}
    flat = [measured(a=1.0, n_steps=k, **how) for k in (1, 2, 3)]
    run.close(
        flat[2] - flat[1], flat[1] - flat[0], tolerance=1e-5, what="second difference in K at a = 1"
    )
    run.close(
        flat[1] - flat[0],
        how["alpha"] * how["rho"] * how["slope"],
        tolerance=1e-5,
        what="alpha rho G per step",
    )
    growth = [
        measured(a=1.25, n_steps=k + 1, **how) / measured(a=1.25, n_steps=k, **how) for k in (8, 16)
    ]
    run.quantity(
        "L_F(K+1)/L_F(K), K=16, a=1.25",
        growth[1],
        tolerance=0.01,
        theory=1.25**2,
        meaning="a^2: exponential in K",
    )
    for k in (1, 6):
        bound = cost.smoothness(a=1.25, n_steps=k, **how)
        run.close(
            measured(a=1.25, n_steps=k, **how) / bound,
            1.0,
            tolerance=1e-5,
            what=f"C10's bound, K = {k}",
        )


smoothness_in_the_number_of_steps.mutant(
    "the square root of the growth",
    measured=lambda *, a, n_steps, **how: measured_smoothness(
        a=math.sqrt(a), n_steps=n_steps, **how
    ),
)


SCALE = sp.Function("s")


@claim.check("certificate", part="blockiaf")
def curvature_takes_every_value(
    run: Run, *, shape: Callable[[sp.Expr], sp.Expr] = SCALE, weight: int = 1
) -> None:
    """d/da of c_1 g_1(a) + c_2 (t s(a) + mu(a)) at two prefixes: the difference is any P at a t
    that exists iff s' differs and c_2 is not zero.
    """
    a, b, t, p, c1, c2 = sp.symbols("a b t P c1 c2", real=True)
    c2 *= weight
    first, mu = sp.Function("g1"), sp.Function("mu")

    def slope(x: sp.Symbol) -> sp.Expr:
        return sp.diff(c1 * first(x) + c2 * (t * shape(x) + mu(x)), x)

    difference = sp.expand(slope(b) - slope(a))
    found = sp.solve(difference - p, t)
    run.that(len(found) == 1, "one t for every P")
    run.zero(difference.subs(t, found[0]) - p, "the difference at this t")
    run.zero(
        sp.diff(difference, t) - c2 * (sp.diff(shape(b), b) - sp.diff(shape(a), a)), "slope in t"
    )


curvature_takes_every_value.mutant("a loss that ignores the coordinate", weight=0)
curvature_takes_every_value.mutant("constant scale", shape=lambda x: sp.Symbol("s0"))
curvature_takes_every_value.mutant(
    "scale with constant slope", shape=lambda x: sp.Symbol("s0") + sp.Symbol("s1") * x
)


def as_is(map: Flat) -> Flat:
    """The library's map."""
    return map


@claim.check("property", part="blockiaf")
def library_has_no_finite_constant(
    run: Run, *, wrap: Callable[[Flat], Flat] = as_is, quotient: float = 1e4
) -> None:
    """Both forms, random partitions, F = sum g(z) (linear l, K = 0): gradients 10^4 times further
    apart than their points.
    """

    @for_all(map=iaf.block_maps(min_blocks=2), seed=seeds())
    def _(map: Flat, seed: int) -> None:
        map = wrap(map)
        slope = torch.func.grad(lambda z: map.at(z).sum())
        last = torch.isin(torch.arange(map.size), torch.tensor(map.blocks[-1]))
        a, b = map.random("c30", "a", seed), map.random("c30", "b", seed)
        apart = float(torch.linalg.vector_norm((b - a)[~last]))

        def gap(t: float) -> Tensor:
            return slope(torch.where(last, t, b)) - slope(torch.where(last, t, a))

        still, moving = gap(0.0), gap(1.0) - gap(0.0)  # affine in t
        if not float(moving.abs().max()) > 1e-12:
            raise CheckFailedError(
                "the gradient of the scales is the same at both prefixes: there is nothing to show"
            )
        size = torch.linalg.vector_norm
        t = float((quotient * apart + size(still)) / size(moving)) * 1.01
        run.above(
            float(size(gap(t))) / apart, quotient, what="difference quotient of the gradient of F"
        )


library_has_no_finite_constant.mutant("frozen conditioners", wrap=iaf.frozen)
library_has_no_finite_constant.mutant(
    "bounded curvature", wrap=lambda m: m.altered(lambda z, _: z + torch.sin(z.sum() + z))
)
library_has_no_finite_constant.mutant(
    "monotone, linear", wrap=lambda m: m.altered(lambda z, _: z + iaf.turned(z))
)


@claim.check("counterexample", part="needed")
def no_constant_serves(run: Run, *, make: Callable[[], Flat] = iaf.gated) -> None:
    """The library's g = (z_1/2, z_2 sigmoid z_1), l = (phi_2 - y)^2/2, K = 0, Delta = 1/2: for each
    L the bound fails at R = 1, and the step 1/L ascends."""
    map, over = make(), 3.0
    for big_l in (1.0, 1e2, 1e4):
        start = vector(0.0, 4 * over * math.sqrt(big_l))
        target = float(map.at(start)[1]) - 1

        def loss(z: Tensor, y: float = target) -> Tensor:
            return (map.at(z)[1] - y) ** 2 / 2

        slope = torch.func.grad(loss)(start)
        ratio = float(slope.square().sum()) / rate(big_l, 0.5, 1, 0.0)
        run.above(ratio, 1.0, what=f"|grad F|^2 over 2 L Delta at L = {big_l:g}")
        after = float(loss(descend(loss, start, task_lr=1 / big_l, n_steps=1)[-1]))
        run.above(after, 0.5, what=f"F after a step of 1/L, L = {big_l:g}")
        if big_l == 1e4:
            run.quantity(
                "|grad F|^2/(2 L Delta) at L=1e4",
                ratio,
                tolerance=1e-3,
                theory=over**2,
                meaning="gated BlockIAF, R=1",
            )


no_constant_serves.mutant("constant scale", make=lambda: iaf.shifted(0.0))
no_constant_serves.mutant(
    "a linear map", make=lambda: iaf.flat(iaf.Linear(torch.eye(2, dtype=torch.float64)), 2)
)


@claim.check("symbolic", part="smoothness")
def smoothness_of_c10(run: Run, *, power: int = 1) -> None:
    """C10's bound, for symbolic K: at a = 1 it is L_l + G alpha rho K; for a > 1 the ratio of K + 1
    to K tends to a^2.
    """
    right = SMOOTHNESS.right
    names = {symbol.name: symbol for symbol in right.free_symbols}
    a, k = names["a"], names["K"]
    at_one = sp.limit(right, a, 1)
    line = names[r"L_\ell"] + names[r"G_\ell"] * names[r"\alpha"] * names[r"\rho"] * k**power
    run.zero(at_one - line, "a = 1")
    e = sp.Symbol("e", positive=True)
    growing = sp.expand(right.subs(a, 1 + e) / (1 + e) ** (2 * k))  # tends to a constant
    ends = sp.limit(growing, k, sp.oo)
    run.that(ends.is_finite is not False and ends.is_positive, f"a^(2K) times a constant: {ends}")


smoothness_of_c10.mutant("K^2", power=2)
