"""What recorded iterations read: the tasks of many iterations as a table of image rows, or those of
one in fixed places.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from mdtheory.core.types import Episode, Params
from mdtheory.data.episodes import EpisodeStream
from mdtheory.data.images import ClassImages
from mdtheory.meta.learner import MetaLearner


class NotCapturableError(ValueError):
    """Iterations cannot be recorded, or no longer replayed; the message says why."""


PARTS = ("support_x", "support_y", "query_x", "query_y")


class Feed(ABC):
    """The episodes of an iteration, whose ``seed`` is their number in it, and their noise.

    ``episodes`` and ``noise`` are of operations alone; the host calls ``prepare`` before some
    iterations and ``load`` before each.
    """

    @abstractmethod
    def prepare(self, first: int, count: int) -> None:
        """Look up iterations first .. first + count - 1, which the cursor counts from 0."""

    @abstractmethod
    def load(self, iteration: int) -> None:
        """Make this iteration the next one."""

    @abstractmethod
    def episodes(self) -> list[Episode]:
        """The tasks at the cursor."""

    @abstractmethod
    def noise(self, seed: int) -> Params:
        """The noise of task ``seed`` of the iteration."""


def feed_for(
    learner: MetaLearner,
    stream: Callable[[int], Episode],
    *,
    n_tasks: int,
    most: int,
    cursor: Tensor,
) -> Feed:
    """A table where the stream's images lie on the learner's device whole and every class gives
    equally many, else fixed places: also for a subclass, which may make other images of them.
    """
    source = getattr(stream, "source", None)
    if (
        type(stream) is EpisodeStream
        and not stream.unequal
        and type(source) is ClassImages
        and isinstance(source.pixels, Tensor)
        and source.pixels.device == cursor.device
    ):
        return TableFeed(learner, stream, source, n_tasks=n_tasks, most=most, cursor=cursor)
    return SlotFeed(learner, stream, n_tasks=n_tasks)


class SlotFeed(Feed):
    """Episodes of any stream, copied into the same tensors before each iteration."""

    def __init__(self, learner: MetaLearner, stream: Callable[[int], Episode], *, n_tasks: int):
        self.learner = learner
        self.stream = stream
        self.n_tasks = n_tasks
        first = [self._drawn(j) for j in range(n_tasks)]
        self.slots = [
            Episode(*(getattr(one, part).clone() for part in PARTS), seed=j)  # type: ignore[misc]
            for j, (one, _) in enumerate(first)
        ]
        self.noises = [{name: value.clone() for name, value in own.items()} for _, own in first]

    def prepare(self, first: int, count: int) -> None:
        """Nothing: each iteration is drawn when it is loaded."""

    def load(self, iteration: int) -> None:
        for j, (slot, noise) in enumerate(zip(self.slots, self.noises, strict=True)):
            episode, drawn = self._drawn(iteration * self.n_tasks + j)
            for part in PARTS:
                _write(getattr(slot, part), getattr(episode, part))
            for name, value in drawn.items():
                _write(noise[name], value)

    def episodes(self) -> list[Episode]:
        return self.slots

    def noise(self, seed: int) -> Params:
        return self.noises[seed]

    def _drawn(self, index: int) -> tuple[Episode, Params]:
        like = next(iter(self.learner.meta().values()))
        episode = self.stream(index).to(device=like.device, dtype=like.dtype)
        if not all(isinstance(getattr(episode, part), Tensor) for part in PARTS):
            raise NotCapturableError("its inputs are not one tensor")
        return episode, _noise(self.learner, self.learner.task(episode).seed)


class TableFeed(Feed):
    """Episodes of images that lie on the device, gathered by a table of rows."""

    def __init__(
        self,
        learner: MetaLearner,
        stream: EpisodeStream,
        source: ClassImages,
        *,
        n_tasks: int,
        most: int,
        cursor: Tensor,
    ):
        self.learner = learner
        self.stream = stream
        self.source = source
        self.n_tasks = n_tasks
        self.cursor = cursor
        self.pixels = torch.as_tensor(source.pixels)
        device = cursor.device
        self.dtype = next(iter(learner.meta().values())).dtype
        items = stream.n_shot + stream.n_query
        self.rows = torch.zeros(
            most, n_tasks, stream.n_way, items, dtype=torch.int64, device=device
        )
        self.scale = torch.tensor(1 / 255, dtype=torch.float32, device=device)
        labels = torch.arange(stream.n_way, device=device)
        self.support_y = labels.repeat_interleave(stream.n_shot)
        self.query_y = labels.repeat_interleave(stream.n_query)
        one = _noise(learner, stream.address(0))
        self.noises = {
            name: value.new_zeros(most, n_tasks, *value.shape) for name, value in one.items()
        }
        self.prepare(0, 1)

    def prepare(self, first: int, count: int) -> None:
        indices = range(first * self.n_tasks, (first + count) * self.n_tasks)
        table = [
            [
                [self.source.rows(self.stream.split, k)[pick] for pick in picks]
                for k, picks in self.stream.chosen(index)
            ]
            for index in indices
        ]
        rows = torch.tensor(table, dtype=torch.int64).view(count, *self.rows.shape[1:])
        self.rows[:count].copy_(rows)
        if self.noises:
            drawn = [_noise(self.learner, self.stream.noise_seed(index)) for index in indices]
            for name, held in self.noises.items():
                stacked = torch.stack([own[name] for own in drawn])
                held[:count].copy_(stacked.view(count, *held.shape[1:]))

    def load(self, iteration: int) -> None:
        """Nothing: the cursor moves by itself."""

    def episodes(self) -> list[Episode]:
        stream = self.stream
        rows = self.rows.index_select(0, self.cursor).flatten()
        block = self.pixels.index_select(0, rows).permute(0, 3, 1, 2)
        block = block.to(torch.float32, memory_format=torch.contiguous_format) * self.scale
        block = block.to(self.dtype)
        images = block.view(self.n_tasks, *self.rows.shape[2:], *block.shape[1:])
        return [
            Episode(
                images[j, :, : stream.n_shot].flatten(0, 1),
                self.support_y,
                images[j, :, stream.n_shot :].flatten(0, 1),
                self.query_y,
                seed=j,
            )
            for j in range(self.n_tasks)
        ]

    def noise(self, seed: int) -> Params:
        return {
            name: held.index_select(0, self.cursor)[0, seed] for name, held in self.noises.items()
        }


def _noise(learner: MetaLearner, seed: int) -> Params:
    """The geometry's draw, with the anchor's device and precision."""
    like = next(iter(learner.meta().values()))
    drawn = learner.geometry.draw(seed)
    return {name: value.to(like.device, like.dtype) for name, value in drawn.items()}


def _write(slot: Tensor, value: Tensor) -> None:
    if slot.shape != value.shape:
        raise NotCapturableError(
            f"tasks differ in shape: {tuple(value.shape)} after {tuple(slot.shape)}"
        )
    slot.copy_(value)
