"""Every rival's meta-gradient against an independent serial or dense construction, and mutants that
must not pass.
"""

from __future__ import annotations

import pytest

from mdtheory.geometry import geometries
from tests.geometry.cases import (
    PRECISION,
    RATE,
    STEPS,
    derivative,
    distance,
    episode_of,
    learner_of,
    leaves,
    noise,
)
from tests.parity import serial_rivals as reference

pytestmark = pytest.mark.usefixtures("float64")
WRONG = 1e-4  # a mutant must be at least this far away
BUDGET = {"n_steps": STEPS, "task_lr": RATE}


def gap(learner, total):
    """Distance of the library's gradient to that of ``total(meta, episode)``."""
    episode, meta = episode_of(), leaves(learner)
    return distance(learner.meta_gradient([episode]).grads, derivative(total(meta, episode), meta))


class TestMetaCurvature:
    @pytest.mark.parametrize("form", ["free", "symmetric"])
    def test_dense_kronecker_matrices(self, form):
        learner = learner_of(geometries.get("metacurvature")(form=form))
        own, other = (form == "symmetric", form != "symmetric")
        assert (
            gap(learner, lambda m, e: reference.metacurvature(m, e, **BUDGET, symmetric=own))
            < PRECISION
        )
        assert (
            gap(learner, lambda m, e: reference.metacurvature(m, e, **BUDGET, symmetric=other))
            > WRONG
        )

    def test_mutant_without_kernel_mode_is_rejected(self):
        learner, episode = learner_of("metacurvature"), episode_of()
        meta = leaves(learner)
        names = [name for name in meta if ".kernel." not in name]
        expected = derivative(
            reference.metacurvature(meta, episode, **BUDGET, forget_kernel=True), meta, names
        )
        found = learner.meta_gradient([episode]).grads
        assert distance({name: found[name] for name in names}, expected) > WRONG


class TestMetaKFO:
    @pytest.mark.parametrize("hidden", [0, 2])
    def test_the_public_codes_order_of_operations(self, hidden):
        learner = learner_of(geometries.get("metakfo")(hidden=hidden))
        assert (
            gap(learner, lambda m, e: reference.metakfo(m, e, **BUDGET, hidden=hidden)) < PRECISION
        )

    @pytest.mark.parametrize("mutant", ["frozen", "from_start"])
    def test_mutants_are_rejected(self, mutant):
        assert (
            gap(
                learner_of("metakfo"),
                lambda m, e: reference.metakfo(m, e, **BUDGET, **{mutant: True}),
            )
            > WRONG
        )

    def test_one_step_does_not_adapt_the_transform(self):
        learner = learner_of("metakfo", n_steps=1)
        assert (
            gap(learner, lambda m, e: reference.metakfo(m, e, n_steps=1, task_lr=RATE, frozen=True))
            < PRECISION
        )


class TestWarpGrad:
    def compare(self, after=None, **mutant):
        learner, episode = learner_of(geometries.get("warpgrad")(after=after)), episode_of()
        meta, found = leaves(learner), learner.meta_gradient([episode]).grads
        of_anchor, of_warps = reference.warpgrad(meta, episode, **BUDGET, **mutant)
        anchors, warps = (
            [name for name in meta if name.startswith(prefix)] for prefix in ("anchor.", "shared.")
        )
        return [
            distance({name: found[name] for name in names}, derivative(total, meta, names))
            for total, names in ((of_anchor, anchors), (of_warps, warps))
        ]

    @pytest.mark.parametrize("after", [None, ("blocks.1", "blocks.2", "blocks.3")])
    def test_serial_loop_with_two_objectives(self, after):
        assert max(self.compare(after)) < PRECISION

    def test_mutant_through_the_trajectory_is_rejected(self):
        of_anchor, of_warps = self.compare(through_trajectory=True)
        assert of_anchor < PRECISION
        assert of_warps > WRONG


class TestMTNet:
    def gap(self, learner, **options):
        return gap(
            learner, lambda m, e: reference.mtnet(m, noise(learner, e), e, **BUDGET, **options)
        )

    @pytest.mark.parametrize("adapt_norms", [True, False])
    def test_the_literal_network(self, adapt_norms):
        learner = learner_of(geometries.get("mtnet")(adapt_norms=adapt_norms))
        assert self.gap(learner) < PRECISION

    @pytest.mark.parametrize("mutant", ["after_norm", "bias_free", "hard"])
    def test_mutants_are_rejected(self, mutant):
        learner = learner_of("mtnet")
        if mutant != "hard":
            assert self.gap(learner, **{mutant: True}) > WRONG
            return
        # without the soft gradient nothing reaches zeta, which autograd reports as an unused tensor
        with pytest.raises(RuntimeError, match="not have been used"):
            self.gap(learner, hard=True)


class TestECML:
    HEAD = ["classifier.weight", "classifier.bias"]
    EARLY = ["blocks.3.conv.weight", "blocks.0.norm.weight"]

    def gap(self, conditioned=None, names=HEAD, residual="root", **mutant):
        learner = learner_of(
            geometries.get("ecml")(gamma=0.3, conditioned=conditioned, residual=residual)
        )
        options = {"kind": residual, **mutant}
        return gap(
            learner, lambda m, e: reference.ecml(m, e, **BUDGET, gamma=0.3, names=names, **options)
        )

    @pytest.mark.parametrize("residual", ["root", "loss"])
    def test_dense_jacobian_of_the_classifier(self, residual):
        assert self.gap(residual=residual) < PRECISION

    def test_dense_jacobian_through_batch_statistics(self):
        assert self.gap(self.EARLY, self.EARLY) < 1e-7  # small eigenvalues amplify rounding

    def test_mutant_with_every_item_in_a_batch_of_its_own_is_rejected(self):
        assert self.gap(self.EARLY, self.EARLY, alone=True) > WRONG

    def test_mutant_with_other_residuals_is_rejected(self):
        assert self.gap(residual="root", kind="loss") > WRONG
