"""``mdtheory train`` as it is called: how long until its first step, and what one process or
several make of the next ones.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from experiments.benchmarks.case import Size
from experiments.benchmarks.data_loading import data
from experiments.generated import ROOT

CLOCK = "MDTHEORY_BENCHMARK_CLOCK"
LONGEST = 600  # seconds
ITERATIONS = 6  # timed, after a first one


def settings(size: Size, threads: int) -> list[str]:
    """``--set`` for ``mdtheory train``: the work as a run."""
    chosen = {
        "threads": threads,
        "data.source": json.dumps(data(size)["source"]),
        "data.image_size": size.image_size,
        "task.n_way": size.n_way,
        "task.n_shot": size.shot,
        "task.n_query": size.n_query,
        "task.n_steps": size.n_steps,
        "model.name": '"conv4"',
        "model.options.channels": size.channels,
        "meta.n_tasks": size.n_tasks,
    }
    return [part for key, value in chosen.items() for part in ("--set", f"{key}={value}")]


def stamps(size: Size, *, threads: int, iterations: int, processes: int = 1) -> list[float]:
    """When the process was started, when its first meta-iteration began, and when each one ended,
    in seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        file, plugin = Path(folder) / "stamps", Path(__file__).with_name("timing_plugin.py")
        launch = (
            ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
            if processes > 1
            else []
        )
        command = [
            sys.executable,
            *launch,
            "-m",
            "mdtheory",
            "train",
            "--out",
            str(Path(folder) / "run"),
        ]
        begun = time.time()
        subprocess.run(
            [*command, "--plugin", str(plugin), *settings(size, threads)],
            cwd=ROOT,
            env={**os.environ, CLOCK: f"{file}:{iterations}", "OMP_NUM_THREADS": str(threads)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
            timeout=LONGEST,
        )
        return [begun, *map(float, file.read_text().split())]


def start(size: Size, threads: int) -> dict[str, float]:
    """From the start of the process to the first meta-iteration, and that iteration alone, in
    seconds.
    """
    begun, first, done = stamps(size, threads=threads, iterations=1)
    return {"seconds": first - begun, "first_iteration": done - first}


def iteration(size: Size, threads: int, processes: int) -> float:
    """The median seconds of a meta-iteration, drawing, optimizer and exchange included."""
    _, _, *ends = stamps(size, threads=threads, iterations=1 + ITERATIONS, processes=processes)
    return median(after - before for before, after in itertools.pairwise(ends))
