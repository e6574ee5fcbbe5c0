"""One flat folder of images with the tables train.csv, val.csv and test.csv (filename,label) of
Ravi and Larochelle.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mdtheory.data.files import is_regular
from mdtheory.data.image_index import Found, Item, Payload, stamp
from mdtheory.data.left_out import Tally
from mdtheory.data.readers import readers, tables
from mdtheory.data.readers.folder import images_in, stamps_of
from mdtheory.data.splits import SPLIT_WORDS, WNID

UNNAMED = "images that no table names"


@readers.register("csv")
def find(path: Path) -> Found | None:
    """The tables in ``path`` over the images in ``path/images`` (or in ``path``); None where one of
    the two is missing.
    """
    found = {
        path / f"{word}.csv": split
        for word, split in SPLIT_WORDS.items()
        if is_regular(path / f"{word}.csv")
    }
    folder = path / "images" if (path / "images").is_dir() else path
    if not found:
        return None
    images = images_in(folder)
    if not images:
        return None
    seen: dict[str, Path] = {}
    for table, split in found.items():
        if split in seen:
            raise ValueError(
                f"{str(path)!r} must hold one table per split, got {seen[split].name!r} and "
                f"{table.name!r}; remove one of them"
            )
        seen[split] = table
    items = [item for table, split in found.items() for item in _rows(table, split)]
    present, named = {image.name for image in images}, {item.file for item in items}
    missing = [item.file for item in items if item.file not in present]
    if missing:
        raise ValueError(
            f"every file that the csv tables name must be in {str(folder)!r}, got "
            f"{len(missing)} missing such as "
            f"{missing[0]!r}; add them or remove their rows"
        )
    tally = Tally(path)
    tally.rest({*found, *(folder / name for name in named)}, UNNAMED)

    def opened() -> tuple[list[Item], Iterator[Payload]]:
        return items, iter([folder / item.file for item in items])

    return Found(
        "flat folder with csv splits",
        path,
        (*(stamp(file, path) for file in found), *stamps_of(images, folder.name)),
        opened,
        tally.result(),
    )


def _rows(table: Path, split: str) -> list[Item]:
    items = []
    for line, row in tables.rows(table, {"filename": ("filename",), "label": ("label",)}):
        name, label = row["filename"], row["label"].strip()
        if not name or not label or Path(name).name != name:
            raise ValueError(
                f"every row of {str(table)!r} must hold a plain file name and a label, got "
                f"{name!r}, {label!r} in line "
                f"{line}; correct it"
            )
        own = WNID.match(name)
        if own and WNID.fullmatch(label) and own.group() != label:
            raise ValueError(
                f"{str(table)!r} must give a file the WordNet id of its name, got {label!r} for "
                f"{name!r} in line {line}; files and labels are mixed up"
            )
        items.append(Item(label, name, split))
    return items
