"""What every registered geometry owes: purity, a neutral start, live parameters, and a state_dict that comes back."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
import torch

from mdtheory import tree
from mdtheory.geometry.blockiaf import PublishedMetaMiDA
from mdtheory.inner.solver import noise_of, solve
from mdtheory.meta import MetaLearner
from mdtheory.mirror import DualMap
from tests.contract.cases import MODELS, SLUGS, build, distance, episodes_of, learner_of


def neutral(slug, model):
    return MetaLearner(MODELS[model][0]().double(), build(slug), n_steps=1, task_lr=0.1)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("slug", SLUGS)
def test_first_step_at_the_neutral_start_is_mamls(slug, model, device):
    learner, plain = neutral(slug, model).to(device), neutral("maml", model).to(device)
    if not learner.geometry.neutral_start:
        pytest.skip(f"{slug} declares neutral_start = False: {learner.geometry.source}")
    episode = episodes_of(model, 1)[0].to(device)
    points = []
    for each in (learner, plain):
        problem, meta = each.problem(), tree.detach(each.meta())
        points.append(problem.point(meta, solve(problem, meta, episode)))
    assert set(points[0]) <= set(points[1])
    assert distance(points[0], {name: points[1][name] for name in points[0]}) < 1e-6


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("slug", SLUGS)
def test_by_the_second_meta_step_every_parameter_learns(slug, model, device):
    learner = MetaLearner(MODELS[model][0]().double(), build(slug), n_steps=2, task_lr=0.1).to(device)
    episodes = [episode.to(device) for episode in episodes_of(model)]
    optimizer = torch.optim.Adam(learner.parameters(), lr=0.03)
    seen: dict[str, float] = {}
    for _ in range(2):
        optimizer.zero_grad()
        for name, g in learner.backward(episodes).grads.items():
            seen[name] = max(seen.get(name, 0.0), float(g.abs().max()))
        optimizer.step()
    silent = [name for name, size in seen.items() if size <= 1e-6 * max(seen.values())]
    assert [name for name in silent if not exempt(learner, name, model)] == []


def exempt(learner, name, model):
    """Declared by the geometry, or acting only on a convolution bias before batch statistics, where it cancels.

    Of the published BlockIAF, ReLU units can start dead too at these widths; its dead share is measured on Conv4-64.
    """
    declared = any(fnmatchcase(name, f"geometry.{pattern}") for pattern in learner.geometry.inert)
    declared |= isinstance(learner.geometry, PublishedMetaMiDA) and name.startswith("geometry.map.")
    cancels = model == "conv4" and ".conv.bias" in name and ".encoders." not in name
    return declared or cancels


@pytest.mark.parametrize("slug", SLUGS)
def test_state_dict_round_trip(slug, device):
    learner, fresh = learner_of(slug, "conv4").to(device), neutral(slug, "conv4").to(device)
    fresh.load_state_dict(learner.state_dict())
    episodes = [episode.to(device) for episode in episodes_of("conv4", 1)]
    fresh.n_steps = learner.n_steps
    assert distance(fresh.meta_gradient(episodes).grads, learner.meta_gradient(episodes).grads) == 0.0


@pytest.mark.parametrize("slug", SLUGS)
def test_pure_and_repeatable(slug, device):
    learner, episodes = learner_of(slug, "conv4").to(device), [e.to(device) for e in episodes_of("conv4")]
    weights, noise = {n: v.clone() for n, v in learner.state_dict().items()}, torch.get_rng_state()
    first, second = learner.meta_gradient(episodes), learner.meta_gradient(episodes)
    assert distance(first.grads, second.grads) == 0.0
    assert all(torch.equal(weights[name], value) for name, value in learner.state_dict().items())
    assert torch.equal(noise, torch.get_rng_state())


@pytest.mark.parametrize("slug", SLUGS)
def test_noise_is_decided_by_the_address(slug):
    geometry, episode = learner_of(slug, "mlp").geometry, episodes_of("mlp", 1)[0]
    draws = [geometry.draw(episode.seed), geometry.draw(episode.seed), geometry.draw(episode.seed + 1)]
    assert all(torch.equal(draws[0][name], draws[1][name]) for name in draws[0])
    assert all(not torch.equal(draws[0][name], draws[2][name]) for name in draws[0])


@pytest.mark.parametrize("model", ["mlp", "conv4"])
@pytest.mark.parametrize("slug", SLUGS)
def test_point_map_is_a_bijection(slug, model):
    learner = learner_of(slug, model)
    own = tree.sub(tree.detach(learner.meta()), "geometry.map.")
    z = tree.sub(tree.detach(learner.meta()), "anchor.")
    back = learner.geometry.map.inverse(own, learner.geometry.map.point(own, z))
    assert isinstance(learner.geometry.map, DualMap)
    assert distance(back, z) < 1e-9


@pytest.mark.parametrize("slug", SLUGS)
def test_adapted_module_is_the_point_after_k_steps(slug):
    learner, episode = learner_of(slug, "mlp"), episodes_of("mlp", 1)[0]
    episode = type(episode)(episode.support_x, episode.support_y, episode.query_x, episode.query_y, 0)
    problem, meta = learner.problem(), tree.detach(learner.meta())
    expected = problem.query_outputs(meta, problem.point(meta, solve(problem, meta, episode)), episode)
    adapted = learner.adapt(episode.support_x, episode.support_y)
    assert torch.allclose(adapted(episode.query_x), expected.detach(), rtol=1e-12)
    assert noise_of(problem, episode).keys() == learner.geometry.draw(0).keys()
