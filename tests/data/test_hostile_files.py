"""Wrong, truncated and mixed-up sources: one sentence with what was wrong, expected and to be done;
nothing changes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mdtheory.data.decode_image import MAX_PIXELS, decode
from mdtheory.data.open import open_class_folders, open_mini_imagenet
from tests.data import forms

FOLDER = "train/n01532829/"
FIRST = FOLDER + "n0153282900000000.png"
SENTENCE = re.compile(r".+ must .+, got .+; .+")


def refused(opener, cache_dir: Path, root: Path | None = None) -> str:
    """The sentence of a refusal; the source is as it was, and no cache is left."""
    before = forms.snapshot(root) if root is not None and root.is_dir() else {}
    with pytest.raises(ValueError) as caught:
        opener()
    sentence = str(caught.value)
    assert type(caught.value) is ValueError
    assert "\n" not in sentence
    assert SENTENCE.fullmatch(sentence), sentence
    assert before == (forms.snapshot(root) if before else {})
    assert not cache_dir.exists() or all(f.suffix == ".lock" for f in cache_dir.iterdir())
    return sentence


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises width x height pixels and holds none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )


def write(name: str, data: bytes):
    def change(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)

    return change


def save(name: str, image: Image.Image):
    return write(name, forms.encoded(image, "TIFF"))


def move(old: str, new: str):
    def change(root: Path) -> None:
        (root / new).parent.mkdir(parents=True, exist_ok=True)
        (root / old).rename(root / new)

    return change


def copy(old: str, new: str):
    def change(root: Path) -> None:
        source = root / old
        shutil.copytree(source, root / new) if source.is_dir() else shutil.copy(source, root / new)

    return change


def empty(root: Path) -> None:
    shutil.rmtree(root)
    root.mkdir()


def only_subfolders(root: Path) -> None:
    move(FIRST, FOLDER + "images/x.png")(root)
    for file in (root / FOLDER).glob("*.png"):
        file.unlink()


def rewrite(old: str, new: str, table: str = "train.csv"):
    def change(root: Path) -> None:
        text = (root / table).read_text()
        assert old in text
        (root / table).write_text(text.replace(old, new))

    return change


BIG = forms.encoded(forms.picture("big", 0, 200), "JPEG")

FOLDERS = {
    "truncated image": (
        write(FIRST, BIG[: len(BIG) // 2]),
        "n0153282900000000.png.* must be a whole image, got a damaged one",
    ),
    "empty image": (
        write(FIRST, b""),
        "n0153282900000000.png.* must be an image .*, got something else; replace or remove",
    ),
    "text as image": (
        write(FIRST, b"<html>404 not found</html>"),
        "of class 'n01532829' .* must be an image",
    ),
    "bomb": (write(FIRST, png_header(30000, 30000)), "at most 89,000,000 pixels, got more"),
    "header only": (write(FIRST, png_header(90, 90)), "must be a whole image, got a damaged one"),
    "floats below zero": (
        save(FIRST, Image.fromarray(np.full((8, 8), -1, dtype=np.float32))),
        "must hold values from 0 to 65535, got values from -1 to -1 in image 'n015.*convert it",
    ),
    "floats that are none": (
        save(FIRST, Image.fromarray(np.full((8, 8), np.nan, dtype=np.float32))),
        "got a value that is no number in image",
    ),
    "whole numbers beyond 16 bits": (
        save(FIRST, Image.fromarray(np.full((8, 8), 70000, dtype=np.int32))),
        "got values from 70000 to 70000 in image",
    ),
    "broken exif": (
        write(FIRST, b"\xff\xd8\xff\xe1\x00\x10Exif\0\0II*\0\xff\xff\xff\xff" + BIG[2:60]),
        "must be",
    ),
    "class in two splits": (
        copy(FOLDER, "test/n01532829"),
        "in one split only, got 'n01532829' in 'test' and in 'train'",
    ),
    "class of its own": (
        move(FOLDER, "train/n99999999"),
        "only its own 100 classes, got 1 others such as 'n99999999'",
    ),
    "word beside ids": (
        move(FOLDER, "train/robin"),
        "all be WordNet ids or none of them, got .* and 'robin'",
    ),
    "class beside splits": (
        move(FOLDER, "n01532829"),
        "all lie under train, val or test or none of them, got 'n01532829'",
    ),
    "two validation folders": (
        copy("val/n02091244", "validation/n02091244"),
        "one validation folder, got 'val' and 'validation'",
    ),
    "images in a split folder": (
        copy(FIRST, "train/stray.png"),
        "train' must hold one folder per class, got images directly",
    ),
    "class without images": (
        write("train/n03017168/list.txt", b""),
        "n03017168' must hold images .*, got none; fill or remove",
    ),
    "class of folders": (only_subfolders, "n01532829' must hold images .*, got folders only"),
    "a folder called image": (
        lambda root: (root / FOLDER / "x.png").mkdir(),
        "x.png' must be a regular file, got a folder",
    ),
    "empty folder": (
        empty,
        "must hold Parquet files, class folders .*, got an empty folder; check the path",
    ),
    "two forms": (
        write("train-0.parquet", b""),
        "one form, got class folders and Parquet files; give the folder of one",
    ),
    "dangling link": (
        lambda root: os.symlink(root / "gone.png", root / FOLDER / "zz.png"),
        "zz.png' must be readable, got No such",
    ),
}

TABLES = {
    "missing image": (
        lambda root: (root / "images/n0153282900000003.png").unlink(),
        "got 1 missing such as 'n0153282900000003.png'",
    ),
    "no label column": (
        rewrite("label", "class"),
        "train.csv' must have the columns filename and label, got .*'class'",
    ),
    "empty table": (
        write("train.csv", b""),
        "train.csv' must have the columns filename and label, got \\[\\]",
    ),
    "a way out of the folder": (
        rewrite("n0153282900000002.png", "../x.png"),
        "plain file name .*, got '../x.png'.* line 4",
    ),
    "short row": (
        rewrite("n0153282900000002.png,n01532829", "n0153282900000002.png"),
        "train.csv' must have 2 cells like its first line, got 1 in line 4",
    ),
    "unclosed quote": (
        rewrite("n0153282900000002.png", '"n01'),
        "train.csv' must be a csv table in UTF-8, got a damaged one",
    ),
    "not text": (
        write("train.csv", b"filename,label\n\xff\xfe\x00,a\n"),
        "must be a csv table in UTF-8, got a damaged one",
    ),
    "long row": (
        rewrite("n0153282900000002.png", "n0153282900000002.png,x"),
        "train.csv' must have 2 cells like its first line, got 3 in line 4",
    ),
    "two label columns": (
        rewrite("filename,label", "label,label"),
        "must have one column for label, got 'label' and 'label'",
    ),
    "another id than the file's": (
        rewrite("n0153282900000002.png,n01532829", "n0153282900000002.png,n01558993"),
        "the WordNet id of its name, got 'n01558993' for 'n0153282900000002.png' in line 4",
    ),
    "image twice": (
        rewrite("n0153282900000002.png", "n0153282900000003.png"),
        "unique within a class, got 'n0153282900000003.png' twice",
    ),
    "class in two tables": (copy("train.csv", "test.csv"), "one split only, got 'n01532829'"),
    "two tables of a split": (
        copy("val.csv", "validation.csv"),
        "one table per split, got 'val.csv' and 'validation.csv'",
    ),
    "no images": (
        lambda root: shutil.rmtree(root / "images"),
        "must hold Parquet files, .* got 'test.csv', 'train.csv', 'val.csv'",
    ),
}


def cases(table):
    return pytest.mark.parametrize(("change", "words"), table.values(), ids=table.keys())


@cases(FOLDERS)
def test_broken_class_folders(tmp_path, change, words):
    root = forms.as_folders(tmp_path / "set")
    change(root)
    sentence = refused(
        lambda: open_mini_imagenet(root, cache_dir=tmp_path / "cache"), tmp_path / "cache", root
    )
    assert re.search(words, sentence), sentence


@cases(TABLES)
def test_broken_csv_splits(tmp_path, change, words):
    root = forms.as_csv(tmp_path / "set")
    change(root)
    sentence = refused(
        lambda: open_mini_imagenet(root, cache_dir=tmp_path / "cache"), tmp_path / "cache", root
    )
    assert re.search(words, sentence), sentence


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_image_that_pillow_only_warns_about_is_refused():
    with pytest.raises(
        ValueError,
        match="must have at most 89,000,000 pixels, got more in image 'x'; shrink or remove it",
    ):
        decode(png_header(11_000, 11_000), image_size=8, name="image 'x'")


def test_no_image_that_is_read_makes_pillow_warn():
    """What a warning said would stand beside the progress, or count as a refusal."""
    assert Image.MAX_IMAGE_PIXELS is not None
    assert MAX_PIXELS <= Image.MAX_IMAGE_PIXELS


@pytest.mark.filterwarnings("ignore:.*:UserWarning:PIL")
def test_random_damage_to_an_image_is_one_sentence_or_none():
    """Changed and cut copies of seven kinds of image files; what Pillow still opens must come out
    as pixels.
    """
    rng = np.random.default_rng(3)
    picture = forms.picture("damage", 0, 40)
    files = [
        forms.encoded(picture, kind)
        for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
    ]
    opened = 0
    for k in range(350):
        data = bytearray(files[k % len(files)])
        for _ in range(4):
            data[rng.integers(min(len(data), 90))] = rng.integers(256)
        try:
            pixels = decode(
                bytes(data[: rng.integers(len(data))] if k % 5 == 0 else data),
                image_size=8,
                name="image 'x'",
            )
            assert pixels.shape == (8, 8, 3)
            opened += 1
        except ValueError as error:
            assert type(error) is ValueError
            assert "\n" not in str(error)
            assert SENTENCE.fullmatch(str(error)), str(error)
    assert 0 < opened < 200


@pytest.mark.parametrize("white", [1.0, 255.0, 65535, 65535.0])
def test_more_than_eight_bits_are_scaled(white):
    """Pillow alone would cut them off at 255."""
    kind = np.float32 if isinstance(white, float) else np.uint16
    ramp = np.linspace(0, white, 64).reshape(8, 8).astype(kind)
    pixels = decode(forms.encoded(Image.fromarray(ramp), "TIFF"), image_size=8, name="image 'x'")
    expected = np.rint(ramp.astype(float) * 255 / white)
    assert np.array_equal(pixels, np.repeat(expected[..., None], 3, axis=2))


def test_broken_paths(tmp_path, monkeypatch):
    cache_dir = tmp_path / "cache"

    def sentence(path):
        return refused(lambda: open_mini_imagenet(path, cache_dir=cache_dir), cache_dir)

    packed = tmp_path / "mini.zip"
    packed.write_bytes(b"PK")
    nested = tmp_path / "nested"
    nested.mkdir()
    shutil.copy(packed, nested / "train.tar.gz")
    assert "an existing folder, got" in sentence(tmp_path / "absent")
    assert "got the file" in sentence(packed) and "unpack it first" in sentence(packed)
    assert "only packed files such as 'train.tar.gz'; unpack them first" in sentence(nested)
    assert "give the folder that holds it" in sentence(Path(__file__))
    monkeypatch.delenv("MDTHEORY_MINI_IMAGENET", raising=False)
    assert "by path or by MDTHEORY_MINI_IMAGENET, got neither" in sentence(None)


@pytest.mark.parametrize("size", [0, 3, 5000, 84.0, "84", True])
def test_broken_sizes(tmp_path, size):
    root = forms.as_folders(tmp_path / "set")

    def opener():
        return open_mini_imagenet(root, image_size=size, cache_dir=tmp_path / "cache")

    assert "image_size must be a whole number of pixels" in refused(
        opener, tmp_path / "cache", root
    )


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.5, 0.6, -0.1), (1, 1, 1)])
def test_broken_fractions(tmp_path, fractions):
    root = forms.as_folders(tmp_path / "set", splits=False)

    def opener():
        return open_class_folders(root, fractions=fractions, cache_dir=tmp_path / "cache")

    assert "fractions must be three numbers" in refused(opener, tmp_path / "cache", root)


def test_a_miniimagenet_without_ids_and_without_split(tmp_path):
    root = forms.as_folders(tmp_path / "set", splits=False)
    for k, folder in enumerate(sorted(root.iterdir())):
        folder.rename(root / f"class {k}")
    opener = lambda: open_mini_imagenet(root, cache_dir=tmp_path / "cache")  # noqa: E731
    assert "with WordNet ids or with its split, got class 'class 0' with neither" in refused(
        opener, tmp_path / "cache", root
    )


def test_names_with_line_breaks_stay_one_sentence(tmp_path):
    root = forms.as_folders(tmp_path / "set\nB")
    (root / FOLDER / "a\nb.png").write_bytes(b"x")
    opener = lambda: open_mini_imagenet(root, cache_dir=tmp_path / "cache")  # noqa: E731
    assert r"a\nb.png" in refused(opener, tmp_path / "cache", root)


def test_names_that_are_no_unicode_are_kept(tmp_path):
    root = forms.as_folders(tmp_path / "set")
    image = forms.encoded(forms.picture("odd", 0))
    Path(os.fsdecode(os.fsencode(root / FOLDER) + b"/\xff.png")).write_bytes(image)
    for _ in range(2):
        source = open_mini_imagenet(root, image_size=8, cache_dir=tmp_path / "cache")
        assert source.files[forms.PER_CLASS] == "\udcff.png"


def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch):
    root = forms.as_folders(tmp_path / "set")

    def forbidden(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", forbidden)
    with pytest.raises(
        ValueError,
        match=r"set.*' must be readable, got Permission denied; check the path and its permissions",
    ):
        open_mini_imagenet(root, cache_dir=tmp_path / "cache")


def test_a_cache_folder_that_is_a_file(tmp_path):
    root = forms.as_folders(tmp_path / "set")
    (tmp_path / "cache").write_text("precious")
    with pytest.raises(
        ValueError,
        match=(
            r"cache folder .* must be writable and have room, got .*; free some space or name "
            r"another"
        ),
    ):
        open_mini_imagenet(root, cache_dir=tmp_path / "cache")
    assert (tmp_path / "cache").read_text() == "precious"


def test_what_the_user_keeps_in_the_cache_folder_is_left_alone(tmp_path):
    root = forms.as_folders(tmp_path / "set")
    cache_dir = tmp_path / "cache"
    cache_dir.mkdir()
    (cache_dir / "mine.json").write_text(json.dumps([1]))
    open_mini_imagenet(root, image_size=8, cache_dir=cache_dir)
    assert json.loads((cache_dir / "mine.json").read_text()) == [1]


def test_an_intact_source_is_not_refused(tmp_path):
    """The negative control of this file: the same call on the unbroken forms opens."""
    for k, make in enumerate((forms.as_folders, forms.as_csv, forms.as_parquet)):
        root = make(tmp_path / str(k))
        with pytest.raises(pytest.fail.Exception):
            refused(
                lambda root=root: open_mini_imagenet(
                    root, image_size=8, cache_dir=tmp_path / "cache"
                ),
                tmp_path / "cache",
                root,
            )
