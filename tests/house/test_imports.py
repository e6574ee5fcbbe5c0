"""Imports run one way between the folders of the library, whatever folders there are."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.house.imports import cycle, drawn, edges, imported, outside, rooms, witnesses

PACKAGE = Path(__file__).parents[2] / "mdtheory"


def test_no_import_runs_against_the_others():
    graph = edges(PACKAGE)
    assert len(graph) > 20
    circle = cycle(rooms(graph))
    assert not circle, "\n".join(["a circle of folders:", *witnesses(graph, circle)])


def test_the_library_uses_nothing_that_runs_on_top_of_it():
    assert not outside(edges(PACKAGE))


def test_no_circle_of_modules():
    assert not cycle(edges(PACKAGE))


def test_the_mathematics_stands_below_what_uses_it():
    """The folders' order as DESIGN and CONTRIBUTING state it, read off the imports."""
    order = drawn(edges(PACKAGE)).split("\n")
    place = {line.split(" -> ")[0]: n for n, line in enumerate(order)}
    ladder = ["core", "maps", "geometry", "inner", "meta", "run", "commands", "cli"]
    assert sorted(ladder, key=place.__getitem__) == ladder
    assert order[0].startswith("core")


@pytest.fixture
def small(tmp_path):
    """A package with one file per folder and no wrong import."""
    package = tmp_path / "mdtheory"
    uses = {
        "core": [],
        "maps": ["core"],
        "geometry": ["maps"],
        "inner": ["geometry"],
        "meta": ["inner", "data"],
        "data": ["core"],
    }
    for part, below in uses.items():
        (package / part).mkdir(parents=True)
        (package / part / "__init__.py").write_text("")
        lines = [f"from mdtheory.{other} import one\n" for other in below]
        (package / part / "one.py").write_text("".join(lines))
    (package / "__init__.py").write_text("from mdtheory.meta import one\n")
    (package / "cli.py").write_text("def run():\n    from mdtheory.meta import one\n")
    return package


def test_the_small_package_is_clean(small):
    graph = edges(small)
    assert ("mdtheory.cli", "mdtheory.meta.one") in graph
    assert not cycle(rooms(graph)) and not cycle(graph) and not outside(graph)
    assert drawn(graph).startswith("core -> \ndata -> core\nmaps -> core\n")


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("geometry/planted.py", "from mdtheory.inner import one"),
        ("geometry/planted.py", "import mdtheory.inner.one"),
        ("geometry/planted.py", "from mdtheory import inner"),
        ("geometry/planted.py", "from ..inner import one"),
        ("geometry/planted.py", "from .. import inner"),
        ("geometry/planted.py", "def late():\n    from mdtheory.meta import one"),
        ("maps/planted.py", "from mdtheory.geometry.one import Geometry"),
        ("core/planted.py", "from mdtheory import data"),
        ("data/planted.py", "from mdtheory.meta import one"),
        ("meta/planted.py", "from mdtheory.cli import run"),
    ],
)
def test_a_planted_back_edge_is_found(small, file, line):
    (small / file).write_text(line + "\n")
    graph = edges(small)
    circle = cycle(rooms(graph))
    planted = "mdtheory." + file.removesuffix(".py").replace("/", ".")
    assert any(line.startswith(planted) for line in witnesses(graph, circle))


@pytest.mark.parametrize("line", ["import proofs_check.engine", "from experiments import tables"])
def test_a_planted_import_of_the_top_is_found(small, line):
    (small / "meta" / "planted.py").write_text(line + "\n")
    assert len(outside(edges(small))) == 1


def test_an_import_for_type_checkers_alone_is_none(small):
    text = (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from mdtheory.meta import one\n"
    )
    (small / "core" / "planted.py").write_text(text)
    assert not cycle(rooms(edges(small)))


def test_a_planted_circle_is_found(small):
    (small / "inner" / "a.py").write_text("from mdtheory.inner import b\n")
    (small / "inner" / "b.py").write_text("from mdtheory.inner import c\n")
    (small / "inner" / "c.py").write_text("from .a import something\n")
    assert not cycle(rooms(edges(small)))
    assert cycle(edges(small)) == [
        "mdtheory.inner.a",
        "mdtheory.inner.b",
        "mdtheory.inner.c",
        "mdtheory.inner.a",
    ]


def test_imports_of_a_package_file_are_relative_to_itself(tmp_path):
    path = tmp_path / "__init__.py"
    path.write_text("from .base import Geometry\nfrom . import maml\n")
    assert imported("p.geometry", path, {"p.geometry.base", "p.geometry.maml"}) == {
        "p.geometry.base",
        "p.geometry.maml",
    }
