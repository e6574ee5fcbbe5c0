"""What an encoded image says of itself and Pillow does not look at: checksums, the number of pixels
and of scans.

Pillow skips the checksums of a PNG's pixels and takes a stream that ends early for black; the time
that a progressive JPEG takes is that of its scans, of which a small file can have thousands.
Sources: PNG (W3C Recommendation, third edition, 2025), sections 5.3, 7 and 8; JPEG (ITU-T T.81),
annex B.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"
MOST_SCANS = 100
"""Encoders write about ten; every one takes a pass over the whole image."""
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples of a pixel by PNG's colour type."""
ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
"""First column, first row, and the steps between columns and rows, of every pass."""
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def demand_whole(data: bytes) -> None:
    """``ValueError``, with the reason alone, for a PNG whose checksums or number of pixels are
    wrong and for a JPEG of too many scans; what is cut off is left to the decoder.
    """
    if data.startswith(PNG):
        _demand_pixels(data)
    elif data.startswith(JPEG) and (scans := _scans(data)) > MOST_SCANS:
        raise ValueError(f"it has {scans} scans, more than {MOST_SCANS}")


def png_depth(data: bytes) -> int:
    """Bits of a sample of a PNG; 8 for any other file."""
    return data[24] if data.startswith(PNG) and len(data) > 24 else 8


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and content of every whole chunk of a PNG, its checksum compared."""
    at = len(PNG)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, content = data[at + 4 : at + 8], memoryview(data)[at + 8 : at + 8 + length]
        end = at + 8 + length
        if end + 4 > len(data):
            return
        if zlib.crc32(content, zlib.crc32(kind)) != struct.unpack_from(">I", data, end)[0]:
            raise ValueError("a checksum is wrong")
        yield kind, bytes(content)
        if kind == b"IEND":
            return
        at = end + 4


def _demand_pixels(data: bytes) -> None:
    chunks = list(_chunks(data))
    head = next((content for kind, content in chunks if kind == b"IHDR"), b"")
    if len(head) != 13:
        return
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", head)
    bits = depth * SAMPLES.get(colour, 0)
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    needed = 0
    for x, y, dx, dy in passes:
        columns, rows = -(-(width - x) // dx), -(-(height - y) // dy)
        needed += rows * (1 + -(-columns * bits // 8)) if columns > 0 and rows > 0 else 0
    if _unpacked([content for kind, content in chunks if kind == b"IDAT"], needed) < needed:
        raise ValueError("its pixels end early")


def _unpacked(parts: list[bytes], most: int) -> int:
    """How many bytes a zlib stream in parts unpacks to, or more than ``most``."""
    stream, found = zlib.decompressobj(), 0
    try:
        for part in parts:
            while part and found < most:
                found += len(stream.decompress(part, 1 << 20))
                part = stream.unconsumed_tail
    except zlib.error as error:
        raise ValueError(str(error)) from error
    return found


def _scans(data: bytes) -> int:
    """How many scans a JPEG has: its markers one by one, over segments and coded data."""
    at, found = 2, 0
    while (marker := _MARKER.search(data, at)) is not None:
        kind, at = data[marker.start() + 1], marker.end()
        if kind == 0xD9:
            break
        found += kind == 0xDA
        if kind != 0x01 and at + 2 <= len(data):
            at += max(2, struct.unpack_from(">H", data, at)[0])
    return found
