"""The registry of data sources, Omniglot in both of its forms, and a source from one new file."""

from __future__ import annotations

import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from mdtheory.cli import app
from mdtheory.config import open_data, parse
from mdtheory.contract.source import check_source
from mdtheory.data import open_source
from mdtheory.data.sources import DataSource, data_sources, source_class
from mdtheory.data.sources.omniglot import EVALUATION, Omniglot
from mdtheory.run.build import image_shape_of
from tests.data import forms

BACKGROUND = ["Arcadian", "Greek", "Hebrew", "Korean", "Latin", "Sanskrit", "Tagalog"]
REAL = os.environ.get("MDTHEORY_OMNIGLOT")


def drawings() -> list[tuple[str, str, str, bytes]]:
    """(set, class, file, PNG) of a small Omniglot: seven background alphabets, two of
    evaluation.
    """
    return [
        (part, f"{alphabet}/character{k:02d}", f"{k:04d}_{j:02d}.png", forms.encoded(picture))
        for part, alphabets in (("background", BACKGROUND), ("evaluation", ["Tengwar", "ULOG"]))
        for alphabet in alphabets
        for k in (1, 2)
        for j in range(3)
        for picture in [forms.picture(f"{alphabet} {k}", j, side=20)]
    ]


def as_folders(root, *, sets: bool = True):
    for part, name, file, data in drawings():
        folder = root / f"images_{part}" / name if sets else root / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(data)
    return root


def as_parquet(root):
    root.mkdir(parents=True)
    for part in ("background", "evaluation"):
        own = [one for one in drawings() if one[0] == part]
        images = pa.array([{"bytes": data, "path": file} for _, _, file, data in own])
        table = pa.table({"image": images, "label": [name for _, name, _, _ in own]})
        pq.write_table(table, root / f"images_{part}.parquet")
    return root


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MDTHEORY_CACHE", str(tmp_path / "cache"))


def opened(root, **options):
    return open_source("omniglot", root, image_size=10, **options)


@pytest.mark.parametrize("make", [as_folders, lambda root: as_folders(root, sets=False)])
def test_folders_and_parquet_are_one_set(tmp_path, make):
    one, other = opened(make(tmp_path / "folders")), opened(as_parquet(tmp_path / "parquet"))
    assert one.digest == other.digest
    assert np.array_equal(one.pixels, other.pixels)
    assert one.division == other.division
    assert [f.verdict for f in check_source(one)] == ["holds"] * 4


@pytest.mark.parametrize("source", ["folder", "mini-imagenet", "omniglot"])
def test_a_home_of_nobody_is_one_sentence(source):
    with pytest.raises(ValueError, match=r"must be a folder, but .*; name it in full"):
        open_source(source, "~nosuchuser/x", image_size=10)


def test_ink_is_one_on_paper_zero(tmp_path):
    source = opened(as_folders(tmp_path / "set"))
    name, *_ = source.classes("test")
    grey = np.asarray(forms.picture("Tengwar 1", 0, side=20).reduce(2))[..., :1]
    first = source.load("test", 0, [0])[0].permute(1, 2, 0).numpy()
    assert name == "Tengwar/character01" and source.image_shape == (1, 10, 10)
    assert np.allclose(255 * first, 255 - grey)


def test_no_alphabet_is_in_two_splits_and_evaluation_tests(tmp_path):
    source = opened(as_parquet(tmp_path / "set"))
    alphabets = {
        split: {name.partition("/")[0] for name in source.classes(split)}
        for split in ("train", "validation", "test")
    }
    assert alphabets["test"] == {"Tengwar", "ULOG"} <= EVALUATION
    assert len(alphabets["train"]) == 2 and len(alphabets["validation"]) == 5
    assert alphabets["train"] | alphabets["validation"] == set(BACKGROUND)
    assert "validation" in source.notice


def test_rotations_are_classes_of_their_own(tmp_path):
    root = as_parquet(tmp_path / "set")
    upright, turned = opened(root), opened(root, rotations=True)
    assert len(turned.classes("test")) == 4 * len(upright.classes("test"))
    assert turned.digest != upright.digest
    index = turned.classes("test").index("Tengwar/character01/090")
    straight = upright.load("test", 0, [1])[0, 0].numpy()
    assert np.array_equal(turned.load("test", index, [1])[0, 0].numpy(), np.rot90(straight))
    for split in ("train", "validation", "test"):
        bare = {"/".join(name.split("/")[:2]) for name in turned.classes(split)}
        assert bare == set(upright.classes(split))


