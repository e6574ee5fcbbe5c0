r"""RC, second file: what is printed, falsified in every way, on the library's rates.

The proofs stand in the first file, with the statement.
"""

from __future__ import annotations

import sympy as sp
import torch

from mdtheory.geometry.rules import block_rates
from proofs_check.claim import Formula
from proofs_check.claims.rc_block_rates import claim
from proofs_check.claims.t6_descent import DESCENT as OF_T6
from proofs_check.run import Run
from proofs_check.tools.models import vector


@claim.check("exact", about="printed", part="price")
def stated_price(run: Run, *, stated: Formula) -> None:
    """The library's rates of chains, B = 2, 3, 4, against the printed power; a weak coupling, where
    all rates are one, is outside its condition.
    """
    for blocks in (2, 3, 4):
        coupling = torch.zeros(blocks, blocks, dtype=torch.float64)
        for i in range(1, blocks):
            coupling[i, i - 1] = 3.0
        q = block_rates(coupling=coupling, diagonal=torch.full((blocks,), 0.5, dtype=torch.float64))
        run.stands(stated, {"q_B": int(q[-1]), "B": blocks, "n": 3, "d": sp.S.Half})
    weak = torch.tensor([[0.0, 0.0], [0.375, 0.0]], dtype=torch.float64)
    q = block_rates(coupling=weak, diagonal=vector(0.5, 0.5))
    run.stands(stated, {"q_B": int(q[-1]), "B": 2, "n": sp.Rational(3, 8), "d": sp.S.Half})


@claim.check("exact", about="printed", part="rates")
def stated_rates(run: Run, *, stated: Formula) -> None:
    """The library's rates of two and three blocks with one coupling; without any they are the
    printed one.
    """
    for blocks in (2, 3):
        coupling = torch.zeros(blocks, blocks, dtype=torch.float64)
        coupling[1, 0] = 3.0
        diagonal = torch.tensor([0.5, 0.25, 1.0][:blocks], dtype=torch.float64)
        q = block_rates(coupling=coupling, diagonal=diagonal)
        at = {"B": blocks, "n_{ij}": 3, "q_j": 1, "d_i": sp.Rational(1, 4), "d_j": sp.S.Half}
        run.stands(stated, {**at, stated.left: int(q[1])})
        free = block_rates(coupling=0 * coupling, diagonal=diagonal)
        run.that(set(free.tolist()) == {float(stated.terms["one"])}, f"free rates {free}")


@claim.check("symbolic", about="printed", part="descent")
def stated_descent(run: Run, *, stated: Formula) -> None:
    """J = ((d, 0), (-n, e)) with q = (1, n^2/(d e)): sym(JQ) less the printed share of diag(d q) is
    singular, so no larger share would do; and T6's printed change decides the rate.
    """
    d, e, n = sp.symbols("d e n", positive=True)
    rate = n**2 / (d * e)
    product = sp.Matrix([[d, 0], [-n, e]]) * sp.diag(1, rate)
    rest = (product + product.T) / 2 - stated.terms["half"] * sp.diag(d, e * rate)
    run.zero(rest.det(), "no share is left")
    names = {one.name: one for one in OF_T6.right.free_symbols}
    at = {names["m"]: 2, names["M"]: 3, names["L"]: sp.Rational(1, 2), names[r"\|u\|"]: 1}
    for alpha in (sp.Rational(1, 5), sp.Rational(3, 5), sp.Rational(4, 5), 1, 2):
        change = OF_T6.right.subs({**at, names[r"\alpha"]: alpha})
        here = {r"\alpha": alpha, "m": 2, "M": 3, "L": sp.Rational(1, 2)}
        run.decides(stated, here, bool(change < 0))


@claim.check("exact", about="printed", part="rescue")
def stated_rescue(run: Run, *, stated: Formula) -> None:
    """The library's second rate for a coupling of 4 and slopes of 1/2."""
    coupling = torch.tensor([[0.0, 0.0], [4.0, 0.0]], dtype=torch.float64)
    q = block_rates(coupling=coupling, diagonal=vector(0.5, 0.5))
    run.stands(stated, {stated.left: int(q[1])})
