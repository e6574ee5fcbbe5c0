"""One set of images, read from every form that circulates: the same classes, splits, pixels and
digest.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from mdtheory.data.open import open_class_folders, open_mini_imagenet
from tests.data import forms

FLAT = [c for split in forms.CLASSES for c in forms.CLASSES[split]]
WITH_NAMES = {
    "parquet": forms.as_parquet,
    "hub, ids as class names": lambda root: forms.as_hub(root, FLAT),
    "hub, ids in paths": lambda root: forms.as_hub(root, None),
    "hub, words as class names, ids in paths": lambda root: forms.as_hub(
        root, [f"thing {k}" for k in range(len(FLAT))]
    ),
    "class folders": lambda root: forms.as_folders(root, splits=False),
    "class folders below splits": forms.as_folders,
    "csv": forms.as_csv,
}
WITHOUT_NAMES = {
    "cache pickles": forms.as_cache_pickles,
    "split pickles with catname2label": lambda root: forms.as_label_pickles(root, with_names=True),
}


@pytest.fixture
def opened(tmp_path):
    """Write a form and open it at its own size."""

    def make(write, **options):
        return open_mini_imagenet(
            write(tmp_path / "set"),
            **{"image_size": forms.SIDE, "cache_dir": tmp_path / "cache", **options},
        )

    return make


@pytest.mark.parametrize("form", WITH_NAMES)
def test_every_form_with_file_names_is_the_same_source(opened, form):
    source = opened(WITH_NAMES[form])
    listing = sorted((c, name) for c in FLAT for name in forms.names(c))
    assert list(zip(source.class_ids, source.files, strict=True)) == listing
    assert (
        source.digest
        == hashlib.sha256(
            json.dumps([list(x) for x in listing], separators=(",", ":")).encode()
        ).hexdigest()
    )
    assert np.array_equal(
        source.pixels,
        np.stack([np.asarray(forms.picture(c, int(name[9:17]))) for c, name in listing]),
    )
    assert {split: source.classes(split) for split in forms.CLASSES} == forms.CLASSES
    assert source.division.by == "WordNet id"
    assert source.notice == "only 7 of the 100 classes are here"


@pytest.mark.parametrize("form", WITHOUT_NAMES)
def test_pickles_with_ids_have_the_same_classes_and_pixels(opened, form):
    source = opened(WITHOUT_NAMES[form])
    assert {split: source.classes(split) for split in forms.CLASSES} == forms.CLASSES
    assert source.files[:3] == ("0000", "0001", "0002")
    expected = np.stack(
        [np.asarray(forms.picture(c, k)) for c in sorted(FLAT) for k in range(forms.PER_CLASS)]
    )
    assert np.array_equal(source.pixels, expected)


@pytest.mark.parametrize(
    "write",
    [forms.as_label_pickles, lambda root: forms.as_hub(root, None, paths=False)],
    ids=["split pickles", "hub without names and paths"],
)
def test_a_source_without_ids_says_so_and_keeps_its_own_split(opened, write):
    source = opened(write)
    assert "no WordNet ids" in source.notice
    assert source.division.by == "the source's own split"
    assert [len(source.classes(split)) for split in ("train", "validation", "test")] == [3, 2, 2]
    assert all(name.startswith("test-") for name in source.classes("test"))


def test_the_file_name_decides_before_the_folder(tmp_path):
    root = forms.as_hub(tmp_path / "set", None, paths=False)
    (root / "data").rename(root / "train and test")
    source = open_mini_imagenet(root, image_size=forms.SIDE, cache_dir=tmp_path / "cache")
    assert [len(source.classes(split)) for split in ("train", "validation", "test")] == [3, 2, 2]


def test_words_as_class_names_are_kept_where_there_are_no_ids(opened):
    words = [f"thing {k}" for k in range(len(FLAT))]
    source = opened(lambda root: forms.as_hub(root, words, paths=False))
    assert source.classes("validation") == ("thing 3", "thing 4")
    assert "no WordNet ids" in source.notice


def test_the_id_overrules_the_folder(tmp_path):
    root = forms.as_folders(tmp_path / "set")
    (root / "train" / "n01532829").rename(root / "test" / "n01532829")
    source = open_mini_imagenet(root, image_size=forms.SIDE, cache_dir=tmp_path / "cache")
    assert "n01532829" in source.classes("train")
    assert source.notice.startswith("1 classes lie under another split")


def test_further_images_of_the_training_classes_are_left_out(opened, tmp_path):
    forms.as_label_pickles(tmp_path / "set")
    other = tmp_path / "set" / "miniImageNet_category_split_train_phase_val.pickle"
    other.write_bytes(b"not even a pickle")
    assert len(opened(lambda root: root).files) == len(FLAT) * forms.PER_CLASS


def test_the_environment_names_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MDTHEORY_MINI_IMAGENET", str(forms.as_folders(tmp_path / "set")))
    monkeypatch.setenv("MDTHEORY_CACHE", str(tmp_path / "elsewhere"))
    assert open_mini_imagenet(image_size=forms.SIDE).classes("test") == forms.CLASSES["test"]
    assert list((tmp_path / "elsewhere").glob("set-12-*/images.npy"))


def test_own_folders_of_any_size_are_split_by_their_names_alone(tmp_path):
    for k in range(10):
        folder = tmp_path / "set" / f"class {k}"
        folder.mkdir(parents=True)
        for j, side in enumerate((9, 30, 31)):
            forms.picture(str(k), j, side).save(folder / f"{j}.jpg")
    source = open_class_folders(tmp_path / "set", image_size=16, cache_dir=tmp_path / "cache")
    assert source.image_shape == (3, 16, 16)
    assert [len(source.classes(split)) for split in ("train", "validation", "test")] == [6, 2, 2]
    order = sorted(
        (f"class {k}" for k in range(10)),
        key=lambda name: hashlib.sha256(name.encode()).hexdigest(),
    )
    assert source.classes("test") == tuple(sorted(order[-2:]))
    everything = open_class_folders(
        tmp_path / "set", image_size=16, fractions=(0, 0, 1), in_memory=True
    )
    assert len(everything.classes("test")) == 10
    assert everything.digest == source.digest
    assert np.array_equal(everything.pixels, source.pixels)


def test_own_folders_keep_their_own_split(tmp_path):
    root = forms.as_folders(tmp_path / "set")
    (root / "val").rename(root / "Validation")
    source = open_class_folders(root, image_size=forms.SIDE, cache_dir=tmp_path / "cache")
    assert {split: source.classes(split) for split in forms.CLASSES} == forms.CLASSES
    assert source.division.by == "the source's own split"


def test_hidden_and_other_files_are_left_alone(tmp_path):
    root = forms.as_folders(tmp_path / "set")
    (root / ".DS_Store").write_bytes(b"x")
    (root / "train" / "n01532829" / "._n0153282900000000.png").write_bytes(b"x")
    (root / "train" / "n01532829" / "notes.txt").write_bytes(b"x")
    (root / "__MACOSX").mkdir()
    source = open_mini_imagenet(root, image_size=forms.SIDE, cache_dir=tmp_path / "cache")
    assert source.count("train", 0) == forms.PER_CLASS


def test_a_summary_is_plain_data(opened):
    summary = opened(forms.as_parquet).summary()
    assert json.loads(json.dumps(summary)) == summary
    assert summary["splits"]["train"] == {"classes": 3, "images": 18}


def test_a_bar_or_callback_reports_progress(opened):
    seen = []
    opened(forms.as_parquet, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (42, 42)


def test_images_of_another_size_stay_the_same_tasks(opened):
    large, small = opened(forms.as_parquet), opened(lambda root: root, image_size=6)
    assert large.digest == small.digest
    boxes = np.asarray(large.pixels, dtype=float).reshape(-1, 6, 2, 6, 2, 3).mean(axis=(2, 4))
    assert np.abs(boxes - small.pixels).max() <= 0.5


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import sys, mdtheory.data; print(*{'torch', 'PIL', 'pyarrow', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_package_hands_out_its_names():
    import mdtheory.data

    for name in mdtheory.data.__all__:
        assert getattr(mdtheory.data, name) is not None
    with pytest.raises(AttributeError, match=r"No mdtheory\.data attribute absent"):
        _ = mdtheory.data.absent


def test_exif_orientation_and_transparency_are_obeyed(tmp_path):
    folder = tmp_path / "set" / "a"
    folder.mkdir(parents=True)
    turned = Image.new("RGB", (8, 8), "black")
    turned.paste((255, 255, 255), (0, 0, 8, 4))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    turned.save(folder / "1.png", exif=exif)
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(folder / "2.png")
    source = open_class_folders(tmp_path / "set", image_size=8, fractions=(1, 0, 0), in_memory=True)
    assert source.pixels[0, :4].max() == 0
    assert source.pixels[0, 4:].min() == 255
    assert source.pixels[1].min() == 255
