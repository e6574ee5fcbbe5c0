"""Files written whole or not at all, and the folders they go to."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def write_atomically(path: str | Path, data: bytes | memoryview) -> None:
    """Temporary file in the same folder, fsync, rename, fsync of the folder. ``ValueError`` if any
    of it but the last fails.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name[:50]}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise ValueError(
            f"{path} must be written, but the system says: {error.strerror}; what stood there "
            "before is intact: "
            "make room or choose another folder"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    with contextlib.suppress(OSError):  # the file is there, and can be lost in a power cut only
        _sync_folder(path.parent)


def make_folder(path: Path) -> None:
    """The folder and those above it, unless there; ``ValueError`` where the system refuses."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"{path} must be a folder that can be made, but the system says: {error.strerror}; "
            "choose another"
        ) from error


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut, where folders can be opened (not on Windows)."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
