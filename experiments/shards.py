"""Large files in pieces that version control and mail accept, and back."""

from __future__ import annotations

from pathlib import Path

LARGEST = 15 * 2**20  # bytes of a piece


def write(data: bytes, path: Path, *, largest: int = LARGEST) -> list[Path]:
    """``path`` itself where ``data`` fits, else ``<path>.000``, ``<path>.001``, ...; whatever stood
    there before is gone.
    """
    for old in pieces(path):
        old.unlink()
    if len(data) <= largest:
        path.write_bytes(data)
        return [path]
    parts = [data[start : start + largest] for start in range(0, len(data), largest)]
    if len(parts) > 999:
        raise ValueError(f"{path.name} must fit in 999 pieces, got {len(parts)}; keep it elsewhere")
    made = [path.with_name(f"{path.name}.{number:03d}") for number in range(len(parts))]
    for piece, part in zip(made, parts, strict=True):
        piece.write_bytes(part)
    return made


def pieces(path: Path) -> list[Path]:
    """The file, or its pieces in order; nothing where there is neither. ``ValueError`` where a
    piece is missing.
    """
    if path.is_file():
        return [path]
    found = sorted(path.parent.glob(f"{path.name}.[0-9][0-9][0-9]"))
    if [int(piece.name[-3:]) for piece in found] != list(range(len(found))):
        raise ValueError(
            f"{path.name} must have its pieces from .000 on without a gap, got "
            f"{[p.name for p in found]}"
        )
    return found


def read(path: Path) -> bytes:
    """What :func:`write` was given. ``ValueError`` where there is nothing."""
    found = pieces(path)
    if not found:
        raise ValueError(f"{path} must exist, whole or in pieces; check the path")
    return b"".join(piece.read_bytes() for piece in found)
