"""The import graph of the library, read from its source without importing it.

Rooms are the folders themselves, one room each; a file beside the package's ``__init__.py`` is a
room of its own. ``import`` statements for type checkers only count for nothing, nor does an
``__init__`` that re-exports lazily.
"""

from __future__ import annotations

import ast
from itertools import pairwise
from pathlib import Path

TOPS = ("proofs_check", "experiments", "tests")
"""What runs on top of the library, and is never imported by it."""

Edge = tuple[str, str]


def room(module: str) -> str:
    """``mdtheory.maps.iaf.base`` -> ``maps``; the package itself is the face, named ''."""
    return [*module.split("."), ""][1]


def modules(package: Path) -> dict[str, Path]:
    """Dotted names of all modules below a package folder."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = [package.name, *path.relative_to(package).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def statements(tree: ast.AST) -> list[ast.stmt]:
    """Every import statement that runs: those below ``if TYPE_CHECKING`` do not."""
    found: list[ast.stmt] = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.append(node)
        found += statements(node)
    return found


def imported(module: str, path: Path, known: set[str]) -> set[str]:
    """Every module that the file names in an import statement, at its head or inside a function.

    ``from package import name`` is an edge to ``package.name`` where that is a module, and to
    ``package`` otherwise.
    """
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    targets = set()
    for node in statements(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            targets |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")
            kept = above[: len(above) + 1 - node.level] if node.level else []
            origin = ".".join([*kept, *filter(None, [node.module])])
            inside = {f"{origin}.{alias.name}" for alias in node.names}
            targets |= {name if name in known else origin for name in inside}
    return targets - {module}


def edges(package: Path) -> set[Edge]:
    """(importer, imported) for all imports of the package's own modules, and of the folders that
    run on top of it.
    """
    known = modules(package)
    found = {
        (name, target)
        for name, path in known.items()
        for target in imported(name, path, set(known))
    }
    return {
        (name, target)
        for name, target in found
        if target.split(".")[0] in (package.name, *TOPS) and target != package.name
    }


def rooms(graph: set[Edge]) -> set[Edge]:
    """Which room uses which other room of the package."""
    pairs = {(room(a), room(b)) for a, b in graph if a.split(".")[0] == b.split(".")[0]}
    return {(a, b) for a, b in pairs if a != b}


def outside(graph: set[Edge]) -> list[str]:
    """The imports of what runs on top of the library."""
    return [f"{a} -> {b}" for a, b in sorted(graph) if b.split(".")[0] in TOPS]


def cycle(graph: set[Edge]) -> list[str]:
    """One circle of modules or rooms, or nothing."""
    follows: dict[str, list[str]] = {}
    for importer, target in sorted(graph):
        follows.setdefault(importer, []).append(target)
    done: set[str] = set()

    def visit(module: str, trail: list[str]) -> list[str]:
        if module in trail:
            return [*trail[trail.index(module) :], module]
        if module in done:
            return []
        for target in follows.get(module, []):
            if circle := visit(target, [*trail, module]):
                return circle
        done.add(module)
        return []

    return next((circle for module in follows if (circle := visit(module, []))), [])


def witnesses(graph: set[Edge], circle: list[str]) -> list[str]:
    """The imports that a circle of rooms is made of, one line each."""
    steps = set(pairwise(circle))
    return [f"{a} -> {b}" for a, b in sorted(graph) if (room(a), room(b)) in steps]


def drawn(graph: set[Edge]) -> str:
    """The rooms from the ground up, one line each: what each one uses."""
    uses: dict[str, set[str]] = {}
    for a, b in rooms(graph):
        uses.setdefault(a, set()).add(b)
        uses.setdefault(b, set())
    lines: list[str] = []
    placed: set[str] = set()
    while ready := sorted(name for name in uses if name not in placed and uses[name] <= placed):
        lines += [f"{name or 'face'} -> {', '.join(sorted(uses[name]))}" for name in ready]
        placed |= set(ready)
    return "\n".join(lines)