def test_an_unknown_split_and_classes_without_an_alphabet_are_refused(tmp_path):
    with pytest.raises(ValueError, match="split must be 'alphabets' or 'characters'"):
        Omniglot(split="random")
    with pytest.raises(ValueError, match="must be called alphabet/character, got 'n01532829'"):
        opened(forms.as_parquet(tmp_path / "mini"))


@pytest.mark.skipif(not REAL, reason="MDTHEORY_OMNIGLOT is not set")
def test_the_real_set_has_its_published_counts():
    official = open_source("omniglot")
    counts = {split: len(official.classes(split)) for split in ("train", "validation", "test")}
    assert counts == {"train": 795, "validation": 169, "test": 659} and len(official.files) == 32460
    literature = open_source("omniglot", split="characters", rotations=True)
    assert [len(literature.classes(s)) for s in counts] == [4 * 1100, 4 * 100, 4 * 423]


def test_without_a_path_the_variable_is_named(monkeypatch):
    monkeypatch.delenv("MDTHEORY_OMNIGLOT", raising=False)
    with pytest.raises(ValueError, match="Omniglot must be given by path or by MDTHEORY_OMNIGLOT"):
        open_source("omniglot")


@pytest.mark.parametrize("name", list(data_sources))
def test_every_source_says_what_the_configuration_asks(name):
    kind = source_class(name)
    path = {"path": "somewhere"} if kind.takes_path else {}
    config = parse({"data": {"source": name, **path}})
    assert config.data.image_size == kind.image_size and config.data.strength == kind.strength
    assert image_shape_of(config) == (kind.channels, kind.image_size, kind.image_size)


def test_options_at_their_default_are_neither_written_nor_digested():
    """Negative control beside it: an option changes both."""
    bare, empty = parse({}), parse({"data": {"options": {}}})
    assert bare.digest == empty.digest and "options" not in bare.model_dump()["data"]
    turned = parse({"data": {"source": "omniglot", "options": {"rotations": True}}})
    assert turned.digest != parse({"data": {"source": "omniglot"}}).digest
    assert "rotations = true" in turned.to_toml().split("[task]")[0]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"rotation": True}, "data.options.rotation is not a known key of 'omniglot'"),
        ({"strength": 1.0}, "data.options must not hold 'strength'"),
    ],
)
def test_a_wrong_option_is_one_sentence(options, complaint):
    config = parse({"data": {"source": "omniglot", "path": "x", "options": options}})
    with pytest.raises(ValueError, match=complaint):
        open_data(config.data)


PLUGIN = """
from mdtheory.data.glyphs import GlyphSet
from mdtheory.data.sources import DataSource, data_sources

@data_sources.register("SLUG")
class Letters(DataSource):
    title, image_size, channels, takes_path = "letters", 16, 1, False

    def __init__(self, *, hard: bool = False):
        self.hard = hard

    def open(self, path, *, image_size, device="cpu"):
        return GlyphSet(strength=3.0 if self.hard else 1.0, image_size=image_size, device=device)
"""


def test_one_new_file_is_a_new_source(tmp_path):
    """Configuration, image shape, options and command line follow from the file alone."""
    plugin = tmp_path / "letters.py"
    plugin.write_text(PLUGIN.replace("SLUG", "letters-of-a-test"))
    call = ["data", "check", "--source", "letters-of-a-test", "--plugin", str(plugin), "--json"]
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["image_shape"] == [1, 16, 16]
    config = parse({"data": {"source": "letters-of-a-test", "options": {"hard": True}}})
    assert image_shape_of(config) == (1, 16, 16) and open_data(config.data).strength == 3.0
    with pytest.raises(ValueError, match="path must be left out"):
        parse({"data": {"source": "letters-of-a-test", "path": "x"}})


def test_what_is_no_data_source_is_refused():
    data_sources.register("a-function")(lambda: None)
    with pytest.raises(ValueError, match="'a-function' must be a subclass of DataSource"):
        open_source("a-function")
    del data_sources._factories["a-function"]


def test_a_data_source_without_images_is_refused():
    data_sources.register("closed")(type("Closed", (DataSource,), {"title": "closed"}))
    with pytest.raises(ValueError, match="'closed' must have open"):
        source_class("closed")
