"""What the public face is, and what each of its names owes: an import, a docstring with shapes or
units, an example.
"""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
GUIDES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
GUIDES += sorted((ROOT / "docs" / "how-to").glob("[!.]*"))
PAGES = [*GUIDES, *sorted((ROOT / "docs" / "notebooks").glob("*.py"))]

SAYS_SIZES = re.compile(r"\b(?:shapes?|units?)\b")

ALONE = """
import importlib, json, os, sys
package, failed = sys.argv[1], {}
for name in sys.argv[2:]:
    importlib.import_module(name)
assert not [name for name in sys.modules if name.split(".")[0] == package]
names = dir(importlib.import_module(package))
for name in sys.modules.copy():
    if name.split(".")[0] == package:
        del sys.modules[name]
for name in names:
    read, write = os.pipe()
    if os.fork() == 0:
        try:
            exec(f"from {package} import {name}", {})
            said = ""
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(write, said.encode()[:1000])
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        if said := pipe.read():
            failed[name] = said
    os.wait()
print(json.dumps([names, failed]))
"""
"""Imports every name of a package in an interpreter that has nothing else of the package: one fork
for each, since starting Python and torch anew takes seconds.
"""


def imported_alone(
    package: str, *foreign: str, path: Path = ROOT
) -> tuple[list[str], dict[str, str]]:
    """The names that ``dir(package)`` lists, and what was said where one could not be imported by
    itself. ``foreign``: what others need, imported once.
    """
    done = subprocess.run(
        [sys.executable, "-c", ALONE, package, *foreign], capture_output=True, text=True, cwd=path
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    names, failed = json.loads(done.stdout)
    return names, failed


def programs(path: Path) -> list[str]:
    """The Python on a page: its fenced blocks, or all of a Python file and the blocks in its
    comments.
    """
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return fenced(text)
    if path.suffix == ".py":
        return [text, *fenced(re.sub(r"^# ?", "", text, flags=re.MULTILINE))]
    return []


def fenced(text: str) -> list[str]:
    """The fenced blocks of Python in a Markdown text."""
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def used(program: str, package: str = "mdtheory") -> Iterator[str]:
    """The dotted names of the package that a program imports or reads, such as
    ``mdtheory.models.Conv4``.
    """
    tree = ast.parse(program)
    bound = {}  # what a name in the program stands for
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == package:
                    yield alias.name
                    bound[alias.asname or package] = alias.name if alias.asname else package
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == package:
            for alias in node.names:
                yield f"{node.module}.{alias.name}"
                bound[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            first, _, rest = ast.unparse(node).partition(".")
            if first in bound and re.fullmatch(r"[\w.]+", rest):
                yield f"{bound[first]}.{rest}"


def private(dotted: str) -> bool:
    """Whether the way to a name leaves the public face: a package that does not list the next name.

    Below a class, a function or a module without a list, everything is its own affair.
    """
    package, *steps = dotted.split(".")
    here: object = importlib.import_module(package)
    for step in steps:
        if not inspect.ismodule(here) or not hasattr(here, "__path__"):
            return False
        if step not in here.__all__:
            return not step.startswith("__")
        here = getattr(here, step)
    return False


def shown(pages: Iterable[Path], package: str = "mdtheory") -> set[str]:
    """The names of the face, ``mdtheory.X``, that some page uses."""
    return {
        name
        for page in pages
        for program in programs(page)
        for dotted in used(program, package)
        for name in [".".join(dotted.split(".")[:2])]
    }


def examples(thing: object) -> int:
    """How many lines of examples there are in the docstrings of an object and its methods."""
    if isinstance(thing, ModuleType):
        return len(doctest.DocTestParser().get_examples(thing.__doc__ or ""))
    found = doctest.DocTestFinder(exclude_empty=True).find(thing, getattr(thing, "__name__", "x"))
    return sum(len(one.examples) for one in found)


def owing(package: ModuleType, on_pages: set[str]) -> dict[str, str]:
    """What each public name of a package still lacks, in words; a name that lacks nothing is left
    out.
    """
    found = {}
    for name in dir(package):
        thing = getattr(package, name)
        text = inspect.getdoc(thing) or ""
        missing = [] if text else ["a docstring"]
        if not SAYS_SIZES.search(text):
            missing.append("shapes or units in its docstring")
        if not examples(thing) and f"{package.__name__}.{name}" not in on_pages:
            missing.append("a doctest or a page that uses it")
        if missing:
            found[name] = ", ".join(missing)
    return found
