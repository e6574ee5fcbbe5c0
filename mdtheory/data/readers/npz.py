"""One ``.npz`` a split, ``few-shot-{train,val,test}.npz``: ``features`` (N, H, W, 3) uint8 and
``targets`` (N,), as FC100 and others circulate.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from mdtheory.data import npz_members
from mdtheory.data.image_index import Found, Item, Payload, stamp
from mdtheory.data.left_out import Tally
from mdtheory.data.readers import readers
from mdtheory.data.readers.pickles import by_label
from mdtheory.data.readers.tiered import pairs
from mdtheory.data.splits import split_word

IMAGES = ("features", "images", "data", "image_data")
LABELS = ("targets", "labels", "label")
BESIDE = "images beside the .npz"


@readers.register("npz")
def find(path: Path) -> Found | None:
    """The archives directly in ``path`` whose names say train, val or test; None where there is
    none. Files with images alone are left to ``tiered``.
    """
    paired = {file for pair in pairs(path).values() for file in pair}
    files = {file: split_word(file.name) for file in sorted(path.glob("*.npz"))}
    used = {file: split for file, split in files.items() if split and file not in paired}
    if not used:
        return None
    for split in used.values():
        same = [file.name for file, own in used.items() if own == split]
        if len(same) > 1:
            raise ValueError(
                f"{str(path)!r} must hold one .npz per split, got {same[0]!r} and {same[1]!r}; "
                "remove one"
            )
    tally = Tally(path)
    tally.rest(used, BESIDE)

    def opened() -> tuple[list[Item], Iterator[Payload]]:
        items: list[Item] = []
        images: list[Iterator[Payload]] = []
        for file, split in used.items():
            own, payloads = _read(file, split)
            items += own
            images.append(payloads)
        return items, itertools.chain.from_iterable(images)

    stamps = tuple(stamp(file, path) for file in used)
    return Found("npz archives", path, stamps, opened, tally.result())


def _read(file: Path, split: str) -> tuple[list[Item], Iterator[Payload]]:
    """The items in the order of their rows: streaming goes forward only."""
    held = npz_members.members(file)
    image = next((name for name in IMAGES if name in held), None)
    label = next((name for name in LABELS if name in held), None)
    if image is None or label is None:
        raise ValueError(
            f"{str(file)!r} must hold features and targets, got {sorted(held)[:8]}; rename its "
            "arrays"
        )
    n, payloads = npz_members.images(file, image)
    classes = by_label(file, npz_members.vector(file, label), None, n, split)
    return numbered(classes, n, split), iter(payloads)


def numbered(classes: dict[str, list[int]], n: int, split: str) -> list[Item]:
    """An item for every row, called by its place within its class."""
    items: list[Item] = [Item("", "", split)] * n
    for class_id, rows in classes.items():
        for k, row in enumerate(rows):
            items[row] = Item(class_id, f"{k:04d}", split)
    return items
