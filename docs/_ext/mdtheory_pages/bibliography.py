"""The bibliography: one page from ``references.bib``."""

from __future__ import annotations

import re
from pathlib import Path

from mdtheory_pages.files import Pages

Entry = dict[str, str]
KEY = re.compile(r"\b[a-z]+(?:18|19|20)\d\d[a-z]+\b")
_ENTRY = re.compile(r"^@(\w+)\{(\w+),\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_FIELD = re.compile(r"^\s*(\w+)\s*=\s*\{(.*)\},?\s*$", re.MULTILINE)


def read(path: Path) -> dict[str, Entry]:
    """The entries by key: one field a line, each in braces, names as "First Last and First
    Last".
    """
    found = {}
    for kind, key, body in _ENTRY.findall(path.read_text(encoding="utf-8")):
        if key in found:
            raise ValueError(f"{path.name} must hold every key once, got {key} twice; remove one")
        found[key] = {"kind": kind, **dict(_FIELD.findall(body))}
        missing = {"author", "title", "year"} - set(found[key])
        if missing:
            raise ValueError(
                f"{path.name}: {key} must have author, title and year, got none for "
                f"{sorted(missing)}; add it"
            )
    return found


def short(entry: Entry) -> str:
    """ "Finn et al., 2017"."""
    names = [name.split()[-1] for name in entry["author"].split(" and ")]
    who = (
        names[0]
        if len(names) == 1
        else f"{names[0]} and {names[1]}"
        if len(names) == 2
        else f"{names[0]} et al."
    )
    return f"{who}, {entry['year']}"


def line(entry: Entry) -> str:
    """One reference, in Markdown."""
    authors = entry["author"].split(" and ")
    who = authors[0] if len(authors) == 1 else ", ".join(authors[:-1]) + " and " + authors[-1]
    where = entry.get("journal") or entry.get("booktitle") or entry.get("publisher") or ""
    details = ", ".join(entry[key] for key in ("volume", "pages") if key in entry)
    parts = [
        f"{who}",
        f"*{entry['title']}*",
        ", ".join(part for part in (where, details, entry["year"]) if part),
    ]
    note = f" {entry['note']}." if "note" in entry else ""
    return ". ".join(parts) + "." + note


def write(pages: Pages, path: Path) -> None:
    """The page, sorted by first author's last name and year."""
    entries = read(path)
    order = sorted(
        entries,
        key=lambda key: (
            entries[key]["author"].split(" and ")[0].split()[-1].lower(),
            entries[key]["year"],
            key,
        ),
    )
    blocks = [f"(bib-{key})=\n`{key}`\n: {line(entries[key])}\n" for key in order]
    intro = "Keys as they stand in docstrings, in claims and in the notebooks.\n"
    pages.write("bibliography.md", "# Bibliography\n\n" + intro + "\n" + "\n".join(blocks))
