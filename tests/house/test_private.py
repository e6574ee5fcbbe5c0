"""What torch keeps to itself is imported by one file, so that a new torch is looked at there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ONLY = ROOT / "mdtheory" / "core" / "torch_private.py"


def privates(source: str) -> list[str]:
    """Names of torch that begin with an underscore, imported or reached by a dotted name."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names = [ast.unparse(node)]
        else:
            continue
        found += names
    return [name for name in found if re.fullmatch(r"torch(\.\w+)*\._[a-zA-Z]\w*(\.\w+)*", name)]


def test_one_file_imports_what_torch_keeps_private():
    files = [path for path in (ROOT / "mdtheory").rglob("*.py") if path != ONLY]
    assert len(files) > 100
    named = {path.relative_to(ROOT).as_posix(): privates(path.read_text()) for path in files}
    assert {path: names for path, names in named.items() if names} == {}
    assert len(privates(ONLY.read_text())) >= 8


@pytest.mark.parametrize(
    "line",
    [
        "from torch._C._functorch import TransformType",
        "import torch._functorch",
        "def f():\n    return torch._C._functorch.maybe_current_level()",
        "from torch.nn.modules.dropout import _DropoutNd",
    ],
)
def test_a_private_is_seen(line):
    assert privates(line) != []


@pytest.mark.parametrize("line", ["import torch", "from torch.func import grad", "_C = torch.nn"])
def test_what_is_public_is_let_through(line):
    assert privates(line) == []
