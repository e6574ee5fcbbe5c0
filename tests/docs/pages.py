"""Where the documentation's pages are, and the blocks of code in them."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
GALLERY = sorted((DOCS / "gallery").glob("*.py"))
NOTEBOOKS = [
    *sorted((DOCS / "notebooks").glob("*.py")),
    DOCS / "how-to" / "own-model.py",
    DOCS / "how-to" / "recipes.py",
    *GALLERY,
]
GUIDES = [
    DOCS / "index.md",
    *sorted(DOCS.glob("from-*.md")),
    *sorted(DOCS.glob("for-*.md")),
    DOCS / "which-geometry.md",
    *sorted((DOCS / "how-to").glob("*.md")),
]


def prose(path: Path) -> str:
    """The Markdown of a page: all of a guide, the Markdown cells of a notebook."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return text
    cells = [cell for cell in text.split("# %%") if cell.startswith(" [markdown]")]
    return "\n".join(re.sub(r"^# ?", "", cell, flags=re.MULTILINE) for cell in cells)


def blocks(path: Path, language: str) -> list[str]:
    """The fenced blocks of one language on a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", prose(path), flags=re.MULTILINE | re.DOTALL)


def commands(path: Path) -> list[str]:
    """What a page asks its reader to type: the lines of its console blocks that start with a dollar
    sign, with the lines that a backslash continues.
    """
    whole = [re.sub(r"\\\n\s*", "", block) for block in blocks(path, "console")]
    lines = [line for block in whole for line in block.splitlines()]
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


def code(path: Path) -> list[str]:
    """The lines of a notebook's code cells that are shown without unfolding, without comments."""
    shown = [
        cell
        for cell in path.read_text(encoding="utf-8").split("# %%")[1:]
        if "[markdown]" not in cell.split("\n")[0]
    ]
    return [
        line
        for cell in shown
        if "hide-input" not in cell.split("\n")[0]
        for line in cell.split("\n")[1:]
    ]
