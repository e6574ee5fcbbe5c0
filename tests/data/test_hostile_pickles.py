"""Pickles: every way in which arrays are pickled is read; nothing else that a pickle asks for is
run.
"""

from __future__ import annotations

import collections
import datetime
import fractions
import io
import os
import pickle
import re
import resource

import numpy as np
import pytest

from mdtheory.data import safepickle
from mdtheory.data.open import open_mini_imagenet
from tests.data import forms

SENTENCE = re.compile(r".+ must .+, got .+; .+")


class Call:
    """Pickles as a call of ``function(*args)``."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


def refused(path) -> str:
    before = forms.snapshot(path.parent)
    with pytest.raises(ValueError) as caught:
        safepickle.load(path)
    sentence = str(caught.value)
    assert type(caught.value) is ValueError
    assert "\n" not in sentence
    assert SENTENCE.fullmatch(sentence), sentence
    assert forms.snapshot(path.parent) == before
    return sentence


@pytest.fixture
def file(tmp_path):
    """A pickle of an object, or of given bytes."""

    def make(content, protocol: int = 4):
        path = tmp_path / "mini-imagenet-cache-train.pkl"
        path.write_bytes(
            content if isinstance(content, bytes) else pickle.dumps(content, protocol=protocol)
        )
        return path

    return make


CONTENT = {
    "image_data": np.arange(48, dtype=np.uint8).reshape(2, 2, 4, 3),
    "fortran": np.asfortranarray(np.arange(6, dtype=np.int64).reshape(2, 3)),
    "big endian": np.arange(5, dtype=">i4"),
    "floats": np.linspace(0, 1, 4, dtype=np.float32),
    "class_dict": {"n01532829": [0, 1], "array": np.arange(3), "range": range(4)},
    "scalars": [np.int64(3), np.uint8(7), 5],
    "ordered": collections.OrderedDict(a=1, b=2),
    "default": collections.defaultdict(list, {"x": [1]}),
    "empty": b"",
    "bytes": b"\xff\x00",
}


@pytest.mark.parametrize("core", ["numpy._core", "numpy.core"])
@pytest.mark.parametrize("protocol", range(6))
def test_arrays_and_containers_of_every_protocol(file, protocol, core):
    data = pickle.dumps(CONTENT, protocol=protocol)
    if protocol < 4:  # from 4 on, names carry their lengths
        data = data.replace(b"numpy._core", core.encode())
    read = safepickle.load(file(data))
    assert list(read) == list(CONTENT)
    for name in ("image_data", "fortran", "big endian", "floats"):
        assert np.array_equal(read[name], CONTENT[name])
        assert read[name].dtype == CONTENT[name].dtype
    assert np.array_equal(read["class_dict"].pop("array"), np.arange(3))
    assert read["class_dict"] == {"n01532829": [0, 1], "range": range(4)}
    assert [read[k] for k in ("scalars", "ordered", "default", "empty", "bytes")] == [
        [3, 7, 5], {"a": 1, "b": 2}, {"x": [1]}, b"", b"\xff\x00"
    ]  # fmt: skip


def python2_array(array: np.ndarray) -> bytes:
    """The opcodes that cPickle of Python 2 wrote for a uint8 array: raw bytes as an 8-bit
    string.
    """
    shape = b"(" + b"".join(b"K" + bytes([n]) for n in array.shape) + b"t"
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
    dtype += b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    raw = array.tobytes()
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    return (
        made + b"(K\x01" + shape + dtype + b"\x89T" + len(raw).to_bytes(4, "little") + raw + b"tb"
    )


def test_a_pickle_of_python_2(file):
    array = np.arange(24, dtype=np.uint8).reshape(1, 2, 4, 3) + 120
    data = (
        b"\x80\x02}U\x0aimage_data"
        + python2_array(array)
        + b"sU\x0aclass_dict}U\x09n01532829]K\x00ass."
    )
    oracle = pickle.loads(data, encoding="latin1")  # our own bytes
    read = safepickle.load(file(data))
    assert np.array_equal(read["image_data"], array)
    assert np.array_equal(oracle["image_data"], array)
    assert read["class_dict"] == oracle["class_dict"] == {"n01532829": [0]}


def build(target: bytes, state: bytes) -> bytes:
    """A pickle that asks to change ``target`` by ``state``."""
    return b"\x80\x04" + target + state + b"b."


NDARRAY = b"cnumpy\nndarray\n"
OBJECT_DTYPE = b"cnumpy\ndtype\nU\x02O8K\x00K\x01\x87R"
UINT8 = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
EMPTY = b"cnumpy._core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
HOSTILE = {
    "os.system": Call(os.system, "touch hit"),
    "eval": Call(eval, "open('hit', 'w')"),
    "exec": Call(exec, "open('hit', 'w')"),
    "open": Call(open, "hit", "w"),
    "__import__": Call(__import__, "antigravity"),
    "getattr": Call(getattr, 1, "real"),
    "a class of the standard library": fractions.Fraction(1, 3),
    "a date": datetime.date(2020, 1, 1),
    "a path": {"data": io.BytesIO(b"x")},
    "an object array": np.array([None, "x"], dtype=object),
    "an array of text": np.array(["a", "b"]),
    "a huge range": {"labels": range(10**12)},
    "numpy.load": b"\x80\x04cnumpy\nload\n\x8c\x03hit\x85R.",
    "numpy by a dotted name": b"\x80\x04\x8c\x05numpy\x8c\x0bload.__call__\x93\x8c\x03hit\x85R.",
    "a subprocess by INST": b"(S'touch hit'\nios\nsystem\n.",
    "a subprocess by OBJ": b"(cos\nsystem\nS'touch hit'\no.",
    "a registered extension": b"\x80\x02\x82\x01.",
    "a persistent id": b"\x80\x04\x8c\x02idQ.",
    "another codec": b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00zip\x86R.",
    "a change of the reader": build(b"cnumpy\ndtype\n", b"N}\x8c\x09_functionK\x05s\x86"),
    "a change of a stand-in": build(NDARRAY, b"}\x8c\x01xK\x01s"),
    "an object dtype in a state": build(
        EMPTY, b"(K\x01K\x01\x85" + OBJECT_DTYPE + b"\x89C\x08\1\1\1\1\1\1\1\1t"
    ),
    "too few bytes for the shape": build(
        EMPTY, b"(K\x01J\xff\xff\xff\x7f\x85" + UINT8 + b"\x89C\x01\1t"
    ),
    "a negative shape": build(
        EMPTY, b"(K\x01J\xff\xff\xff\xffJ\xff\xff\xff\xff\x86" + UINT8 + b"\x89C\x01\1t"
    ),
    "a state that is no array's": build(EMPTY, b"K\x05"),
    "an array never filled": b"\x80\x04}\x8c\x04data" + EMPTY + b"s.",
    "a stray type": b"\x80\x04" + UINT8 + b".",
    "empty": b"",
    "text": b"filename,label\n",
    "truncated": pickle.dumps(CONTENT)[:-30],
    "a promise of many bytes": b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x0f.",
    "a stack that is empty": b"\x80\x04.",
    "a long frame": b"\x80\x04\x95" + (2**33).to_bytes(8, "little") + b"N.",
    "a tuple as key": b"\x80\x04}K\x01K\x02\x86K\x01s.",
    "tuples that take for ever to hash": b"\x80\x04}K\x01" + b"2\x86" * 60 + b"K\x01s.",
    "the same as a set": b"\x80\x04\x8f(K\x01" + b"2\x86" * 60 + b"\x90.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_not_data_is_refused_and_not_run(file, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(file(HOSTILE[name], protocol=2))
    assert not (tmp_path / "hit").exists()
    assert list(safepickle.load(file(CONTENT))) == list(CONTENT)  # and the reader is unharmed


def test_the_hostile_pickle_does_bite_where_it_is_trusted(file, tmp_path, monkeypatch):
    """Negative control: with the ordinary unpickler the same file runs."""
    monkeypatch.chdir(tmp_path)
    with file(HOSTILE["os.system"], protocol=2).open("rb") as opened:
        pickle.load(opened)
    assert (tmp_path / "hit").exists()


def test_the_refusal_says_what_was_asked_for(file):
    assert "got a request for 'posix.system'; nothing in it was run, do not trust it" in refused(
        file(HOSTILE["os.system"])
    )
    assert "got an array of type 'O8'" in refused(file(HOSTILE["an object array"]))


@pytest.mark.parametrize("data", [b"\x80\x02Nr\x00\x00\x00\x20.", b"Np536870912\n."])
def test_a_far_place_in_the_memo_takes_no_room(file, data):
    """Nine bytes took 8.2 GiB and 28 s."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert safepickle.load(file(data)) is None
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10


