"""The wheel holds the library and nothing else, and runs on any Python and system."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
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


CONSUMER = """
import torch
import mdtheory

learner = mdtheory.MetaLearner(torch.nn.Linear(2, 2), "metasgd", n_steps=1, task_lr=0.1)
adapted: mdtheory.AdaptedModel = learner.adapt(torch.eye(2), torch.tensor([0, 1]))
found: mdtheory.Estimate = mdtheory.estimate([0.4, 0.5])
"""
FAULTS = """
learner.adapt(torch.eye(2))
mean: str = found.mean
"""


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> dict[str, str]:
    """The wheel alone in a folder, and an environment in which neither a compiler nor git is."""
    folder = tmp_path_factory.mktemp("site")
    wheel.extractall(folder)
    kept = {"HOME": str(folder), "MDTHEORY_CACHE": str(folder / "cache"), "PATH": "/nowhere"}
    seen = os.pathsep.join((str(folder), sysconfig.get_path("purelib")))
    return {**kept, "PYTHONPATH": seen, "MYPYPATH": str(folder), "OMP_NUM_THREADS": "1"}


def run_in(folder: Path, environment: dict[str, str], *words: str) -> subprocess.CompletedProcess:
    """A program of this Python, which sees the wheel and, without .pth files, no checkout."""
    call = [sys.executable, "-S", *words]
    return subprocess.run(call, cwd=folder, env=environment, capture_output=True, text=True)


def pictures(folder: Path) -> None:
    """Three classes of two letters each, and two to tell apart."""
    import numpy as np
    from PIL import Image

    for place, number in [(f"examples/{name}", 2) for name in "abc"] + [("unknown", 2)]:
        (folder / place).mkdir(parents=True)
        for k in range(number):
            pixels = np.random.default_rng(ord(place[-1]) + k).integers(0, 255, (28, 28))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / place / f"{k}.png")


@pytest.mark.slow
def test_the_wheel_alone_works_without_compiler_git_and_checkout(installed, tmp_path):
    """Help, listing, training, adapting with an export, and where the ready-made records lie."""

    def call(*words: str) -> subprocess.CompletedProcess:
        return run_in(tmp_path, installed, "-m", "mdtheory", *words)

    where = "import mdtheory; print(mdtheory.__file__); import experiments"
    seen = run_in(tmp_path, installed, "-c", where)
    assert seen.stdout.startswith(installed["MYPYPATH"]) and "No module named" in seen.stderr
    assert "demo" in call("--help").stdout
    listed = call("geometries", "--json")
    assert "metamida" in listed.stdout, listed.stderr
    tiny = ["model.options.channels=4", "task.n_way=3", "task.n_query=2", "meta.iterations=2"]
    words = [part for one in [*tiny, "validation.enabled=false"] for part in ("--set", one)]
    done = call("train", *words, "--out", "r")
    assert done.returncode == 0, done.stderr
    assert "finished: True" in done.stdout and (tmp_path / "r" / "summary.md").is_file()
    pictures(tmp_path)
    asked = ("--support", "examples", "--query", "unknown")
    done = call("adapt", "r", *asked, "--export", "pt2")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "predictions").iterdir()} == {
        *("predictions.csv", "sheet.png", "report.html", "adapted.pt2"),
    }
    done = call("adapt", "experiments/records/cpu-metasgd-5shot-seed0", *asked)
    assert done.returncode == 2 and "lie in the project's repository" in done.stderr
    assert not list(Path(installed["MDTHEORY_CACHE"]).rglob("*.so"))


@pytest.mark.slow
def test_a_consumer_s_types_are_checked(installed, tmp_path):
    """py.typed works: a right program passes, and each planted fault is found."""
    pytest.importorskip("mypy", reason="mypy comes with mdtheory[dev]")
    for name, text, faults in (("right", CONSUMER, 0), ("wrong", CONSUMER + FAULTS, 2)):
        (tmp_path / f"{name}.py").write_text(text)
        options = ["--cache-dir", str(tmp_path / "mypy"), "--follow-imports=silent"]
        done = run_in(tmp_path, installed, "-m", "mypy", *options, f"{name}.py")
        assert done.stdout.count("error:") == faults, done.stdout
