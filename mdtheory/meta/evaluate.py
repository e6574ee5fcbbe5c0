"""How good a learner is on new tasks: per-task scores, several protocols on the same tasks, paired
comparisons.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mdtheory.core import tree
from mdtheory.core.estimate import Estimate, estimate
from mdtheory.core.inputs import leaves, n_items, rows as rows_of
from mdtheory.core.types import Episode, LossFunction, Params
from mdtheory.inner.batching import at_once, over_tasks
from mdtheory.inner.problem import Problem
from mdtheory.inner.solver import states
from mdtheory.inner.task import Task, is_binary
from mdtheory.meta.captured import Recorder, recorder_for
from mdtheory.meta.captured_scores import READING, CapturedScores
from mdtheory.meta.door import demand_stream
from mdtheory.meta.feed import NotCapturableError
from mdtheory.meta.learner import MetaLearner

CHUNK = 32
"""Tasks solved at once on an accelerator; on a CPU one after the other is faster."""

WORTHWHILE = 4
"""Chunks left from which their evaluation is recorded: recording one does it three times."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scores:
    """What one protocol measured: the mean query loss and accuracy of every task. shapes:
    (n_tasks,), float64

    ``n_query``: queries per class; ``None`` means all that the stream gives.

    >>> import torch, mdtheory
    >>> scores = mdtheory.Scores(15, torch.zeros(4), torch.tensor([0.2, 0.4, 0.4, 0.6]))
    >>> print(scores.estimate())
    40.00 ± 16.00%
    """

    n_query: int | None
    loss: Tensor
    accuracy: Tensor

    def estimate(self, n: int | None = None) -> Estimate:
        """The mean accuracy with its 95% interval, over the first ``n`` tasks (default: all)."""
        return estimate(self.accuracy if n is None else self.accuracy[:n])


def paired(first: Scores, second: Scores) -> Estimate:
    """The mean over tasks of accuracy(second) - accuracy(first), with the interval of the paired
    differences.

    Both must have been measured on the same tasks by the same protocol.

    units: of an accuracy, a share of 1.

    >>> import torch, mdtheory
    >>> first, second = torch.tensor([0.2, 0.5, 0.8]), torch.tensor([0.3, 0.6, 0.9])
    >>> loss = torch.zeros(3)
    >>> print(mdtheory.paired(mdtheory.Scores(15, loss, first), mdtheory.Scores(15, loss, second)))
    10.00 ± 0.00%
    """
    if len(first.accuracy) != len(second.accuracy) or first.n_query != second.n_query:
        raise ValueError(
            f"paired scores must come from the same tasks and protocol, got {len(first.accuracy)} "
            f"tasks with {first.n_query} "
            f"queries and {len(second.accuracy)} with {second.n_query}; evaluate both in the same "
            "way"
        )
    return estimate(second.accuracy - first.accuracy)


def first_queries(
    episode: Episode, n_query: int | None, *, loss: LossFunction | None = None
) -> Episode:
    """The same task with only the first ``n_query`` queries of every class; of all items, for
    targets that are no class each: floats, except where ``loss`` is the binary cross-entropy,
    several labels an item, several parts.
    """
    return _only(episode, _rows(episode.query_y, n_query, loss))


def _rows(labels: Any, n_query: int | None, loss: LossFunction | None) -> Tensor | None:
    """Which queries those are; ``None`` for all."""
    if n_query is None:
        return None
    classes = isinstance(labels, Tensor) and labels.numel() == len(labels)
    if classes and labels.is_floating_point():
        classes = loss is not None and is_binary(loss)
    groups = (
        [(labels.flatten() == c).nonzero()[:, 0] for c in labels.unique()]
        if classes
        else [torch.arange(n_items(labels))]
    )
    if min(map(len, groups)) < n_query:
        raise ValueError(
            f"n_query must be at most the {min(map(len, groups))} queries per class drawn, got "
            f"{n_query}; draw more"
        )
    return torch.cat([group[:n_query].to(leaves(labels)[0].device) for group in groups])


def _only(episode: Episode, rows: Tensor | None) -> Episode:
    if rows is None:
        return episode
    return replace(
        episode, query_x=rows_of(episode.query_x, rows), query_y=rows_of(episode.query_y, rows)
    )


