"""How many kernels a meta-iteration is, counted without running one: the cost of a replay."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from mdtheory.core.types import Episode
from mdtheory.kernels import triton_convolution, triton_maps
from mdtheory.meta.captured import CapturedIterations
from mdtheory.meta.clip import Clipping
from mdtheory.meta.learner import MetaLearner
from mdtheory.models.conv4 import Conv4
from tests.meta.recorders import Standin, Strict, capturable_on_a_cpu

MOST = {"maml": 1200, "metamida": 2850, "warpgrad": 3300, "certified": 4900}
"""The certified map's are half those of its bounds, made once a task."""


class Counting(Standin):
    """Keeps the operations of the last run; ``launches`` are counted by the fixture."""

    def record(self, body: Any) -> Any:
        body()
        self.launches = 0
        self.mode = Strict(copies=True)
        with torch.device("meta"), self.mode:
            body()
        return lambda: None


@pytest.fixture
def counting(triton_machine: torch.device, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counting]:
    from mdtheory.kernels import triton

    capturable_on_a_cpu(monkeypatch)
    recorder = Counting()
    recorder.launches = 0

    def launch(*args: Any, **sizes: Any) -> None:
        recorder.launches += 1

    for module in (triton, triton_convolution, triton_maps):
        monkeypatch.setattr(module, "launch", launch)
    yield recorder


def episode(index: int) -> Episode:
    labels = torch.arange(5)
    return Episode(torch.rand(5, 3, 16, 16), labels, torch.rand(10, 3, 16, 16), labels.repeat(2))


@pytest.mark.parametrize("geometry", MOST)
def test_a_meta_iteration_is_few_kernels(geometry: str, counting: Counting) -> None:
    """Conv4, K = 5, 4 tasks at once, second order, Adam: operations that are no view, and
    launches.
    """
    own = MetaLearner(Conv4(image_size=16, channels=4), geometry, n_steps=5, probe="off")
    own.estimator.batched = True
    optimizer = torch.optim.Adam(own.meta().values(), foreach=True)
    for value in own.meta().values():
        value.grad = torch.zeros_like(value)
    optimizer.step()
    CapturedIterations(
        own,
        episode,
        n_tasks=4,
        clipping=Clipping(),
        optimizer=optimizer,
        scheduler=None,
        recorder=counting,
    )
    found = sum(counting.mode.kernels.values()) + counting.launches
    assert 500 < found <= MOST[geometry], (found, counting.mode.kernels.most_common(12))
