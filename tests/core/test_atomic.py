"""Files written whole or not at all; the rest is tested with checkpoints, in tests/meta."""

from __future__ import annotations

import os

import pytest

from mdtheory.core import atomic


@pytest.mark.parametrize("name", ["a" * 255, "\u00e9" * 127], ids=len)
def test_any_name_that_the_system_takes_can_be_written(tmp_path, name):
    for data in (b"one", b"two"):
        atomic.write_atomically(tmp_path / name, data)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"two"]


def test_a_folder_that_cannot_be_flushed_costs_no_file(tmp_path, monkeypatch):
    opened = os.open

    def refuse(path, *rest, **options):
        if path == tmp_path:
            raise PermissionError(13, "Permission denied")
        return opened(path, *rest, **options)

    monkeypatch.setattr(os, "open", refuse)
    atomic.write_atomically(tmp_path / "x", b"one")
    assert (tmp_path / "x").read_bytes() == b"one"


def test_a_folder_is_made_with_those_above_it(tmp_path):
    for _ in range(2):
        atomic.make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


@pytest.mark.parametrize("taken", ["file", "system"])
def test_a_folder_that_cannot_be_made_is_said_in_one_sentence(tmp_path, monkeypatch, taken):
    if taken == "file":
        (tmp_path / "a").write_text("")
    else:

        def refuse(path, *rest, **options):
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(os, "mkdir", refuse)
    words = {"file": "Not a directory", "system": "Permission denied"}[taken]
    said = rf"b must be a folder that can be made, but the system says: {words}; choose another$"
    with pytest.raises(ValueError, match=said):
        atomic.make_folder(tmp_path / "a" / "b")
