"""Pixels in a cache are never believed: whatever is altered is decoded anew or refused."""

from __future__ import annotations

import copy
import logging
import os
import pickle

import numpy as np
import pytest

from mdtheory.data import cache
from mdtheory.data.images import ClassImages
from mdtheory.data.open import detect, open_class_folders, open_mini_imagenet
from mdtheory.data.splits import Division
from mdtheory.data.stored_pixels import DamagedPixelsError, StoredPixels, digest_of, hashes_of
from tests.data import forms


@pytest.fixture
def root(tmp_path):
    return forms.as_folders(tmp_path / "set")


@pytest.fixture
def opened(root, tmp_path):
    return lambda: open_mini_imagenet(root, image_size=forms.SIDE, cache_dir=tmp_path / "cache")


@pytest.fixture
def folder(root, tmp_path):
    return cache.cache_folder(detect(root), forms.SIDE, tmp_path / "cache")


def alter(path, at):
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= 1
    path.write_bytes(data)


def altered(folder, name, seed):
    alter(folder / name, int(np.random.default_rng(seed).integers((folder / name).stat().st_size)))


@pytest.mark.parametrize("name", ["images.npy", "index.json", "hashes.npy"])
@pytest.mark.parametrize("seed", range(12))
def test_one_altered_bit_of_a_cache_never_reaches_a_result(opened, folder, name, seed):
    good = opened()
    want, digests = good.pixels[:], (good.digest, good.pixels_digest)
    altered(folder, name, seed)
    again = opened()
    assert np.array_equal(again.pixels[:], want)
    assert (again.digest, again.pixels_digest) == digests


@pytest.mark.parametrize("seed", range(5))
def test_a_large_cache_is_checked_as_it_is_read(opened, folder, monkeypatch, seed):
    want = opened().pixels[:]
    monkeypatch.setattr(cache, "SMALL", 0)
    altered(folder, "images.npy", seed + 100)
    source = opened()
    with pytest.raises(
        DamagedPixelsError, match=r"got one that holds other pixels .*; start again"
    ):
        source.check()
    assert np.array_equal(opened().pixels[:], want)  # the damaged one was given up


def test_what_lies_outside_the_damage_is_still_read(opened, folder, monkeypatch):
    opened()
    monkeypatch.setattr(cache, "SMALL", 0)
    alter(folder / "images.npy", -1)
    source = opened()
    assert source.load("train", 0, [0]).shape == (1, 3, forms.SIDE, forms.SIDE)
    assert source.class_ids[-1] == source.classes("validation")[-1]
    with pytest.raises(DamagedPixelsError):
        source.load("validation", 1, [forms.PER_CLASS - 1])


def test_a_cache_that_is_cut_while_it_is_used_is_one_sentence(opened, folder):
    """A memory map died of SIGBUS here."""
    source = opened()
    os.truncate(folder / "images.npy", 200)
    with pytest.raises(ValueError, match="was cut while it was in use; start again"):
        source.load("test", 1, [0])
    assert len(opened().pixels[:]) == 42


def test_pixels_that_are_altered_while_they_are_used_are_one_sentence(opened, folder):
    """A small cache was checked when it was opened, and never again: a run went on with black
    images.
    """
    source = opened()
    source.load("test", 1, [0])
    size = (folder / "images.npy").stat().st_size
    with (folder / "images.npy").open("r+b") as file:
        file.write(bytes(size))
    with pytest.raises(DamagedPixelsError, match="holds other pixels than were written"):
        source.load("test", 1, [0])


def test_an_index_of_many_brackets_is_built_again(opened, folder):
    opened()
    (folder / "index.json").write_text("[" * 100_000)
    assert len(opened().files) == 42


def test_a_pipe_in_place_of_the_pixels_does_not_hang(opened, folder):
    opened()
    (folder / "images.npy").unlink()
    os.mkfifo(folder / "images.npy")
    assert len(opened().files) == 42


