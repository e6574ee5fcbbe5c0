"""What the files of a package register, read off their text: a list without importing torch."""

from __future__ import annotations

import ast
import importlib.util
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """One registration: its slug, the docstring's first paragraph in one line, and ``source``."""

    name: str
    summary: str
    source: str


def first_paragraph(docstring: str | None) -> str:
    """The first paragraph in one line, empty for none.

    >>> first_paragraph("A step,\\n    and a map.\\n\\n    More.")
    'A step, and a map.'
    """
    return " ".join(inspect.cleandoc(docstring or "").split("\n\n")[0].split())


def entries(package: str) -> list[Entry]:
    """Everything that a class or function below ``package`` registers with a literal slug, by name.

    >>> [entry.name for entry in entries("mdtheory.geometry")][:3]
    ['certified', 'ecml', 'maml']
    """
    found = importlib.util.find_spec(package)
    places = (found.submodule_search_locations if found else None) or []
    files = (file for place in places for file in Path(place).rglob("*.py"))
    return sorted((entry for file in files for entry in _of(file)), key=lambda entry: entry.name)


def _of(file: Path) -> Iterator[Entry]:
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            for slug in filter(None, map(_slug, node.decorator_list)):
                yield Entry(slug, first_paragraph(ast.get_docstring(node)), _source(node))


def _slug(decorator: ast.expr) -> str:
    match decorator:
        case ast.Call(func=ast.Attribute(attr="register"), args=[ast.Constant(value=str(slug))]):
            return slug
    return ""


def _source(node: ast.ClassDef | ast.FunctionDef) -> str:
    for line in node.body:
        match line:
            case ast.Assign(targets=[ast.Name(id="source")], value=ast.Constant(value=str(source))):
                return source
    return ""
