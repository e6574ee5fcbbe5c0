"""Every mutant of the critical code, by mutmut's operators, and a sample of them that an edit
elsewhere leaves alone.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import libcst as cst
import libcst.matchers as m
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import mutation_operators

ROOT = Path(__file__).parents[2]
SCOPE = (
    "mdtheory/maps/*.py",
    "mdtheory/geometry/base.py",
    "mdtheory/geometry/potential.py",
    "mdtheory/geometry/metamida.py",
    "mdtheory/maps/iaf/base.py",
    "mdtheory/maps/iaf/kronecker.py",
    "mdtheory/maps/iaf/kronecker_init.py",
    "mdtheory/maps/iaf/mlp.py",
    "mdtheory/inner/**/*.py",
)
PROSE = ("source", "__all__")  # assigned text that no code computes with


@dataclass(frozen=True)
class Mutant:
    """One changed node. ``key`` names it by content, not by line number, so that it survives edits
    elsewhere.
    """

    path: str
    function: str  # qualified name, or "" at module level
    before: str
    after: str
    repeat: int  # how many times the same change occurred earlier in the function
    line: int
    spans: tuple[
        tuple[int, int], ...
    ]  # lines of the statement and of all that it is in, innermost first
    original: cst.CSTNode
    changed: cst.CSTNode

    @property
    def key(self) -> str:
        """Twelve hexadecimal digits."""
        parts = "\0".join((self.path, self.function, self.before, self.after, str(self.repeat)))
        return hashlib.sha256(parts.encode()).hexdigest()[:12]


class Visitor(cst.CSTVisitor):
    """Collect mutants; see :func:`excluded` for what is left alone."""

    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self, path: str, module: cst.Module):
        super().__init__()
        self.path, self.module = path, module
        self.names: list[str] = []
        self.spans: list[tuple[int, int]] = [(1, len(module.code.splitlines()))]
        self.found: list[Mutant] = []
        self.seen: Counter[tuple[str, str, str]] = Counter()
        self.bodies = 0  # of functions, that we are in

    def on_visit_attribute(self, node: cst.CSTNode, attribute: str) -> None:
        self.bodies += isinstance(node, cst.FunctionDef) and attribute == "body"

    def on_leave_attribute(self, original_node: cst.CSTNode, attribute: str) -> None:
        self.bodies -= isinstance(original_node, cst.FunctionDef) and attribute == "body"

    def on_visit(self, node: cst.CSTNode) -> bool:
        if excluded(node, inside_function=len(self.names) > 0):
            return False
        if isinstance(node, cst.ClassDef | cst.FunctionDef):
            self.names.append(node.name.value)
        if isinstance(node, cst.BaseStatement | cst.SimpleStatementLine):
            self.spans.append(self._lines(node))
        for kind, operator in mutation_operators:
            if isinstance(node, kind):
                for changed in operator(node):
                    self._add(node, changed)
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        if isinstance(original_node, cst.ClassDef | cst.FunctionDef):
            self.names.pop()
        if isinstance(original_node, cst.BaseStatement | cst.SimpleStatementLine):
            self.spans.pop()

    def _add(self, node: cst.CSTNode, changed: cst.CSTNode) -> None:
        function, before, after = ".".join(self.names), self._code(node), self._code(changed)
        if before == after:
            return
        repeat = self.seen[function, before, after]
        self.seen[function, before, after] += 1
        line = self.get_metadata(PositionProvider, node, None)
        first = line.start.line if line else self.spans[-1][0]
        last = line.end.line if line else first
        statement = (self.spans[-1][0], last)
        spans = (statement, *reversed(self.spans)) if self.bodies else self._scopes()
        self.found.append(
            Mutant(self.path, function, before, after, repeat, first, spans, node, changed)
        )

    def _scopes(self) -> tuple[tuple[int, int], ...]:
        """What is executed at import is covered by no test: signatures and class attributes count
        as their whole scope.
        """
        return tuple(reversed(self.spans[: len(self.names) + 1]))

    def _code(self, node: cst.CSTNode) -> str:
        return " ".join(self.module.code_for_node(node).split())

    def _lines(self, node: cst.CSTNode) -> tuple[int, int]:
        where = self.get_metadata(PositionProvider, node)
        return where.start.line, where.end.line


def excluded(node: cst.CSTNode, *, inside_function: bool) -> bool:
    """What has no behaviour of its own: imports, annotations, docstrings, decorators, the text of
    errors, prose, type aliases.

    ``raise`` is excluded with its arguments, the condition that leads to it is not; calls of
    ``len`` and ``isinstance`` are, as in mutmut, which also excludes every decorated function:
    those are included here.
    """
    if isinstance(node, cst.Import | cst.ImportFrom | cst.Annotation | cst.Decorator | cst.Raise):
        return True
    if isinstance(node, cst.Expr) and isinstance(
        node.value, cst.SimpleString | cst.ConcatenatedString
    ):
        return True
    if (
        isinstance(node, cst.Call)
        and isinstance(node.func, cst.Name)
        and node.func.value in ("len", "isinstance")
    ):
        return True
    if isinstance(node, cst.Assign):
        target = node.targets[0].target
        if isinstance(target, cst.Name) and target.value in PROSE:
            return True
        return not inside_function and not m.findall(node.value, m.Call() | m.Integer() | m.Float())
    return False


class Source:
    """One file: its mutants in the order of the text, and the text with one of them in place."""

    def __init__(self, path: str):
        wrapper = MetadataWrapper(cst.parse_module((ROOT / path).read_text()))
        visitor = Visitor(path, wrapper.module)
        wrapper.visit(visitor)
        self.module, self.mutants = wrapper.module, visitor.found

    def planted(self, mutant: Mutant) -> str:
        """The whole file with the change."""
        changed = self.module.deep_replace(mutant.original, mutant.changed)
        return changed.code  # type: ignore[union-attr]


def sources() -> dict[str, Source]:
    """Every file in scope."""
    paths = sorted(
        {path.relative_to(ROOT).as_posix() for pattern in SCOPE for path in ROOT.glob(pattern)}
    )
    return {path: Source(path) for path in paths}


def sample(mutants: Iterable[Mutant], *, size: int, seed: int) -> list[Mutant]:
    """The ``size`` mutants with the smallest sha256(seed, key): a uniform sample, of which an edit
    changes few members.
    """
    return sorted(
        mutants, key=lambda mutant: hashlib.sha256(f"{seed}:{mutant.key}".encode()).digest()
    )[:size]