def test_same_size_and_mtime_but_other_bytes_are_decoded_anew(tmp_path):
    image = tmp_path / "set" / "train" / "oak" / "1.bmp"
    image.parent.mkdir(parents=True)
    forms.picture("one", 0).save(image)
    first = open_class_folders(tmp_path / "set", image_size=12, cache_dir=tmp_path / "cache")
    before = image.stat()
    forms.picture("two", 0).save(image)
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (image.stat().st_size, image.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    second = open_class_folders(tmp_path / "set", image_size=12, cache_dir=tmp_path / "cache")
    assert np.array_equal(second.pixels[0], np.asarray(forms.picture("two", 0)))
    assert first.digest == second.digest
    assert first.pixels_digest != second.pixels_digest
    assert len([f for f in (tmp_path / "cache").iterdir() if f.is_dir()]) == 1  # in place


def test_the_digest_of_pixels_does_not_depend_on_where_they_are(opened, root, device):
    stored = opened()
    held = open_class_folders(root, image_size=forms.SIDE, in_memory=True)
    assert stored.pixels_digest == held.pixels_digest == stored.to_device(device).pixels_digest
    assert held.to_device(device).pixels_digest == held.pixels_digest


def test_the_digest_of_pixels_sees_every_value_the_order_and_the_shape():
    """The slow definition: equal arrays, and nothing else."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 2, 4, 3), dtype=np.uint8)
    reference = digest_of(hashes_of(pixels), pixels.shape[1:])
    others = [pixels[::-1], pixels.reshape(3, 4, 2, 3), pixels[:2]]
    for place in range(pixels.size):
        other = pixels.copy()
        other.reshape(-1)[place] ^= 1
        others.append(other)
    assert reference not in {digest_of(hashes_of(p), p.shape[1:]) for p in others}


def test_stored_pixels_read_like_an_array(opened):
    stored = opened().pixels
    array = np.asarray(stored)
    for key in (
        [5, 0, 5],
        slice(3, 9),
        slice(None),
        [],
        -1,
        np.array([1, 2]),
        slice(None, None, 7),
    ):
        assert np.array_equal(stored[key], array[key])
        assert stored[key].dtype == np.uint8
    with pytest.raises(IndexError):
        stored[[42]]
    for twin in (copy.deepcopy(stored), pickle.loads(pickle.dumps(stored))):
        assert isinstance(twin, StoredPixels)
        assert np.array_equal(twin[:], array)


def test_identical_images_across_splits_and_classes_are_named(root, opened, caplog):
    first = root / "train" / "n01532829" / "n0153282900000000.png"
    places = ("test/n01930112/copy.png", "train/n01558993/copy.png", "train/n01532829/copy.png")
    for place in places:
        (root / place).write_bytes(first.read_bytes())
    with caplog.at_level(logging.WARNING):
        found = opened().summary()["copies"]
    assert len(found) == 3
    said = " ".join(found)
    assert "1 image is there twice, in the splits test and train" in said
    assert "in two classes of split train" in said
    assert "in one class of split train" in said
    assert "n01532829/n0153282900000000.png" in said
    assert all(one in caplog.text for one in found)


def test_copies_agree_with_a_comparison_of_all_pairs():
    """The slow reference: every pair of images compared byte by byte."""
    rng = np.random.default_rng(4)
    base = rng.integers(0, 256, (4, 2, 2, 1), dtype=np.uint8)
    for _ in range(30):
        pixels = base[rng.integers(0, 4, 6)]
        classes = ["a", "a", "b", "b", "c", "c"]
        split = {"a": "train", "b": "train", "c": "test"}
        source = ClassImages(
            pixels,
            class_ids=classes,
            files=list("123456"),
            division=Division({"train": ("a", "b"), "test": ("c",)}, "hand"),
        )
        across = {
            "in the splits test and train"
            if split[classes[i]] != split[classes[j]]
            else f"in {'one class' if classes[i] == classes[j] else 'two classes'} of split "
            f"{split[classes[i]]}"
            for i in range(6)
            for j in range(i)
            if np.array_equal(pixels[i], pixels[j])
        }
        found = {one.where for one in source.copies()}
        assert found <= across
        assert bool(found) == bool(across)
