"""The import graph of the library, read from its source without importing it."""

from __future__ import annotations

import ast
from pathlib import Path

BASE = ("typing", "tree", "seeding", "registry", "objectives", "stops", "cache_dir")
BELOW = {
    "base": set(),
    "config": {"base"},
    "kernels": {"base"},
    "models": {"base", "kernels"},
    "data": {"base"},
    "mirror": {"base"},
    "geometry": {"base", "models", "mirror"},
    "inner": {"base", "models", "mirror", "geometry"},
    "meta": {"base", "config", "models", "data", "mirror", "geometry", "inner"},
}
"""What each layer may import besides itself. Every other part of the package is the face (cli, plots, ...): it may import
all of these, and none of them may import it."""

Edge = tuple[str, str]


def layer(module: str) -> str:
    """The layer of ``mdtheory.<part>...``; the package itself, which only holds the version, is base."""
    part = [*module.split("."), ""][1]
    if part in BELOW:
        return part
    return "base" if part in ("", *BASE) else "face"


def modules(package: Path) -> dict[str, Path]:
    """Dotted names of all modules below a package folder."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = [package.name, *path.relative_to(package).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(module: str, path: Path, known: set[str]) -> set[str]:
    """Every module that the file names in an import statement, at its head or inside a function.

    ``from package import name`` is an edge to ``package.name`` where that is a module, and to ``package`` otherwise.
    """
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    targets = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            targets |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")
            origin = (
                ".".join([*above[: len(above) + 1 - node.level], *filter(None, [node.module])]) if node.level else node.module
            )
            inside = {f"{origin}.{alias.name}" for alias in node.names}
            targets |= {name if name in known else origin for name in inside}
    return targets - {module}


def edges(package: Path) -> set[Edge]:
    """(importer, imported) for all imports of the package's own modules, and of the folders that run on top of it."""
    known = modules(package)
    tops = {package.name, "proofs_check", "experiments", "tests"}
    found = {(name, target) for name, path in known.items() for target in imported(name, path, set(known))}
    return {(name, target) for name, target in found if target.split(".")[0] in tops}


def back_edges(graph: set[Edge]) -> list[str]:
    """The imports that run against the direction of the layers."""
    wrong = []
    for importer, target in sorted(graph):
        inside = target.split(".")[0] == importer.split(".")[0]
        low, high = layer(importer), layer(target)
        if not inside or (low != "face" and high != low and high not in BELOW[low]):
            wrong.append(f"{importer} ({low}) -> {target} ({high if inside else 'outside'})")
    return wrong


def cycle(graph: set[Edge]) -> list[str]:
    """One circle of modules, or nothing."""
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


def drawn(graph: set[Edge]) -> str:
    """The layers as text, one line each: what imports what."""
    pairs = {(layer(importer), layer(target)) for importer, target in graph} - {(name, name) for name in (*BELOW, "face")}
    return "\n".join(f"{name} -> {', '.join(sorted(b for a, b in pairs if a == name))}" for name in (*BELOW, "face"))