def test_promised_bytes_that_may_change_take_no_room(file):
    """Twelve bytes took 4 GiB and 36 s."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    data = b"\x80\x05\x96" + (1 << 30).to_bytes(8, "little") + b"."
    assert "a promise of 1073741824 bytes in a file of 12" in refused(file(data))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10


def test_random_damage_is_one_sentence_or_none(file):
    """Two hundred changed or cut copies; also a copy that can still be read must hold plain data
    only.
    """
    rng = np.random.default_rng(1)
    whole = pickle.dumps(
        {"labels": [1, 2], "data": np.zeros((2, 2, 2, 3), dtype=np.uint8)}, protocol=2
    )
    read = 0
    for k in range(200):
        data = bytearray(whole)
        data[rng.integers(len(data))] = rng.integers(32, 127)
        path = file(bytes(data[: rng.integers(len(data))] if k % 4 == 0 else data))
        try:
            safepickle.load(path)
            read += 1
        except ValueError:
            refused(path)
    assert 0 < read < 150


def content(**changes):
    def change(root):
        path = root / "mini-imagenet-cache-train.pkl"
        path.write_bytes(pickle.dumps(forms.cache_content("train") | changes))

    return change


def labels(**changes):
    def change(root):
        (root / "mini-imagenet-cache-train.pkl").write_bytes(
            pickle.dumps(forms.label_content("train") | changes)
        )

    return change


def whole(value):
    return lambda root: (root / "mini-imagenet-cache-train.pkl").write_bytes(pickle.dumps(value))


IMAGES = forms.pixels("train")
LAYOUTS = {
    "a list": (whole([1, 2]), "must hold a dict of arrays, got a list"),
    "other keys": (
        whole({"x": 1, "y": 2}),
        r"must hold image_data and class_dict, .* got the keys \['x', 'y'\]",
    ),
    "images without classes": (whole({"image_data": IMAGES}), r"got the keys \['image_data'\]"),
    "floats": (
        content(image_data=IMAGES.astype(np.float32)),
        r"uint8 of shape \(N, height, width, 3\), got float32",
    ),
    "channels first": (
        content(image_data=np.moveaxis(IMAGES, 3, 1)),
        r"got uint8 \(18, 3, 12, 12\)",
    ),
    "flat": (content(image_data=IMAGES.reshape(18, -1)), r"got uint8 \(18, 432\)"),
    "a list of images": (content(image_data=[1, 2]), "must be uint8 .*, got list"),
    "rows beyond the end": (
        content(class_dict={"n01532829": list(range(19))}),
        "each of its 18 images once, .*, got 19 rows of 1",
    ),
    "rows twice": (
        content(class_dict={"n01532829": [0] * 18}),
        "must name each of its 18 images once",
    ),
    "rows left over": (content(class_dict={"n01532829": [0, 1]}), "got 2 rows of 1 classes"),
    "classes as list": (content(class_dict=[[0, 1]]), "got 0 rows of 0 classes"),
    "classes in halves": (
        content(class_dict={"n01532829": {"lbl": [0]}}),
        "must name each of its 18 images once",
    ),
    "classes by number": (
        content(class_dict={3: list(range(18))}),
        "must name each of its 18 images once",
    ),
    "too few labels": (
        labels(labels=[0, 1]),
        "must be 18 whole numbers, one per image, got 2 of them",
    ),
    "labels as text": (
        labels(labels=["a"] * 18),
        "must be 18 whole numbers, one per image, got something else",
    ),
    "labels without names": (
        labels(catname2label={"n01532829": 0}),
        "must name every label once, got 1 names for 3 labels",
    ),
    "no split in the name": (
        lambda root: (root / "mini-imagenet-cache-train.pkl").rename(root / "data.pkl"),
        "name must say train, val or test, got .*data.pkl",
    ),
    "two of a split": (
        lambda root: (root / "train.pickle").write_bytes(b""),
        "one pickle per split, got 'mini-imagenet-cache-train",
    ),
}


@pytest.mark.parametrize(("change", "words"), LAYOUTS.values(), ids=LAYOUTS.keys())
def test_broken_layouts(tmp_path, change, words):
    root = forms.as_cache_pickles(tmp_path / "set")
    change(root)
    before = forms.snapshot(root)
    with pytest.raises(ValueError) as caught:
        open_mini_imagenet(root, image_size=8, cache_dir=tmp_path / "cache")
    sentence = str(caught.value)
    assert SENTENCE.fullmatch(sentence), sentence
    assert re.search(words, sentence), sentence
    assert forms.snapshot(root) == before
    assert not list((tmp_path / "cache").glob("*/images.npy"))
