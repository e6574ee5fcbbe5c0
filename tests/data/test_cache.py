"""The cache: written once and whole, shared, rebuilt where it is damaged, safe with several
processes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from mdtheory.core.cache_dir import default_cache_dir
from mdtheory.data import cache, decode_all
from mdtheory.data.open import detect, open_mini_imagenet
from mdtheory.data.stored_pixels import StoredPixels
from tests.data import forms

TOTAL = 42
START = """
import json, os, sys, time
from pathlib import Path
from mdtheory.data import cache, decode_all
from mdtheory.data.image_index import stamp
from mdtheory.data.readers.folder import find
decode_all.BATCH = 8
seen = []
def progress(done, total):
    seen.append(done)
    {action}
pixels, listing = cache.open_cached(
    find(Path(sys.argv[1])), image_size=12, cache_dir=Path(sys.argv[2]), check=dict,
    progress=progress)
print(json.dumps([len(seen), int(pixels[:].sum(dtype=int)), len(listing.files)]))
"""


def start(action, root, cache_dir):
    code = START.replace("{action}", action)
    return subprocess.Popen(
        [sys.executable, "-c", code, root, cache_dir],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def load(root, cache_dir, **options):
    return open_mini_imagenet(root, image_size=forms.SIDE, cache_dir=cache_dir, **options)


@pytest.fixture
def root(tmp_path):
    return forms.as_folders(tmp_path / "set")


def decodes(root, cache_dir):
    """Whether opening decodes (anything at all)."""
    seen = []
    load(root, cache_dir, progress=lambda done, total: seen.append(done))
    return bool(seen)


def test_the_second_start_decodes_nothing_and_reads_the_file(root, tmp_path):
    assert decodes(root, tmp_path / "cache")
    assert not decodes(root, tmp_path / "cache")
    assert isinstance(load(root, tmp_path / "cache").pixels, StoredPixels)
    assert [p.name.endswith(".lock") or p.is_dir() for p in (tmp_path / "cache").iterdir()] == [
        True,
        True,
    ]


@pytest.mark.parametrize("change", ["touched", "grown", "renamed", "removed"])
def test_a_changed_source_is_decoded_anew(root, tmp_path, change):
    load(root, tmp_path / "cache")
    image = root / "train" / "n01532829" / "n0153282900000000.png"
    if change == "touched":
        image.write_bytes(forms.encoded(forms.picture("another", 0)))
        os.utime(image, ns=(1, 1))
    elif change == "grown":
        (image.parent / "zz.png").write_bytes(image.read_bytes())
    elif change == "renamed":
        image.rename(image.parent / "zz.png")
    else:
        image.unlink()
    assert decodes(root, tmp_path / "cache")


@pytest.mark.parametrize(
    "damage",
    [
        "truncated pixels",
        "no index",
        "broken index",
        "another index",
        "other pixels",
        "empty pixels",
    ],
)
def test_a_damaged_cache_is_built_again(root, tmp_path, damage):
    good = np.array(load(root, tmp_path / "cache").pixels)
    folder = cache.cache_folder(detect(root), forms.SIDE, tmp_path / "cache")
    pixels, index = folder / "images.npy", folder / "index.json"
    match damage:
        case "truncated pixels":
            pixels.write_bytes(pixels.read_bytes()[:-1])
        case "empty pixels":
            pixels.write_bytes(b"")
        case "other pixels":
            np.save(pixels, good[:, :, :, :2])
        case "no index":
            index.unlink()
        case "broken index":
            index.write_text("{")
        case "another index":
            index.write_text(json.dumps({"classes": [["a", "train", ["1"]]]}))
    assert decodes(root, tmp_path / "cache")
    assert np.array_equal(load(root, tmp_path / "cache").pixels, good)


def test_two_processes_at_once_decode_once(root, tmp_path):
    both = [start("time.sleep(0.1)", root, tmp_path / "cache") for _ in range(2)]
    results = []
    for process in both:
        out, error = process.communicate(timeout=60)
        assert process.returncode == 0, error
        results.append(json.loads(out))
    assert sorted(batches for batches, _, _ in results) == [0, 6]
    assert results[0][1:] == results[1][1:]
    assert not list((tmp_path / "cache").glob("*.part-*"))


def test_a_killed_start_leaves_no_cache_and_the_next_one_cleans_up(root, tmp_path):
    process = start("os.kill(os.getpid(), 9)", root, tmp_path / "cache")
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert list((tmp_path / "cache").glob("*.part-*"))
    assert not list((tmp_path / "cache").glob("*/index.json"))
    assert len(load(root, tmp_path / "cache").files) == TOTAL
    assert not list((tmp_path / "cache").glob("*.part-*"))


def test_a_full_disk_is_one_sentence_and_leaves_nothing(root, tmp_path):
    action = "__import__('resource').setrlimit(__import__('resource').RLIMIT_FSIZE, (5000, 5000))"
    process = start(action, root, tmp_path / "cache")
    _, error = process.communicate(timeout=60)
    assert error.strip().splitlines()[-1].startswith("ValueError: the cache folder")
    assert "must be writable and have room, got File too large; free some space" in error
    assert [p.name for p in (tmp_path / "cache").iterdir() if not p.name.endswith(".lock")] == []


def test_a_disk_without_room_is_noticed_before_decoding(root, tmp_path, monkeypatch):
    monkeypatch.setattr(
        cache.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 64 << 20})()
    )
    with pytest.raises(
        ValueError,
        match=r"must have room for the cache of 0\.00 GB, got 0\.07 GB free; free some space",
    ):
        load(root, tmp_path / "cache")
    assert [p.name for p in (tmp_path / "cache").iterdir() if not p.name.endswith(".lock")] == []


def test_an_interrupt_leaves_nothing(root, tmp_path):
    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(root, tmp_path / "cache", progress=interrupt)
    assert [p.name for p in (tmp_path / "cache").iterdir() if not p.name.endswith(".lock")] == []


def test_a_source_that_changes_while_it_is_decoded_is_refused(root, tmp_path, monkeypatch):
    monkeypatch.setattr(decode_all, "BATCH", 4)
    victim = root / "val" / "n02091244" / "n0209124400000000.png"
    with pytest.raises(
        ValueError, match=r"n0209124400000000\.png' must be readable, got No such file"
    ):
        load(root, tmp_path / "cache", progress=lambda done, total: victim.unlink(missing_ok=True))
    assert [p.name for p in (tmp_path / "cache").iterdir() if not p.name.endswith(".lock")] == []


def test_the_cache_folder_of_the_platform(monkeypatch, tmp_path):
    monkeypatch.delenv("MDTHEORY_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache_dir() == tmp_path / "xdg" / "mdtheory"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / ".cache" / "mdtheory"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, by its specification
    assert default_cache_dir() == tmp_path / ".cache" / "mdtheory"


@pytest.mark.parametrize("variable", ["MDTHEORY_CACHE", "HOME"])
@pytest.mark.parametrize("named", ["cache", "  ", "$HOME/cache", '"/cache"'])
def test_a_cache_is_not_made_below_the_current_folder(variable, named, monkeypatch):
    """Nobody means it, and every folder in which a command was started had one."""
    for name in ("MDTHEORY_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, named)
    with pytest.raises(ValueError, match=f"{variable} must name a folder by its whole path, got"):
        default_cache_dir()


@pytest.mark.parametrize("name", ["images.npy", "hashes.npy"])
def test_every_damaged_byte_of_a_header_is_decoded_anew(tmp_path, name):
    """Some bytes end inside a bracket, over which numpy raises an error of its own kind."""
    root = forms.as_folders(tmp_path / "set")

    def opened():
        return open_mini_imagenet(root, image_size=8, cache_dir=tmp_path / "cache")

    whole = opened().pixels_digest
    (path,) = (tmp_path / "cache").glob(f"*/{name}")
    data = path.read_bytes()
    for at in range(75, 100):
        for drop in (False, True):
            damaged = bytearray(data)
            if drop:
                del damaged[at]
            else:
                damaged[at] ^= 1 << at % 8
            path.write_bytes(damaged)
            assert opened().pixels_digest == whole
