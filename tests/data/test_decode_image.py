"""What Pillow takes without a word, and a user would not mean."""

from __future__ import annotations

import io
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from mdtheory.data.decode_image import decode
from mdtheory.data.inspect_bytes import _scans, demand_whole
from tests.data import forms

SIDE = 32
RAMP = np.tile(np.arange(0, 256, 8, dtype=np.uint8), (SIDE, 1))
SHOWN = np.repeat(RAMP.reshape(16, 2, 16, 2).mean((1, 3))[..., None], 3, axis=2)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(colour: int, depth: int, row: bytes, *extra: bytes, rows: int = SIDE, laced: int = 0):
    """A PNG of 32 x 32 whose rows are all ``row``."""
    head = struct.pack(">IIBBBBB", SIDE, SIDE, depth, colour, 0, 0, laced)
    pixels = zlib.compress((b"\0" + row) * rows)
    parts = (chunk(b"IHDR", head), *extra, chunk(b"IDAT", pixels), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def shown(data: bytes) -> np.ndarray:
    return decode(data, image_size=16, name="image 'x'")


def refused(data: bytes) -> str:
    with pytest.raises(ValueError, match="image 'x'") as caught:
        shown(data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("colour", "depth", "row", "clear"),
    [
        (0, 2, b"\x55" * 8, (1,)),
        (0, 4, b"\x33" * 16, (3,)),
        (0, 8, b"\x40" * 32, (0x40,)),
        (0, 16, struct.pack(">H", 1000) * 32, (1000,)),
        (2, 8, bytes([1, 2, 3]) * 32, (1, 2, 3)),
        (2, 16, struct.pack(">HHH", 1000, 2000, 3000) * 32, (1000, 2000, 3000)),
    ],
)
def test_a_transparent_colour_of_any_depth_lies_over_white(colour, depth, row, clear):
    told = chunk(b"tRNS", struct.pack(f">{len(clear)}H", *clear))
    assert (shown(png(colour, depth, row, told)) == 255).all()
    assert shown(png(colour, depth, row)).max() < 255
    other = chunk(b"tRNS", struct.pack(f">{len(clear)}H", *[0] * len(clear)))
    assert shown(png(colour, depth, row, other)).max() < 255


@pytest.mark.parametrize(
    "values",
    [
        RAMP.astype(np.uint16),
        RAMP.astype(np.int32),
        RAMP.astype(np.float32) / 243,
        RAMP.astype(np.float32) * 1.05,
    ],
)
def test_numbers_that_their_scale_would_make_black_are_refused(values):
    assert "which would be black" in refused(forms.encoded(Image.fromarray(values), "TIFF"))
    nothing = Image.fromarray(np.zeros_like(values))
    assert (shown(forms.encoded(nothing, "TIFF")) == 0).all()


def tiff(values: np.ndarray, photometric: int) -> bytes:
    """One strip of greys, little-endian."""
    data, bits = values.tobytes(), 8 * values.itemsize
    kind = 3 if values.dtype.kind == "f" else 1
    tags = [(256, SIDE), (257, SIDE), (258, bits), (259, 1), (262, photometric), (273, 146)]
    tags += [(277, 1), (278, SIDE), (279, len(data)), (339, kind)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return head + bytes(146 - len(head)) + data


@pytest.mark.parametrize(
    "values",
    [RAMP, RAMP.astype(np.uint16) * 257, RAMP.astype(np.float32) / 255],
    ids=["8 bits", "16 bits", "floats"],
)
def test_white_may_be_zero(values):
    white = 1 if values.dtype.kind == "f" else np.iinfo(values.dtype).max
    assert np.abs(shown(tiff(values, 1)) - SHOWN).max() <= 1
    assert np.abs(shown(tiff(white - values, 0)) - SHOWN).max() <= 1


def test_a_tiff_of_twelve_bits_is_not_sixteen_times_too_dark():
    pairs = (RAMP.astype(int) * 4095 // 255).reshape(-1, 2)
    first, second = pairs.T
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 1)
    data = tiff(packed.astype(np.uint8), 1)
    eight, twelve = (struct.pack("<HHII", 258, 4, 1, bits) for bits in (8, 12))
    assert np.abs(shown(data.replace(eight, twelve)).astype(int) - SHOWN).max() <= 1


def test_every_flipped_bit_of_a_png_s_pixels_is_seen():
    smooth = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    data = forms.encoded(Image.fromarray(smooth), "PNG")
    start, end = data.index(b"IDAT") - 4, data.index(b"IEND") - 4
    assert shown(data).shape == (16, 16, 3)
    for at in range(start, end):
        damaged = bytearray(data)
        damaged[at] ^= 1 << at % 8
        refused(bytes(damaged))


@pytest.mark.parametrize("laced", [0, 1])
def test_a_png_whose_pixels_end_early_is_refused(laced):
    whole = png(0, 8, bytes(range(32)), laced=laced, rows=80)
    demand_whole(whole)
    assert "its pixels end early" in refused(png(0, 8, bytes(32), laced=laced, rows=20))


@pytest.mark.parametrize(("size", "depth"), [((1, 1), 8), ((5, 3), 8), ((33, 9), 1), ((8, 8), 1)])
def test_an_interlaced_png_holds_exactly_the_pixels_that_it_needs(size, depth):
    """The count by passes against a count of pixels one by one (source: PNG, section 8.2)."""
    pattern = [list("16462646"), list("77777777"), list("56565656"), list("77777777")]
    pattern += [list("36463646"), *pattern[1:4]]
    width, height = size
    rows = dict[tuple[str, int], int]()
    for y in range(height):
        for x in range(width):
            key = (pattern[y % 8][x % 8], y)
            rows[key] = rows.get(key, 0) + 1
    needed = sum(1 + -(-n * depth // 8) for n in rows.values())
    head = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 1)

    def made(n: int) -> bytes:
        parts = [chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(bytes(n)))]
        return b"\x89PNG\r\n\x1a\n" + b"".join([*parts, chunk(b"IEND", b"")])

    demand_whole(made(needed))
    with pytest.raises(ValueError, match="end early"):
        demand_whole(made(needed - 1))


def test_a_colour_beyond_the_palette_is_refused():
    two = chunk(b"PLTE", bytes([9, 9, 9, 200, 30, 60]))
    assert (shown(png(3, 8, b"\1" * 32, two)) == [200, 30, 60]).all()
    assert "colour 7 of a palette of 2" in refused(png(3, 8, b"\7" * 32, two))
    assert "of a palette of 0" in refused(png(3, 8, b"\1" * 32))


def test_a_jpeg_of_thousands_of_scans_is_refused_at_once():
    file = io.BytesIO()
    Image.new("L", (4000, 4000), 90).save(file, "JPEG", progressive=True, quality=50)
    data = file.getvalue()
    assert 5 < _scans(data) < 20
    last = data[data.rindex(b"\xff\xda") : -2]
    began = time.monotonic()
    assert "scans, more than 100" in refused(data[:-2] + last * 1000 + b"\xff\xd9")
    assert time.monotonic() - began < 5
    assert _scans(data + last * 1000) == _scans(data)  # what lies behind the end is no scan
    beside = b"\xff\xe1" + struct.pack(">H", 2 + 400) + b"\xff\xda" * 200
    assert _scans(data[:2] + beside + data[2:]) == _scans(data)  # nor what lies in a segment
