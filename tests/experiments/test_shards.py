"""Files in pieces, and back."""

from __future__ import annotations

import pytest

from experiments import shards


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 20, 35])
def test_what_was_written_is_read(tmp_path, size):
    data = bytes(range(size))
    made = shards.write(data, tmp_path / "last.pt", largest=10)
    assert shards.read(tmp_path / "last.pt") == data
    assert all(path.stat().st_size <= 10 for path in made) and len(made) == max(1, -(-size // 10))


def test_a_shorter_file_leaves_no_old_piece(tmp_path):
    shards.write(bytes(35), tmp_path / "last.pt", largest=10)
    shards.write(b"short", tmp_path / "last.pt", largest=10)
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_a_missing_piece_is_found(tmp_path):
    shards.write(bytes(35), tmp_path / "last.pt", largest=10)
    (tmp_path / "last.pt.001").unlink()
    with pytest.raises(ValueError, match="without a gap"):
        shards.read(tmp_path / "last.pt")


def test_nothing_there_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="must exist, whole or in pieces"):
        shards.read(tmp_path / "last.pt")
