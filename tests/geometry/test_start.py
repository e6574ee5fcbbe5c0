"""Sizes, the neutral start, live parameters and the way through a state_dict."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase

import pytest
import torch

from mdtheory.core import tree
from mdtheory.geometry import geometries
from mdtheory.geometry.mirror import Mirror
from mdtheory.geometry.mtnet import MaskedStep
from mdtheory.inner.solver import solve
from mdtheory.maps import Identity, NegativeEntropy
from mdtheory.meta import MetaLearner
from mdtheory.models import models
from tests.geometry.cases import conv4, distance, episode_of, learner_of

RIVALS = ["metacurvature", "metakfo", "warpgrad", "mtnet", "ecml"]
OPTIONS = {
    "metacurvature": [{}, {"form": "symmetric"}],
    "metakfo": [{}, {"hidden": 2}],
    "ecml": [{}, {"conditioned": "*"}],
}
EACH = [(slug, options) for slug in RIVALS for options in OPTIONS.get(slug, [{}])]
BEFORE_NORM = "*.conv.bias"  # cancels in batch statistics, whatever the method does with it


@pytest.mark.parametrize(
    ("slug", "options", "extra"),
    [
        ("metacurvature", {}, 2_589_803),
        ("metacurvature", {"form": "symmetric"}, 2_589_803),
        ("metakfo", {}, 2_621_836),
        ("warpgrad", {}, 147_712),
        ("warpgrad", {"after": ("blocks.1", "blocks.2", "blocks.3")}, 110_784),
        ("mtnet", {}, 16_409 + 261),
        ("ecml", {}, 0),
    ],
)
def test_extra_parameters_on_conv4_64(slug, options, extra):
    learner = MetaLearner(models.get("conv4")(), geometries.get(slug)(**options))
    meta = learner.meta()
    assert (
        sum(value.numel() for name, value in meta.items() if name.startswith("anchor.")) == 121_093
    )
    assert sum(value.numel() for value in meta.values()) == 121_093 + extra


def test_mtnets_two_parts_on_conv4_64():
    own = MetaLearner(models.get("conv4")(), "mtnet").geometry
    assert sum(value.numel() for value in own.metric.parameters()) == 16_409
    assert sum(value.numel() for value in own.rule.parameters()) == 261


def first_point(geometry):
    learner, episode = learner_of(geometry, perturbed=False, n_steps=1), episode_of()
    problem, meta = learner.problem(), tree.detach(learner.meta())
    return problem.point(meta, solve(problem, meta, learner.task(episode)))


@pytest.mark.usefixtures("float64")
class TestNeutralStart:
    @pytest.mark.parametrize(("slug", "options"), [each for each in EACH if each[0] != "mtnet"])
    def test_first_step_is_mamls(self, slug, options):
        geometry = geometries.get(slug)(**options)
        assert geometry.starts_as_maml
        assert distance(first_point(geometry), first_point("maml")) < 1e-14

    @pytest.mark.parametrize("map", ["identity", Identity(), "entropy", NegativeEntropy()])
    def test_mirror_says_whether_it_starts_as_maml(self, map):
        geometry = Mirror(map)
        assert geometry.starts_as_maml == (
            distance(first_point(geometry), first_point("maml")) < 1e-14
        )

    def test_mtnet_with_open_masks_is_maml(self, monkeypatch):
        monkeypatch.setattr(MaskedStep, "_mask", lambda self, zeta, gumbel: torch.ones_like(zeta))
        assert distance(first_point("mtnet"), first_point("maml")) < 1e-14

    def test_mtnet_stands_still_or_moves_as_maml(self):
        moved, plain, start = (
            first_point("mtnet"),
            first_point("maml"),
            dict(conv4().double().named_parameters()),
        )
        assert not geometries.get("mtnet")().starts_as_maml
        for name, value in moved.items():
            still = torch.isclose(value, start[name], rtol=0, atol=1e-15).flatten(
                1 if value.dim() > 1 else 0
            )
            with_maml = torch.isclose(value, plain[name], rtol=0, atol=1e-15).flatten(
                1 if value.dim() > 1 else 0
            )
            assert bool((still | with_maml).all()), name
            assert "norm" not in name or bool(with_maml.all())
        rows = (moved["blocks.1.conv.weight"] == start["blocks.1.conv.weight"]).flatten(1)
        assert bool((rows.all(1) | ~rows.any(1)).all())
        assert 0 < int(rows.all(1).sum()) < len(rows)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("slug", "options"), EACH)
def test_every_tensor_learns_by_the_second_meta_step(slug, options):
    learner = learner_of(geometries.get(slug)(**options), perturbed=False, n_steps=2)
    optimizer, seen = torch.optim.SGD(learner.parameters(), lr=0.1), {}
    for _ in range(2):
        optimizer.zero_grad()
        for name, value in learner.backward([episode_of(1), episode_of(2)]).grads.items():
            seen[name] = max(seen.get(name, 0.0), float(value.abs().max()))
        optimizer.step()
    silent = [
        name
        for name, size in seen.items()
        if size <= 1e-6 * max(seen.values()) and not fnmatchcase(name, BEFORE_NORM)
    ]
    assert silent == []


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("slug", "options"), EACH)
def test_state_dict_round_trip(slug, options):
    learner = learner_of(geometries.get(slug)(**options))
    fresh = learner_of(geometries.get(slug)(**options), perturbed=False)
    assert (
        distance(
            fresh.meta_gradient([episode_of()]).grads, learner.meta_gradient([episode_of()]).grads
        )
        > 1e-3
    )
    fresh.load_state_dict(learner.state_dict())
    assert (
        distance(
            fresh.meta_gradient([episode_of()]).grads, learner.meta_gradient([episode_of()]).grads
        )
        == 0.0
    )
    assert len(set(learner.state_dict())) == len(
        {value.data_ptr() for value in learner.state_dict().values()}
    )


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("slug", RIVALS)
def test_the_adapted_module_predicts_what_the_problem_does(slug):
    learner, episode = learner_of(slug), replace(episode_of(), seed=None)
    problem, meta = learner.problem(), tree.detach(learner.meta())
    task = learner.task(episode)
    point = problem.point(meta, solve(problem, meta, task))
    expected = task.query_outputs(meta, problem.weights(meta, point))
    found = learner.adapt(episode.support_x, episode.support_y)(episode.query_x)
    assert torch.allclose(found, expected, rtol=1e-12)
