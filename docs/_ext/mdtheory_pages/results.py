"""The results: the pages that the laboratory has made from records, with their pictures."""

from __future__ import annotations

import re
from pathlib import Path

from mdtheory_pages.files import Pages
from mdtheory_pages.typeset import typeset

EMPTY = """\
# Results

No record is here yet. A record is a finished run with its configuration, its seeds and every task's
score. The tables on this page are made from records by `python -m experiments.tables --write`,
never by hand.
"""
LINKED = re.compile(r"(\]\([^)\s]+\)|^\||\s\|\s|\|$)")
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def write(pages: Pages, experiments: Path) -> None:
    """``results/*.md`` from ``experiments/results`` and the questions that were asked before the
    runs.
    """
    sources = sorted((experiments / "results").glob("*.md"))
    if not any(path.name == "index.md" for path in sources):
        pages.write("results/index.md", EMPTY)
        return
    questions = experiments / "QUESTIONS.md"
    sources += [questions] if questions.is_file() else []
    names = {path.name for path in sources}
    for path in sources:
        text = LINK.sub(
            lambda match, path=path: _link(match, path.parent, names, pages),
            path.read_text(encoding="utf-8"),
        )
        text = typeset_lines(text)
        if path.name == "index.md":
            others = "\n".join(sorted(name.removesuffix(".md") for name in names - {"index.md"}))
            text += f"\n```{{toctree}}\n:hidden:\n\n{others}\n```\n"
        pages.write(f"results/{path.name}", text)


def typeset_lines(text: str) -> str:
    """A page with the formulas of its prose and cells typeset; code and links stay as they are."""
    fenced, lines = False, []
    for line in text.split("\n"):
        fenced ^= line.startswith("```")
        plain = not fenced and not line.startswith(("|--", "    ", "```", "![", "<"))
        pieces = LINKED.split(line) if plain else [line]
        lines.append("".join(p if i % 2 or not plain else typeset(p) for i, p in enumerate(pieces)))
    return "\n".join(lines)


def _link(match: re.Match[str], folder: Path, names: set[str], pages: Pages) -> str:
    """A link to another page of the results, a copied picture, or, where there is nothing to link
    to, its text.
    """
    picture, text, target = match.groups()
    if re.match(r"[a-z]+:|#", target):
        return match[0]
    name = Path(target).name
    if picture and (folder / target).is_file():
        pages.copy(f"results/{name}", (folder / target).read_bytes())
        return f"![{text}]({name})"
    return f"[{text}]({name})" if name in names else text
