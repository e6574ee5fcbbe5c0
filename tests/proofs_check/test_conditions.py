"""Conditions without which a statement is false, each with the example that shows it, and what a
check may say that it covers.
"""

from __future__ import annotations

import inspect
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import sympy as sp
import torch

from mdtheory.geometry.rules import block_rates
from proofs_check.claims import c30_outlook, rc_block_rates
from proofs_check.claims.rb_certified_iaf import certified
from proofs_check.engine import load, modules
from proofs_check.formula import Formula
from proofs_check.run import CheckFailedError, Run
from proofs_check.tools import iaf
from proofs_check.tools.models import vector

ROOT = Path(__file__).parents[2]
CLAIMS = {name: load(name) for name in modules()}
SYMBOLS = re.compile(
    r"\bsp\.|run\.zero\(|quoted\(|\.function\(run|_assembled\(|_bayes\(|_example\("
)


def stated(claim, part):
    statement = CLAIMS[claim].amended or CLAIMS[claim].printed
    found = statement.parts[part]
    return found.text if isinstance(found, Formula) else found


@pytest.mark.parametrize("name", CLAIMS)
def test_only_symbols_cover_every_case(name):
    """A number in floating point decides the case that was computed, whatever the kind says."""
    for check in CLAIMS[name].checks:
        if check.covers == "all" and check.kind != "kernel":
            assert SYMBOLS.search(inspect.getsource(check.function)), check.name


def test_c04_does_not_deny_that_a_pl_loss_is_solved_in_distance():
    """x^2 + 3 sin^2 x is PL and not convex; C07(e) bounds the distance to its minimiser."""
    assert "only" not in CLAIMS["C04"].amended.then


def false_everywhere(claim, part, change):
    """Whether some check of the part rejects its formula after the change."""
    for check in CLAIMS[claim].checks:
        if check.stated is not None and check.part == part:
            try:
                check.function(Run(), stated=change(check.stated))
            except CheckFailedError:
                return True
    return False


def test_a_bound_twice_too_large_and_a_rate_one_step_off_are_rejected():
    assert false_everywhere("C12", "", lambda one: replace(one, right=2 * one.right))
    steps = sp.Symbol("K", integer=True, positive=True)
    for shift in (-1, 1):
        assert false_everywhere(
            "C04", "pl", lambda one, s=shift: replace(one, right=one.right.subs(steps, steps + s))
        )


def test_c12_s_kernel_theorem_stands_for_what_it_says():
    """It says for which rates L-smooth losses are majorised: the printed statement, not the
    identity of part (iff).
    """
    (check,) = [one for one in CLAIMS["C12"].checks if one.kind == "kernel"]
    assert (check.about, check.part) == ("printed", "")


def test_what_is_said_of_every_case_is_derived_and_not_only_computed():
    """RE's is attained "for every K"; it was computed at K = 1 and 3."""
    for claim, part in (("C05", "true_loss"), ("C19", "minimiser"), ("RE", "attained")):
        kinds = {one.kind for one in CLAIMS[claim].checks if one.part == part}
        assert "symbolic" in kinds


def test_c17_duality_needs_a_strictly_convex_h():
    """Huber's h = |x| - 1/2 beyond 1: phi = 2 and 3 share z = 1, h* has no slope there, and with
    the slope of either the divergences of the other differ.
    """
    conjugate = lambda z: z * z / 2  # noqa: E731 (on [-1, 1])
    primal = 1.5 - 0.0 - 0.0 * 2  # D_h(2, 0), z = 1 and 0
    assert conjugate(0.0) - conjugate(1.0) - 3.0 * (0.0 - 1.0) != primal
    assert "strictly convex" in stated("C17", "duality")


def test_a_chain_of_weak_couplings_has_no_price():
    q = block_rates(coupling=torch.tensor([[0.0, 0.0], [0.375, 0.0]]), diagonal=vector(0.5, 0.5))
    weak = {"B": 2, "n": sp.Rational(3, 8), "d": sp.S.Half}
    assert q.tolist() == [1.0, 1.0]
    assert not rc_block_rates.PRICE.applies(weak)
    assert rc_block_rates.PRICE.applies({**weak, "n": 1})


def test_sgd_with_little_noise_needs_as_many_rounds_as_descent():
    """sigma = 1/100, eps = L = 1, Delta = 50: the printed number is below one, |grad F|^2 = 100."""
    at = {"L_F": 1, r"\Delta": 50, r"\sigma": sp.Rational(1, 100), r"\epsilon": 1}
    assert c30_outlook.SGD.right.subs({one: at[one.name] for one in
                                       c30_outlook.SGD.right.free_symbols}) < 1  # fmt: skip
    assert not c30_outlook.SGD.applies(at)


