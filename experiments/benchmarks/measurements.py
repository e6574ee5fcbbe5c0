"""What a run of the benchmarks leaves: every number measured, where, and the judgement that follows
from them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from statistics import median
from typing import Any, Literal

from experiments.benchmarks.case import Section, Size, Work
from experiments.benchmarks.correctness import RIGHT
from experiments.benchmarks.implementations import OURS, PLAIN
from experiments.records import Code, Machine, seal

RECORDS = Path(__file__).with_name("records")
Part = Literal["iterations", "evaluation", "feeding", "start", "processes"]
KEYS = (
    *("implementation", "method", "estimator", "order", "precision"),
    *("shot", "n_steps", "channels", "image_size"),
    *("threads", "seconds", "peak_mib", "ratio_to_ours", "gradient_error"),
)
"""Of an object of ``--json``: the work's, its size's, and what was measured."""


class Settings(Section):
    """What was asked for. ``seconds``: how long a process goes on with its iterations;
    ``allocator``: of the C library.
    """

    methods: tuple[str, ...]
    implementations: tuple[str, ...]
    size: Size = Size()
    shots: tuple[int, ...]
    steps: tuple[int, ...]
    parts: tuple[Part, ...] = ("iterations",)
    threads: int = 2
    rounds: int = 3
    seconds: float = 3.0
    eval_tasks: int = 600
    allocator: Literal["system", "kept"] = "system"
    plugins: tuple[str, ...] = ()


class Truth(Section):
    """A float64 meta-gradient beside finite differences; ``error`` is relative, ``failed`` says why
    there is none.
    """

    implementation: str
    method: str
    estimator: str | None
    version: str | None = None
    error: float | None = None
    failed: str | None = None
    unavailable: bool = False

    @property
    def right(self) -> bool:
        """Whether it was measured, and is small."""
        return self.error is not None and self.error <= RIGHT["float64"]


class Round(Section):
    """One process. ``seconds`` by iteration, after the first one."""

    seconds: tuple[float, ...]
    first_seconds: float
    cpu_seconds: float
    peak_mib: float
    gradient_error: float | None


class Measured(Section):
    """One work in all its rounds."""

    work: Work
    rounds: tuple[Round, ...] = ()
    failed: str | None = None

    @property
    def seconds(self) -> float | None:
        """The median over rounds of a meta-iteration's median."""
        return median(median(one.seconds) for one in self.rounds) if self.rounds else None

    @property
    def least(self) -> float | None:
        """The shortest meta-iteration of all."""
        return min(min(one.seconds) for one in self.rounds) if self.rounds else None

    @property
    def spread(self) -> float | None:
        """Slowest round less fastest, over the median."""
        medians = [median(one.seconds) for one in self.rounds]
        return (max(medians) - min(medians)) / median(medians) if medians else None

    @property
    def peak_mib(self) -> float | None:
        """The median over rounds."""
        return median(one.peak_mib for one in self.rounds) if self.rounds else None

    @property
    def gradient_error(self) -> float | None:
        """Of the timed problem in its own precision, where it was compared."""
        return next(
            (one.gradient_error for one in self.rounds if one.gradient_error is not None), None
        )


class Evaluated(Section):
    """``n_tasks`` test tasks; ``seconds`` of all of them."""

    work: Work
    n_tasks: int
    seconds: float
    accuracy: float


class Feeding(Section):
    """Drawing the tasks of one meta-iteration, by round."""

    size: Size
    source: str
    seconds: tuple[float, ...]


class Start(Section):
    """From the start of ``mdtheory train`` to its first meta-iteration, and that iteration, by
    round; the cache is warm.
    """

    size: Size
    source: str
    seconds: tuple[float, ...]
    first_iteration: tuple[float, ...]


class Shared(Section):
    """A meta-iteration of ``mdtheory train`` in some processes of so many threads each, by
    round.
    """

    size: Size
    source: str
    processes: int
    threads: int
    seconds: tuple[float, ...]


