"""The public face is lazy, complete and documented, and is all that a reader is shown."""

from __future__ import annotations

import importlib
import inspect
import sys
from types import ModuleType

import pytest

import mdtheory
from tests.house.face import GUIDES, PAGES, imported_alone, owing, private, programs, shown, used

PROMISED = """
    AdaptedModel ClassImages DualMap Episode EpisodeStream EpisodeTask Estimate Estimator
    FunctionTask Geometry GlyphSet GradientStep MetaGradient MetaLearner MetaTrainer MirrorMap
    Objective Problem Scores StepRule Task Trace descend estimate evaluate load open_class_folders
    open_mini_imagenet paired states
    estimators geometry maps models
"""
REGISTRIES = {
    "estimators": "estimators",
    "geometry": "geometries",
    "maps": "maps",
    "models": "models",
}


def packages(package: ModuleType = mdtheory) -> list[ModuleType]:
    """The public packages: the library, and whatever packages a public one lists."""
    listed = [getattr(package, name) for name in package.__all__]
    inner = [one for one in listed if inspect.ismodule(one) and hasattr(one, "__path__")]
    return list(dict.fromkeys([package, *(deep for one in inner for deep in packages(one))]))


def test_every_name_imports_by_itself():
    names, failed = imported_alone("mdtheory", "torch", "scipy.special", "pydantic")
    assert failed == {}
    assert len(names) >= 20
    assert set(PROMISED.split()) <= set(names)


def test_every_name_says_its_sizes_and_is_shown_at_work():
    assert owing(mdtheory, shown(PAGES)) == {}


@pytest.mark.parametrize("package", packages(), ids=lambda one: one.__name__)
def test_every_listed_name_is_there_and_no_submodule_hides_it(package):
    assert dir(package) == sorted(package.__all__) or "__dir__" not in vars(package)
    for name in package.__all__:
        thing = getattr(package, name)
        module = sys.modules.get(f"{package.__name__}.{name}")
        if module is not None and thing is not module:
            assert package.__name__ == "mdtheory.contract"  # imported at once, in this order


@pytest.mark.parametrize("package", REGISTRIES)
def test_every_registered_class_is_public(package):
    """A new file registers itself; a line in ``__init__.pyi`` makes its class public."""
    face = getattr(mdtheory, package)
    registry = getattr(face, REGISTRIES[package])
    public = {id(getattr(face, name)) for name in face.__all__}
    made = {slug: registry.get(slug) for slug in registry.names()}
    ours = {
        slug: one
        for slug, one in made.items()
        if one.__module__.startswith("mdtheory.") and inspect.isclass(one)
    }
    assert len(ours) >= 4
    assert {slug for slug, one in ours.items() if id(one) not in public} == set()


def test_the_guides_use_nothing_but_the_face():
    found = {
        f"{page.name}: {dotted}"
        for page in GUIDES
        for program in programs(page)
        for dotted in used(program)
    }
    assert len(found) >= 20
    assert {one for one in found if private(one.split(": ")[1])} == set()


@pytest.mark.parametrize(
    ("program", "names"),
    [
        (
            "import mdtheory\nmdtheory.models.conv4.Conv4(channels=2)",
            {"mdtheory.models.conv4.Conv4"},
        ),
        ("from mdtheory.maps.base import DualMap", {"mdtheory.maps.base.DualMap"}),
        ("from mdtheory import models as m\nm.base.seeded(0)", {"mdtheory.models.base.seeded"}),
        ("def f():\n    import mdtheory.run.build", {"mdtheory.run.build"}),
    ],
)
def test_a_planted_private_name_is_found(program, names):
    assert {dotted for dotted in used(program) if private(dotted)} >= names


@pytest.mark.parametrize(
    "program",
    [
        "import mdtheory\nmdtheory.models.Conv4(channels=2).blocks[0]\nmdtheory.__version__",
        "from mdtheory.core import tree\ntree.norm({})",
        "from mdtheory import geometry\ngeometry.MetaMiDA.source.upper()",
        "import torch\ntorch.nn.functional.relu",
    ],
)
def test_the_face_is_not_taken_for_private(program):
    assert [dotted for dotted in used(program) if private(dotted)] == []


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """A package whose names fail one by one."""
    folder = tmp_path / "planted_face"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "import lazy_loader\n"
        "__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)\n"
    )
    (folder / "__init__.pyi").write_text(
        "from .fine import bare, good, paged, sizeless, unshown\nfrom .circle import first\n"
        "from .gone import lost\n"
    )
    (folder / "fine.py").write_text(
        "def bare(): pass\n"
        "def good(): 'shape: ()\\n\\n>>> 1\\n1\\n'\n"
        "def paged(): 'units: seconds'\n"
        "def sizeless(): 'Said.\\n\\n>>> 1\\n1\\n'\n"
        "def unshown(): 'shape: ()'\n"
    )
    (folder / "circle.py").write_text(
        "from planted_face import second\n'shape: ()\\n\\n>>> 1\\n1\\n'\nfirst = 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] == "planted_face"]:
        del sys.modules[name]


def test_planted_imports_that_fail_are_found(planted):
    names, failed = imported_alone("planted_face", path=planted)
    assert names == ["bare", "first", "good", "lost", "paged", "sizeless", "unshown"]
    assert set(failed) == {"first", "lost"}
    assert failed["lost"].startswith("ModuleNotFoundError")


def test_planted_debts_are_found(planted):
    (planted / "planted_face" / "__init__.pyi").write_text(
        "from .fine import bare, good, paged, sizeless, unshown\n"
    )
    (planted / "page.md").write_text("```python\nfrom planted_face import paged\n```\n")
    pages = shown([planted / "page.md"], "planted_face")
    assert owing(importlib.import_module("planted_face"), pages) == {
        "bare": "a docstring, shapes or units in its docstring, a doctest or a page that uses it",
        "sizeless": "shapes or units in its docstring",
        "unshown": "a doctest or a page that uses it",
    }