def test_later_blocks_can_cancel_a_live_scale():
    """g = (z_1/2, s z_2, z_3/2 - s z_2) with s = sigmoid(z_1): phi_2 + phi_3 is linear in z, so
    L_F = 0 though a scale is not constant; nor does phi_1 see it.
    """
    map = iaf.formula(
        lambda _: (vector(0.5), vector(0.0)),
        lambda z: (torch.sigmoid(z), 0 * z),
        lambda z: (vector(0.5), -torch.sigmoid(z[:1]) * z[1:]),
        scale=iaf.Identity(),
    )
    for weights in (vector(0.0, 1.0, 1.0), vector(1.0, 0.0, 0.0)):
        slope = torch.func.grad(lambda z, w=weights: map.at(z) @ w)
        ends = [slope(vector(a, 1e6, 0.0)) for a in (0.0, 1.0)]
        torch.testing.assert_close(*ends, rtol=0, atol=1e-9)
    assert "none on later blocks" in stated("C30", "blockiaf")


def test_a_bijection_may_have_a_singular_jacobian():
    """z^3 at 0: J^T u = 0 and u = -1, so the pullback step stands still."""
    loss = lambda phi: (phi - 1) ** 2 / 2  # noqa: E731
    zero = torch.tensor(0.0)
    assert torch.func.grad(lambda z: loss(z**3))(zero) == 0
    assert torch.func.grad(loss)(zero**3) == -1
    assert "invertible" in CLAIMS["RD"].printed.given["map"]


def test_what_a_potential_can_and_cannot_reach_depends_on_its_units():
    """With the budget's target as psi'' one unit of amplitude L - mu is the target itself; with
    psi(t) = t, which has 0 <= psi' <= 1 and psi'' = 0, a network is affine and dense in nothing.
    """
    assert "unimodal" in stated("RA1", "budget")
    assert "softplus" in stated("RA2", "dense")


def test_a_certified_map_with_constant_gates_is_a_gradient_and_no_metasgd():
    """Its Jacobian is diagonal everywhere and not the same everywhere."""
    map = certified(0, 0.0, kronecker=False)
    with torch.no_grad():
        for name, parameter in map.map.named_parameters():
            if name.startswith("decoders") and name.endswith("bias"):
                parameter.fill_(2.0)
    near, far = (map.jacobian(size * torch.ones(4, dtype=torch.float64)) for size in (0.0, 5.0))
    for jacobian in (near, far):
        assert torch.equal(jacobian, torch.diag(jacobian.diagonal()))
    assert (near - far).abs().max() > 0.1
    page = (ROOT / "docs/notebooks/06_repairs.py").read_text(encoding="utf-8")
    assert "| only as Meta-SGD | only as Meta-SGD |" not in page


@pytest.mark.parametrize(
    "page", sorted((ROOT / "docs/notebooks").glob("*.py")), ids=lambda p: p.stem
)
def test_no_quotation_mark_of_a_page_is_left_in_its_sentences(page):
    """ "...is convex >" reads as a comparison."""
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("# ") and not line.startswith("# %%"):
            text = re.sub(r"\$[^$]*\$|`[^`]*`", "", line[2:].lstrip("> "))
            assert not re.search(r"\s>(\s|$)", text), line


def test_a_pair_is_left_out_only_where_its_product_is_lost_in_float64():
    """With z_2 ever further out the product drowns in rounding: the far ends are not resolved."""
    map = iaf.mlp([[0], [1]], seed=3)
    lift, moved = vector(0.0, 1.0), vector(1.0, 1.0)
    pairs = [iaf.Pair(t * lift, t * lift + moved, -1.0, 1.0) for t in (1.0, 1e6, 1e20, math.inf)]
    assert [iaf.resolved(map, pair) for pair in pairs] == [True, True, False, False]
    pair = iaf.directed_pair(map, vector(0.0, 0.0), vector(-1.0, 0.0))
    assert iaf.resolved(map, pair) and abs(iaf.inner(map, pair.z, pair.other) + 1) < 1e-4


def test_scales_that_float64_does_not_tell_apart():
    """sigmoid(z_1) at 0 and 1, at 50 and 60, where both are 1, and a constant scale."""
    near, far = (vector(0.0, 0.0), vector(1.0, 0.0)), (vector(50.0, 0.0), vector(60.0, 0.0))
    assert iaf.told_apart(iaf.gated(), *near)
    assert not iaf.told_apart(iaf.gated(), *far)
    assert not iaf.told_apart(iaf.shifted(2.0), *near)
