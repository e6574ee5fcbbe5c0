"""Many stored images to pixels, by a few threads, in the order they are stored."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import numpy as np

from mdtheory.core.progress import Progress, progress_bar
from mdtheory.data.decode_image import decode
from mdtheory.data.image_index import Found, Item, Listing, Payload, Pixels, arrange, open_items

BATCH = 256
"""Encoded images held in memory at a time."""


def decode_all(
    items: Sequence[Item],
    payloads: Iterator[Payload],
    *,
    image_size: int,
    write: Callable[[int, Pixels], None],
    path: Path,
    progress: Progress | None = None,
) -> None:
    """Call ``write(k, pixels)`` in order for every item k, pixels (image_size, image_size, 3).

    Pillow releases the interpreter lock while it decodes, so threads help. ``progress`` defaults to
    a bar on stderr. ``ValueError`` names the first image that cannot be decoded.
    """

    def one(item: Item, payload: Payload) -> Pixels:
        name = f"image {item.file!r} of class {item.class_id!r} in {str(path)!r}"
        return decode(payload, image_size=image_size, name=name)

    with ExitStack() as stack:
        if progress is None:
            progress = stack.enter_context(progress_bar("decoding images"))
        pool = stack.enter_context(ThreadPoolExecutor(min(8, os.cpu_count() or 1)))
        done = 0
        while batch := list(islice(payloads, BATCH)):
            for image in pool.map(one, items[done : done + len(batch)], batch):
                write(done, image)
                done += 1
            progress(done, len(items))


def decode_in_memory(found: Found, *, image_size: int) -> tuple[Pixels, Listing]:
    """Pixels (N, image_size, image_size, 3) of a small source, without a cache, and their
    listing.
    """
    items, payloads = open_items(found)
    listing, place = arrange(items, found.path)
    pixels = np.empty((len(items), image_size, image_size, 3), dtype=np.uint8)

    def write(k: int, image: Pixels) -> None:
        pixels[place[k]] = image

    decode_all(items, payloads, image_size=image_size, write=write, path=found.path)
    return pixels, listing
