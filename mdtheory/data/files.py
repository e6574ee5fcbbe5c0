"""Only regular files are opened: a pipe or a device named like an image would never end."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO


def expanded(path: str | Path) -> Path:
    """The path with the home folder in place of ``~``; ``ValueError`` for a user that is not
    known.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        reason = " ".join(str(error).split()).rstrip(".").lower()
        raise ValueError(
            f"{str(path)!r} must be a folder, but {reason}; name it in full"
        ) from error


_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def is_regular(path: str | Path) -> bool:
    """Whether a regular file is there. ``ValueError`` for anything else of that name, a link to
    nothing, too: a table that is passed over would change what a data set holds.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        if os.path.islink(path):
            raise ValueError(
                f"{str(path)!r} must be a regular file, got a link to nothing; mend or remove it"
            ) from None
        return False
    demand_regular(path, mode)
    return True


def special(path: str | Path) -> str:
    """What such files are called ("named pipes", ...); '' for a regular file and for a folder."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return "links to nothing"
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return ""
    return next((f"{words[2:]}s" for test, words in _KINDS if test(mode)), "special files")


def demand_regular(path: str | Path, mode: int) -> None:
    """``ValueError`` where ``mode`` (``st_mode``, links followed) is not that of a regular
    file.
    """
    if not stat.S_ISREG(mode):
        kind = next((words for test, words in _KINDS if test(mode)), "something else")
        raise ValueError(
            f"{str(path)!r} must be a regular file, got {kind}; remove it or rename it"
        )


def open_regular(path: str | Path) -> BinaryIO:
    """A regular file opened for reading, in bytes; never waits for a writer.

    ``OSError`` as from ``open``; ``ValueError`` for a folder, a pipe, a socket or a device.
    """
    demand_regular(path, os.stat(path).st_mode)
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    file = os.fdopen(os.open(path, flags | getattr(os, "O_CLOEXEC", 0)), "rb")
    try:
        demand_regular(path, os.fstat(file.fileno()).st_mode)  # it may have changed meanwhile
    except ValueError:
        file.close()
        raise
    return file
