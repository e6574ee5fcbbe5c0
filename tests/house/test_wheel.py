"""The wheel holds the library and nothing else, and runs on any Python and system."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import mdtheory

ROOT = Path(__file__).parents[2]
BUILD = "import sys; from flit_core.buildapi import build_wheel; print(build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """The wheel, built from a copy of what it is made of, without a network."""
    source, target = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("dist")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(
        ROOT / "mdtheory", source / "mdtheory", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copytree(ROOT / "LICENSES", source / "LICENSES")
    for folder in ("proofs_check", "experiments", "tests"):
        (source / folder).mkdir()
        (source / folder / "extra.py").write_text("")
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(target)], cwd=source, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(target / done.stdout.strip())


def test_only_the_library_is_inside(wheel):
    assert {name.split("/")[0] for name in wheel.namelist()} == {
        "mdtheory",
        f"mdtheory-{mdtheory.__version__}.dist-info",
    }


def test_every_file_of_the_library_is_inside(wheel):
    paths = [
        path
        for path in (ROOT / "mdtheory").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    here = {str(path.relative_to(ROOT)) for path in paths}
    assert {name for name in wheel.namelist() if name.startswith("mdtheory/")} == here


def test_data_and_types_are_inside(wheel):
    names = wheel.namelist()
    assert "mdtheory/py.typed" in names
    assert [name for name in names if name.endswith("glyphset.npz")]


def test_it_is_pure_python(wheel):
    assert wheel.filename is not None
    assert wheel.filename.endswith("-py3-none-any.whl")
    assert {Path(name).suffix for name in wheel.namelist()} & {
        ".so",
        ".pyd",
        ".dylib",
        ".c",
        ".pyx",
    } == set()


def test_metadata(wheel):
    folder = f"mdtheory-{mdtheory.__version__}.dist-info"
    metadata = wheel.read(f"{folder}/METADATA").decode()
    assert "License-Expression: MIT" in metadata
    assert "Requires-Python: >=3.11" in metadata
    assert "mdtheory=mdtheory.__main__:main" in wheel.read(f"{folder}/entry_points.txt").decode()
    licences = {
        name.removeprefix(f"{folder}/licenses/")
        for name in wheel.namelist()
        if "/licenses/" in name
    }
    assert licences == {"LICENSE", "LICENSES/DejaVu.txt", "LICENSES/STIX.txt"}


def requirements() -> list[str]:
    """Every requirement of the package and of its extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    return [wanted for group in groups for wanted in group if not wanted.startswith("mdtheory[")]


def test_dependencies_have_lower_bounds_and_no_caps():
    wanted = [name.partition(";")[0] for name in requirements()]
    assert len(wanted) > 20
    assert [name for name in wanted if ">=" not in name or "<" in name or "==" in name] == []
    system = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]
    assert "torch" not in " ".join(system["requires"])


def test_every_pin_is_exact_and_every_dependency_is_pinned():
    lines = [
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert [line for line in lines if line.count("==") != 1 or "+" in line or "/" in line] == []
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines}
    assert {
        name.split(">=")[0].lower().replace("_", "-") for name in requirements()
    } - pinned == set()
