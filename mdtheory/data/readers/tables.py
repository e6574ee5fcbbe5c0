"""The rows of a csv table of image files, as users write it."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from mdtheory.data.files import open_regular

FILE = ("file", "filename", "file_name", "path", "image")
LABEL = ("label", "category", "class")
GROUP = ("group",)
SPLIT = ("split",)


def header(table: Path) -> list[str]:
    """The column names of a table as it writes them; empty where it is none."""
    try:
        with open_regular(table) as raw:
            text = io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")
            return next(csv.reader(text, strict=True), [])
    except (csv.Error, UnicodeDecodeError):
        return []


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
            reader = csv.reader(
                io.TextIOWrapper(raw, encoding="utf-8-sig", newline=""), strict=True
            )
            names = next(reader, [])
            places = _places(table, names, {**wanted, **(optional or {})})
            if not set(wanted) <= set(places):
                raise ValueError(
                    f"{str(table)!r} must have the columns {' and '.join(wanted)}, got {names}; "
                    "correct its first line"
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


def inside(name: str) -> bool:
    """Whether a file name of a table stays in its folder: relative, and no step upwards."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return bool(parts) and not Path(name).is_absolute() and parts[0] != "/" and ".." not in parts
