"""The rows of a csv table of image files, as users write it."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from mdtheory.data.files import open_regular

if TYPE_CHECKING:
    from _csv import Reader

FILE = ("file", "filename", "file_name", "filepath", "file_path", "path", "image", "image_path")
LABEL = ("label", "category", "class")
GROUP = ("group", "group_id", "patient", "patient_id", "subject", "subject_id")
SPLIT = ("split",)


def header(table: Path) -> list[str]:
    """The column names of a table as it writes them; empty where it is none."""
    try:
        with open_regular(table) as raw:
            return next(_cells(raw), [])
    except (csv.Error, UnicodeDecodeError):
        return []


def labelled(table: Path) -> bool:
    """Whether the table has a column of files and one of labels."""
    names = {name.strip().lower() for name in header(table)}
    return bool(names & set(FILE) and names & set(LABEL))


def rows(
    table: Path,
    wanted: Mapping[str, Sequence[str]],
    optional: Mapping[str, Sequence[str]] | None = None,
) -> list[tuple[int, dict[str, str]]]:
    """(line number, {key: cell}) of every row. ``wanted`` and ``optional``: key -> the names that
    its column may have, whatever their case; an optional key without a column is left out.

    ``ValueError`` for a damaged table, a column that is missing or there twice, and a row that is
    too long or too short.
    """
    try:
        with open_regular(table) as raw:
            reader = _cells(raw)
            names = next(reader, [])
            places = _places(table, names, {**wanted, **(optional or {})})
            if not set(wanted) <= set(places):
                known = "; ".join(f"{key}: {', '.join(wanted[key])}" for key in wanted)
                raise ValueError(
                    f"{str(table)!r} must have the columns {' and '.join(wanted)}, got {names}; "
                    f"correct its first line (known names: {known})"
                )
            found = []
            for row in reader:
                if not row:
                    continue
                if len(row) != len(names):
                    raise ValueError(
                        f"every row of {str(table)!r} must have {len(names)} cells like its first "
                        f"line, got {len(row)} in line {reader.line_num}; correct it"
                    )
                found.append((reader.line_num, {key: row[at] for key, at in places.items()}))
            return found
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(
            f"{str(table)!r} must be a csv table in UTF-8, got a damaged one ({error}); replace it"
        ) from error


def _cells(raw: BinaryIO) -> Reader:
    """The rows of a table whose first line says by what it is separated: commas, or the semicolons
    and tabs of a spreadsheet.
    """
    text = raw.read().decode("utf-8-sig")
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    return csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator)


def _places(
    table: Path, names: Sequence[str], wanted: Mapping[str, Sequence[str]]
) -> dict[str, int]:
    places = {}
    for key, known in wanted.items():
        at = [k for k, name in enumerate(names) if name.strip().lower() in known]
        if len(at) > 1:
            raise ValueError(
                f"{str(table)!r} must have one column for {key}, got {names[at[0]]!r} and "
                f"{names[at[1]]!r}; remove one"
            )
        if at:
            places[key] = at[0]
    return places


def folder_of(table: Path, names: Sequence[str]) -> Path:
    """What the file names of a table are relative to: ``images`` beside it where the first of them
    is there, or the table's own folder.
    """
    images = table.parent / "images"
    beside = bool(names) and not (images / names[0]).exists() and (table.parent / names[0]).exists()
    return images if images.is_dir() and not beside else table.parent


def inside(name: str) -> bool:
    """Whether a file name of a table stays in its folder: relative, and no step upwards."""
    # not pathlib: over a million rows it takes a minute longer
    steps = name.replace("\\", "/").split("/")
    return (
        steps[0] != ""
        and ".." not in steps
        and {*steps} > {*steps} & {"", "."}
        and not (os.path.isabs(name))
    )


def normal(name: str) -> str:
    """A file name of a table without steps that go nowhere, with slashes."""
    plain = "//" not in name and "./" not in name and "\\" not in name and name[-1:] not in "/."
    return name if plain else Path(name).as_posix()
