"""Evaluation as one recorded graph: so many test tasks at once, drawn by a table on the device,
adapted to and scored, and replayed until all are done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mdtheory.core.types import Episode
from mdtheory.inner.problem import noise_from
from mdtheory.inner.task import Task
from mdtheory.meta.captured import Recorder, recorded
from mdtheory.meta.feed import NotCapturableError, TableFeed, feed_for
from mdtheory.meta.learner import MetaLearner

READING = 8
"""Replays between two readings."""

Score = Callable[[Sequence[Sequence[Task]]], Tensor]
"""Views of tasks -> (n_tasks, n_protocols, 2)."""


class CapturedScores:
    """Loss and accuracy of ``size`` tasks by ``score``, recorded; ``views`` makes of an episode
    what each protocol sees of it.

    Errors: :class:`NotCapturableError`.
    """

    def __init__(
        self,
        learner: MetaLearner,
        stream: Callable[[int], Episode],
        *,
        size: int,
        views: Callable[[Episode], list[Task]],
        score: Score,
        recorder: Recorder,
    ):
        if not learner.geometry.capturable:
            kind = type(learner.geometry).__name__
            raise NotCapturableError(f"the geometry {kind} reads values in its steps")
        like = next(iter(learner.meta().values()))
        self.size = size
        self.views = views
        self.score = score
        self.cursor = torch.zeros(1, dtype=torch.int64, device=like.device)
        self.feed = feed_for(learner, stream, n_tasks=size, most=READING, cursor=self.cursor)
        if not isinstance(self.feed, TableFeed):
            raise NotCapturableError(
                "its images do not lie on the device, classes give unequal numbers of them, or the "
                "stream or the images are of a class of one's own"
            )
        self.rows = like.detach().new_zeros(0)
        try:
            self.replay = recorded(recorder, self._body, like.device)
        except torch.OutOfMemoryError as error:
            raise NotCapturableError("the memory does not suffice for a graph") from error

    @torch.no_grad()
    def _body(self) -> None:
        """One group of tasks, of operations alone."""
        with noise_from(self.feed.noise):
            row = self.score([self.views(episode) for episode in self.feed.episodes()])
        if not self.rows.numel():
            self.rows = row.new_zeros(READING, *row.shape)
        self.rows.index_copy_(0, self.cursor, row[None])
        self.cursor += 1

    def run(self, first: int, count: int) -> Tensor:
        """Groups first .. first + count - 1, at most :data:`READING`. shape: (count * size,
        n_protocols, 2), float64, on the CPU
        """
        self.feed.prepare(first, count)
        self.cursor.zero_()
        for _ in range(count):
            self.replay()
        return self.rows[:count].flatten(0, 1).double().cpu()
