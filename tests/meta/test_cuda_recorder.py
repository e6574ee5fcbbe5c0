"""The lines that only a card runs, with torch's own signatures and a card that is a list: what is
done in which order, and what is put back where a recording fails.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import create_autospec

import pytest
import torch

from mdtheory.inner.estimators import base
from mdtheory.meta.captured import WARM_UPS, CapturedIterations, CudaRecorder, recorded
from mdtheory.meta.clip import Clipping
from mdtheory.meta.feed import NotCapturableError
from tests.meta.fakes import blobs, learner, trainer
from tests.meta.recorders import Standin, capturable_on_a_cpu

CARD = torch.device("cuda", 0)


class Stream:
    """A stream by name, which says whom it waits for."""

    def __init__(self, name: str, said: list[str]):
        self.name, self.said = name, said

    def wait_stream(self, other: Stream) -> None:
        self.said.append(f"{self.name} waits for {other.name}")


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the card was asked to do, in order."""
    found: list[str] = []
    own, current = Stream("own", found), Stream("current", found)

    @contextmanager
    def inside(name: str) -> Iterator[None]:
        found.append(f"in {name}")
        yield
        found.append(f"out of {name}")

    class Graph(torch.cuda.graph):
        """Its signature is torch's."""

        def __init__(self, graph: Any, **options: Any):
            create_autospec(torch.cuda.graph)(graph, **options)
            assert options == {"stream": own, "capture_error_mode": "thread_local"}

        def __enter__(self) -> None:
            found.append("capture")

        def __exit__(self, *error: Any) -> None:
            found.append("captured")
            if error[0] is not None:
                raise RuntimeError("operation failed due to a previous error during capture")

    fakes = {
        "device": lambda device: inside(str(device)),
        "Stream": lambda: own,
        "current_stream": lambda: current,
        "stream": lambda stream: inside(stream.name),
        "set_stream": lambda stream: found.append(f"set {stream.name}"),
        "synchronize": lambda: found.append("synchronize"),
        "empty_cache": lambda: found.append("empty"),
        "get_sync_debug_mode": lambda: 0,
        "set_sync_debug_mode": lambda mode: found.append(f"reads: {mode}"),
    }
    for name, fake in fakes.items():
        spec = getattr(torch.cuda, name)
        made = fake if isinstance(spec, type) else create_autospec(spec, side_effect=fake)
        monkeypatch.setattr(torch.cuda, name, made)
    monkeypatch.setattr(torch.cuda, "graph", Graph)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: type("G", (), {"replay": "replay"}))
    return found


def test_a_recording_in_its_order(said: list[str]) -> None:
    assert CudaRecorder(CARD).record(lambda: said.append("body")) == "replay"
    assert said == [
        "in cuda:0", "own waits for current", "in own", *["body"] * (WARM_UPS - 1),
        "reads: error", "body", "reads: 0", "out of own", "synchronize", "empty",
        "capture", "body", "captured", "set current", "current waits for own", "out of cuda:0",
    ]  # fmt: skip


def test_a_host_read_is_found_before_anything_is_captured(said: list[str]) -> None:
    """As torch's mode finds it: a capture that breaks off cannot be undone."""

    def body() -> None:
        if said[-1] == "reads: error":
            raise RuntimeError("called a synchronizing CUDA operation")

    with pytest.raises(RuntimeError, match="synchronizing"):
        CudaRecorder(CARD).record(body)
    assert "capture" not in said and said.count("reads: 0") == 1
    assert said[-2:] == ["set current", "current waits for own"]


def test_the_first_error_of_a_broken_capture_is_the_reason(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def body() -> None:
        if said[-1] == "capture":
            raise AssertionError("the true reason")

    with pytest.raises(NotCapturableError, match="the true reason"):
        recorded(CudaRecorder(CARD), body, torch.device("cpu"))
    assert said[-2:] == ["set current", "current waits for own"]


def test_adams_remark_on_warm_ups_is_not_heard(said: list[str]) -> None:
    def body() -> None:
        warnings.warn("This instance was constructed with capturable=True", stacklevel=1)

    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        CudaRecorder(CARD).record(body)
        assert heard == [] and "capture" in said
        body()
    assert ["capturable" in str(one.message) for one in heard] == [True]


def test_an_estimator_tries_nothing_twice_in_a_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor has it the cache emptied there."""
    own, tried = learner(), []
    own.estimator.batched = True

    def failing(*_: Any) -> Any:
        tried.append(own.estimator.chunk)
        raise error

    monkeypatch.setattr(own.estimator, "_vmapped", failing)
    monkeypatch.setattr(base, "_recording", lambda: True)
    for error in (torch.OutOfMemoryError("no room"), RuntimeError("capturing")):
        with pytest.raises(type(error), match=str(error)):
            own.meta_gradient([blobs(0), blobs(1)])
    assert tried == [None, None]


@pytest.mark.parametrize("name", ["Adam", "NAdam", "RMSprop", "Adamax", "ASGD"])
def test_every_count_of_an_optimizer_is_where_its_parameter_is(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The card is torch's device for shapes alone."""
    capturable_on_a_cpu(monkeypatch)
    made = getattr(torch.optim, name)([torch.nn.Parameter(torch.ones(2))])
    (own,) = made.param_groups[0]["params"]
    own.grad = torch.ones(2)
    made.step()
    counts = {key for key, value in made.state[own].items() if not value.dim()}
    elsewhere = torch.nn.Parameter(torch.ones(2, device="meta"))
    made.state[elsewhere] = made.state.pop(own)
    moved = CapturedIterations._bring(made)
    assert counts and {key for _, key in moved} == counts
    assert all(made.state[elsewhere][key].is_meta for key in counts)


def test_the_random_numbers_of_an_iteration_on_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    one, seeds = trainer(), []
    value = type("Value", (), {"device": CARD})()
    monkeypatch.setattr(one.learner, "meta", lambda: {"anchor": value})
    forked = create_autospec(torch.random.fork_rng)
    monkeypatch.setattr(torch.random, "fork_rng", forked)
    monkeypatch.setattr(torch.cuda, "device", create_autospec(torch.cuda.device))
    seeding = create_autospec(torch.cuda.manual_seed, side_effect=seeds.append)
    monkeypatch.setattr(torch.cuda, "manual_seed", seeding)
    with one._randomness(3):
        assert torch.initial_seed() == seeds[0] < 2**63
    forked.assert_called_once_with(devices=[CARD])


def test_an_out_of_memory_graph_of_one_task_is_left_to_eager_iterations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Small(Standin):
        def record(self, body: Any) -> Any:
            raise torch.OutOfMemoryError("no room")

    capturable_on_a_cpu(monkeypatch)
    own = learner()
    own.estimator.batched = True
    optimizer = torch.optim.Adam(own.meta().values())
    with pytest.raises(NotCapturableError, match="memory does not suffice"):
        CapturedIterations(
            own,
            blobs,
            n_tasks=4,
            clipping=Clipping(),
            optimizer=optimizer,
            scheduler=None,
            recorder=Small(),
        )
    assert own.estimator.chunk is None  # as an eager iteration had it
