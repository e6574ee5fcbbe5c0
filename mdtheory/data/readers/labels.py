"""One table ``labels.csv`` (file, label) beside a folder ``images``, as in Meta-Album."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from mdtheory.data.files import is_regular
from mdtheory.data.image_index import Found, Item, Payload, stamp
from mdtheory.data.left_out import Tally
from mdtheory.data.readers import readers, tables
from mdtheory.data.splits import SPLIT_WORDS

log = logging.getLogger(__name__)

UNNAMED = "images that labels.csv does not name"


@readers.register("labels")
def find(path: Path) -> Found | None:
    """``labels.csv`` with a column of files (``file``, ``FILE_NAME``, ...), one of labels
    (``label``, ``CATEGORY``, ...) and perhaps one of splits, over the images in ``path/images`` or
    in ``path``. None where the table is missing or has other columns.
    """
    table = path / "labels.csv"
    if not (is_regular(table) and tables.labelled(table)):
        return None
    names = {name.strip().lower() for name in tables.header(table)}
    if grouped := sorted(names & set(tables.GROUP)):
        log.warning(
            "the column %r of %r is left out here, where whole classes are divided; "
            "TaskSet.from_csv keeps all images of one in one split",
            grouped[0],
            str(table),
        )
    items = read(table)
    folder = tables.folder_of(table, [item.file for item in items])
    missing = [item.file for item in items if not os.path.isfile(os.path.join(folder, item.file))]
    if missing:
        raise ValueError(
            f"every file that {str(table)!r} names must be in {str(folder)!r}, got {len(missing)} "
            f"missing such as {missing[0]!r}; add them or remove their rows"
        )
    tally = Tally(path)
    tally.rest({table, *(folder / item.file for item in items)}, UNNAMED)

    def opened() -> tuple[list[Item], Iterator[Payload]]:
        return items, iter([folder / item.file for item in items])

    stamps = [stamp(table, path), *(stamp(folder / item.file, path) for item in items)]
    return Found("labels.csv with images", path, tuple(stamps), opened, tally.result())


def read(table: Path) -> list[Item]:
    """One item per row; ``split`` is '' where the table has no such column."""
    wanted = {"file": tables.FILE, "label": tables.LABEL}
    items = []
    seen = set[tuple[str, str]]()
    for line, row in tables.rows(table, wanted, optional={"split": tables.SPLIT}):
        name, label = row["file"].strip(), row["label"].strip()
        word = row.get("split", "").strip().lower()
        if not label or not tables.inside(name):
            raise ValueError(
                f"every row of {str(table)!r} must hold a file name below its folder and a label, "
                f"got {name!r}, {label!r} in line {line}; correct it"
            )
        if word and word not in SPLIT_WORDS:
            raise ValueError(
                f"the split in {str(table)!r} must be train, val or test, got {word!r} in line "
                f"{line}; correct it"
            )
        item = Item(label, tables.normal(name), SPLIT_WORDS.get(word, ""))
        if item[:2] in seen:
            raise ValueError(
                f"image names must be unique within a class, got {item.file!r} twice in class "
                f"{label!r}, in line {line} of {str(table)!r}; remove the copy"
            )
        seen.add(item[:2])
        items.append(item)
    return items
