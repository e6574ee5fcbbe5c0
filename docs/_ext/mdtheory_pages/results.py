"""The results page: whatever tables and figures the laboratory has made from records."""

from __future__ import annotations

import re
from pathlib import Path

from mdtheory_pages.files import Pages

EMPTY = """\
No record is here yet. A record is a finished run with its configuration, its seeds and every task's score. The tables on
this page are made from records by a command, never by hand. Once `experiments/tables/` holds tables, they appear here.
"""


def write(pages: Pages, experiments: Path) -> None:
    """``results.md`` from every ``experiments/tables/*.md``, in the order of their names."""
    tables = sorted((experiments / "tables").glob("*.md"))
    records = sorted(path.name for path in (experiments / "records").glob("*") if path.is_dir())
    lines = ["# Results\n"]
    if not tables and not records:
        lines.append(EMPTY)
    for path in tables:
        body = path.read_text(encoding="utf-8").strip()
        lines.append(re.sub(r"^#", "##", body, flags=re.MULTILINE) + "\n")
    if records:
        lines += ["## Records\n", *(f"- `experiments/records/{name}`" for name in records), ""]
    pages.write("results.md", "\n".join(lines))
