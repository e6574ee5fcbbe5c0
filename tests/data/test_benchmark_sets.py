"""CIFAR-FS, FC100, tieredImageNet and CUB in the forms in which they circulate: tiny sets of
made-up pictures in exactly those layouts.
"""

from __future__ import annotations

import io
import pickle
import zipfile

import numpy as np
import pytest
from PIL import Image

from mdtheory.data import npz_members, open_class_folders, open_source
from mdtheory.data.sources.cifar100 import CifarFs, Fc100
from tests.data import forms

SUPERCLASSES = {
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food_containers": "bottle bowl can cup plate",
    "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
    "household_electrical_devices": "clock keyboard lamp telephone television",
    "household_furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large_carnivores": "bear leopard lion tiger wolf",
    "large_man-made_outdoor_things": "bridge castle house road skyscraper",
    "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
    "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium_mammals": "fox porcupine possum raccoon skunk",
    "non-insect_invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small_mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles_1": "bicycle bus motorcycle pickup_truck train",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}
NAMES = sorted(" ".join(SUPERCLASSES.values()).split())
COUNTS = {"cifar-fs": (64, 16, 20), "fc100": (60, 20, 20)}
LABELS = {
    split: np.repeat(np.arange(len(own)), forms.PER_CLASS) for split, own in forms.CLASSES.items()
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MDTHEORY_CACHE", str(tmp_path / "cache"))


def counts(source):
    return tuple(len(source.classes(split)) for split in forms.CLASSES)


def cifar_pixels(number, part):
    """One grey level a class and part, so that a mix-up shows. shape: (3072,)"""
    return np.full(3072, 2 * number + (part == "test"), np.uint8)


def as_cifar(root, key=str):
    """``cifar-100-python``: two images a class to train with, one to test with."""
    root.mkdir(parents=True)
    for part, n in (("train", 2), ("test", 1)):
        numbers = np.random.default_rng(0).permutation(np.repeat(np.arange(100), n)).tolist()
        content = {
            "filenames": [f"{k}.png" for k in numbers],
            "batch_label": part,
            "fine_labels": numbers,
            "coarse_labels": [0] * len(numbers),
            "data": np.stack([cifar_pixels(k, part) for k in numbers]),
        }
        content = {key(name): value for name, value in content.items()}
        (root / part).write_bytes(pickle.dumps(content, protocol=2))
    meta = {key("fine_label_names"): [key(name) for name in NAMES]}
    (root / "meta").write_bytes(pickle.dumps(meta, protocol=2))
    return root


@pytest.mark.parametrize("name", COUNTS)
def test_cifar_100_as_its_authors_give_it(tmp_path, name):
    root = as_cifar(tmp_path / "cifar-100-python")
    inside, outside = open_source(name, root), open_source(name, root.parent)
    assert counts(inside) == COUNTS[name] and inside.digest == outside.digest
    assert inside.image_shape == (3, 32, 32) and inside.count("train", 0) == 3
    for split in forms.CLASSES:
        for index, one in enumerate(inside.classes(split)):
            levels = sorted((255 * inside.load(split, index, [0, 1, 2]).mean((1, 2, 3))).round())
            own = 2 * NAMES.index(one)
            assert levels == [own, own, own + 1]


def test_keys_may_be_bytes(tmp_path):
    texts = open_source("fc100", as_cifar(tmp_path / "text"))
    assert open_source("fc100", as_cifar(tmp_path / "bytes", key=str.encode)).digest == texts.digest


def test_the_divisions_are_those_of_the_articles():
    """FC100 keeps superclasses whole, 12, 4 and 4 of them; CIFAR-FS breaks some of them."""
    assert len(NAMES) == 100
    for kind, whole in ((Fc100, True), (CifarFs, False)):
        splits = kind().divide(dict.fromkeys(NAMES, "")).splits
        broken = [
            name
            for name, own in SUPERCLASSES.items()
            if not any(set(own.split()) <= set(members) for members in splits.values())
        ]
        assert (broken == []) is whole
    above = {one: name for name, own in SUPERCLASSES.items() for one in own.split()}
    assert {above[one] for one in Fc100.test.split()} == {
        *("aquatic_mammals", "insects", "medium_mammals", "people"),
    }


def test_class_folders_are_divided_by_their_names(tmp_path):
    for name in NAMES:
        (tmp_path / "data" / name).mkdir(parents=True)
        forms.picture(name, 0, side=8).save(tmp_path / "data" / name / "0.png")
    source = open_source("cifar-fs", tmp_path / "data")  # a class is called "train"
    assert counts(source) == (64, 16, 20) and "crab" in source.classes("validation")
    (tmp_path / "data" / "crab").rename(tmp_path / "data" / "krab")
    with pytest.raises(ValueError, match=r"no class 'crab'\); put train, val or test"):
        open_source("cifar-fs", tmp_path / "data")


@pytest.mark.parametrize(("name", "stem"), [("cifar-fs", "CIFAR_FS"), ("fc100", "FC100")])
@pytest.mark.parametrize("protocol", [2, 4])
def test_pickles_of_cifar_fs_and_fc100(tmp_path, name, stem, protocol):
    for split in forms.CLASSES:
        labels = [int(number) + 40 for number in LABELS[split]]  # theirs do not begin at 0
        content = {"labels": labels, "data": forms.pixels(split)}
        file = tmp_path / f"{stem}_{forms.SHORT[split]}.pickle"
        file.write_bytes(pickle.dumps(content, protocol=protocol))
    source = open_source(name, tmp_path, image_size=forms.SIDE)
    assert counts(source) == (3, 2, 2) and "cannot be checked" in source.notice
    assert source.classes("test") == ("test-0040", "test-0041")
    first = np.moveaxis(source.load("test", 1, [0]).numpy()[0], 0, 2)
    assert np.allclose(255 * first, np.asarray(forms.picture(forms.CLASSES["test"][1], 0)))


def encoded(split, shape):
    """What OpenCV makes of PNG: one array of bytes an image."""
    data = [np.frombuffer(one, np.uint8) for _, _, one in forms.rows(split)]
    return [one.reshape(shape) for one in data]


def as_tiered(root, *, shape=(-1, 1), named=True, archive=False):
    root.mkdir(parents=True, exist_ok=True)
    (root / "class_names.txt").write_text("a bird\n")
    for split, short in forms.SHORT.items():
        order = np.random.default_rng(1).permutation(len(LABELS[split]))
        names = list(forms.CLASSES[split]) if named else ["crane", "crane", "cat"]
        labels = {
            "label_specific": LABELS[split][order],
            "label_general": LABELS[split][order] // 2,
            "label_specific_str": names,
            "label_general_str": ["things"],
        }
        (root / f"{short}_labels.pkl").write_bytes(pickle.dumps(labels, protocol=2))
        if archive:
            np.savez(root / f"{short}_images.npz", images=forms.pixels(split)[order])
        else:
            images = encoded(split, shape)
            images = [images[k] for k in order]
            (root / f"{short}_images_png.pkl").write_bytes(pickle.dumps(images, protocol=2))
    return root


def by_class(source, class_id):
    split = next(split for split in forms.CLASSES if class_id in source.classes(split))
    index = source.classes(split).index(class_id)
    found = source.load(split, index, range(source.count(split, index))).permute(0, 2, 3, 1)
    return sorted((255 * found).round().numpy().astype(int).reshape(len(found), -1).tolist())


@pytest.mark.parametrize(
    "options", [{}, {"shape": (-1,)}, {"shape": (1, -1)}, {"archive": True}], ids=str
)
def test_tiered_imagenet(tmp_path, options):
    """Each class has its own pictures, whatever the order of the rows."""
    source = open_class_folders(as_tiered(tmp_path / "set", **options), image_size=forms.SIDE)
    plain = open_class_folders(forms.as_folders(tmp_path / "plain"), image_size=forms.SIDE)
    assert source.division.splits == plain.division.splits
    for class_id in set(plain.class_ids):
        assert by_class(source, class_id) == by_class(plain, class_id)
    assert not [one for one in source.left_out if "image" in one.reason]


def test_words_that_are_no_ids_do_not_name_the_classes(tmp_path):
    """ImageNet has two cranes; by split and number they stay apart."""
    source = open_class_folders(as_tiered(tmp_path, named=False), image_size=8)
    assert source.classes("validation") == ("validation-0000", "validation-0001")


def test_tiered_images_that_do_not_fit_their_labels(tmp_path):
    root = as_tiered(tmp_path / "set")
    (root / "val_images_png.pkl").write_bytes(pickle.dumps(encoded("validation", (-1,))[:-1]))
    with pytest.raises(ValueError, match="an image for each of the 12 labels beside it, got 11"):
        open_class_folders(root, image_size=8)
    (root / "val_images_png.pkl").write_bytes(pickle.dumps([{"a": 1}]))
    with pytest.raises(ValueError, match="a list of encoded images, got something else"):
        open_class_folders(root, image_size=8)
    (root / "val_labels.pkl").write_bytes(pickle.dumps({"labels": [1]}))
    with pytest.raises(ValueError, match=r"must hold label_specific, .* got \['labels'\]"):
        open_class_folders(root, image_size=8)


def as_npz(root, **changes):
    root.mkdir(parents=True, exist_ok=True)
    for split, short in forms.SHORT.items():
        arrays = {"features": forms.pixels(split), "targets": LABELS[split]} | changes
        np.savez_compressed(root / f"few-shot-{short}.npz", **arrays)
    return root


def test_npz_archives(tmp_path):
    source = open_class_folders(as_npz(tmp_path), image_size=forms.SIDE)
    assert counts(source) == (3, 2, 2)
    for split, own in forms.CLASSES.items():
        for k, class_id in enumerate(own):
            found = by_class(source, f"{split}-{k:04d}")
            pictures = [np.asarray(forms.picture(class_id, j)) for j in range(forms.PER_CLASS)]
            assert found == sorted(one.astype(int).reshape(-1).tolist() for one in pictures)


def rewritten(file, member, data):
    with zipfile.ZipFile(file) as archive:
        kept = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, old in kept.items():
            archive.writestr(name, data if name == member else old)


class Bite:
    def __reduce__(self):
        return print, ("bitten",)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"features": np.zeros((6, 4, 4, 3))}, r"must be uint8 of shape .*, got float64"),
        ({"features": np.zeros((6, 3, 4, 4), np.uint8)}, r"got uint8 \(6, 3, 4, 4\)"),
        ({"targets": np.arange(3)}, "labels of .* must be 12 whole numbers, one per image, got 3"),
        ({"targets": np.zeros(18)}, "targets of .* must be whole numbers of shape"),
        ({"targets": np.array([Bite()] * 18)}, "must be a whole .npz of plain arrays"),
    ],
)
def test_archives_of_something_else(tmp_path, capsys, changes, words):
    with pytest.raises(ValueError, match=words):
        open_class_folders(as_npz(tmp_path, **changes), image_size=8)
    assert "bitten" not in capsys.readouterr().out


