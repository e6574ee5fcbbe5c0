"""The README's program runs as printed, but for its number of iterations."""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def test_the_example_runs_and_beats_nothing_silently(capsys):
    (program,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    shortened = program.replace("range(100)", "range(2)")
    assert shortened != program
    names: dict[str, object] = {}
    exec(compile(shortened, str(README), "exec"), names)
    accuracy = float(capsys.readouterr().out.strip().removeprefix("tensor(").removesuffix(")"))
    assert 0 <= accuracy <= 1
    assert names["iteration"] == 1
