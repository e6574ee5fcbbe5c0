"""The real images: the split table against the files, and a class decoded by hand. One class at a
time, so it stays quick.
"""

from __future__ import annotations

import hashlib
import io
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mdtheory.data.episodes import EpisodeStream
from mdtheory.data.open import detect, open_mini_imagenet
from mdtheory.data.splits import MINI_IMAGENET, divide_mini_imagenet

pytestmark = pytest.mark.images
DIGEST = "eda329a8638ae858d5f69aa42c74ff6a46ff79ea75cd14014ed63a68ebed2776"
"""Of the 60,000 (WordNet id, file name) pairs of miniImageNet."""


@pytest.fixture(scope="module")
def parquet(mini_imagenet_path):
    files = sorted(mini_imagenet_path.glob("*.parquet"))
    if not files:
        pytest.skip("MDTHEORY_MINI_IMAGENET holds no Parquet files, which these tests compare with")
    return files


def test_the_table_is_the_split_of_the_files(parquet):
    found = {"train": set(), "validation": set(), "test": set()}
    for file in parquet:
        found[file.name.split("-")[0]] |= set(
            pq.read_table(file, columns=["wnid"])["wnid"].to_pylist()
        )
    assert {split: tuple(sorted(ids)) for split, ids in found.items()} == MINI_IMAGENET


def test_all_names_without_decoding(parquet):
    items, _ = detect(parquet[0].parent).open()
    names = sorted((item.class_id, item.file) for item in items)
    assert len(names) == 60_000
    assert hashlib.sha256(json.dumps(names, separators=(",", ":")).encode()).hexdigest() == DIGEST
    own = {item.class_id: item.split for item in items}
    assert divide_mini_imagenet(own).notice == ""


@pytest.fixture(scope="module")
def one_class(parquet, tmp_path_factory):
    """The first class of the test split as a set of its own, with its table."""
    root = tmp_path_factory.mktemp("one class")
    table = pq.ParquetFile(next(f for f in parquet if f.name.startswith("test"))).read_row_group(0)
    pq.write_table(table, root / "test-00000-of-00001.parquet")
    return root, table


def test_a_class_decoded_by_hand(one_class, tmp_path):
    root, table = one_class
    source = open_mini_imagenet(root, cache_dir=tmp_path)
    assert source.count("test", 0) == len(table) == 600
    assert source.image_shape == (3, 84, 84)
    rows = sorted(table["image"].to_pylist(), key=lambda row: row["path"])
    for k in (0, 17, 599):
        by_hand = np.asarray(Image.open(io.BytesIO(rows[k]["bytes"])).convert("RGB"))
        assert np.array_equal(source.pixels[k], by_hand)
        assert (
            np.abs(source.load("test", 0, [k])[0].numpy() - np.moveaxis(by_hand / 255, 2, 0)).max()
            < 1.2e-7
        )
    with pytest.raises(ValueError, match="n_way must be at most 1"):
        EpisodeStream(source, split="test", seed=0, n_way=5, n_shot=1, n_query=15)


def test_a_class_at_half_size_is_the_mean_of_two_by_two(one_class, tmp_path):
    root, _ = one_class
    full, half = (
        open_mini_imagenet(root, image_size=size, cache_dir=tmp_path) for size in (84, 42)
    )
    boxes = np.asarray(full.pixels[:50], dtype=float).reshape(-1, 42, 2, 42, 2, 3).mean(axis=(2, 4))
    assert np.abs(boxes - half.pixels[:50]).max() <= 0.5
    assert full.digest == half.digest


def test_a_truncated_download_is_one_sentence(parquet, tmp_path):
    (tmp_path / "set").mkdir()
    with parquet[0].open("rb") as file:
        (tmp_path / "set" / parquet[0].name).write_bytes(file.read(1_000_000))
    with pytest.raises(
        ValueError,
        match=r"parquet' must be a whole Parquet file, got a damaged one \(.*\); copy it again",
    ):
        open_mini_imagenet(tmp_path / "set", cache_dir=tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*/images.npy"))
