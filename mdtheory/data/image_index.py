"""What a reader hands over before anything is decoded: names, classes, splits and a way to the
bytes.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mdtheory.data.files import demand_regular
from mdtheory.data.left_out import LeftOut

Stamp = tuple[str, int, int, int]
"""(path, bytes, mtime in ns, ctime in ns) of a file of a source."""

Pixels = NDArray[np.uint8]
"""uint8 images, (N, H, W, C), or one image, (H, W, C)."""

Payload = bytes | Path | Pixels
"""One image as it is stored: an encoded file's bytes, a path to one, or pixels (H, W, 3)."""


class Item(NamedTuple):
    """One image of a source: its class, its file name within the class, and the split the source
    puts it in ('' for none).
    """

    class_id: str
    file: str
    split: str


@dataclass(frozen=True)
class Found:
    """A source of images that a reader recognised; nothing has been read yet.

    ``stamps`` of every file decide whether a cache is still good. ``open()`` returns the items and
    an iterator over their payloads in the same order. ``left_out`` says what was not taken.
    """

    form: str
    path: Path
    stamps: tuple[Stamp, ...]
    open: Callable[[], tuple[list[Item], Iterator[Payload]]]
    left_out: tuple[LeftOut, ...] = ()


@dataclass(frozen=True)
class Listing:
    """Images sorted by (class id, file name). ``own_split``: class id -> the source's split or
    ''.
    """

    class_ids: tuple[str, ...]
    files: tuple[str, ...]
    own_split: dict[str, str]


def open_items(found: Found) -> tuple[list[Item], Iterator[Payload]]:
    """``found.open()``; what the file system refuses becomes one ``ValueError``."""
    try:
        return found.open()
    except OSError as error:
        raise unreadable(error.filename or found.path, error) from error


def unreadable(path: object, error: OSError) -> ValueError:
    """The one sentence for a file or folder that the system does not let us read."""
    return ValueError(
        f"{str(path)!r} must be readable, got {error.strerror or error}; check the path and its "
        "permissions"
    )


def stamp(file: Path, root: Path) -> Stamp:
    """The stamp of one regular file, its path below ``root``."""
    return stamp_of(file.stat(), file.relative_to(root).as_posix(), file)


def stamp_of(status: os.stat_result, name: str, file: str | Path) -> Stamp:
    """The stamp of what ``status`` describes; ``ValueError`` for a folder, a pipe or a device."""
    demand_regular(file, status.st_mode)
    return name, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def arrange(items: Sequence[Item], path: Path) -> tuple[Listing, list[int]]:
    """Sort ``items``; also the sorted place of each item, shape (N,).

    ``ValueError`` where nothing is there, an image occurs twice, or a class lies in two splits.
    """
    if not items:
        raise ValueError(f"{str(path)!r} must hold at least one image, got none; check the path")
    own: dict[str, str] = {}
    for item in items:
        if own.setdefault(item.class_id, item.split) != item.split:
            raise ValueError(
                f"a class must lie in one split only, got {item.class_id!r} in "
                f"{own[item.class_id]!r} and in {item.split!r} "
                f"of {str(path)!r}; few-shot splits share no class, so remove it from one of them"
            )
    order = sorted(range(len(items)), key=lambda k: items[k][:2])
    for first, second in itertools.pairwise(order):
        if items[first][:2] == items[second][:2]:
            raise ValueError(
                f"image names must be unique within a class, got {items[first].file!r} twice in "
                "class "
                f"{items[first].class_id!r} of {str(path)!r}; remove the copy"
            )
    place = [0] * len(items)
    for rank, k in enumerate(order):
        place[k] = rank
    ordered = [items[k] for k in order]
    listing = Listing(
        tuple(i.class_id for i in ordered),
        tuple(i.file for i in ordered),
        {key: own[key] for key in sorted(own)},
    )
    return listing, place
