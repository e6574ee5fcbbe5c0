"""Recorded evaluation, with a stand-in for the graph: the scores of an eager one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from mdtheory.core.types import Episode
from mdtheory.data.episodes import EpisodeStream
from mdtheory.data.images import ClassImages
from mdtheory.data.splits import Division
from mdtheory.meta import captured_scores, evaluate as module
from mdtheory.meta.evaluate import evaluate
from mdtheory.meta.feed import PARTS, SlotFeed, TableFeed, feed_for
from tests.meta.fakes import N_WAY, learner
from tests.meta.recorders import Standin

N_TASKS, CHUNK = 23, 4  # the last chunk is not whole


class Noisy(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x + torch.randn_like(x))


def stream() -> EpisodeStream:
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (36, 2, 2, 1), dtype=torch.uint8, generator=draw)
    classes = tuple(f"c{k}" for k in range(6))
    images = ClassImages(
        pixels,
        class_ids=[name for name in classes for _ in range(6)],
        files=[f"{i % 6}" for i in range(36)],
        division=Division(splits={"train": classes, "validation": (), "test": ()}, by="test"),
    )
    return EpisodeStream(images, split="train", seed=0, n_way=N_WAY, n_shot=1, n_query=4)


def own(slug: str = "maml", layer: Any = nn.Linear, **options: Any) -> Any:
    torch.manual_seed(3)
    return learner(slug, network=nn.Sequential(nn.Flatten(), layer(4, N_WAY)), **options)


def scores(made: Any, recorder: Any, tasks: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(module, "recorder_for", lambda device: recorder)
    heard: list[int] = []
    found = evaluate(
        made, tasks, n_tasks=N_TASKS, protocols=(2, None), chunk=CHUNK, progress=heard.append
    )
    assert heard[-1] == N_TASKS and heard == sorted(heard)
    return found


@pytest.mark.parametrize("slug", ["maml", "mtnet", "metamida"])
def test_they_are_those_of_an_eager_one(slug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captured_scores, "READING", 3)
    monkeypatch.setattr(module, "READING", 3)
    recorder = Standin()
    eager = scores(own(slug), None, stream(), monkeypatch)
    found = scores(own(slug), recorder, stream(), monkeypatch)
    assert recorder.replays == 4  # of five whole chunks, the first as any others are
    for one, other in zip(eager, found, strict=True):
        assert torch.allclose(one.loss, other.loss, atol=1e-6)
        assert torch.equal(one.accuracy, other.accuracy) and len(other.loss) == N_TASKS
    assert not torch.equal(found[0].loss, found[1].loss)  # two protocols, two numbers of queries


def unequal() -> EpisodeStream:
    """Six images a class where eight are asked for."""
    sizes = {"n_way": N_WAY, "n_shot": 3, "n_query": 5}
    return EpisodeStream(stream().source, split="train", seed=0, unequal=True, **sizes)


def functions() -> Any:
    tasks = stream()
    return lambda index: tasks(index)


@pytest.mark.parametrize(
    ("made", "tasks", "reason"),
    [
        (own, unequal, "classes give unequal numbers"),
        (own, functions, "its images do not lie on the device"),
        (lambda: own("ecml"), stream, "the geometry ECML"),
        (lambda: own(layer=Noisy, probe="off"), stream, "cannot be recorded"),
    ],
    ids=["unequal", "stream", "geometry", "network"],
)
def test_what_cannot_be_recorded_is_scored_as_before(
    made: Any,
    tasks: Any,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    recorder = Standin()
    with caplog.at_level("INFO", logger="mdtheory.meta.evaluate"):
        torch.manual_seed(0)
        found = scores(made(), recorder, tasks(), monkeypatch)
    assert recorder.replays == 0 and reason in caplog.text and len(found[0].loss) == N_TASKS


def test_a_few_tasks_are_not_worth_a_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(Standin):
        def record(self, body: Any) -> Any:
            raise AssertionError("recorded")

    monkeypatch.setattr(module, "recorder_for", lambda device: Refusing())
    assert evaluate(own(), stream(), n_tasks=2 * CHUNK, chunk=CHUNK) is not None


def test_stopping_is_asked_between_readings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "recorder_for", lambda device: Standin())
    answers = iter([False, False, True])
    found = evaluate(own(), stream(), n_tasks=60, chunk=CHUNK, stopping=lambda: next(answers))
    assert found is None


class Inverted(EpisodeStream):
    def __call__(self, index: int) -> Episode:
        one = super().__call__(index)
        return replace(one, support_x=1 - one.support_x, query_x=1 - one.query_x)


class Darker(ClassImages):
    def load_many(self, *args: Any, **options: Any) -> torch.Tensor:
        return 0.5 * super().load_many(*args, **options)


def inverted() -> EpisodeStream:
    return Inverted(stream().source, split="train", seed=0, n_way=N_WAY, n_shot=1, n_query=4)


def darker() -> EpisodeStream:
    tasks = stream()
    tasks.source.__class__ = Darker
    return tasks


@pytest.mark.parametrize(
    ("make", "kind"), [(stream, TableFeed), (inverted, SlotFeed), (darker, SlotFeed)]
)
def test_the_feed_gives_the_tasks_of_the_stream(make: Any, kind: type) -> None:
    """Of a subclass too: a table knows nothing of what it does with the images."""
    cursor, tasks = torch.zeros(1, dtype=torch.int64), make()
    feed = feed_for(own(), tasks, n_tasks=2, most=2, cursor=cursor)
    feed.prepare(1, 1)
    feed.load(1)
    for found, index in zip(feed.episodes(), (2, 3), strict=True):
        expected = tasks(index)
        for part in PARTS:
            assert torch.equal(getattr(found, part), getattr(expected, part)), part
    assert type(feed) is kind


def test_the_labels_of_all_tasks_are_alike() -> None:
    """The premise of one choice of queries for all of them."""
    tasks = [stream()(index) for index in range(3)]
    assert all(isinstance(task, Episode) for task in tasks)
    assert all(torch.equal(task.query_y, tasks[0].query_y) for task in tasks)
