"""All tasks at once, every network, and the chunks: nothing leaves an accelerator or waits for it,
as far as a CPU can tell.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mdtheory.contract.device import AWAY, WAITS, Watch, waits_of
from mdtheory.contract.setting import Setting
from mdtheory.core import tree
from mdtheory.meta import MetaLearner
from tests.contract.cases import SLUGS, build, learner_of
from tests.models.test_networks import SMALL, small

COPY = "copies a tensor between host and device"


@pytest.mark.parametrize("chunk", [None, 2])
@pytest.mark.parametrize("slug", SLUGS)
def test_tasks_at_once_stay_on_the_device(slug, chunk):
    """But for the noise, which is drawn on the host as the tasks are, and what the geometry
    declares.
    """
    setting = Setting(lambda: build(slug), "user")
    learner, episodes = setting.learner(), setting.episodes(3)
    learner.meta_gradient(episodes[:1])
    learner.estimator.batched, learner.estimator.chunk = True, chunk
    learner, episodes = learner.to(AWAY), [episode.to(AWAY) for episode in episodes]
    with Watch() as watch:
        found = learner.estimator(
            learner.problem(), tree.detach(learner.meta()), [learner.task(e) for e in episodes]
        )
    assert {
        value.device for value in (found.value, *found.grads.values(), *found.stats.values())
    } == {AWAY}
    drawn = len(learner.geometry.draw(0))
    assert watch.waits.count(COPY) == drawn * len(episodes)
    assert learner.geometry.capturable == (not set(watch.waits) - {COPY})


@pytest.mark.parametrize("norm", ["transductive", "support"])
@pytest.mark.parametrize("name", SMALL)
def test_every_network_stays_on_the_device(name, norm):
    setting = Setting(lambda: build("maml"), "mlp")
    learner = MetaLearner(small(name).double(), "maml", n_steps=1, norm=norm)
    (episode,) = setting.episodes(1)
    support, query = (torch.rand(n, *SMALL[name][1], dtype=torch.float64) for n in (4, 6))
    assert waits_of(learner, replace(episode, support_x=support, query_x=query)) == []


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: float(x.sum()),
        lambda x: bool((x > 0).all()),
        lambda x: x[x > 0],
        lambda x: x.index_put_((x > -1,), torch.rand(9)),
        lambda x: torch.unique(x),
        lambda x: torch.linalg.svdvals(x),
        lambda x: torch.linalg.eigvalsh(x @ x.T),
        lambda x: torch.linalg.inv(x @ x.T),
        lambda x: torch.linalg.cholesky(x @ x.T + torch.eye(3)),
    ],
)
def test_every_wait_is_seen(wait):
    with Watch() as watch:
        wait(torch.rand(3, 3))
    assert watch.waits and set(watch.waits) <= set(WAITS.values())


def test_arithmetic_does_not_wait():
    learner = learner_of("metamida", "conv4")
    with Watch() as watch:
        torch.rand(3, 3)[torch.tensor([0, 2])].to(torch.float64).clone().relu() @ torch.eye(
            3, dtype=torch.float64
        )
        torch.zeros(3)[torch.ones(3) > 0] = 1.0
        tree.norm(tree.detach(learner.meta()))
    assert watch.waits == []
