"""One mutant, one forked process: the changed text is what ``import`` finds, and the chosen tests
run until one fails.
"""

from __future__ import annotations

import gc
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType

import pytest

ROOT = Path(__file__).parents[2]
PRELOADED = (
    "torch.func",
    "torch._dynamo",  # torch.func.grad imports it on its first call
    "hypothesis.strategies",
    "numpy",
    "scipy.stats",
    "scipy.optimize",
    "pydantic",
    "rich.console",
    "typer.testing",
)
"""Imported once, by the parent; never anything of the project, so that every child imports that
anew.
"""

OPTIONS = (
    "-x",
    "-q",
    "-p",
    "no:cacheprovider",
    "--assert=plain",
)  # plain: nothing is rewritten, so imports are quick
VERDICTS = {0: "survived", 1: "failed", 2: "import", 5: "survived"}  # by pytest's exit status
KILLED = ("failed", "import", "timeout", "crash")
"""A test failed; a module could not be imported; out of time; the process died. Everything else
survived.
"""


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant: ``verdict`` (one of KILLED, or "survived"), the test that failed,
    seconds, tests run.
    """

    verdict: str
    test: str
    seconds: float
    tests: int


class Planted(importlib.machinery.SourceFileLoader):
    """Loads a module from a changed text; nothing is read from or written to its cache."""

    def __init__(self, name: str, path: str, text: str):
        super().__init__(name, path)
        self.text = text

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.text, self.path, "exec", dont_inherit=True)


class Finder(importlib.abc.MetaPathFinder):
    """Answers for one module only."""

    def __init__(self, path: str, text: str):
        self.name = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        self.path, self.text = path, text

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.name:
            return None
        file = str(ROOT / self.path)
        loader = Planted(fullname, file, self.text)
        package = self.path.endswith("__init__.py")
        return importlib.util.spec_from_file_location(
            fullname,
            file,
            loader=loader,
            submodule_search_locations=[str(Path(file).parent)] if package else None,
        )


class Chosen:
    """A pytest plugin: keep the chosen tests, in their order, and note the first that fails."""

    def __init__(self, tests: Sequence[str]):
        self.rank = {name: i for i, name in enumerate(tests)}
        self.failed, self.count = "", 0

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted(
            (item for item in items if item.nodeid in self.rank),
            key=lambda item: self.rank[item.nodeid],
        )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.count += report.when == "call"
        if report.failed and not self.failed:
            self.failed = report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid


def preload() -> None:
    """Pay for the heavy imports once, and fix how property tests draw: the same examples every
    time, no shrinking.
    """
    os.environ["MDTHEORY_HYPOTHESIS"] = "mutation"
    for name in PRELOADED:
        importlib.import_module(name)
    from hypothesis import Phase, settings

    settings.register_profile(
        "mutation",
        deadline=None,
        max_examples=25,
        derandomize=True,
        database=None,
        phases=(Phase.explicit, Phase.generate),
    )
    if any(name == "mdtheory" or name.startswith("mdtheory.") for name in sys.modules):
        raise RuntimeError(
            "the parent must not have imported mdtheory: its children could not import it anew"
        )
    sys.dont_write_bytecode, sys.pycache_prefix = False, str(ROOT / "out" / "mutation" / "bytecode")
    gc.freeze()  # children share these pages, and their collector does not walk them


def judge(path: str, text: str, tests: Sequence[str], *, cpu_seconds: float) -> Outcome:
    """Run the tests against the library with this text in place of ``path``. Forks; call
    :func:`preload` first.
    """
    start = time.perf_counter()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _child(path, text, tests, cpu_seconds, writing)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    seconds = round(time.perf_counter() - start, 2)
    if answer:
        said = json.loads(answer)
        if said["status"] not in VERDICTS:
            raise RuntimeError(
                f"pytest must run, got its exit status {said['status']} for {path}; run the tests "
                "by hand"
            )
        return Outcome(VERDICTS[said["status"]], said["test"], seconds, said["tests"])
    if not os.WIFSIGNALED(status):
        raise RuntimeError(
            f"a child must answer or die of a signal, got neither for {path}; run the tests by hand"
        )
    return Outcome(
        "timeout" if os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGALRM) else "crash",
        "",
        seconds,
        0,
    )


def _child(path: str, text: str, tests: Sequence[str], cpu_seconds: float, writing: int) -> None:
    """Never returns. The limit is on processor time, so that a busy machine kills no mutant; the
    alarm stops a sleeper.
    """
    limit = max(1, round(cpu_seconds))
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
    signal.alarm(30 * limit)
    silence = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silence, stream)
    os.chdir(ROOT)
    sys.meta_path.insert(0, Finder(path, text))
    chosen = Chosen(tests)
    files = sorted({name.split("::")[0] for name in tests})
    try:
        status = pytest.main([*OPTIONS, *files], [chosen])
        answer = {"status": int(status), "test": chosen.failed, "tests": chosen.count}
        os.write(writing, json.dumps(answer).encode())
    finally:
        os._exit(0)
