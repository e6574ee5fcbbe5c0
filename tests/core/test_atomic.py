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
