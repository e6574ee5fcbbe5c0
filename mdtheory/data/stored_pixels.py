"""Pixels in a file, read image by image and never believed: each is checked against its hash.

A memory map would kill the process when the file shrinks under it, and hand out altered bytes
without a word; here both are one sentence.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from mdtheory.data.files import open_regular

HASH_BYTES = 16
Hashes = NDArray[np.uint8]
"""The first 16 bytes of the sha256 of every image's pixels. shape: (N, 16)"""


def hash_of(image: NDArray[np.uint8]) -> bytes:
    """The first 16 bytes of the sha256 of one image's pixels."""
    return hashlib.sha256(np.ascontiguousarray(image).data).digest()[:HASH_BYTES]


def hashes_of(pixels: Any) -> Hashes:
    """The hash of every image. shapes: (N, H, W, C) -> (N, 16)"""
    found = b"".join(hash_of(np.asarray(image)) for image in pixels)
    return np.frombuffer(found, dtype=np.uint8).reshape(-1, HASH_BYTES)


def digest_of(hashes: Hashes, image_shape: Sequence[int]) -> str:
    """What names the pixels: the sha256 of their hashes in order and of (H, W, C), in
    hexadecimal.
    """
    head = ",".join(str(n) for n in image_shape).encode()
    return hashlib.sha256(head + b"\0" + np.ascontiguousarray(hashes).tobytes()).hexdigest()


class DamagedPixelsError(ValueError):
    """The file does not hold the pixels that were written into it."""


class StoredPixels:
    """uint8 images (N, H, W, C) in a ``.npy`` file, as far as reading goes like an array.

    Each image is compared with its hash whenever it is read (about 10 microseconds for 84 x 84 in
    colour): the file may change while it is in use. ``DamagedPixelsError`` where they differ or the
    file was cut; the message names the file and says what to do.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, path: Path, hashes: Hashes):
        self._path = path
        self._hashes = hashes
        with open_regular(path) as file:
            version = np.lib.format.read_magic(file)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }
            shape, fortran, dtype = read[version](file)
            self._start = file.tell()
            size = os.fstat(file.fileno()).st_size
            self._descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._descriptor)
        fits = dtype == np.uint8 and not fortran and len(shape) == 4 and len(hashes) == shape[0]
        if not fits or size != self._start + int(np.prod(shape, dtype=object)):
            raise DamagedPixelsError(
                f"{str(path)!r} must hold whole uint8 images, got something else"
            )
        self.shape = cast(tuple[int, int, int, int], shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        rows = np.arange(len(self))[key]
        found = self._read(np.atleast_1d(rows).tolist())
        return found[0] if np.ndim(rows) == 0 else found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        whole = self[:]
        return whole if dtype is None else whole.astype(dtype)

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredPixels, (self._path, self._hashes)

    @property
    def hashes(self) -> Hashes:
        """The hash of every image. shape: (N, 16)"""
        return self._hashes

    def check(self) -> None:
        """Read every image; ``DamagedPixelsError`` for the first that is not as it was written."""
        for start in range(0, len(self), 1024):
            self._read(range(start, min(start + 1024, len(self))))

    def _read(self, rows: Sequence[int]) -> NDArray[np.uint8]:
        images = np.empty((len(rows), *self.shape[1:]), dtype=np.uint8)
        size = images[0].size if len(rows) else 0
        for place, row in enumerate(rows):
            room = images[place].reshape(-1)
            try:
                found = self._fill(room, self._start + row * size)
            except OSError as error:
                raise self._damaged(f"cannot be read ({error.strerror})") from error
            if found != size:
                raise self._damaged("was cut while it was in use")
            if hash_of(room) != self._hashes[row].tobytes():
                raise self._damaged(f"holds other pixels than were written (image {row})")
        return images

    def _fill(self, room: NDArray[np.uint8], offset: int) -> int:
        if hasattr(os, "preadv"):  # several threads and forked processes may read at once
            return os.preadv(self._descriptor, [room.data], offset)
        with open_regular(self._path) as file:
            file.seek(offset)
            return file.readinto(room.data)  # type: ignore[attr-defined]

    def _damaged(self, what: str) -> DamagedPixelsError:
        folder = str(self._path.parent)
        with contextlib.suppress(OSError):
            (self._path.parent / "index.json").unlink()  # so that the next start decodes anew
        return DamagedPixelsError(
            f"the cache {folder!r} must hold the images as they were decoded, got one that {what}; "
            "start again: they are decoded anew"
        )
