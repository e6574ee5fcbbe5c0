"""One flat folder of images with the tables train.csv, val.csv and test.csv (filename,label) of
Ravi and Larochelle.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from mdtheory.data.image_index import Found, Item, Payload, stamp
from mdtheory.data.readers import readers
from mdtheory.data.readers.folder import images_in, stamps_of
from mdtheory.data.splits import SPLIT_WORDS


@readers.register("csv")
def find(path: Path) -> Found | None:
    """The tables in ``path`` over the images in ``path/images`` (or in ``path``); None where one of
    the two is missing.
    """
    tables = {
        path / f"{word}.csv": split
        for word, split in SPLIT_WORDS.items()
        if (path / f"{word}.csv").is_file()
    }
    folder = path / "images" if (path / "images").is_dir() else path
    if not tables:
        return None
    images = images_in(folder)
    if not images:
        return None
    seen: dict[str, Path] = {}
    for table, split in tables.items():
        if split in seen:
            raise ValueError(
                f"{str(path)!r} must hold one table per split, got {seen[split].name!r} and "
                f"{table.name!r}; remove one of them"
            )
        seen[split] = table

    def opened() -> tuple[list[Item], Iterator[Payload]]:
        present = {image.name for image in images}
        items = [item for table, split in tables.items() for item in _rows(table, split)]
        missing = [item.file for item in items if item.file not in present]
        if missing:
            raise ValueError(
                f"every file that the csv tables name must be in {str(folder)!r}, got "
                f"{len(missing)} missing such as "
                f"{missing[0]!r}; add them or remove their rows"
            )
        return items, iter([folder / item.file for item in items])

    return Found(
        "flat folder with csv splits",
        path,
        (*(stamp(file, path) for file in tables), *stamps_of(images, folder.name)),
        opened,
    )


def _rows(table: Path, split: str) -> list[Item]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            if not {"filename", "label"} <= set(reader.fieldnames or ()):
                raise ValueError(
                    f"{str(table)!r} must have the columns filename and label, got "
                    f"{list(reader.fieldnames or ())}; correct "
                    "its first line"
                )
            rows = [(reader.line_num, row["filename"], row["label"]) for row in reader]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(
            f"{str(table)!r} must be a csv table in UTF-8, got a damaged one ({error}); replace it"
        ) from error
    for line, name, label in rows:
        if not name or not label or Path(name).name != name:
            raise ValueError(
                f"every row of {str(table)!r} must hold a plain file name and a label, got "
                f"{name!r}, {label!r} in line "
                f"{line}; correct it"
            )
    return [Item(label, name, split) for _, name, label in rows]
