"""``stepwise`` holds the K states and one step's graph; ``unrolled`` the graph of every step."""

from __future__ import annotations

import pytest
import torch

from mdtheory.core.types import Episode
from mdtheory.meta import MetaLearner
from mdtheory.models import models
from proofs_check.tools.memory import PeakTensorBytes


def peak_and_state(estimator: str, n_steps: int) -> tuple[int, int]:
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(3)
    episode = Episode(
        torch.rand(3, 1, 28, 28, generator=rng),
        labels,
        torch.rand(15, 1, 28, 28, generator=rng),
        labels.repeat(5),
    )
    network = models.get("conv4")(in_channels=1, image_size=28, n_way=3, channels=8)
    learner = MetaLearner(network, "maml", n_steps=n_steps, estimator=estimator)
    with PeakTensorBytes() as meter:
        learner.meta_gradient([episode])
    return meter.peak, sum(
        value.numel() * value.element_size() for value in learner.meta().values()
    )


@pytest.mark.parametrize("n_steps", [5, 20])
def test_stepwise_grows_by_at_most_the_states(n_steps):
    one, state = peak_and_state("stepwise", 1)
    peak, _ = peak_and_state("stepwise", n_steps)
    assert peak - one <= 1.05 * (n_steps - 1) * state


def test_unrolled_breaks_that_bound():
    """Negative control: the meter sees the graphs that ``unrolled`` keeps."""
    one, state = peak_and_state("unrolled", 1)
    peak, _ = peak_and_state("unrolled", 5)
    assert peak - one > 10 * 1.05 * 4 * state


def test_the_meter_counts_what_is_alive():
    with PeakTensorBytes() as meter:
        first = torch.zeros(1000, dtype=torch.float64)
        second = first + 1
        del first
        third = second * 2
    assert meter.peak == 16_000
    assert meter.live == 16_000
    assert float(third.sum()) == 2000.0