def test_archives_that_lie_or_are_damaged(tmp_path):
    """A header that promises more than its member holds takes no room."""
    file = as_npz(tmp_path) / "few-shot-train.npz"
    header = io.BytesIO()
    promise = {"descr": "|u1", "fortran_order": False, "shape": (10**6, 84, 84, 3)}
    np.lib.format.write_array_header_1_0(header, promise)
    rewritten(file, "features.npy", header.getvalue() + bytes(100))
    with pytest.raises(ValueError, match="no plain array of uint8"):
        open_class_folders(tmp_path, image_size=8)
    file.write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(ValueError, match=r"must be a whole \.npz"):
        open_class_folders(tmp_path, image_size=8)
    as_npz(tmp_path)
    whole = file.read_bytes()
    refused = 0
    rng = np.random.default_rng(0)
    for _ in range(100):
        data = bytearray(whole)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        file.write_bytes(data)
        try:
            open_class_folders(tmp_path, image_size=8, in_memory=True)
        except ValueError as error:
            refused += 1
            assert "few-shot-train" in str(error)
    assert refused > 20


def test_images_are_read_one_by_one(tmp_path):
    file = as_npz(tmp_path) / "few-shot-train.npz"
    n, images = npz_members.images(file, "features")
    assert n == 18 and np.array_equal(next(images), forms.pixels("train")[0])


def test_two_archives_of_one_split(tmp_path):
    root = as_npz(tmp_path)
    (root / "train.npz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"one \.npz per split, got 'few-shot-train\.npz' and"):
        open_class_folders(root, image_size=8)


def test_cub_with_tables_beside_cropped_images(tmp_path):
    """FEAT's tables have 28 more columns."""
    (tmp_path / "images").mkdir()
    for split, short in forms.SHORT.items():
        lines = ["filename,label," + ",".join(f"a{k}" for k in range(28))]
        for class_id in forms.CLASSES[split]:
            for k in range(2):
                name = f"{class_id}_Bird_{k:04d}.jpg"
                Image.new("RGB", (9, 7)).save(tmp_path / "images" / name)
                lines.append(f"{name},0{k}.{class_id}_bird," + ",".join("1" * 28))
        (tmp_path / f"{short}.csv").write_text("\n".join(lines) + "\n")
    source = open_class_folders(tmp_path, image_size=8)
    assert sum(len(source.classes(split)) for split in forms.CLASSES) == 14