class BenchRecord(Section):
    """A run. ``flops``: the best convolution's operations a second, by precision; ``state_mib``: a
    state of the task solver.
    """

    version: Literal[1] = 1
    finished: str = ""
    settings: Settings
    code: Code
    machine: Machine
    truths: tuple[Truth, ...] = ()
    flops: dict[str, float] = {}
    state_mib: float | None = None
    measured: tuple[Measured, ...] = ()
    evaluated: tuple[Evaluated, ...] = ()
    feeding: tuple[Feeding, ...] = ()
    start: tuple[Start, ...] = ()
    shared: tuple[Shared, ...] = ()

    def sizes(self) -> list[Size]:
        """Every size with a meta-iteration, in the order of measurement."""
        return list(
            dict.fromkeys(one.work.size for one in self.measured if one.work.size.n_steps > 0)
        )

    def of_size(self, size: Size) -> list[Measured]:
        """All works of a size."""
        return [one for one in self.measured if one.work.size == size]

    def find(self, implementation: str, method: str, size: Size) -> Measured | None:
        """The first variant of an implementation at a size."""
        found = [
            one
            for one in self.of_size(size)
            if (one.work.implementation, one.work.method) == (implementation, method)
        ]
        return next(iter(found), None)

    def truth(self, work: Work) -> Truth | None:
        """What finite differences said about it."""
        key = (work.implementation, work.method, work.estimator)
        return next(
            (one for one in self.truths if (one.implementation, one.method, one.estimator) == key),
            None,
        )

    def limit(self, work: Work) -> float:
        """The largest error of a right gradient: 1e-3 (bf16: 1e-2), or thrice the plain loop's own
        rounding at that size.

        Where the plain loop does not know the method, its MAML counts: what rounding does is the
        network's.
        """
        plain = self.find(PLAIN, work.method, work.size) or self.find(PLAIN, "maml", work.size)
        own = plain.gradient_error if plain is not None else None
        return max(RIGHT[work.precision], 3 * (own or 0.0))

    def right(self, one: Measured) -> bool:
        """Both comparisons passed: float64 with finite differences, and the timed problem with the
        exact reference.
        """
        truth = self.truth(one.work)
        error = one.gradient_error
        return (
            truth is not None and truth.right and (error is None or error <= self.limit(one.work))
        )

    def ratio(self, one: Measured) -> float | None:
        """Its seconds over those of our first variant of the same method and size."""
        ours = self.find(OURS, one.work.method, one.work.size)
        if ours is None or ours.seconds is None or one.seconds is None:
            return None
        return one.seconds / ours.seconds

    def absent(self) -> list[Truth]:
        """The implementations that could not be had, one entry each."""
        return list({one.implementation: one for one in self.truths if one.unavailable}.values())

    def rows(self) -> list[dict[str, Any]]:
        """For ``--json``: one object for each work, and for what could not be had, with nulls, at
        every size.
        """
        found = []
        for size in self.sizes():
            works: list[tuple[Work, Measured | None]] = [
                (one.work, one) for one in self.of_size(size)
            ]
            for absent in self.absent():
                work = Work(
                    implementation=absent.implementation,
                    method=absent.method,
                    estimator=absent.estimator,
                    size=size,
                )
                works.append((work, None))
            found += [self._row(work, one) for work, one in works]
        return found

    def _row(self, work: Work, one: Measured | None) -> dict[str, Any]:
        values = {
            **{key: getattr(work, key) for key in KEYS[:5]},
            **{key: getattr(work.size, key) for key in KEYS[5:9]},
            "threads": self.settings.threads,
            "seconds": None if one is None else one.seconds,
            "peak_mib": None if one is None else one.peak_mib,
            "ratio_to_ours": None if one is None else self.ratio(one),
            "gradient_error": None if one is None else one.gradient_error,
        }
        return {key: values[key] for key in KEYS}


def save(record: BenchRecord, file: Path) -> None:
    """Write it whole or not at all, and its digest into the folder's SHA256SUMS."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(
        json.dumps(record.model_dump(mode="json"), indent=1) + "\n", encoding="utf-8"
    )
    os.replace(partial, file)
    seal(file.parent)


def load(file: Path) -> BenchRecord:
    """Read one."""
    return BenchRecord.model_validate_json(file.read_text(encoding="utf-8"))


def everything(folder: Path = RECORDS) -> dict[str, BenchRecord]:
    """All records by name."""
    return {file.stem: load(file) for file in sorted(folder.glob("*.json"))}


def rounded(value: Any) -> Any:
    """Floating-point numbers to six digits: no clock knows more."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list | tuple) else value
