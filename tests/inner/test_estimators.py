"""loop = batched = stepwise = unrolled = central differences, for the rivals and for each of their
options.
"""

from __future__ import annotations

import pytest
import torch

from mdtheory.geometry import geometries
from tests.geometry.cases import distance, episode_of, learner_of, worst_slope

pytestmark = pytest.mark.usefixtures("float64")
VARIANTS = {
    "metacurvature": ("metacurvature", {}),
    "metakfo": ("metakfo", {}),
    "metakfo-hidden": ("metakfo", {"hidden": 2}),
    "warpgrad": ("warpgrad", {}),
    "warpgrad-three": ("warpgrad", {"after": ("blocks.1", "blocks.2", "blocks.3")}),
    "mtnet": ("mtnet", {}),
    "mtnet-literal": ("mtnet", {"adapt_norms": False}),
    "ecml": ("ecml", {"gamma": 0.5}),
    "ecml-all": ("ecml", {"conditioned": "*", "residual": "loss"}),
}
TOLERANCE = 1e-8  # measured: 1e-9 and below
SMOOTH = [name for name in VARIANTS if not name.startswith("mtnet")]


def variant(name, **options):
    slug, settings = VARIANTS[name]
    return learner_of(geometries.get(slug)(**settings), **options)


@pytest.mark.parametrize("name", VARIANTS)
def test_batched_loop_and_stepwise_are_one_gradient(name):
    episodes = [episode_of(seed) for seed in (1, 2)]
    learner, swept = variant(name), variant(name, estimator="stepwise")
    loop = learner.meta_gradient(episodes)
    learner.estimator.batched = True
    for other in (learner.meta_gradient(episodes), swept.meta_gradient(episodes)):
        assert torch.allclose(other.value, loop.value, rtol=1e-11)
        assert distance(other.grads, loop.grads) < 1e-10


@pytest.mark.parametrize("estimator", ["unrolled", "first_order"])
@pytest.mark.parametrize("name", [*SMOOTH, "mtnet", "mtnet-literal"])
def test_central_differences(name, estimator):
    assert worst_slope(variant(name, estimator=estimator, n_steps=2), episode_of()) < TOLERANCE


def test_central_differences_reject_a_transform_whose_own_step_is_held_constant(monkeypatch):
    """Negative control: same forward values, but the meta-gradient does not pass through
    g_{k-1}.
    """
    learner = variant("metakfo")
    step = learner.geometry.rule.step

    def held(meta, state, grad, **options):
        constant = {
            name: value.detach() if name.startswith("prev.") else value
            for name, value in state.items()
        }
        return step(meta, constant, grad, **options)

    monkeypatch.setattr(learner.geometry.rule, "step", held)
    assert worst_slope(learner, episode_of()) > 1e-5
