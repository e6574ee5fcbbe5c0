"""What turns red when an assumption is deleted, a bound weakened, or a part of the library replaced
by an impostor.

Not mutants of single checks (every claim has its own): here the statement or the library is
changed, and the right claims have to notice, and no others.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mdtheory.core import tree
from mdtheory.geometry.base import GradientStep
from mdtheory.inner.estimators.implicit import Implicit
from mdtheory.inner.estimators.unrolled import Unrolled
from mdtheory.inner.solver import Visit
from mdtheory.maps.base import MirrorMap
from mdtheory.maps.hypentropy import Hypentropy
from mdtheory.maps.iaf import certified
from mdtheory.maps.iaf.certified_forms import CertifiedKroneckerIAF
from mdtheory.maps.iaf.mlp import MLPIAF
from mdtheory.maps.pnorm import PNorm
from mdtheory.maps.potential import icnn
from mdtheory.maps.potential.base import BoundedPotential
from mdtheory.maps.potential.ridge import ConvexPotential
from proofs_check import kernel
from proofs_check.claims import rb_certified_iaf, rc_block_rates
from proofs_check.engine import closure, load, modules
from proofs_check.run import Run
from proofs_check.tools import prior
from proofs_check.verdict import judge

CLAIMS = {name: load(name) for name in modules()}


# ---- assumptions ---------------------------------------------------------------------------------

ASSUMPTIONS = [
    (name, condition)
    for name, claim in CLAIMS.items()
    for condition in sorted(claim.added_conditions())
]
DELETABLE = [
    pair for pair in ASSUMPTIONS if CLAIMS[pair[0]].expected.as_printed == "NEEDS_CONDITIONS"
]


def without(claim, condition):
    """The claim whose amended statement lacks a condition, and whose checks no longer say that they
    drop it.
    """
    kept = {name: text for name, text in claim.amended.given.items() if name != condition}
    checks = [
        replace(check, drops=tuple(name for name in check.drops if name != condition))
        for check in claim.checks
    ]
    return replace(claim, amended=replace(claim.amended, given=kept), checks=checks)


@pytest.mark.parametrize(
    ("name", "condition"),
    [
        pytest.param(*pair, id="-".join(pair), marks=pytest.mark.xdist_group(pair[0]))
        for pair in DELETABLE
    ],
)
def test_a_deleted_assumption_turns_its_claim_red(result_of, row_of, name, condition):
    """The counterexample to the printed statement then refutes the amended one too: it is no longer
    only conditions short.
    """
    assert row_of(name).status == "OK"
    claims = {other: load(other) for other in closure([name])} | {
        name: without(CLAIMS[name], condition)
    }
    row = judge(claims, {other: result_of(other) for other in claims})[name]
    assert row.status == "INCONSISTENT"
    assert row.verdict.as_printed == "FALSE"


def test_every_claim_that_needs_conditions_is_among_them():
    assert {name for name, _ in DELETABLE} == {
        name for name, claim in CLAIMS.items() if claim.expected.as_printed == "NEEDS_CONDITIONS"
    }
    assert len(DELETABLE) >= 10


# ---- the library changed -------------------------------------------------------------------------


def turned(z):
    """An antisymmetric matrix times z: what comes later less what comes before."""
    before = z.flatten().cumsum(0) - z.flatten()
    return (z.sum() - 2 * before - z.flatten()).reshape(z.shape)


def not_a_gradient(patch):
    """Monotone (an antisymmetric part changes no <g(z) - g(z'), z - z'>) and Lipschitz, but no
    gradient. C20, on cocoercivity, may notice: |g(z) - g(z')| grows.
    """
    for kind in (Hypentropy, PNorm):

        def point(self, meta, z, plain=kind.point):
            return {
                name: value + 0.3 * turned(z[name]) for name, value in plain(self, meta, z).items()
            }

        patch.setattr(kind, "point", point)


def not_monotone(patch):
    """As Lipschitz as before, and decreasing."""
    for kind in (ConvexPotential, PNorm):

        def point(self, meta, z, plain=kind.point):
            return {name: -value for name, value in plain(self, meta, z).items()}

        patch.setattr(kind, "point", point)


def meta_sgd_in_disguise(patch):
    """A BlockIAF whose conditioners ignore what they are shown: a bijection, triangular, monotone,
    Lipschitz, a gradient.
    """
    plain = MLPIAF.decode

    def decode(self, meta, contexts):
        return plain(self, meta, {i: torch.zeros_like(context) for i, context in contexts.items()})

    patch.setattr(MLPIAF, "decode", decode)


def gradient_at_the_state(patch):
    """The solver differentiates the loss at z instead of at the point g(z)."""

    def at_the_state(self):
        here = tree.sub(self.state, "z.")
        return self.problem.task_gradient(self.meta, here, self.task)[0]

    patch.setattr(Visit, "gradient", property(at_the_state))


def first_order_as_exact(patch):
    """The unrolled estimator drops the Hessians."""
    patch.setattr(Unrolled, "first_order", True)


def generous_modulus(patch):
    """The certified map's theorem promises more: nine tenths of the coupling are counted."""
    plain = certified.monotone_modulus
    for place in (certified, rb_certified_iaf):
        patch.setattr(
            place,
            "monotone_modulus",
            lambda *, coupling, **other: plain(coupling=0.9 * coupling, **other),
        )


def halved_conditioners(patch):
    """The certified Kronecker form counts half the Lipschitz constants of its conditioners."""
    plain = CertifiedKroneckerIAF.lipschitz
    patch.setattr(
        CertifiedKroneckerIAF,
        "lipschitz",
        lambda self, meta: [(gates / 2, shifts / 2) for gates, shifts in plain(self, meta)],
    )


def uphill(patch):
    """The dual step goes along the gradient."""
    plain = GradientStep.step
    patch.setattr(
        GradientStep,
        "step",
        lambda self, *given, task_lr, **other: plain(self, *given, task_lr=-task_lr, **other),
    )


def swapped_divergence(patch):
    """D_h(y, x) for D_h(x, y)."""
    plain = MirrorMap.bregman
    patch.setattr(MirrorMap, "bregman", lambda self, meta, x, y: plain(self, meta, y, x))


def truncated_solve(patch):
    """The implicit estimator stops its linear solve after one step."""
    plain = Implicit.__init__

    def init(self, **options):
        plain(self, **{**options, "cg_steps": 1, "cg_tolerance": 0.0})

    patch.setattr(Implicit, "__init__", init)


def halved_curvature(patch):
    """A potential says that its largest curvature is half of what it certifies."""
    plain = BoundedPotential.curvature
    patch.setattr(
        BoundedPotential,
        "curvature",
        lambda self, meta: (plain(self, meta)[0], plain(self, meta)[1] / 2),
    )


def flat_softplus(patch):
    """softplus'' is taken to be at most 1/8."""
    patch.setattr(icnn, "SOFTPLUS_CURVATURE", 0.125)


def capped_rates(patch):
    """The rates per block stop growing at 8."""
    plain = rc_block_rates.block_rates
    patch.setattr(rc_block_rates, "block_rates", lambda **given: plain(**given).clamp(max=8.0))


def tight_error(patch):
    """The error bound of the implicit prior one per cent smaller."""
    plain = prior.error_constant
    patch.setattr(prior, "error_constant", lambda n_steps: 0.99 * plain(n_steps))


# what is done, the claims whose own checks must notice, and claims near by that must not
SABOTAGE = [
    (not_a_gradient, "C17 C19 C21 C23 C24a C24b", "C11 C12"),
    (not_monotone, "C20 C21 C24a C24b RA1", "C12 C18 C25"),
    (meta_sgd_in_disguise, "T1 T2 T3 T4 C26 C27 C28", "C11 C21"),
    (gradient_at_the_state, "C22 C23 C29 T6 T7", "C11 C12"),
    (first_order_as_exact, "C03 C08b C10", "C11 C12"),
    (generous_modulus, "RB", "T7 C11"),
    (halved_conditioners, "RB", "T7 C11"),
    (capped_rates, "RC", "T7 C11"),
    (uphill, "C04 C11 C12 C14 C23 C29 T6 RB", "C17 C20 T1"),
    (swapped_divergence, "C17 C22", "C11 C12 C20"),
    (truncated_solve, "C03 C08a", "C05 C11"),
    (halved_curvature, "RA1", "RB C11"),
    (flat_softplus, "RA2", "RA1 C11"),
    (tight_error, "C05", "C06"),
]


def noticed_by(name):
    """The first check of a claim that fails, without its mutants."""
    for check in CLAIMS[name].checks:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                check.function(Run())
        except (AssertionError, ArithmeticError, ValueError, RuntimeError):
            return check.name
    return None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "red", "green"), [pytest.param(*one, id=one[0].__name__) for one in SABOTAGE]
)
def test_a_changed_library_turns_the_right_claims_red(change, red, green, monkeypatch):
    kernel.emitted()  # kept by its cache as it is before the change
    change(monkeypatch)
    found = {name: noticed_by(name) for name in (*red.split(), *green.split())}
    assert {name for name, check in found.items() if check} == set(red.split()), found


