"""Short files, documented names, no print, no assert, no path of anybody's machine."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LONGEST = 500  # lines
WIDEST = 100  # columns
CHECKED = ("mdtheory", "proofs_check", "experiments", "tests")
TEXT = {".py", ".md", ".toml", ".txt", ".cff", ".yaml", ".yml", ".bib", ""}

MACHINE_PATH = re.compile(r"(?<![\w.~:/-])/(?:home|root|work|tmp|opt|mnt|Users)/\w")
SHARED_DATA = re.compile(r"\.\./" + r"shared")
PACKAGE_INDEX = re.compile(r"(?:pypi|download\.pytorch)\.org")
UNFINISHED = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")


def source_files(*folders: str) -> list[Path]:
    """The Python files below these folders of the checkout."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def tracked_text() -> list[Path]:
    """Every text file that git tracks; outside a git checkout, the source files."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    paths = (
        [ROOT / name for name in listed.stdout.split("\0") if name]
        if listed.returncode == 0
        else source_files(*CHECKED)
    )
    return [path for path in paths if path.suffix in TEXT and path.is_file()]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def offences(pattern: re.Pattern[str], text: str) -> list[str]:
    """The lines of a text that hold the pattern."""
    return [
        f"line {number}: {line.strip()[:100]}"
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


def lapses(source: str) -> list[str]:
    """Where a library file prints, validates with assert, or lets autograd skip a parameter
    silently.
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assert):
            found.append(f"line {node.lineno}: assert")
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "print"
        ):
            found.append(f"line {node.lineno}: print")
        if isinstance(node, ast.keyword) and node.arg == "allow_unused":
            found.append(f"line {node.lineno}: allow_unused")
    return found


def test_no_file_is_longer_than_the_limit():
    files = source_files(*CHECKED, "docs/notebooks")
    lengths = {name(path): len(path.read_text().splitlines()) for path in files}
    assert len(files) > 20
    assert {path: n for path, n in lengths.items() if n > LONGEST} == {}


def wide(text: str) -> list[int]:
    """The numbers of the lines that are too wide."""
    return [number for number, line in enumerate(text.splitlines(), 1) if len(line) > WIDEST]


def test_no_line_of_code_is_wider_than_the_limit():
    files = [*source_files(*CHECKED, "docs"), *sorted((ROOT / "mdtheory").rglob("*.cpp"))]
    assert len(files) > 20
    found = {name(path): wide(path.read_text()) for path in files}
    assert {path: where for path, where in found.items() if where} == {}


def test_a_planted_wide_line_is_found():
    assert wide("x" * WIDEST + "\n" + "x" * (WIDEST + 1) + "\n") == [2]


def test_no_print_no_assert_and_no_skipped_gradient_in_the_library():
    found = {name(path): lapses(path.read_text()) for path in source_files("mdtheory")}
    assert {path: where for path, where in found.items() if where} == {}


@pytest.mark.parametrize(
    "source",
    ["def f(x):\n    assert x > 0\n", "print('hello')\n", "grad(y, x, allow_unused=True)\n"],
)
def test_a_planted_lapse_is_found(source):
    assert len(lapses(source)) == 1


@pytest.mark.parametrize(
    ("pattern", "allowed"),
    [
        (MACHINE_PATH, set()),
        (SHARED_DATA, {".ci/run"}),
        (PACKAGE_INDEX, set()),
        (UNFINISHED, set()),
    ],
    ids=["machine path", "shared data", "package index", "unfinished"],
)
def test_no_file_holds(pattern, allowed):
    files = [path for path in tracked_text() if name(path) not in allowed]
    found = {name(path): offences(pattern, path.read_text(encoding="utf-8")) for path in files}
    assert len(files) > 20
    assert {path: where for path, where in found.items() if where} == {}


@pytest.mark.parametrize(
    ("pattern", "line"),
    [
        (MACHINE_PATH, 'path = "/ho' + 'me/someone/data"'),
        (MACHINE_PATH, "cd /wo" + "rk/main"),
        (SHARED_DATA, "../sha" + "red/datasets"),
        (PACKAGE_INDEX, "https://download.pyt" + "orch.org/whl/cpu"),
        (UNFINISHED, "# TO" + "DO later"),
    ],
)
def test_a_planted_offence_is_found(pattern, line):
    assert offences(pattern, line)


@pytest.mark.parametrize(
    "line", ["docs/home/index", "https://example.net/work/item", "shape: (n, m)/root", "a/tmp/b"]
)
def test_an_innocent_path_is_not_an_offence(line):
    assert not offences(MACHINE_PATH, line)
