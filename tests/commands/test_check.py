"""``mdtheory check``: the contract of a geometry from a file or a package outside, sound or
broken.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from mdtheory.contract.geometry import PROPERTIES
from mdtheory.core.registry import Registry
from mdtheory.geometry import geometries as registry
from tests.commands.runs import call, refused

EXAMPLE = Path(__file__).parents[2] / "docs" / "how-to" / "momentum.py"

HEAD = """
from mdtheory.geometry import Geometry, GradientStep, geometries

class Rule(GradientStep):
    def step(self, meta, state, grad, *, task_lr, k, pull):
        for name, g in grad.items():
            state["z." + name].sub_(task_lr * g)
        return state
"""
BROKEN = (
    HEAD
    + """
@geometries.register("broken")
class Mine(Geometry):
    def __init__(self):
        super().__init__(rule=Rule())
"""
)


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """The registry of a new process."""
    registry.names()
    monkeypatch.setattr(registry, "_factories", dict(registry._factories))


def test_the_example_of_the_docs_passes_the_whole_contract():
    result = call("check", "momentum", "--plugin", EXAMPLE)
    lines = result.stdout.splitlines()
    assert result.exit_code == 0, result.output
    assert [line.split(":")[0] for line in lines] == [f"OK    {name}" for name in PROPERTIES]
    assert (
        result.stdout in EXAMPLE.with_name("own-geometry.md").read_text()
    )  # the page shows this very output


def test_a_broken_plug_in_is_told_what_is_wrong_line_by_line(tmp_path):
    (tmp_path / "mine.py").write_text(BROKEN)
    result = call("check", "broken", "--plugin", tmp_path / "mine.py", "--json")
    findings = {one["check"]: one for one in json.loads(result.stdout)}
    assert result.exit_code == 1 and list(findings) == list(PROPERTIES)
    assert "Mine must have a docstring, got none" in findings["described"]["found"]
    assert (
        "step must leave its arguments as they are, but it changed 'z."
        in findings["state"]["found"]
    )
    assert findings["addressed"]["ok"] and not findings["described"]["ok"]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            HEAD + '@geometries.register("maml")\nclass Mine(Geometry):\n    "Mine."\n',
            "geometry 'maml' is registered twice; choose",
        ),
        ("def f(:", "must be Python that can be imported, got"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("class Mine(Geometry): pass", "NameError: name 'Geometry' is not defined"),
        (HEAD, "a component must be one of the registered names, got 'broken'"),
    ],
    ids=["name clash", "no Python", "missing module", "missing name", "registers nothing"],
)
def test_a_plug_in_that_cannot_be_used_is_one_sentence(tmp_path, source, said):
    (tmp_path / "mine.py").write_text(source)
    assert said in refused(call("check", "broken", "--plugin", tmp_path / "mine.py"))


@pytest.mark.parametrize("device", ["cuda:77", "meta", "gpu"])
def test_a_device_that_is_not_there_is_refused(device):
    assert "device must" in refused(call("check", "maml", "--device", device))


def test_an_installed_package_offers_its_geometry_by_entry_point(tmp_path, monkeypatch):
    """A distribution as pip leaves it: a module and its metadata on the path, nothing else."""
    (tmp_path / "momentum_geometry.py").write_text(
        EXAMPLE.read_text().replace('"momentum"', '"installed"')
    )
    place = tmp_path / "momentum_geometry-1.0.dist-info"
    place.mkdir()
    (place / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: momentum-geometry\nVersion: 1.0\n"
    )
    (place / "entry_points.txt").write_text("[mdtheory.geometry]\ninstalled = momentum_geometry\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    monkeypatch.setattr(registry, "_discovered", False)
    assert "installed" in registry.names()
    assert "installed" in {one["name"] for one in json.loads(call("geometries", "--json").stdout)}
    assert Registry("other", "mdtheory.geometry").names() == []


def test_the_list_says_what_each_geometry_does():
    result = call("geometries", "--plugin", EXAMPLE)
    text = " ".join(result.stdout.replace("│", " ").split())
    assert result.exit_code == 0
    assert "momentum" in text and "Gradient descent with" in text and "own design" in text
