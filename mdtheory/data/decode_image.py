"""One stored image to a square of uint8 RGB pixels."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from mdtheory.data.files import open_regular
from mdtheory.data.image_index import Payload, Pixels, unreadable
from mdtheory.data.inspect_bytes import demand_whole, png_depth
from mdtheory.data.left_out import formats

MAX_PIXELS = 89_000_000
"""Larger images are refused: a few kilobytes of PNG can unpack to gigabytes. Of little more Pillow
warns in words of its own.
"""

BITS = 258
"""TIFF's tag for the bits of a sample."""

PHOTOMETRIC = 262
"""TIFF's tag that says what zero is: 0 for white."""


def demand_size(image_size: object) -> None:
    """``ValueError`` for what no image is squeezed to."""
    if (
        not isinstance(image_size, int)
        or isinstance(image_size, bool)
        or not 4 <= image_size <= 1024
    ):
        raise ValueError(
            f"image_size must be a whole number of pixels from 4 to 1024, got {image_size!r}; 84 "
            "is usual"
        )


def decode(payload: Payload, *, image_size: int, name: str) -> Pixels:
    """Pixels of shape (image_size, image_size, 3); ``name`` is what an error calls the image.

    Turned by its EXIF orientation, transparency laid over white, any mode to RGB, squeezed to a
    square as miniImageNet was made. A whole-number reduction is the exact mean over the boxes,
    anything else Lanczos (antialiased). Greys of more than 8 bits are scaled: white is 65535 for
    whole numbers (4095 in a TIFF of 12 bits a sample), and for floats the first of 1, 255, 65535
    that no value exceeds; what such a scale would make black is refused. Only formats that start no
    other program are tried.
    ``ValueError`` for what is no image, is truncated or fails its checksum, has a colour beyond
    its palette, holds values that have no such scale, or is larger than ``MAX_PIXELS``.
    """
    if isinstance(payload, np.ndarray):
        return _fit(Image.fromarray(payload), image_size)
    try:
        with _stream(payload) as file:
            image = _opened(file, image_size)
    except _Refused as error:
        raise ValueError(str(error)) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(
            f"images must have at most {MAX_PIXELS:,} pixels, got more in {name}; shrink or remove "
            "it"
        ) from error
    except _Unscaled as error:
        raise ValueError(
            f"an image of more than 8 bits must hold values from 0 to 65535, got {error} in "
            f"{name}; convert it to 8 bits"
        ) from error
    except UnidentifiedImageError as error:
        raise ValueError(
            f"{name} must be an image (JPEG, PNG, ...), got something else; replace or remove it"
        ) from error
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise unreadable(error.filename or name, error) from error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{name} must be a whole image, got a damaged one ({reason}); replace or remove it"
        ) from error
    return _fit(image, image_size)


_DAMAGE = (
    OSError,
    SyntaxError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    MemoryError,
    struct.error,
)
"""What Pillow raises over broken files, as fuzzing found."""


class _Unscaled(Exception):
    """Values that no rule brings to 0..255."""


class _Refused(Exception):
    """What is refused before it is opened."""


def _stream(payload: bytes | Path) -> BinaryIO:
    if isinstance(payload, bytes):
        return io.BytesIO(payload)
    try:
        return open_regular(payload)
    except ValueError as error:
        raise _Refused(error) from error


def _opened(file: BinaryIO, image_size: int) -> Image.Image:
    with Image.open(file, formats=formats()) as image:
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        depth = 8
        if image.format in ("PNG", "JPEG", "MPO"):
            file.seek(0)
            data = file.read()
            demand_whole(data)
            depth = png_depth(data)
            file.seek(0)
        image.draft("RGB", (4 * image_size, 4 * image_size))
        image.load()
        if image.mode == "P":
            _demand_palette(image)
        inverted = isinstance(image, TiffImageFile) and image.tag_v2.get(PHOTOMETRIC) == 0
        if isinstance(image, TiffImageFile):
            depth = max(image.tag_v2.get(BITS, (8,)))
        return _rgb(ImageOps.exif_transpose(image), depth, inverted=inverted)


def _demand_palette(image: Image.Image) -> None:
    most, colours = int(np.asarray(image).max()), len(image.getpalette() or ()) // 3
    if most >= colours:
        raise ValueError(f"colour {most} of a palette of {colours}")


def _rgb(image: Image.Image, depth: int, *, inverted: bool) -> Image.Image:
    """8 bits, on white where it is transparent. ``depth``: the bits of a sample, in which a PNG
    says which colour is transparent; ``inverted``: white is zero, which Pillow sees to up to 8
    bits.
    """
    clear = image.info.get("transparency")
    if image.mode[0] in "IF":
        whole = 2**depth - 1 if 8 < depth < 16 else 65535
        return _scaled(image, clear, whole, inverted=inverted).convert("RGB")
    if depth == 16 and isinstance(clear, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in clear)
    elif depth in (2, 4) and isinstance(clear, int):
        image.info["transparency"] = clear * 255 // (2**depth - 1)
    if "A" in image.getbands() or clear is not None:
        over = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")
    return image.convert("RGB")


def _scaled(image: Image.Image, clear: int | None, whole: int, *, inverted: bool) -> Image.Image:
    """Whole numbers, white being ``whole``, or floats, to 8 bits, which Pillow alone would cut off
    at 255; the ``clear`` ones are white.
    """
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise _Unscaled("a value that is no number")
    low, high = float(values.min()), float(values.max())
    scales = (1, 255, 65535) if image.mode == "F" else (whole,)
    white = next((white for white in scales if high <= white), None)
    if low < 0 or white is None:
        raise _Unscaled(f"values from {low:g} to {high:g}")
    if white > 1 and 0 < high < 2 * white / 255 and not inverted:
        raise _Unscaled(f"values from {low:g} to {high:g}, which would be black,")
    shown = values * (255 / white)
    shown = 255 - shown if inverted else shown
    if clear is not None:
        shown[values == clear] = 255
    return Image.fromarray(np.rint(shown).astype(np.uint8))


def _fit(image: Image.Image, image_size: int) -> Pixels:
    if image.size != (image_size, image_size):
        if image.width % image_size == 0 and image.height % image_size == 0:
            image = image.reduce((image.width // image_size, image.height // image_size))
        else:
            image = image.resize(
                (image_size, image_size), Image.Resampling.LANCZOS, reducing_gap=3.0
            )
    return np.asarray(image)