def test_what_rests_on_a_red_claim_is_red(result_of):
    """C25 quotes T1: when T1's checks fail, C25 falls with it although its own pass."""
    claims = {name: load(name) for name in closure(["C25"])}
    results = {name: result_of(name) for name in claims}
    assert judge(claims, results)["C25"].status == "OK"
    broken = replace(results["T1"].checks[0], passed=False, error="sabotaged")
    results["T1"] = replace(results["T1"], checks=(broken, *results["T1"].checks[1:]))
    rows = judge(claims, results)
    assert (rows["T1"].status, rows["C25"].status) == ("INCONSISTENT", "INCONSISTENT")


# ---- what only tests can notice ------------------------------------------------------------------

HERE = Path(__file__).parent
NOTICED = {
    "interval_with_n": "meta/test_evaluate.py::test_estimate_is_the_textbook_interval",
    "batch_for_running": "models/test_norm.py",
    "running_for_batch": "models/test_norm.py",
    "order_of_classes": "data/test_episodes.py",
    "support_among_queries": "data/test_episodes.py",
    "a_train_class_in_test": "data/test_images.py -k 64",
    "chosen_on_test": "run/test_build.py",
    "transforms_not_adapted": "parity/test_rivals.py -k kfo",
    "a_mask_for_each_step": "geometry/test_mtnet.py",
    "warps_adapted": "geometry/test_warpgrad.py",
}
"""The impostor of impostors.py -> the tests that turn red with it, below tests/."""


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTICED)
def test_an_impostor_of_the_library_turns_its_tests_red(name):
    place, *rest = NOTICED[name].split()
    done = subprocess.run(
        [sys.executable, str(HERE / "impostors.py"), name, str(HERE.parent / place), *rest],
        cwd=HERE.parents[1],
        env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stdout[-2000:] + done.stderr[-2000:]
    assert " failed" in done.stdout
