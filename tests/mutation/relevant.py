"""Which tests matter for a line: measured once with coverage, test by test."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORK = ROOT / "out" / "mutation"
MAPS = WORK / "coverage"
FOLDERS = ("maps", "core", "geometry", "inner", "parity", "contract", "meta")
"""The folders of tests that the sample is run against: all that exercise maps, geometries and
estimators in-process.
"""

ALWAYS = tuple(
    f"tests/core/test_addresses.py::{name}"
    for name in (
        "test_defaults_are_what_they_were",
        *(
            f"test_an_unknown_name_says_of_what_kind_it_is[{kind}]"
            for kind in ("map", "geometry", "estimator")
        ),
    )
)
"""Tests of what is executed at import alone (signatures, registries), which coverage ascribes to no
test.
"""

HOMES = {
    "mdtheory/maps/": ("tests/maps/", "tests/parity/", "tests/core/"),
    "mdtheory/geometry/": ("tests/geometry/", "tests/parity/", "tests/core/"),
    "mdtheory/inner/": ("tests/inner/", "tests/contract/"),
}
"""The tests written about a folder, nearest first: tests are ordered by their seconds times the
place of their home.
"""


class Recorder:
    """A pytest plugin: one coverage context and the processor time of every test that passes."""

    def __init__(self) -> None:
        import coverage

        self.coverage = coverage.Coverage(
            data_file=None, source=[str(ROOT / "mdtheory")], branch=False, config_file=False
        )
        self.seconds: dict[str, float] = {}

    def pytest_sessionstart(self) -> None:
        self.coverage.start()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.coverage.switch_context(item.nodeid)
        start = time.process_time()
        result = yield
        self.seconds[item.nodeid] = time.process_time() - start
        self.coverage.switch_context("")
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.outcome != "passed":
            self.seconds[report.nodeid] = float("nan")

    def pytest_sessionfinish(self) -> None:
        self.coverage.stop()

    def as_json(self) -> dict[str, object]:
        """``tests``: seconds by test id; ``lines``: by file and line, the numbers of the tests that
        execute it.
        """
        data = self.coverage.get_data()
        passed = [name for name, seconds in self.seconds.items() if seconds == seconds]
        number = {name: i for i, name in enumerate(passed)}
        lines = {}
        for path in data.measured_files():
            by_line = data.contexts_by_lineno(path)
            lines[Path(path).relative_to(ROOT).as_posix()] = {
                line: sorted(number[name] for name in names if name in number)
                for line, names in by_line.items()
            }
        return {"tests": {name: round(self.seconds[name], 4) for name in passed}, "lines": lines}


def measure(folder: str) -> None:
    """Run one folder's tests under coverage, in a process of its own, and write its map."""
    done = subprocess.run([sys.executable, "-m", "tests.mutation.relevant", folder], cwd=ROOT)
    if done.returncode:
        raise RuntimeError(
            f"tests/{folder} must pass before mutants can be judged; run it and repair what fails"
        )


@dataclass(frozen=True)
class Relevant:
    """The map, read back."""

    seconds: dict[str, float]
    lines: dict[str, dict[int, list[int]]]

    @classmethod
    def read(cls) -> Relevant:
        """The maps of all folders; those that are missing are measured now."""
        seconds: dict[str, float] = {}
        lines: dict[str, dict[int, list[int]]] = {}
        for folder in FOLDERS:
            file = MAPS / f"{folder}.json"
            if not file.exists():
                measure(folder)
            raw = json.loads(file.read_text())
            shift = len(seconds)
            seconds |= raw["tests"]
            for path, by_line in raw["lines"].items():
                known = lines.setdefault(path, {})
                for line, tests in by_line.items():
                    known.setdefault(int(line), []).extend(shift + number for number in tests)
        return cls(seconds, lines)

    def tests_of(self, path: str, spans: list[tuple[int, int]]) -> list[str]:
        """The tests that execute a line of the first span (statement, function, file) that any test
        executes, best first.
        """
        by_line, names = self.lines.get(path, {}), list(self.seconds)
        for first, last in spans:
            found = {
                number
                for line, tests in by_line.items()
                if first <= line <= last
                for number in tests
            }
            if found:
                return sorted(
                    {*ALWAYS, *(names[number] for number in found)},
                    key=lambda name: self._rank(path, name),
                )
        return list(ALWAYS)

    def _rank(self, path: str, name: str) -> float:
        homes = next((homes for folder, homes in HOMES.items() if path.startswith(folder)), ())
        place = next(
            (place for place, home in enumerate(homes) if name.startswith(home)), 2 * len(homes)
        )
        return self.seconds[name] * (1 + place)

    def within(self, tests: list[str], budget: float) -> list[str]:
        """The first tests, as many as take ``budget`` seconds together; one at least."""
        spent = 0.0
        for i, name in enumerate(tests):
            spent += self.seconds[name]
            if i and spent > budget:
                return tests[:i]
        return tests

    def cost(self, tests: list[str]) -> float:
        """What these tests took when measured, in seconds."""
        return sum(self.seconds[name] for name in tests)


def main(folder: str) -> int:
    """Measure one folder; the exit status is pytest's."""
    os.environ["MDTHEORY_HYPOTHESIS"] = "ci"
    importlib.import_module("torch._dynamo")  # else the first test pays for it
    recorder = Recorder()
    status = pytest.main(["-q", "-p", "no:cacheprovider", f"tests/{folder}"], [recorder])
    if status == 0:
        MAPS.mkdir(parents=True, exist_ok=True)
        file = MAPS / f"{folder}.json"
        file.with_suffix(".partial").write_text(json.dumps(recorder.as_json()))
        file.with_suffix(".partial").replace(file)
    return int(status)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
