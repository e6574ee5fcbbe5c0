"""The source over one uint8 array: values, order, devices, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from mdtheory.data.images import ClassImages
from mdtheory.data.splits import (
    MINI_IMAGENET,
    SPLITS,
    Division,
    divide_by_fractions,
    divide_mini_imagenet,
    split_word,
)

SIZES = {"a": 4, "b": 3, "c": 5}
DIVISION = Division({"train": ("a", "c"), "validation": (), "test": ("b",)}, "hand")


def names():
    return [(name, f"{k}.png") for name, n in SIZES.items() for k in range(n)]


def make(pixels=None, division=DIVISION, listing=None):
    listing = names() if listing is None else listing
    pixels = (
        np.random.default_rng(0).integers(0, 256, (12, 4, 5, 3), dtype=np.uint8)
        if pixels is None
        else pixels
    )
    return ClassImages(
        pixels, class_ids=[c for c, _ in listing], files=[f for _, f in listing], division=division
    )


def test_load_picks_the_right_images_in_order():
    source = make()
    images = source.load("train", 1, [3, 0, 3])
    assert images.dtype == torch.float32
    assert images.shape == (3, 3, 4, 5) == (3, *source.image_shape)
    assert images.is_contiguous()
    for image, row in zip(images, (10, 7, 10), strict=True):
        expected = np.moveaxis(np.asarray(source.pixels[row], dtype=np.float64), 2, 0) / 255
        assert np.abs(image.numpy() - expected).max() < 1.2e-7  # two roundings to float32


def test_the_scale_ends_at_exactly_one():
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    source = ClassImages(
        ramp, class_ids=["a"], files=["x"], division=Division({"train": ("a",)}, "hand")
    )
    values = source.load("train", 0, [0]).flatten()
    assert values[0] == 0 and values[-1] == 1
    assert bool((values.diff() > 0).all())


def test_many_classes_at_once_are_the_same_bits():
    source = make()
    many = source.load_many("train", [1, 0], [[4, 2], [0, 1]])
    assert torch.equal(
        many, torch.stack([source.load("train", 1, [4, 2]), source.load("train", 0, [0, 1])])
    )
    assert source.load("test", 0, []).shape == (0, 3, 4, 5)


def test_on_a_device_the_bits_are_the_same(device):
    source = make()
    moved = source.to_device(device)
    assert isinstance(moved.pixels, torch.Tensor)
    assert moved.pixels.dtype == torch.uint8
    assert moved.pixels.device.type == device.type
    assert moved.digest == source.digest
    for split, k in (("train", 0), ("train", 1), ("test", 0)):
        picks = list(range(source.count(split, k)))
        assert torch.equal(moved.load(split, k, picks).cpu(), source.load(split, k, picks))
    assert torch.equal(moved.to_device("cpu").pixels, torch.from_numpy(np.array(source.pixels)))


def test_the_digest_names_classes_and_files_only():
    source = make()
    black = make(np.zeros((12, 7, 7, 3), dtype=np.uint8))
    renamed = make(listing=[(c, f.replace("4.png", "5.png")) for c, f in names()])
    shifted = make(
        listing=[*names()[:3], ("ab", "0"), *names()[4:]],
        division=Division({"train": ("a", "ab", "b", "c")}, "hand"),
    )
    assert source.digest == black.digest
    assert len({source.digest, renamed.digest, shifted.digest}) == 3


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda: make(np.zeros((12, 4, 5, 3), dtype=np.float32)), "pixels must be uint8"),
        (lambda: make(np.zeros((12, 60), dtype=np.uint8)), "pixels must be uint8"),
        (
            lambda: make(np.zeros((11, 4, 5, 3), dtype=np.uint8)),
            "one class id and one file name per image",
        ),
        (lambda: make(listing=names()[::-1]), "must be sorted"),
        (lambda: make(listing=[*names()[:1], *names()[:1], *names()[2:]]), "must be sorted"),
        (
            lambda: make(division=Division({"train": ("a", "b")}, "hand")),
            "each of the 3 classes once",
        ),
        (
            lambda: make(division=Division({"train": ("a", "b", "c"), "test": ("a",)}, "hand")),
            "each of the 3 classes once",
        ),
        (
            lambda: make(division=Division({"train": ("a", "b", "z")}, "hand")),
            "each of the 3 classes once",
        ),
        (lambda: make().classes("val"), "split must be one of train, validation, test, got 'val'"),
        (
            lambda: make().count("train", 2),
            "class_index must be between 0 and 1 in split 'train', got 2",
        ),
        (lambda: make().load("train", -1, [0]), "class_index must be between 0 and 1"),
        (
            lambda: make().load("test", 0, [0, 3]),
            "picks must lie between 0 and 2 for class 'b', got 3",
        ),
        (lambda: make().load("test", 0, [-1]), "got -1"),
    ],
)
def test_what_does_not_belong_together_is_refused(attempt, words):
    with pytest.raises(ValueError, match=words) as caught:
        attempt()
    assert "; " in str(caught.value)


def test_the_table_of_miniimagenet_is_64_16_20():
    assert [len(MINI_IMAGENET[split]) for split in SPLITS] == [64, 16, 20]
    everything = [wnid for split in SPLITS for wnid in MINI_IMAGENET[split]]
    assert len(set(everything)) == 100
    assert all(list(MINI_IMAGENET[split]) == sorted(MINI_IMAGENET[split]) for split in SPLITS)


def test_a_whole_miniimagenet_has_no_notice():
    own = {wnid: "" for split in SPLITS for wnid in MINI_IMAGENET[split]}
    division = divide_mini_imagenet(own)
    assert division.splits == MINI_IMAGENET
    assert division.notice == ""


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("mini-imagenet-cache-val.pkl", "validation"),
        ("miniImageNet_category_split_train_phase_train.pickle", "train"),
        ("data/test-00000-of-00001.parquet", "test"),
        ("Validation", "validation"),
        ("latest-values.parquet", ""),
    ],
)
def test_split_words(name, split):
    assert split_word(name) == split


@given(
    st.sets(st.text(min_size=1, max_size=6), min_size=1, max_size=40),
    st.integers(0, 10),
    st.integers(0, 10),
)
def test_fractions_place_every_class_once_and_agree_with_more_classes(classes, a, b):
    low, high = sorted((a, b))
    fractions = ((10 - high) / 10, (high - low) / 10, low / 10)
    own = dict.fromkeys(classes, "")
    splits = divide_by_fractions(own, fractions).splits
    assert sorted(name for split in SPLITS for name in splits[split]) == sorted(classes)
    assert splits == divide_by_fractions(dict(reversed(own.items())), fractions).splits
    assert abs(len(splits["test"]) - fractions[2] * len(classes)) <= 0.5
    assert abs(len(splits["validation"]) - fractions[1] * len(classes)) <= 1


def test_a_half_split_source_is_refused():
    with pytest.raises(
        ValueError,
        match="either every class or none must lie under a split, got 'a' under 'train' and 'b'",
    ):
        divide_by_fractions({"a": "train", "b": ""}, (1, 0, 0))
