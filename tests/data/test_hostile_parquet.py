"""Wrong, truncated and mixed-up Parquet files: one sentence each, and nothing changes."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mdtheory.data.open import open_class_folders, open_mini_imagenet
from tests.data import forms
from tests.data.test_hostile_files import cases, refused


def train(root: Path) -> Path:
    return root / "train-00000-of-00001.parquet"


def with_table(**columns: object):
    def change(root: Path) -> None:
        pq.write_table(forms.table("train", **columns), train(root))

    return change


def labelled(numbers: list[int], names: list[str]):
    def change(root: Path) -> None:
        made = forms.table("train", label=pa.array(numbers)).replace_schema_metadata(
            forms.hub_metadata(names)
        )
        pq.write_table(made, train(root))

    return change


def damaged_page(root: Path) -> None:
    """Zeros over the first compressed page; the footer is whole."""
    data = bytearray(train(root).read_bytes())
    data[60:400] = bytes(340)
    train(root).write_bytes(data)


def without_bytes(root: Path) -> None:
    images = [
        {"bytes": None if k == 5 else data, "path": name}
        for k, (_, name, data) in enumerate(forms.rows("train"))
    ]
    wnids = [c for c, _, _ in forms.rows("train")]
    pq.write_table(pa.table({"image": images, "wnid": wnids}), train(root))


def with_paths(kind: str):
    types = {"int32": pa.int32(), "binary": pa.binary()}
    struct = pa.struct([("bytes", pa.binary()), ("path", types.get(kind, pa.list_(pa.string())))])

    def change(root: Path) -> None:
        images = pa.array(
            [{"bytes": data, "path": None} for *_, data in forms.rows("train")], struct
        )
        wnids = [c for c, _, _ in forms.rows("train")]
        pq.write_table(pa.table({"image": images, "wnid": wnids}), train(root))

    return change


N = 18
PARQUET = {
    "truncated": (
        lambda root: train(root).write_bytes(train(root).read_bytes()[:-20]),
        "whole Parquet file, got a damaged one",
    ),
    "empty file": (
        lambda root: train(root).write_bytes(b""),
        "train-00000-of-00001.parquet' must be a whole Parquet file",
    ),
    "damaged page": (damaged_page, "must be"),
    "no class column": (
        with_table(other=pa.array(["a"] * N)),
        "must have a column image .* and a column wnid or label, got",
    ),
    "no class in a row": (
        with_table(wnid=pa.array(["n01532829"] * 17 + [None])),
        "a class in every row, got none in row 17",
    ),
    "classes as floats": (
        with_table(label=pa.array([0.5] * N)),
        "must hold text or whole numbers, got 0.5",
    ),
    "label beyond the names": (
        labelled([7] * N, ["a", "b"]),
        "must lie between 0 and 1, .*, got 7 to 7",
    ),
    "hidden labels": (
        labelled([-1] * N, ["a", "b"]),
        "got -1 to -1; the file carries no true labels",
    ),
    "labels against paths": (
        labelled([0] * N, ["a"]),
        "label 0 of .* must stand for one class, got .* n01532829 and n01558993",
    ),
    "numbers as images": (
        lambda root: pq.write_table(
            pa.table({"image": [1, 2], "wnid": ["n01532829"] * 2}), train(root)
        ),
        "column 'image' .* must hold encoded images .*, got int64",
    ),
    "one name for two labels": (
        labelled([0] * 9 + [1] * 9, ["cat", "dog", "cat"]),
        "metadata of .* must differ, got 'cat' for several labels",
    ),
    "class names that are no text": (
        labelled([0] * 9 + [1] * 9, ["cat", None]),
        "class names in the metadata of .* must be texts, got None",
    ),
    "a split that is none": (
        lambda root: pq.write_table(
            forms.table("train", label=pa.array(["a"] * N)).append_column(
                "split", pa.array(["train"] * (N - 1) + ["dev"])
            ),
            train(root),
        ),
        f"column 'split' of .* must say train, val or test, got 'dev' in row {N - 1}",
    ),
    "an empty class": (with_table(wnid=pa.array([""] * N)), "got an empty name in row 0"),
    "two label columns": (
        lambda root: pq.write_table(
            forms.table("train", label=pa.array([0] * N)).append_column("label", pa.array([1] * N)),
            train(root),
        ),
        "must have different names, got 'label' twice",
    ),
    **{
        f"paths of type {kind}": (with_paths(kind), f"path of column 'image' .* got {kind}")
        for kind in ("int32", "binary", "list<item: string>|list<element: string>")
    },
    "images outside the table": (
        without_bytes,
        "must hold the bytes of every image, got none in row 5",
    ),
    "the same file twice": (
        lambda root: shutil.copy(train(root), root / "train-copy.parquet"),
        "unique within a class, got 'n0153282900000000.png' twice",
    ),
    "no rows": (
        lambda root: [pq.write_table(pq.read_table(f).slice(0, 0), f) for f in root.iterdir()],
        "must hold at least one image, got none",
    ),
}


@cases(PARQUET)
def test_broken_parquet(tmp_path, change, words):
    root = forms.as_parquet(tmp_path / "set")
    change(root)
    sentence = refused(
        lambda: open_mini_imagenet(root, cache_dir=tmp_path / "cache"), tmp_path / "cache", root
    )
    assert re.search(words, sentence), sentence


def test_deep_metadata_is_no_metadata(tmp_path):
    root = forms.as_parquet(tmp_path / "set")
    table = pq.read_table(train(root)).replace_schema_metadata({b"huggingface": b"[" * 100_000})
    pq.write_table(table, train(root))
    assert len(open_mini_imagenet(root, image_size=8, cache_dir=tmp_path / "cache").files) == 42


def test_a_table_that_unpacks_to_far_more_than_it_is_is_refused(tmp_path):
    """A gigabyte of zeros takes a hundred kilobytes of Parquet."""
    path = tmp_path / "train.parquet"
    images, labels = [bytes(4 << 20)] * 2, ["a", "b"]
    table = pa.table({"image": pa.array(images, pa.binary()), "label": labels})
    for compression, words in (("zstd", "at most 200 times its size"), ("none", "an image")):
        pq.write_table(table, path, compression=compression)
        with pytest.raises(ValueError, match=words):
            open_class_folders(tmp_path, image_size=8, in_memory=True)


def test_a_column_of_splits_decides_before_the_name_of_the_file(tmp_path):
    images = [forms.encoded(forms.picture(str(k), k)) for k in range(8)]
    table = pa.table(
        {
            "image": pa.array(images, pa.binary()),
            "label": list("aabbccdd"),
            "split": ["Train", "train", "val", "validation", "test", "test", "train", "train"],
        }
    )
    pq.write_table(table, tmp_path / "train.parquet")
    images = open_class_folders(tmp_path, image_size=8, in_memory=True)
    assert images.classes("train") == ("a", "d")
    assert images.classes("validation") == ("b",)
    assert images.classes("test") == ("c",)


def test_a_page_that_fails_its_checksum_is_refused(tmp_path):
    """BMP has no checksum of its own."""
    images = [forms.encoded(forms.picture(str(k), k), "BMP") for k in range(4)]
    table = pa.table({"image": pa.array(images, pa.binary()), "label": list("aabb")})
    path = tmp_path / "train.parquet"
    pq.write_table(table, path, compression="none", write_page_checksum=True)
    open_class_folders(tmp_path, image_size=8, in_memory=True)
    data = bytearray(path.read_bytes())
    data[data.index(images[2]) + 100] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="must be a whole Parquet file, got a damaged one"):
        open_class_folders(tmp_path, image_size=8, in_memory=True)
