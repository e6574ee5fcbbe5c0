"""The two pickle layouts in which miniImageNet, CIFAR-FS and FC100 circulate, one file per split,
read without running anything in them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mdtheory.data.image_index import Found, Item, Payload, Pixels, stamp
from mdtheory.data.left_out import Tally, is_image, reason_for, walk
from mdtheory.data.readers import readers
from mdtheory.data.readers.tiered import pairs
from mdtheory.data.safepickle import load
from mdtheory.data.splits import split_word

OTHER_IMAGES = ("train_phase_val", "train_phase_test")
"""Further images of the training classes beside ``miniImageNet_category_split_*``: no part of
miniImageNet's 60,000.
"""


UNREAD = "images beside the pickles"


@readers.register("pickles")
def find(path: Path) -> Found | None:
    """The pickles directly in ``path``; None where there is none.

    Layout 1, ``mini-imagenet-cache-{train,val,test}.pkl``: ``image_data`` (N, 84, 84, 3) uint8 and
    ``class_dict`` {WordNet id: [rows]}. Layout 2,
    ``miniImageNet_category_split_*.pickle``, ``CIFAR_FS_*.pickle``, ``FC100_*.pickle``: ``data``
    or ``images`` and ``labels``; its ids come from ``catname2label`` where that is there,
    otherwise a class is known by its split and number only. File names are not kept by either, so
    an image is named by its place within its class, and the digest differs from that of the image
    files.
    """
    files = sorted(
        f
        for f in path.iterdir()
        if f.suffix.lower() in (".pkl", ".pickle") and not f.name.startswith(".")
    )
    further = [file for file in files if any(word in file.name for word in OTHER_IMAGES)]
    files = [file for file in files if file not in further]
    if not files or pairs(path):
        return None
    tally, used = Tally(path), {*files, *further}
    for file in further:
        tally.add(file, "pickles of further images of the training classes")
    for file in walk(path):
        if file not in used:
            tally.add(file, UNREAD if is_image(file.name) else reason_for(file.name))
    seen: dict[str, Path] = {}
    for file in files:
        split = split_word(file.name)
        if not split:
            raise ValueError(
                f"a pickle's name must say train, val or test, got {str(file)!r}; rename or remove "
                "it"
            )
        if split in seen:
            raise ValueError(
                f"{str(path)!r} must hold one pickle per split, got {seen[split].name!r} and "
                f"{file.name!r}; remove one"
            )
        seen[split] = file

    def opened() -> tuple[list[Item], Iterator[Payload]]:
        items: list[Item] = []
        images: list[Pixels] = []
        for split, file in seen.items():
            pixels, classes = _read(file, split)
            for class_id, rows in classes.items():
                items += [Item(class_id, f"{k:04d}", split) for k in range(len(rows))]
                images += [pixels[row] for row in rows]
        return items, iter(images)

    stamps = tuple(stamp(file, path) for file in files)
    return Found("pickles", path, stamps, opened, tally.result())


def _read(file: Path, split: str) -> tuple[Pixels, dict[str, list[int]]]:
    """Pixels (N, H, W, 3) of one pickle and the rows of every class."""
    content = load(file)
    if not isinstance(content, dict):
        raise ValueError(
            f"{str(file)!r} must hold a dict of arrays, got a {type(content).__name__}; is it a "
            "data pickle?"
        )
    content = {
        key.decode("latin1") if isinstance(key, bytes) else key: value
        for key, value in content.items()
    }
    pixels = next(
        (content[key] for key in ("image_data", "data", "images") if key in content), None
    )
    labels = next((content[key] for key in ("labels", "label") if key in content), None)
    if pixels is None or (labels is None and "class_dict" not in content):
        raise ValueError(
            f"{str(file)!r} must hold image_data and class_dict, or data and labels, got the keys "
            f"{[key[:40] for key in content if isinstance(key, str)][:8]}; "
            "this layout is not known"
        )
    if (
        not isinstance(pixels, np.ndarray)
        or pixels.dtype != np.uint8
        or pixels.ndim != 4
        or pixels.shape[3] != 3
        or pixels.size == 0
    ):
        got = (
            f"{pixels.dtype} {pixels.shape}"
            if isinstance(pixels, np.ndarray)
            else type(pixels).__name__
        )
        raise ValueError(
            f"the images of {str(file)!r} must be uint8 of shape (N, height, width, 3), got {got}; "
            "convert them"
        )
    if "class_dict" in content:
        return pixels, _by_class(file, content["class_dict"], len(pixels))
    return pixels, by_label(file, labels, content.get("catname2label"), len(pixels), split)


def _by_class(file: Path, table: Any, n: int) -> dict[str, list[int]]:
    named = isinstance(table, dict) and all(isinstance(name, str) for name in table)
    classes = {name: _whole_numbers(rows) for name, rows in table.items()} if named else {}
    used = sorted(row for rows in classes.values() if rows is not None for row in rows)
    if not classes or None in classes.values() or used != list(range(n)):
        raise ValueError(
            f"class_dict of {str(file)!r} must name each of its {n} images once, as "
            f"{{class: [rows]}}, got {len(used)} rows of "
            f"{len(classes)} classes; labels and images do not belong together"
        )
    return {name: rows for name, rows in classes.items() if rows is not None}


def by_label(file: Path, labels: Any, names: Any, n: int, split: str) -> dict[str, list[int]]:
    """The rows of every class from one number per image; a class is called by ``names`` or by split
    and number. ``ValueError`` where they do not belong together.
    """
    numbers = _whole_numbers(labels)
    if numbers is None or len(numbers) != n:
        got = "something else" if numbers is None else f"{len(numbers)} of them"
        raise ValueError(
            f"labels of {str(file)!r} must be {n} whole numbers, one per image, got {got}; the two "
            "do not belong together"
        )
    ids = {number: f"{split}-{number:04d}" for number in numbers}
    if isinstance(names, dict):
        named = {
            number: name
            for name, number in names.items()
            if isinstance(number, int) and isinstance(name, str)
        }
        if not set(ids) <= set(named) or len(set(named.values())) < len(named):
            raise ValueError(
                f"catname2label of {str(file)!r} must name every label once, got {len(named)} "
                "names "
                f"for {len(ids)} labels; "
                "the two do not belong together"
            )
        ids = {number: named[number] for number in ids}
    classes: dict[str, list[int]] = {}
    for row, number in enumerate(numbers):
        classes.setdefault(ids[number], []).append(row)
    return classes


def _whole_numbers(values: Any) -> list[int] | None:
    """A list of Python integers from a list, tuple, range or integer array of one axis; None for
    anything else.
    """
    if isinstance(values, np.ndarray):
        return [int(v) for v in values] if values.ndim == 1 and values.dtype.kind in "iu" else None
    if isinstance(values, list | tuple | range) and all(isinstance(v, int) for v in values):
        return list(values)
    return None
