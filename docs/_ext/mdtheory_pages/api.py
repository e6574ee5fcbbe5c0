"""The API reference, made from the public face: one page per package that it lists, every name
once, docstrings made safe for reStructuredText.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

from mdtheory_pages.bibliography import cited
from mdtheory_pages.files import Pages
from mdtheory_pages.typeset import typeset

FACES = ("mdtheory", "proofs_check")
"""What a reader imports; whatever their ``__all__`` does not lead to is private."""


def packages() -> list[ModuleType]:
    """The public packages, the shallow before the deep: the faces, and every package that a public
    one lists.
    """
    found = [importlib.import_module(name) for name in FACES]
    for package in found:  # grows
        listed = [getattr(package, name) for name in package.__all__]
        found += [one for one in listed if is_package(one) and one not in found]
    return found


def is_package(thing: Any) -> bool:
    """Whether something is a package with a list of its names."""
    return inspect.ismodule(thing) and hasattr(thing, "__path__")


def homes() -> dict[int, str]:
    """The shortest public name of every public thing but packages, by the thing's ``id``."""
    found: dict[int, str] = {}
    for package in packages():
        for name in package.__all__:
            thing = getattr(package, name)
            if not is_package(thing):
                found.setdefault(id(thing), f"{package.__name__}.{name}")
    return found


def public_name(thing: Any) -> str | None:
    """Where the reference describes a class or function; ``None`` for what is private."""
    return homes().get(id(thing))


def write(pages: Pages) -> None:
    """One page per public package and a page that lists them."""
    known, lines = homes(), ["# API\n", "Every public name, with formula, shapes and source.\n"]
    lines += ["```{toctree}", ":maxdepth: 1\n"]
    for package in packages():
        pages.write(f"api/{package.__name__}.rst", page(package, known))
        lines.append(package.__name__)
    pages.write("api/index.md", "\n".join([*lines, "```\n"]))


def page(package: ModuleType, known: dict[int, str]) -> str:
    """A package's docstring, a list of its names, and those that have no shorter name in full."""
    title = package.__name__
    lines = [title, "=" * len(title), "", f".. automodule:: {title}", ""]
    things = {name: getattr(package, name) for name in package.__all__}
    lines += [entry(title, name, thing, known) for name, thing in things.items()]
    own = {name: one for name, one in things.items() if known.get(id(one)) == f"{title}.{name}"}
    for name, thing in sorted(own.items(), key=lambda item: inspect.ismodule(item[1])):
        lines += ["", *described(package, name, thing)]
    return "\n".join(lines) + "\n"


def entry(package: str, name: str, thing: Any, known: dict[int, str]) -> str:
    """A line of a page's list: the name, with its link, and its first sentence."""
    if is_package(thing):
        link = f":doc:`{name} <{thing.__name__}>`"
    else:
        link = f":py:obj:`{name} <{known[id(thing)]}>`"
    said = " ".join(docstring(package, name, thing).split("\n\n")[0].split())
    return f"* {link}: {safe(_SENTENCE.split(said)[0])}"


def described(package: ModuleType, name: str, thing: Any) -> list[str]:
    """The directives that print one thing in full."""
    dotted = f"{package.__name__}.{name}"
    members = ["   :members:", "   :show-inheritance:"]
    if inspect.ismodule(thing):
        title = thing.__name__
        return [title, "-" * len(title), "", f".. automodule:: {title}", *members]
    if inspect.isclass(thing):
        return [f".. autoclass:: {dotted}", *members]
    if inspect.isroutine(thing):
        return [f".. autofunction:: {dotted}"]
    said = safe(docstring(package.__name__, name, thing)).split("\n")
    return [f".. py:data:: {dotted}", "", *(f"   {line}" for line in said)]


def docstring(package: str, name: str, thing: Any) -> str:
    """What is said of a thing: its own docstring, or the text below the assignment of a constant
    in whichever module of the package made it.
    """
    if inspect.ismodule(thing) or inspect.isclass(thing) or inspect.isroutine(thing):
        return inspect.getdoc(thing) or ""
    for title, module in sorted(sys.modules.items()):
        if title.startswith(f"{package}.") and vars(module).get(name) is thing:
            body = ast.parse(Path(module.__file__ or "").read_text(encoding="utf-8")).body
            for made, after in pairwise(body):
                targets = getattr(made, "targets", [getattr(made, "target", None)])
                if name in [getattr(target, "id", None) for target in targets] and isinstance(
                    after, ast.Expr
                ):
                    return inspect.cleandoc(ast.literal_eval(after.value))
    return ""


def process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are plain text with formulas and a few roles; escape what reStructuredText would
    misread.
    """
    lines[:] = safe("\n".join(lines)).split("\n")


def signature(
    app: Any, what: str, name: str, obj: Any, options: Any, given: str, returned: str
) -> tuple[str, str]:
    """An alias inside another type by its name; Sphinx prints its own placeholder."""
    placeholder = re.compile(r"TypeAliasForwardRef\('(\w+)'\)")
    return tuple(placeholder.sub(r"\1", text) if text else text for text in (given, returned))


_SENTENCE = re.compile(r"(?<=[a-z)`]\.) (?=[A-Z`])")
_KEEP = re.compile(r"``.+?``|:[\w:]+:`[^`]+`|`[^`]+`(?!`)", re.DOTALL)
_EMPHASIS = re.compile(r"(?<![\w*\\])\*(\w[^*\n]{0,60}?\w|\w)\*(?![\w*])")


def safe(text: str) -> str:
    """The text with indented paragraphs as literal blocks and everything that is not markup
    escaped.
    """
    blocks = re.split(r"(\n\s*\n)", text)
    return "".join(block if i % 2 else _block(block) for i, block in enumerate(blocks))


def _block(block: str) -> str:
    lines = block.split("\n")
    filled = [line for line in lines if line.strip()]
    if not filled or filled[0].lstrip().startswith(">>>"):
        return block
    if all(line.startswith("    ") for line in filled):
        return ".. code-block:: none\n\n" + block
    return _inline(block[:-1] if block.endswith("::") else block)


def _inline(text: str) -> str:
    pieces, last = [], 0
    for kept in _KEEP.finditer(text):
        pieces += [_plain(text[last : kept.start()]), kept[0]]
        last = kept.end()
    return "".join([*pieces, _plain(text[last:])])


def _plain(text: str) -> str:
    pieces = typeset(text).split("$")
    return "".join(f":math:`{p}`" if i % 2 else _words(p) for i, p in enumerate(pieces))


def _words(text: str) -> str:
    pieces, last = [], 0
    for word in _EMPHASIS.finditer(text):
        pieces += [_escape(text[last : word.start()]), word[0]]
        last = word.end()
    return "".join([*pieces, _escape(text[last:])])


def _escape(text: str) -> str:
    escaped = re.sub(r"([\\*|_`])", r"\\\1", text)
    return cited(escaped, ":cite:")
