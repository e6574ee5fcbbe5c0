"""The poster line by line, with the claim that judges each line and its verdict."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path

from mdtheory_pages.files import Pages
from mdtheory_pages.ledger import cell
from proofs_check.poster_lines import LINES, Line


def write(pages: Pages, path: Path) -> None:
    """``poster.md`` from the lines and the ledger at ``path``."""
    rows = {row["id"]: row for row in json.loads(path.read_text(encoding="utf-8"))}
    judged = sum(bool(line.claims) for line in LINES)
    text = [
        "# The poster, line by line\n",
        "Every line of the {cite}`zhang2024metamida` poster, panel by panel, with the claims that "
        "judge it, or the reason why none does. "
        f"{judged} of {len(LINES)} lines have a claim; the others are settings, definitions and "
        "facts about data that is not here.\n",
    ]
    for panel, lines in groupby(LINES, key=lambda line: line.panel):
        text += [f"## {panel}\n", "| line | judged by | note |", "|---|---|---|"]
        text += [row_of(line, rows) for line in lines]
        text.append("")
    pages.write("poster.md", "\n".join(text) + "\n")


def row_of(line: Line, rows: dict[str, dict[str, object]]) -> str:
    """One line of the table."""
    judges = ", ".join(
        f"{{claim}}`{name}` {str(rows[name]['as_printed']).replace('_', ' ').lower()}"
        for name in line.claims
    )
    return f"| {cell(line.printed)} | {judges} | {cell(line.note)} |"
