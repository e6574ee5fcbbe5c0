"""The command line answers ``--help``, lists and looks at images without loading torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[2]


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT
    )


WITHOUT_TORCH = (
    "import runpy, sys; sys.modules['torch'] = None; runpy.run_module('mdtheory', "
    "run_name='__main__', alter_sys=True)"
)


def test_importing_the_command_line_loads_nothing_heavy():
    heavy = ["torch", "matplotlib", "scipy", "pyarrow"]
    done = python(
        "import json, sys, mdtheory.cli, mdtheory.config; print(json.dumps(list(sys.modules)))"
    )
    assert done.returncode == 0, done.stderr
    assert not set(heavy) & set(json.loads(done.stdout))


def test_help_works_where_torch_cannot_be_imported():
    done = python(WITHOUT_TORCH, "--help")
    assert done.returncode == 0, done.stderr
    assert "demo" in done.stdout


def test_geometries_are_listed_where_torch_cannot_be_imported():
    done = python(WITHOUT_TORCH, "geometries", "--json")
    assert done.returncode == 0, done.stderr
    assert {"maml", "metamida"} < {one["name"] for one in json.loads(done.stdout)}
    assert (
        python(WITHOUT_TORCH, "geometries", "--time").returncode != 0
    )  # the control: that needs it


def test_images_are_checked_where_torch_cannot_be_imported(tmp_path, monkeypatch):
    monkeypatch.setenv("MDTHEORY_CACHE", str(tmp_path / "cache"))
    for name in ("cat", "dog", "owl"):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        Image.new("RGB", (9, 8)).save(folder / "1.png")
    done = python(WITHOUT_TORCH, "data", "check", str(tmp_path / "photos"))
    assert done.returncode == 0, done.stderr
    assert "test: 1 class, 1 image\n" in done.stdout