def evaluate(
    learner: MetaLearner,
    stream: Callable[[int], Episode],
    *,
    n_tasks: int,
    protocols: Sequence[int | None] = (None,),
    chunk: int | None = None,
    stopping: Callable[[], bool] = lambda: False,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Scores] | None:
    """Adapt to tasks 0 .. n_tasks - 1 of ``stream`` and score each by every protocol; nothing is
    kept for differentiation.

    One adaptation serves all protocols. Predictions are made in evaluation mode (no dropout), with
    ``eval_steps`` steps. ``chunk``: tasks solved at once, default :data:`CHUNK` on an accelerator
    and 1 on a CPU. Where the tasks' images lie on a GPU, chunks after the first are replays of one
    graph. Tasks whose loss is nan or infinite are told in the log. ``stopping`` is asked between
    chunks: once true, the result is ``None``. ``progress`` hears how many tasks are done.

    shapes: every :class:`Scores` holds (n_tasks,) losses and accuracies.

    >>> import mdtheory
    >>> sizes = {"n_way": 5, "n_shot": 1, "n_query": 3}
    >>> tasks = mdtheory.EpisodeStream(mdtheory.GlyphSet(), split="test", seed=0, **sizes)
    >>> network = mdtheory.models.Conv4(in_channels=1, image_size=28, channels=4)
    >>> learner = mdtheory.MetaLearner(network, n_steps=1)
    >>> one, three = mdtheory.evaluate(learner, tasks, n_tasks=2, protocols=(1, 3))
    >>> three.accuracy.shape, one.n_query
    (torch.Size([2]), 1)
    """
    if isinstance(n_tasks, bool) or not isinstance(n_tasks, int) or n_tasks < 1:
        raise ValueError(
            f"n_tasks must be a whole number of at least 1, got {n_tasks!r}; 600 and 1000 are usual"
        )
    demand_stream(stream)
    _demand_sizes(chunk, protocols)
    problem = learner.problem(n_steps=learner.eval_steps)
    rows: list[Tensor] = []
    done, graph = 0, None
    with learner.evaluating():
        meta = tree.detach(learner.meta())
        recorder = recorder_for(next(iter(meta.values())).device)
        size = (1 if recorder is None else CHUNK) if chunk is None else chunk
        while done < n_tasks:
            if stopping():
                return None
            whole = (n_tasks - done) // size
            if done == size and recorder is not None and whole >= WORTHWHILE:
                graph = _recorded(learner, stream, problem, size, protocols, recorder)
            if graph is not None and whole > 0:
                count = min(READING, whole)
                rows.append(graph.run(done // size, count))
                done += count * size
            else:
                indices = range(done, min(done + size, n_tasks))
                episodes = learner.fitted([stream(index) for index in indices])
                learner.admit(episodes[0], order=1)
                with learner.explained(episodes):
                    views = [
                        [
                            learner.task(first_queries(episode, n_query, loss=learner.loss))
                            for n_query in protocols
                        ]
                        for episode in episodes
                    ]
                    rows.append(_score(problem, meta, views).double().cpu())
                done = indices.stop
            progress(done)
    table = torch.cat(rows)
    _tell_lost(table[:, :, 0].isfinite().all(1))
    return [Scores(n_query, table[:, i, 0], table[:, i, 1]) for i, n_query in enumerate(protocols)]


def _tell_lost(sound: Tensor) -> None:
    """Say how many tasks ended without a number, which an accuracy hides. shape: (n_tasks,)"""
    lost = (~sound).nonzero()[:, 0].tolist()
    if lost:
        log.warning(
            "the query loss must be finite, but it is nan or infinite in %d of %d tasks, first in "
            "task %d: outputs that are nan count as wrong; lower task_lr or the steps, or clean "
            "the data",
            len(lost),
            len(sound),
            lost[0],
        )


def _demand_sizes(chunk: Any, protocols: Any) -> None:
    if isinstance(protocols, str) or not isinstance(protocols, Sequence) or not protocols:
        raise ValueError(
            "protocols must be a sequence of numbers of queries per class, or None for all, got "
            f"{protocols!r}; give (15,)"
        )
    for name, value in (("chunk", chunk), *(("a protocol", one) for one in protocols)):
        if value is not None and (type(value) is not int or value < 1):
            raise ValueError(
                f"{name} must be a whole number of at least 1, or None, got {value!r}; give 1 or "
                "more"
            )


def _recorded(
    learner: MetaLearner,
    stream: Callable[[int], Episode],
    problem: Problem,
    size: int,
    protocols: Sequence[int | None],
    recorder: Recorder,
) -> CapturedScores | None:
    """The evaluation of ``size`` tasks at once as a graph; ``None`` where there can be none."""
    meta, kept = tree.detach(learner.meta()), {}

    def views(episode: Episode) -> list[Task]:
        for n_query in protocols:  # the labels are those of every task: looked at once
            if n_query not in kept:
                kept[n_query] = _rows(episode.query_y, n_query, learner.loss)
        return [learner.task(_only(episode, kept[n_query])) for n_query in protocols]

    def score(found: Sequence[Sequence[Task]]) -> Tensor:
        return (_together if problem.geometry.vmappable else _in_turn)(problem, meta, found)

    try:
        return CapturedScores(
            learner, stream, size=size, views=views, score=score, recorder=recorder
        )
    except NotCapturableError as error:
        log.info("test tasks are solved one operation after another: %s", error)
        return None


def _score(problem: Problem, meta: Params, views: Sequence[Sequence[Task]]) -> Tensor:
    """Loss and accuracy by task and protocol, a row of ``views`` being one task with more or fewer
    queries. shape: (n_tasks, n_protocols, 2)
    """
    with torch.no_grad():
        if at_once(problem, [view for row in views for view in row], asked=len(views) > 1):
            with suppress(RuntimeError):  # what torch cannot vmap is looped over
                return _together(problem, meta, views)
        return _in_turn(problem, meta, views)


def _together(problem: Problem, meta: Params, views: Sequence[Sequence[Task]]) -> Tensor:
    return over_tasks(
        lambda row, noise: _score_one(problem, meta, row, noise), problem, meta, views
    )


def _in_turn(problem: Problem, meta: Params, views: Sequence[Sequence[Task]]) -> Tensor:
    return torch.stack(
        [_score_one(problem, meta, row, problem.noise(meta, row[0])) for row in views]
    )


def _score_one(problem: Problem, meta: Params, row: Sequence[Task], noise: Params) -> Tensor:
    *_, last = states(problem, meta, row[0], noise)
    return torch.stack([torch.stack(problem.score(meta, last, view)) for view in row])
