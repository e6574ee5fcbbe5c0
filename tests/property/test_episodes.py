"""Tasks by address: the same for every asker, nested in each other, never from another split.
Mutants are not.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, strategies as st

from mdtheory.contract.strategies import streams
from mdtheory.core.types import Episode
from mdtheory.data import EpisodeStream
from tests.property.mutants import assert_rejects

FIELDS = ("support_x", "support_y", "query_x", "query_y")
MANY = 15


@st.composite
def asked(draw, kind=EpisodeStream):
    """A stream and the index of one of its tasks."""
    drawn = draw(streams())
    return of(drawn, kind=kind), draw(st.integers(0, 10**6))


def of(stream, *, kind=None, **changes):
    """The same stream with some things changed."""
    options = {
        name: getattr(stream, name) for name in ("split", "seed", "n_way", "n_shot", "n_query")
    }
    return (kind or type(stream))(stream.source, **{**options, **changes})


def same(a: Episode, b: Episode) -> bool:
    return a.seed == b.seed and all(torch.equal(getattr(a, f), getattr(b, f)) for f in FIELDS)


def shown(stream, x: torch.Tensor) -> list[int]:
    """The number of every image, which its pixels spell."""
    high, low, _ = (x.flatten(1) * 255).round().long().unbind(1)
    return (256 * high + low).tolist()


def the_address_alone_decides(case) -> None:
    stream, index = case
    first = stream(index)
    stream(index + 1)
    torch.rand(3)
    assert same(first, stream(index))
    assert same(first, of(stream)(index))


def other_addresses_are_other_tasks(case) -> None:
    stream, index = case
    noise = {
        stream(index).seed,
        stream(index + 1).seed,
        of(stream, seed=stream.seed + 1)(index).seed,
    }
    assert len(noise) == 3


def more_queries_keep_the_support(case) -> None:
    """5 queries and 15: one support set, one noise, and the 5 are the first of the 15"""
    stream, index = case
    few, many = stream(index), of(stream, n_query=MANY)(index)
    assert torch.equal(few.support_x, many.support_x)
    assert torch.equal(few.support_y, many.support_y)
    assert few.seed == many.seed
    first = many.query_x.unflatten(0, (stream.n_way, MANY))[:, : stream.n_query]
    assert torch.equal(few.query_x.unflatten(0, (stream.n_way, stream.n_query)), first)


def support_and_queries_are_disjoint(case) -> None:
    stream, index = case
    episode = stream(index)
    images = shown(stream, episode.support_x) + shown(stream, episode.query_x)
    assert len(set(images)) == len(images) == stream.n_way * (stream.n_shot + stream.n_query)


def splits_are_disjoint(case) -> None:
    """the classes of a task are of its split, as many as asked for, one label for each"""
    stream, index = case
    episode, source = stream(index), stream.source
    for x, y in ((episode.support_x, episode.support_y), (episode.query_x, episode.query_y)):
        pairs = {
            (source.class_ids[number], int(label))
            for number, label in zip(shown(stream, x), y, strict=True)
        }
        assert {name.split("-")[0] for name, _ in pairs} == {stream.split}
        assert sorted(label for _, label in pairs) == list(range(stream.n_way))
        assert len({name for name, _ in pairs}) == stream.n_way


PROPERTIES = [
    the_address_alone_decides,
    other_addresses_are_other_tasks,
    more_queries_keep_the_support,
    support_and_queries_are_disjoint,
    splits_are_disjoint,
]


@pytest.mark.parametrize("check", PROPERTIES, ids=lambda one: one.__name__)
def test_streams_keep_their_promises(check):
    @given(asked())
    def holds(case):
        check(case)

    holds()


class GlobalDraw(EpisodeStream):
    def __call__(self, index):
        return replace(super().__call__(index), seed=int(torch.randint(2**40, ())))


class OneTask(EpisodeStream):
    def address(self, index):
        return 7


class DependsOnQueries(EpisodeStream):
    def address(self, index):
        return super().address(index) + self.n_query


class QueriesFirst(EpisodeStream):
    def chosen(self, index):
        return [
            (k, picks[self.n_query :] + picks[: self.n_query]) for k, picks in super().chosen(index)
        ]


class Reused(EpisodeStream):
    def chosen(self, index):
        return [(k, [picks[0], *picks[:-1]]) for k, picks in super().chosen(index)]


class AnySplit(EpisodeStream):
    def __call__(self, index):
        return of(self, kind=EpisodeStream, split="test")(index)


class SharedLabel(EpisodeStream):
    def __call__(self, index):
        episode = super().__call__(index)
        return replace(episode, query_y=torch.zeros_like(episode.query_y))


@pytest.mark.parametrize(
    ("mutant", "check"),
    [
        (GlobalDraw, the_address_alone_decides),
        (OneTask, other_addresses_are_other_tasks),
        (DependsOnQueries, more_queries_keep_the_support),
        (QueriesFirst, more_queries_keep_the_support),
        (Reused, support_and_queries_are_disjoint),
        (AnySplit, splits_are_disjoint),
        (SharedLabel, splits_are_disjoint),
    ],
    ids=lambda one: one.__name__,
)
def test_mutants_are_rejected(mutant, check):
    assert_rejects(check, asked(mutant))
