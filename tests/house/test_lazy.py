"""The command line answers ``--help`` without loading torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT
    )


def test_importing_the_command_line_loads_nothing_heavy():
    heavy = ["torch", "matplotlib", "scipy", "pyarrow"]
    done = python(
        "import json, sys, mdtheory.cli, mdtheory.config; print(json.dumps(list(sys.modules)))"
    )
    assert done.returncode == 0, done.stderr
    assert not set(heavy) & set(json.loads(done.stdout))


def test_help_works_where_torch_cannot_be_imported():
    code = (
        "import runpy, sys; sys.modules['torch'] = None; runpy.run_module('mdtheory', "
        "run_name='__main__', alter_sys=True)"
    )
    done = python(code, "--help")
    assert done.returncode == 0, done.stderr
    assert "demo" in done.stdout
