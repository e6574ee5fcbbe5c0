"""Arrays in a ``.npz``, read without pickle and row by row: the file may be larger than memory."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mdtheory.data.files import open_regular
from mdtheory.data.image_index import Pixels

_READ = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    ValueError,
    KeyError,
    NotImplementedError,
    SyntaxError,
    RecursionError,
    MemoryError,
    tokenize.TokenError,
)


def members(path: Path) -> dict[str, int]:
    """The arrays of an archive by name, and how many bytes each takes unpacked."""
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            listed = archive.infolist()
    except _DAMAGE as error:
        raise _damaged(path, error) from error
    sizes = {entry.filename.removesuffix(".npy"): entry.file_size for entry in listed}
    if len(sizes) < len(listed):
        raise _damaged(path, ValueError("two members have one name"))
    return sizes


def vector(path: Path, name: str) -> NDArray[Any]:
    """One small array of whole numbers. shape: (N,)"""
    with open_regular(path) as file:
        shape, dtype, stream = _opened(path, file, name)
        with stream:
            if len(shape) != 1 or dtype.kind not in "iu":
                raise ValueError(
                    f"{name} of {str(path)!r} must be whole numbers of shape (N,), got {dtype} "
                    f"{shape}; convert them"
                )
            data = _exactly(path, stream, shape[0] * dtype.itemsize)
    return np.frombuffer(data, dtype=dtype)


def images(path: Path, name: str) -> tuple[int, Iterator[Pixels]]:
    """How many images an array (N, H, W, 3) of uint8 holds, and an iterator over them that reads
    one at a time.
    """
    with open_regular(path) as file:
        shape, dtype, stream = _opened(path, file, name)
        stream.close()
    if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or 0 in shape:
        raise ValueError(
            f"the images of {str(path)!r} must be uint8 of shape (N, height, width, 3), got "
            f"{dtype} {shape}; convert them"
        )
    return shape[0], _rows(path, name, shape[1:])


def _rows(path: Path, name: str, shape: tuple[int, ...]) -> Iterator[Pixels]:
    with open_regular(path) as file:
        whole, _, stream = _opened(path, file, name)
        with stream:
            for _ in range(whole[0]):
                data = _exactly(path, stream, int(np.prod(shape)))
                yield np.frombuffer(data, dtype=np.uint8).reshape(shape)


def _opened(
    path: Path, file: IO[bytes], name: str
) -> tuple[tuple[int, ...], np.dtype[Any], IO[bytes]]:
    """Shape, dtype, and the stream that stands at the first element; the promised size is that of
    the member.
    """
    try:
        archive = zipfile.ZipFile(file)
        entry = archive.getinfo(f"{name}.npy")
        stream = archive.open(entry)
        shape, fortran, dtype = _READ[np.lib.format.read_magic(stream)](stream)
        size = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if fortran or dtype.hasobject or stream.tell() + size != entry.file_size:
            raise ValueError(f"no plain array of {dtype} {shape} in {entry.file_size} bytes")
    except _DAMAGE as error:
        raise _damaged(path, error) from error
    return shape, dtype, stream


def _exactly(path: Path, stream: IO[bytes], size: int) -> bytes:
    try:
        data = stream.read(size)
    except _DAMAGE as error:
        raise _damaged(path, error) from error
    if len(data) != size:
        raise _damaged(path, EOFError("it ends early"))
    return data


def _damaged(path: Path, error: BaseException) -> ValueError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return ValueError(
        f"{str(path)!r} must be a whole .npz of plain arrays, got another file ({reason}); copy it "
        "again"
    )
