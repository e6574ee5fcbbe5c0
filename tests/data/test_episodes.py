"""Episodes by address: prefixes, independence, uniform draws, frozen numbers."""

from __future__ import annotations

import hashlib
from collections import Counter
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from scipy.stats import chi2

from mdtheory.core.seeding import seed
from mdtheory.data.episodes import EpisodeStream, permutation
from mdtheory.data.images import ClassImages
from mdtheory.data.splits import Division

PER_CLASS = 25
CLASSES = {
    "train": tuple(f"a{k}" for k in range(8)),
    "validation": ("v0", "v1"),
    "test": tuple(f"w{k}" for k in range(5)),
}


def images() -> ClassImages:
    """Images that show their own class and number: the first pixel is the class's row, the second
    the image's.
    """
    listing = sorted(
        (c, f"{k:02d}") for split in CLASSES for c in CLASSES[split] for k in range(PER_CLASS)
    )
    order = sorted({c for c, _ in listing})
    pixels = np.zeros((len(listing), 2, 2, 1), dtype=np.uint8)
    pixels[:, 0, 0, 0] = [order.index(c) for c, _ in listing]
    pixels[:, 0, 1, 0] = [int(f) for _, f in listing]
    return ClassImages(
        pixels,
        class_ids=[c for c, _ in listing],
        files=[f for _, f in listing],
        division=Division(CLASSES, "hand"),
    )


SOURCE = images()


class OneByOne:
    """The same source with only what the protocol asks for, and a digest of one's choice."""

    def __init__(self, digest: str = SOURCE.digest, count: int = PER_CLASS):
        self.digest, self._count = digest, count
        self.image_shape, self.classes = SOURCE.image_shape, SOURCE.classes
        self.seeds: list[int] = []

    def count(self, split, class_index):
        return self._count

    def load(self, split, class_index, picks, seed):
        self.seeds.append(seed)
        return SOURCE.load(split, class_index, picks, seed)


def stream(source=SOURCE, **changes):
    return EpisodeStream(
        source, **{"split": "train", "seed": 7, "n_way": 5, "n_shot": 1, "n_query": 4, **changes}
    )


def ids(batch: torch.Tensor) -> list[tuple[int, int]]:
    """(class, image) that each picture shows."""
    return [tuple(row) for row in (batch[:, 0, 0, :] * 255).round().int().tolist()]


def same(a, b) -> bool:
    return (
        all(
            torch.equal(getattr(a, k), getattr(b, k))
            for k in ("support_x", "support_y", "query_x", "query_y")
        )
        and a.seed == b.seed
    )


def test_an_episode_is_class_major_and_its_parts_are_disjoint():
    episode = stream(n_shot=3)(0)
    assert episode.support_x.shape == (15, 1, 2, 2)
    assert episode.query_x.shape == (20, 1, 2, 2)
    assert episode.support_y.tolist() == [k for k in range(5) for _ in range(3)]
    assert episode.query_y.tolist() == [k for k in range(5) for _ in range(4)]
    support, query = ids(episode.support_x), ids(episode.query_x)
    assert len(set(support + query)) == 35
    of_label = {
        label: {
            c for (c, _), y in zip(support, episode.support_y.tolist(), strict=True) if y == label
        }
        for label in range(5)
    }
    assert all(len(own) == 1 for own in of_label.values())
    assert len(set().union(*of_label.values())) == 5
    assert all(
        {c} == of_label[y] for (c, _), y in zip(query, episode.query_y.tolist(), strict=True)
    )


def test_chosen_is_what_is_loaded():
    one = stream()
    episode = one(3)
    rows = {c: k for k, c in enumerate(sorted({c for split in CLASSES for c in CLASSES[split]}))}
    expected = [(rows[CLASSES["train"][k]], own[0]) for k, own in one.chosen(3)]
    assert ids(episode.support_x) == expected
    queries = [(rows[CLASSES["train"][k]], pick) for k, own in one.chosen(3) for pick in own[1:]]
    assert ids(episode.query_x) == queries


def test_a_source_with_the_bare_protocol_gives_the_same_episode():
    bare = OneByOne()
    assert same(stream(bare)(2), stream()(2))
    assert bare.seeds == [seed(stream(bare).address(2), "images")] * 5


@given(st.integers(0, 10**9), st.integers(1, 5), st.integers(1, 15), st.integers(1, 15))
def test_fewer_queries_are_the_first_of_more(index, n_shot, few, many):
    few, many = sorted((few, many))
    small, large = (
        stream(n_shot=n_shot, n_query=few)(index),
        stream(n_shot=n_shot, n_query=many)(index),
    )
    assert torch.equal(small.support_x, large.support_x)
    assert torch.equal(
        small.query_x.unflatten(0, (5, few)), large.query_x.unflatten(0, (5, many))[:, :few]
    )
    assert small.seed == large.seed


@given(st.integers(0, 10**9), st.integers(2, 8))
def test_fewer_shots_and_ways_are_the_first_of_more(index, n_way):
    one, five = stream(n_way=n_way)(index), stream(n_way=8, n_shot=5)(index)
    assert torch.equal(one.support_x, five.support_x.unflatten(0, (8, 5))[:n_way, 0])


