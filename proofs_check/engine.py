"""Finds claims, runs their checks and mutants (in two processes if asked), and hands the results to
the judge.
"""

from __future__ import annotations

import importlib
import multiprocessing
import pkgutil
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from types import ModuleType, TracebackType

import torch

from proofs_check.claim import Check, Claim, Mutant
from proofs_check.ids import IDS
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


def modules() -> dict[str, str]:
    """Module name by claim id, read off the file names: ``c08a_implicit.py`` holds C08a."""
    package = importlib.import_module("proofs_check.claims")
    by_prefix = {name.lower(): name for name in IDS}
    found: dict[str, str] = {}
    for module in pkgutil.iter_modules(package.__path__):
        name = by_prefix.get(module.name.split("_")[0])
        if name is None or name in found:
            raise ValueError(
                f"claims/{module.name}.py must start with one id that no other file has; rename it"
            )
        found[name] = f"{package.__name__}.{module.name}"
    return dict(sorted(found.items(), key=lambda item: IDS.index(item[0])))


def load(name: str) -> Claim | None:
    """The claim of an id, or ``None`` where no file has it."""
    path = modules().get(name)
    return None if path is None else _claim_of(importlib.import_module(path), name)


def _claim_of(module: ModuleType, name: str) -> Claim:
    claim = getattr(module, "claim", None)
    if not isinstance(claim, Claim) or claim.id != name:
        raise ValueError(
            f"{module.__name__} must hold one `claim` with id {name!r}, got {claim!r}; see "
            "proofs_check/claim.py"
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
    return sorted(seen, key=IDS.index)


def run_check(check: Check) -> CheckResult:
    """Run a check with its own ingredients and, if it passes, with every mutant. Any exception is
    caught and reported.
    """
    start = time.perf_counter()
    run = Run()
    error = _attempt(check, run)
    passed = error is None
    mutants = tuple(_kill(check, mutant) for mutant in check.mutants if passed)
    return CheckResult(
        name=check.name,
        passed=passed,
        error="" if error is None else _words(error),
        mutants=mutants
        or tuple(
            MutantResult(mutant.name, killed=False, error="not tried") for mutant in check.mutants
        ),
        quantities=tuple(run.quantities.values()) if passed else (),
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
    with ProcessPoolExecutor(min(jobs, len(names)), mp_context=context) as pool:
        yield from (
            future.result()
            for future in as_completed([pool.submit(run_claim, name) for name in names])
        )
