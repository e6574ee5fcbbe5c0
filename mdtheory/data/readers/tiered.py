"""tieredImageNet as it circulates: for every split the images in one file and the labels in
another.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mdtheory.data import npz_members
from mdtheory.data.image_index import Found, Item, Payload, stamp
from mdtheory.data.left_out import Tally
from mdtheory.data.readers import readers
from mdtheory.data.safepickle import load
from mdtheory.data.splits import SPLIT_WORDS, WNID

BESIDE = "images beside the pickles"


@readers.register("tiered")
def find(path: Path) -> Found | None:
    """``{train,val,test}_labels.pkl`` beside ``*_images_png.pkl``, a list of encoded images, or
    ``*_images.npz``, an array ``images``; None where no split has both.

    The labels are ``label_specific``; ``label_specific_str`` names the classes where it holds
    WordNet ids, otherwise a class is known by its split and number. Only one split's images are in
    memory at a time, and none of an archive.
    """
    found = pairs(path)
    if not found:
        return None
    used = {file for pair in found.values() for file in pair}
    tally = Tally(path)
    tally.rest(used, BESIDE)

    def opened() -> tuple[list[Item], Iterator[Payload]]:
        items = [_items(labels, split) for split, (_, labels) in found.items()]
        wanted = {pair[0]: len(own) for pair, own in zip(found.values(), items, strict=True)}
        payloads = (image for file, n in wanted.items() for image in _images(file, n))
        return [item for own in items for item in own], payloads

    stamps = tuple(stamp(file, path) for pair in found.values() for file in pair)
    return Found("images and labels in files of their own", path, stamps, opened, tally.result())


def pairs(path: Path) -> dict[str, tuple[Path, Path]]:
    """split -> (images, labels), for every split that has both files."""
    found = dict[str, tuple[Path, Path]]()
    for word, split in SPLIT_WORDS.items():
        labels = path / f"{word}_labels.pkl"
        for name in (f"{word}_images_png.pkl", f"{word}_images.npz"):
            if labels.is_file() and (path / name).is_file():
                found.setdefault(split, (path / name, labels))
    return found


def _items(file: Path, split: str) -> list[Item]:
    content = load(file)
    known = {_text(key): value for key, value in content.items()} if _is_dict(content) else {}
    numbers = known.get("label_specific")
    if isinstance(numbers, list):
        numbers = np.array(numbers)
    if not isinstance(numbers, np.ndarray) or numbers.ndim != 1 or numbers.dtype.kind not in "iu":
        raise ValueError(
            f"{str(file)!r} must hold label_specific, one whole number per image, got "
            f"{sorted(known)[:8]}; this layout is not known"
        )
    names = [_text(name) for name in known.get("label_specific_str") or ()]
    if not all(isinstance(name, str) and WNID.fullmatch(name) for name in names):
        names = []
    counts: dict[int, int] = {}
    items = []
    for number in numbers.tolist():
        counts[number] = counts.get(number, -1) + 1
        named = names[number] if 0 <= number < len(names) else f"{split}-{number:04d}"
        items.append(Item(named, f"{counts[number]:04d}", split))
    return items


def _images(file: Path, n: int) -> Iterator[Payload]:
    if file.suffix == ".npz":
        count, images = npz_members.images(file, "images")
        _demand(file, count, n)
        yield from images
        return
    content = load(file)
    if not isinstance(content, list) or not all(_is_encoded(image) for image in content):
        raise ValueError(
            f"{str(file)!r} must hold a list of encoded images, got something else; this layout is "
            "not known"
        )
    _demand(file, len(content), n)
    for image in content:
        yield image if isinstance(image, bytes) else image.tobytes()


def _demand(file: Path, count: int, n: int) -> None:
    if count != n:
        raise ValueError(
            f"{str(file)!r} must hold an image for each of the {n} labels beside it, got {count}; "
            "the two do not belong together"
        )


def _is_encoded(image: Any) -> bool:
    """Bytes, or an array of them as OpenCV gives it: (n,), (n, 1) or (1, n)."""
    if isinstance(image, np.ndarray):
        return image.dtype == np.uint8 and image.size == max(image.shape, default=0)
    return isinstance(image, bytes)


def _is_dict(content: Any) -> bool:
    return isinstance(content, dict)


def _text(key: Any) -> Any:
    return key.decode("latin1") if isinstance(key, bytes) else key
