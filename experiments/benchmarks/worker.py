"""One measurement in a process of its own: ``python -m experiments.benchmarks.worker``, a job as
JSON in, its result out.

What the measured libraries print goes to stderr. A library that cannot be imported is
``{"unavailable": reason}``; any other failure ends the process, and its last line on stderr is the
reason.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import platform
import resource
import signal
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

MIB = 2**20
LARGEST_SHARE = 0.9  # of the memory that is free at the start
MOST_ITERATIONS = 50
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def status(field: str) -> int:
    """Bytes of a line of /proc/self/status, such as VmRSS or VmHWM."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise ValueError(
        f"/proc/self/status must have a line {field}; peak memory can be measured on Linux only"
    )


def memory_so_far() -> int:
    """Give back what is free, forget the peak, and say what is resident: the ground on which a peak
    is measured.
    """
    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def limit_memory() -> None:
    """An allocation beyond most of the free memory is refused, so that no other process is killed
    for it.
    """
    free = next(
        line
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemAvailable")
    )
    most = status("VmSize") + int(LARGEST_SHARE * int(free.split()[1]) * 1024)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def end_with_the_parent() -> None:
    """Where a measurement is broken off, no process of it goes on and disturbs the next one."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def built(job: dict[str, Any]) -> tuple[Any, Any]:
    """The work and its implementation."""
    from experiments.benchmarks.case import Work, first_weights
    from experiments.benchmarks.implementations import kind

    work = Work.model_validate(job["work"])
    known = kind(work.implementation)
    if work.method not in known.methods:
        raise ValueError(
            f"method must be one that {work.implementation} knows, got {work.method!r}; choose "
            "another"
        )
    return work, known(work, first_weights(work.size, work.dtype))


def import_all(work: Any) -> None:
    """A meta-iteration of a tiny problem: some libraries import the most when they are first
    used.
    """
    from experiments.benchmarks.case import episodes, first_weights
    from experiments.benchmarks.correctness import SMALL
    from experiments.benchmarks.implementations import kind

    tiny = work.model_copy(update={"size": SMALL})
    kind(work.implementation)(tiny, first_weights(SMALL, work.dtype)).meta_gradient(
        episodes(SMALL, work.dtype)
    )


def package_version(implementation: Any) -> str | None:
    """Of the library behind an implementation."""
    try:
        return version(implementation.package) if implementation.package else None
    except PackageNotFoundError:
        return None


def iteration(job: dict[str, Any]) -> dict[str, Any]:
    """Seconds of each meta-iteration after a first one, and the peak of memory over all of them."""
    from experiments.benchmarks.case import episodes
    from experiments.benchmarks.correctness import distance

    work, implementation = built(job)
    tasks = episodes(work.size, work.dtype)
    import_all(work)
    limit_memory()
    ground = memory_so_far()
    clock = time.perf_counter()
    gradient = implementation.meta_gradient(tasks)
    first = time.perf_counter() - clock
    seconds: list[float] = []
    worked = time.process_time()
    while not seconds or (sum(seconds) < job["seconds"] and len(seconds) < MOST_ITERATIONS):
        del gradient
        clock = time.perf_counter()
        gradient = implementation.meta_gradient(tasks)
        seconds.append(time.perf_counter() - clock)
    worked, peak = time.process_time() - worked, status("VmHWM") - ground
    error = None
    if job.get("reference"):
        import torch

        error = distance(gradient, torch.load(job["reference"], weights_only=True))
    return {
        "seconds": seconds,
        "first_seconds": first,
        "cpu_seconds": worked / len(seconds),
        "peak_mib": peak / MIB,
        "gradient_error": error,
        "version": package_version(implementation),
    }


def truth(job: dict[str, Any]) -> dict[str, Any]:
    """The float64 meta-gradient against finite differences."""
    from experiments.benchmarks.case import episodes
    from experiments.benchmarks.correctness import truth_error

    work, implementation = built(job)
    gradient = implementation.meta_gradient(episodes(work.size, work.dtype))
    return {"error": truth_error(work, gradient), "version": package_version(implementation)}


def reference(job: dict[str, Any]) -> dict[str, Any]:
    """The exact float64 meta-gradient of a size, written to a file; ``state_mib``: of its weights
    in float32.
    """
    import torch

    from experiments.benchmarks import correctness as exact
    from experiments.benchmarks.case import Size, first_weights

    size = Size.model_validate(job["size"])
    limit_memory()
    torch.save(exact.reference(job["method"], size), job["file"])
    return {
        "state_mib": sum(4 * value.numel() for value in first_weights(size, torch.float32).values())
        / MIB
    }


def throughput(job: dict[str, Any]) -> dict[str, Any]:
    """The most floating-point operations a second that a 3x3 convolution reaches here; see
    :mod:`.floor`.
    """
    from experiments.benchmarks.case import Size
    from experiments.benchmarks.lower_bound import best_throughput

    return {
        "flops": best_throughput(
            Size.model_validate(job["size"]), job["precision"], seconds=job["seconds"]
        )
    }


def evaluation(job: dict[str, Any]) -> dict[str, Any]:
    """Seconds to adapt to a range of tasks and score them; drawing the tasks is not counted."""
    from experiments.benchmarks.evaluation import run

    return run(*built(job), first=job["first"], n_tasks=job["n_tasks"])


def feeding(job: dict[str, Any]) -> dict[str, Any]:
    """Seconds to draw the tasks of one meta-iteration."""
    from experiments.benchmarks.case import Size
    from experiments.benchmarks.data_loading import draw

    return draw(Size.model_validate(job["size"]), rounds=job["rounds"])


JOBS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    job.__name__: job for job in (iteration, truth, reference, throughput, evaluation, feeding)
}


def main() -> None:
    """Read, do, write."""
    end_with_the_parent()
    job = json.load(sys.stdin)
    with os.fdopen(os.dup(1), "w") as answer:
        os.dup2(2, 1)
        import torch

        from mdtheory.core.registry import load_plugin
        from mdtheory.run.allocator import keep_freed_memory

        torch.set_num_threads(job["threads"])
        if job["allocator"] == "kept":
            keep_freed_memory()
        for file in job["plugins"]:
            load_plugin(file)
        try:
            result = JOBS[job["do"]](job)
        except ImportError as error:
            result = {"unavailable": f"{type(error).__name__}: {error}"}
        json.dump(result, answer)


if __name__ == "__main__":
    main()
