"""One stored image to a square of uint8 RGB pixels."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mdtheory.data.image_index import Payload, Pixels, unreadable

MAX_PIXELS = 100_000_000
"""Larger images are refused: a few kilobytes of PNG can unpack to gigabytes."""


def decode(payload: Payload, *, image_size: int, name: str) -> Pixels:
    """Pixels of shape (image_size, image_size, 3); ``name`` is what an error calls the image.

    Turned by its EXIF orientation, transparency laid over white, any mode to RGB, squeezed to a
    square as miniImageNet was made. A whole-number reduction is the exact mean over the boxes,
    anything else Lanczos (antialiased). ``ValueError`` for what is no image, is truncated, has more
    than 8 bits per channel, or is larger than ``MAX_PIXELS``.
    """
    if isinstance(payload, np.ndarray):
        return _fit(Image.fromarray(payload), image_size)
    try:
        image = _opened(payload, image_size)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(
            f"images must have at most {MAX_PIXELS:,} pixels, got more in {name}; shrink or remove "
            "it"
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
    if image.mode != "RGB":
        raise ValueError(
            f"images must have 8 bits per channel, got mode {image.mode} in {name}; convert it to "
            "8 "
            "bits"
        )
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


def _opened(payload: bytes | Path, image_size: int) -> Image.Image:
    with Image.open(payload if isinstance(payload, Path) else io.BytesIO(payload)) as image:
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        image.draft("RGB", (4 * image_size, 4 * image_size))
        image.load()
        return _rgb(ImageOps.exif_transpose(image))


def _rgb(image: Image.Image) -> Image.Image:
    """On white where it is transparent; 16 bits and floats stay as they are, since Pillow would cut
    them off at 255.
    """
    if image.mode[0] in "IF":
        return image
    if "A" in image.getbands() or "transparency" in image.info:
        over = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")
    return image.convert("RGB")


def _fit(image: Image.Image, image_size: int) -> Pixels:
    if image.size != (image_size, image_size):
        if image.width % image_size == 0 and image.height % image_size == 0:
            image = image.reduce((image.width // image_size, image.height // image_size))
        else:
            image = image.resize(
                (image_size, image_size), Image.Resampling.LANCZOS, reducing_gap=3.0
            )
    return np.asarray(image)
