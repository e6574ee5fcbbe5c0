"""Imports run one way: base -> mirror -> geometry -> inner -> meta -> the face, with models and data beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.house.imports import BELOW, back_edges, cycle, drawn, edges, imported, layer

PACKAGE = Path(__file__).parents[2] / "mdtheory"


def test_no_import_runs_against_the_layers():
    graph = edges(PACKAGE)
    assert len(graph) > 20
    assert not back_edges(graph), "\n".join(["back edges:", *back_edges(graph), "the graph:", drawn(graph)])


def test_no_circle():
    assert not cycle(edges(PACKAGE))


def test_the_allowed_directions_have_no_circle_themselves():
    assert not cycle({(name, below) for name, allowed in BELOW.items() for below in allowed})


@pytest.fixture
def small(tmp_path):
    """A package with one file per layer and no wrong import."""
    package = tmp_path / "mdtheory"
    for part in ("mirror", "geometry", "inner", "meta", "models", "data"):
        (package / part).mkdir(parents=True)
        (package / part / "__init__.py").write_text("")
    (package / "__init__.py").write_text("")
    (package / "tree.py").write_text("import torch\n")
    (package / "cli.py").write_text("def run():\n    from mdtheory.meta import trainer\n")
    (package / "meta" / "trainer.py").write_text("from mdtheory import data, inner, tree\n")
    return package


def test_the_small_package_is_clean(small):
    assert edges(small) >= {("mdtheory.cli", "mdtheory.meta.trainer"), ("mdtheory.meta.trainer", "mdtheory.tree")}
    assert not back_edges(edges(small))


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("geometry/planted.py", "from mdtheory.inner import solver"),
        ("geometry/planted.py", "import mdtheory.inner.solver"),
        ("geometry/planted.py", "from mdtheory import inner"),
        ("geometry/planted.py", "from ..inner import solver"),
        ("geometry/planted.py", "from .. import inner"),
        ("geometry/planted.py", "def late():\n    from mdtheory.meta import learner"),
        ("mirror/planted.py", "from mdtheory.models import norm"),
        ("mirror/planted.py", "from mdtheory.geometry.base import Geometry"),
        ("models/planted.py", "from mdtheory.data import episodes"),
        ("data/planted.py", "from mdtheory.mirror import base"),
        ("inner/planted.py", "from mdtheory.data import episodes"),
        ("meta/planted.py", "from mdtheory import cli"),
        ("tree.py", "from mdtheory.cli import app"),
        ("tree.py", "from mdtheory import data"),
        ("meta/planted.py", "import proofs_check.engine"),
        ("cli.py", "from experiments import tables"),
    ],
)
def test_a_planted_back_edge_is_found(small, file, line):
    (small / file).write_text(line + "\n")
    found = back_edges(edges(small))
    assert len(found) == 1
    assert found[0].startswith("mdtheory." + file.removesuffix(".py").replace("/", "."))


def test_a_planted_circle_is_found(small):
    (small / "inner" / "a.py").write_text("from mdtheory.inner import b\n")
    (small / "inner" / "b.py").write_text("from mdtheory.inner import c\n")
    (small / "inner" / "c.py").write_text("from .a import something\n")
    assert not back_edges(edges(small))
    assert cycle(edges(small)) == ["mdtheory.inner.a", "mdtheory.inner.b", "mdtheory.inner.c", "mdtheory.inner.a"]


def test_layers_and_names():
    assert [layer(name) for name in ("mdtheory", "mdtheory.tree", "mdtheory.mirror.base", "mdtheory.cli")] == [
        "base",
        "base",
        "mirror",
        "face",
    ]


def test_imports_of_a_package_file_are_relative_to_itself(tmp_path):
    path = tmp_path / "__init__.py"
    path.write_text("from .base import Geometry\nfrom . import maml\n")
    assert imported("p.geometry", path, {"p.geometry.base", "p.geometry.maml"}) == {"p.geometry.base", "p.geometry.maml"}
