"""The API reference is the public face: every public name in full on one page, nothing else."""

from __future__ import annotations

import importlib
import re
import sys
from collections import Counter

import pytest

from tests.docs.pages import DOCS

pytest.importorskip(
    "sphinxcontrib.bibtex", reason="the reference needs Sphinx, which comes with mdtheory[docs]"
)
sys.path.insert(0, str(DOCS / "_ext"))

from mdtheory_pages import api
from mdtheory_pages.files import Pages

import mdtheory

IN_FULL = re.compile(r"^\.\. (?:autoclass|autofunction|automodule|py:data):: ([\w.]+)$", re.M)
LISTED = re.compile(r"^\* :(?:py:obj|doc):`(\w+) <([\w.]+)>`: \S", re.M)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> dict[str, str]:
    """Every page of the reference by its name."""
    folder = tmp_path_factory.mktemp("reference")
    api.write(Pages(folder))
    return {path.stem: path.read_text() for path in (folder / "api").glob("*.rst")}


def test_every_public_name_stands_in_full_once(written):
    told = Counter(name for page in written.values() for name in IN_FULL.findall(page))
    assert [name for name, times in told.items() if times > 1] == []
    faces = {package.__name__ for package in api.packages()}
    assert set(told) == faces | set(api.homes().values())
    assert len(told) > 100


def test_every_page_lists_its_package_and_says_something_of_each(written):
    for package in api.packages():
        listed = dict(LISTED.findall(written[package.__name__]))
        assert sorted(listed) == sorted(package.__all__)
    assert dict(LISTED.findall(written["mdtheory.geometry"]))["Geometry"] == "mdtheory.Geometry"
    assert dict(LISTED.findall(written["mdtheory"]))["estimators"] == "mdtheory.inner.estimators"


def test_private_things_have_no_place():
    from mdtheory.models.conv4 import Conv4, ConvBlock

    assert api.public_name(ConvBlock) is None
    assert api.public_name(Conv4) == "mdtheory.models.Conv4"
    assert api.public_name(mdtheory.MetaLearner) == "mdtheory.MetaLearner"


def test_a_constant_is_described_where_it_is_made():
    said = api.docstring("mdtheory.models", "POLICIES", mdtheory.models.POLICIES)
    assert said.startswith("Whose statistics normalise an item")
    assert api.docstring("mdtheory.models", "LOST", object()) == ""


def test_an_alias_inside_a_type_has_its_name():
    given = ("(x: int)", "tuple[Tensor, TypeAliasForwardRef('Params')]")
    assert api.signature(None, "", "", None, None, *given) == ("(x: int)", "tuple[Tensor, Params]")
    assert api.signature(None, "", "", None, None, "()", "") == ("()", "")


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """A face that lists one name of two."""
    (tmp_path / "planted_api").mkdir()
    (tmp_path / "planted_api" / "__init__.py").write_text(
        "'Said. Of it.'\nfrom planted_api.one import Open\n__all__ = ['Open']\n"
    )
    (tmp_path / "planted_api" / "one.py").write_text(
        "class Open: 'An open one (alg. 1), e.g. this. And more.'\nclass Shut: 'Shut.'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(api, "FACES", ("planted_api",))
    yield importlib.import_module("planted_api")
    for name in [name for name in sys.modules if name.split(".")[0] == "planted_api"]:
        del sys.modules[name]


def test_what_a_face_does_not_list_is_left_out(planted):
    page = api.page(planted, api.homes())
    assert "Shut" not in page
    assert "<planted_api.Open>`: An open one (alg. 1), e.g. this.\n" in page
    assert IN_FULL.findall(page) == ["planted_api", "planted_api.Open"]
