"""Finds claims, runs their checks, mutants and falsified statements (in two processes if asked),
and hands the results to the judge.
"""

from __future__ import annotations

import importlib
import importlib.util
import multiprocessing
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from types import ModuleType, TracebackType

import torch

from proofs_check.claim import Check, Claim, Mutant
from proofs_check.ids import by_order, files, id_of
from proofs_check.run import Run
from proofs_check.verdict import CheckResult, ClaimResult, MutantResult, Row, judge


class Caught:
    """``with Caught() as caught``: whatever a check raises ends up in ``caught.error``, for the
    referee must outlive it.
    """

    error: Exception | None = None

    def __enter__(self) -> Caught:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        self.error = error if isinstance(error, Exception) else None
        return self.error is not None


def modules() -> dict[str, tuple[str, ...]]:
    """Module names by claim id, read off the file names: ``c08a_implicit.py`` holds C08a."""
    package = importlib.import_module("proofs_check.claims")
    found = files(Path(next(iter(package.__path__))))
    return {
        name: tuple(f"{package.__name__}.{path.stem}" for path in paths)
        for name, paths in found.items()
    }


def paths(name: str) -> tuple[Path, ...]:
    """The files of a claim."""
    if name in _PLUGINS:
        return (_PLUGINS[name],)
    package = importlib.import_module("proofs_check.claims")
    return files(Path(next(iter(package.__path__)))).get(name, ())


_PLUGINS: dict[str, Path] = {}


def plug_in(paths: Iterable[Path]) -> list[str]:
    """Claims from files outside this package, named like those inside it; returns their ids."""
    found = {id_of(path.stem): path.resolve() for path in paths}
    taken = sorted(set(found) & set(modules())) if found else []
    if taken:
        raise ValueError(f"ids of plugins must be new, got {taken}; rename the files")
    _PLUGINS.update(found)
    return list(found)


def load(name: str) -> Claim | None:
    """The claim of an id, or ``None`` where no file has it."""
    if name in _PLUGINS:
        return _claim_of([_module_at(_PLUGINS[name])], name)
    names = modules().get(name)
    return (
        None if names is None else _claim_of([importlib.import_module(one) for one in names], name)
    )


def _module_at(path: Path) -> ModuleType:
    known = f"proofs_check_plugin.{path.stem}"
    if known not in sys.modules:
        spec = importlib.util.spec_from_file_location(known, path)
        if spec is None or spec.loader is None:
            raise ValueError(f"a plugin must be a Python file, got {path}; name one")
        module = importlib.util.module_from_spec(spec)
        sys.modules[known] = module
        spec.loader.exec_module(module)
    return sys.modules[known]


def _claim_of(found: list[ModuleType], name: str) -> Claim:
    claims = [getattr(module, "claim", None) for module in found]
    claim = claims[0]
    if not isinstance(claim, Claim) or claim.id != name or any(one is not claim for one in claims):
        raise ValueError(
            f"{[module.__name__ for module in found]} must hold one `claim` with id {name!r}, got "
            f"{claims}; see proofs_check/claim.py"
        )
    return claim


def closure(names: Iterable[str]) -> list[str]:
    """The ids and everything they use, in ledger order."""
    waiting, seen = list(names), set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        claim = None
        with Caught():  # a file that does not load is reported when it is run
            claim = load(name)
        waiting.extend(claim.used_ids() if claim is not None else ())
    return sorted(seen, key=by_order)


def run_check(check: Check) -> CheckResult:
    """Run a check with its own ingredients and, if it passes, with every mutant. Any exception is
    caught and reported.
    """
    start = time.perf_counter()
    run = Run()
    error = _attempt(check, run)
    passed = error is None
    mutants = tuple(_kill(check, mutant) for mutant in check.mutants if passed)
    variants = check.stated.mutants() if check.stated is not None and passed else {}
    stated = tuple(_kill(check, Mutant(word, "stated", one)) for word, one in variants.items())
    return CheckResult(
        name=check.name,
        passed=passed,
        error="" if error is None else _words(error),
        mutants=mutants
        or tuple(
            MutantResult(mutant.name, killed=False, error="not tried") for mutant in check.mutants
        ),
        stated=stated,
        quantities=tuple(run.quantities.values()) if passed else (),
        comparisons=run.comparisons,
        seconds=time.perf_counter() - start,
    )


def _attempt(check: Check, run: Run, **replacement: object) -> Exception | None:
    with Caught() as caught, warnings.catch_warnings():
        warnings.simplefilter("error")  # as under pytest: one verdict, whoever runs the check
        check.function(run, **replacement)
    return caught.error


def _kill(check: Check, mutant: Mutant) -> MutantResult:
    error = _attempt(check, Run(), **{mutant.ingredient: mutant.replacement})
    if error is None or isinstance(error, AssertionError):
        return MutantResult(mutant.name, killed=error is not None)
    return MutantResult(mutant.name, killed=False, error=f"broke the check: {_words(error)}")


def _words(error: BaseException) -> str:
    """The first line of a message, with its type where that is not plain failure."""
    first = (str(error).splitlines() or [""])[0]
    return (
        first if isinstance(error, AssertionError) and first else f"{type(error).__name__}: {first}"
    )


def run_claim(name: str) -> ClaimResult:
    """All checks of one claim; a file that does not load is an error, no file at all is an empty
    result.
    """
    torch.set_num_threads(1)
    claim = None
    with Caught() as caught:
        claim = load(name)
    if caught.error is not None:
        return ClaimResult(name, error=f"its file does not load: {_words(caught.error)}")
    return ClaimResult(
        name, tuple(run_check(check) for check in claim.checks) if claim is not None else ()
    )


def _nothing(_: object) -> None:
    """No listener."""


def run_all(
    names: Iterable[str],
    *,
    jobs: int = 1,
    started: Callable[[int], None] = _nothing,
    done: Callable[[str], None] = _nothing,
) -> dict[str, Row]:
    """Run the claims with all they use, and judge. ``started`` hears how many, ``done`` each id as
    it ends.
    """
    wanted = closure(names)
    started(len(wanted))
    results = {}
    for result in _results(wanted, jobs):
        results[result.id] = result
        done(result.id)
    ordered = {name: results[name] for name in wanted}
    claims = {name: None if ordered[name].error else load(name) for name in wanted}
    return judge(claims, ordered)


def _results(names: list[str], jobs: int) -> Iterator[ClaimResult]:
    if jobs <= 1 or len(names) <= 1:
        yield from (run_claim(name) for name in names)
        return
    context = multiprocessing.get_context("spawn")  # torch does not survive a fork with threads
    plugins = list(_PLUGINS.values())
    with ProcessPoolExecutor(
        min(jobs, len(names)), mp_context=context, initializer=plug_in, initargs=(plugins,)
    ) as pool:
        yield from (
            future.result()
            for future in as_completed([pool.submit(run_claim, name) for name in names])
        )
