r"""T6, second file: what is printed, falsified in every way, on the library's steps.

The proofs stand in the first file, with the statement.
"""

from __future__ import annotations

import sympy as sp
import torch
from torch import Tensor

from mdtheory import descend
from mdtheory.geometry.base import Geometry
from proofs_check import formula
from proofs_check.claim import Formula
from proofs_check.claims.t6_descent import bent, claim, rotation
from proofs_check.run import Run
from proofs_check.tools import iaf
from proofs_check.tools.iaf import Linear
from proofs_check.tools.models import vector


@claim.check("exact", about="printed", part="descent")
def stated_descent(run: Run, *, stated: Formula) -> None:
    """The library's step through scaled rotations on L/2 |.|^2 attains the printed change, which is
    zero at the printed largest rate; a symmetric map gains more.
    """
    m, b, big_l = 0.8, 0.9, 2.0
    big_m = (m**2 + b**2) ** 0.5
    top = formula.value(stated.terms["largest"], {"m": m, "M": big_m, "L": big_l})
    run.close(float(top), 2 * m / (big_l * big_m**2), tolerance=1e-12, what="the largest rate")
    zero = {"m": m, "M": big_m, "L": big_l, r"\alpha": top, r"\|u\|": 1}
    run.close(
        float(formula.value(stated.right, zero)), 0.0, tolerance=1e-12, what="no change there"
    )
    for alpha in (0.1, 0.5):
        for turn, tight in ((b, True), (0.0, False)):
            matrix = torch.tensor([[m, -turn], [turn, m]], dtype=torch.float64)
            geometry = Geometry(map=Linear(matrix))
            geometry.build({"phi": vector(0.0, 0.0)})
            f = lambda v: big_l / 2 * v @ v  # noqa: E731
            z = vector(1.0, -2.0)
            end = descend(f, z, task_lr=alpha, n_steps=1, geometry=geometry)[-1]
            u = torch.func.grad(f)(matrix @ z)
            at = {stated.left: float(f(end) - f(matrix @ z)), r"\alpha": alpha, "L": big_l}
            at |= {"m": m, "M": big_m, r"\|u\|": float(u.norm())}
            run.stands(stated, at, slack=1e-9)
            if tight:
                run.attained(stated, at, tolerance=1e-9)


@claim.check("symbolic", about="printed", part="rate")
def stated_rate(run: Run, *, stated: Formula) -> None:
    """K times the decrease alpha (m - alpha L M^2/2) at alpha = m/(LM^2), solved; the library's
    rotation stays below it at that rate, and above it at a hundredth; its loss shrinks by the
    printed factor.
    """
    m, big_m, big_l, delta, mu = sp.symbols(r"m M L \Delta_0 \mu", positive=True)
    k, least = sp.Symbol("K", integer=True, positive=True), sp.Symbol("g", positive=True)
    alpha = m / (big_l * big_m**2)
    decrease = alpha * (m - alpha * big_l * big_m**2 / 2)
    (largest,) = sp.solve(k * decrease * least - delta, least)
    run.zero(largest - stated.right, "the largest minimum that the telescope allows")
    run.zero(1 - 2 * mu * decrease - stated.terms["factor"], "the factor under PL")
    f = lambda phi: phi @ phi  # noqa: E731 (L = 2)
    for share in (1.0, 0.01):
        rate = share * 0.5  # m = 1/2, M^2 = 1/2
        how = {
            "task_lr": rate,
            "n_steps": 12,
            "geometry": Geometry(map=Linear(rotation(0.5, 0.5**0.5))),
        }
        points = descend(f, vector(1.0, 2.0), **how)
        found = min(float(torch.func.grad(f)(point).square().sum()) for point in points[:12])
        at = {stated.left: found, "L": 2, "m": 0.5, "M": sp.sqrt(sp.Rational(1, 2)), "K": 12}
        at |= {r"\alpha": sp.nsimplify(rate), "m": sp.Rational(1, 2)}
        run.stands(stated, {**at, r"\Delta_0": float(f(points[0]))})


@claim.check("exact", about="printed", part="expansion")
def stated_expansion(run: Run, *, stated: Formula) -> None:
    """(z_1, z_2 + 3/2 z_1^2) attains the printed remainder for u along z_1 and lies below it for u
    across.
    """
    map = iaf.formula(
        lambda _: (vector(1.0), vector(0.0)), lambda z: (vector(1.0), bent(z)), scale=iaf.Identity()
    )
    for alpha in (0.25, 2.0):
        for u, tight in ((vector(2.0, 0.0), True), (vector(1.0, 3.0), False)):
            z = vector(0.5, -1.0)
            rest = map.at(z - alpha * u) - (map.at(z) - alpha * map.jacobian(z) @ u)
            at = {stated.left: float(rest.norm()), r"\alpha": alpha, "L_J": 3}
            at[r"\|u\|"] = float(u.norm())
            run.stands(stated, at, slack=1e-12)
            if tight:
                run.attained(stated, at, tolerance=1e-12)


@claim.check("exact", about="printed", part="tight")
def stated_equality(run: Run, *, stated: Formula) -> None:
    """The library's step through two rotations on the printed loss, at two rates: equality."""
    size = sp.Symbol(r"\|\phi\|", positive=True)
    for m, big_m, big_l in ((0.5, 1.0, 1.0), (0.3, 1.5, 2.0)):
        weight = float((stated.terms["loss"] / size**2).subs(sp.Symbol("L", positive=True), big_l))
        for alpha in (0.1, 0.7):
            geometry = Geometry(map=Linear(rotation(m, big_m)))
            before, after = descend(
                lambda v, w=weight: w * v @ v,
                vector(1.0, -2.0),
                task_lr=alpha,
                n_steps=1,
                geometry=geometry,
            )
            change = weight * float(after @ after - before @ before)
            at = {stated.left: change, "m": m, "M": big_m, "L": big_l, r"\alpha": alpha}
            slope: Tensor = big_l * before
            run.stands(stated, {**at, r"\|u\|": float(slope.norm())}, slack=1e-12)


@claim.check("symbolic", about="printed", part="price")
def stated_price(run: Run, *, stated: Formula) -> None:
    """-alpha t + alpha^2 L t^2/2 at t = m and t = M: equal at the best rate, where it is the first
    printed decrease; the second is T6's own best; their ratio; and the rate where t = M gains
    nothing.
    """
    m, big_m, big_l, kappa = sp.symbols(r"m M L \kappa", positive=True)
    alpha = sp.Symbol("a", positive=True)
    change = lambda t: -alpha * t + alpha**2 * big_l * t**2 / 2  # noqa: E731
    (best,) = sp.solve(sp.cancel((change(m) - change(big_m)) / (m - big_m)), alpha)
    run.zero(sp.simplify(-change(m).subs(alpha, best) - stated.terms["symmetric"]), "symmetric")
    plain = alpha * (m - alpha * big_l * big_m**2 / 2)
    (top,) = sp.solve(sp.diff(plain, alpha), alpha)
    run.zero(sp.simplify(plain.subs(alpha, top) - stated.terms["plain"]), "plain")
    ratio = stated.terms["symmetric"] / stated.terms["plain"]
    run.zero(sp.simplify(ratio.subs(big_m, kappa * m) - stated.right), "ratio")
    run.zero(change(big_m).subs(alpha, stated.terms["edge"]), "the edge")
