"""Several tasks at once, in chunks: the gradient of a loop, and fewer at once when memory runs
out.
"""

from __future__ import annotations

import logging

import pytest
import torch

from mdtheory.inner.estimators import estimators
from mdtheory.inner.estimators.base import Estimator
from tests.geometry.cases import distance, episode_of, learner_of

pytestmark = pytest.mark.usefixtures("float64")
EPISODES = [episode_of(seed) for seed in range(5)]


def learner(chunk=None):
    return learner_of("metasgd", estimator=estimators.get("unrolled")(batched=True, chunk=chunk))


def crowded(monkeypatch, most: int) -> list[int]:
    """An accelerator on which ``most`` tasks fit; the sizes that were tried."""
    tried, vmapped = [], Estimator._vmapped

    def limited(self, problem, meta, episodes):
        tried.append(len(episodes))
        if len(episodes) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return vmapped(self, problem, meta, episodes)

    monkeypatch.setattr(Estimator, "_vmapped", limited)
    return tried


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 8])
def test_chunks_add_up_to_the_loop(chunk):
    loop = learner_of("metasgd").meta_gradient(EPISODES)
    found = learner(chunk).meta_gradient(EPISODES)
    assert distance(found.grads, loop.grads) < 1e-12
    assert torch.allclose(found.value, loop.value, rtol=1e-12)
    assert all(torch.allclose(found.stats[name], value) for name, value in loop.stats.items())


def test_memory_that_does_not_suffice_halves_the_chunk_for_good(monkeypatch, caplog):
    loop = learner_of("metasgd").meta_gradient(EPISODES)
    tried, own = crowded(monkeypatch, most=2), learner()
    with caplog.at_level(logging.WARNING):
        found = own.meta_gradient(EPISODES)
    assert tried == [5, 2, 2, 1]
    assert caplog.messages == ["not enough memory for 5 tasks at once: going on with 2"]
    assert distance(found.grads, loop.grads) < 1e-12
    own.meta_gradient(EPISODES)
    assert tried[4:] == [2, 2, 1]  # nothing too large is tried again


def test_a_chunk_of_no_task_is_one_sentence():
    with pytest.raises(ValueError, match="chunk must be at least 1 task, got 0"):
        learner(0)


def test_one_task_that_does_not_fit_is_an_error(monkeypatch):
    tried = crowded(monkeypatch, most=0)
    with pytest.raises(torch.OutOfMemoryError):
        learner().meta_gradient(EPISODES)
    assert tried == [5, 2, 1]


def test_what_cannot_be_batched_goes_on_one_by_one_and_says_why(monkeypatch, caplog):
    def refuses(self, problem, meta, episodes):
        raise RuntimeError("no batching rule for lstm\nand a long trace")

    monkeypatch.setattr(Estimator, "_vmapped", refuses)
    with caplog.at_level(logging.WARNING):
        found = learner().meta_gradient(EPISODES)
    said = "the model cannot be batched, tasks are solved one by one: no batching rule for lstm"
    assert caplog.messages == [said]
    assert distance(found.grads, learner_of("metasgd").meta_gradient(EPISODES).grads) < 1e-12