def test_the_address_alone_decides():
    assert same(stream()(4), stream()(4))
    late = stream()
    for index in (9, 1, 4):
        episode = late(index)
    assert same(episode, stream()(4))
    torch.manual_seed(99)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].tolist()
    assert same(stream()(4), late(4))
    assert torch.equal(state, torch.get_rng_state())
    assert numpy_state == np.random.get_state()[1].tolist()


@pytest.mark.parametrize(
    "other",
    [stream(seed=8), stream(OneByOne("another set")), stream(split="test")],
    ids=["seed", "data set", "split"],
)
def test_every_part_of_the_address_counts(other):
    assert stream().chosen(0) != stream().chosen(1)
    assert stream().chosen(0) != other.chosen(0)
    assert stream().address(0) != other.address(0)
    assert stream()(0).seed != other(0).seed


def test_the_address_is_a_sha256_of_the_four():
    text = "\x1f".join([f"str:{SOURCE.digest}", "str:train", "int:7", "int:11"])
    expected = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
    assert stream().address(11) == expected
    noise = hashlib.sha256(f"int:{expected}\x1fstr:noise".encode()).digest()
    assert stream()(11).seed == int.from_bytes(noise[:8], "big") >> 1


def test_frozen_numbers():
    """Written down once: whoever changes them changes the tasks of every published result."""
    assert permutation(10, "frozen", 1) == FROZEN_PERMUTATION
    assert stream(OneByOne("0" * 64)).chosen(0)[:2] == FROZEN_TASK


FROZEN_PERMUTATION = [1, 7, 6, 3, 0, 4, 5, 2, 9, 8]
FROZEN_TASK = [(0, [11, 19, 10, 3, 8]), (5, [8, 9, 0, 24, 2])]


@given(st.integers(0, 700), st.integers())
def test_a_permutation_has_everything_once(n, address):
    assert sorted(permutation(n, address)) == list(range(n))


def chi_square(permute) -> float:
    """Of 4800 draws of an order of 4 against 200 for each of the 24."""
    counts = Counter(tuple(permute(k)) for k in range(4800))
    return sum((counts[order] - 200) ** 2 / 200 for order in permutations(range(4)))


def test_permutations_are_uniform():
    """Fixed addresses; a fair draw fails with probability 1e-6. The same check sees words of three
    bits, with their ties.
    """
    critical = chi2.isf(1e-6, 23)
    assert chi_square(lambda k: permutation(4, "uniform", k)) < critical
    assert (
        chi_square(
            lambda k: np.argsort(np.random.PCG64(k).random_raw(4) % 8, kind="stable").tolist()
        )
        > critical
    )


def test_classes_and_images_are_uniform_and_classes_do_not_decide_images():
    """1600 tasks of 2 out of 8 classes: every class 400 times on average (sd 17.3), every image of
    a class 16 (sd 4).
    """
    classes, pairs = Counter(), Counter()
    for index in range(1600):
        for k, picks in stream(n_way=2, n_query=1).chosen(index):
            classes[k] += 1
            pairs[k, picks[0]] += 1
    assert max(abs(n - 400) for n in classes.values()) < 5 * 17.3
    assert len(pairs) == 8 * PER_CLASS
    assert max(abs(n - 16) for n in pairs.values()) < 6 * 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"n_way": 9},
            "n_way must be at most 8, the number of classes in split 'train', got 9; lower n_way",
        ),
        (
            {"split": "validation"},
            "n_way must be at most 2, the number of classes in split 'validation', got 5",
        ),
        ({"n_way": 1}, "n_way must be a whole number >= 2, got 1"),
        ({"n_way": 5.0}, "n_way must be a whole number >= 2, got 5.0"),
        ({"n_way": True}, "n_way must be a whole number"),
        ({"n_shot": 0}, "n_shot must be a whole number >= 1, got 0"),
        ({"n_query": "4"}, "n_query must be a whole number >= 1, got '4'"),
        ({"seed": -1}, "seed must be a whole number >= 0, got -1"),
        ({"split": "val"}, "split must be one of train, validation, test, got 'val'"),
        (
            {"n_shot": 20, "n_query": 6},
            "at least n_shot \\+ n_query = 26 images, got 25 in class 'a0' of split 'train'; lower",
        ),
    ],
)
def test_what_no_episode_can_be_made_of_is_refused_at_once(changes, words):
    with pytest.raises(ValueError, match=words) as caught:
        stream(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("index", [-1, 1.0, "0", None])
def test_an_index_is_a_whole_number(index):
    with pytest.raises(ValueError, match="index must be a whole number >= 0"):
        stream()(index)


def test_all_images_may_be_used():
    episode = stream(n_shot=20, n_query=5)(0)
    assert len(set(ids(episode.support_x) + ids(episode.query_x))) == 125


def test_episodes_live_where_the_images_live(device):
    episode = stream(SOURCE.to_device(device))(5)
    assert {
        x.device.type
        for x in (episode.support_x, episode.support_y, episode.query_x, episode.query_y)
    } == {device.type}
    assert same(episode.to("cpu"), stream()(5))
