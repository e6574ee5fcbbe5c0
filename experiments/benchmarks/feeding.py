"""What a training step waits for: drawing its tasks; and what its first step waits for: the start of ``mdtheory train``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from experiments.benchmarks.work import Size
from experiments.generated import ROOT
from mdtheory.config import parse
from mdtheory.data.episodes import EpisodeStream
from mdtheory.data.open import MINI_IMAGENET_VARIABLE
from mdtheory.meta.builder import open_data

CLOCK = "MDTHEORY_BENCHMARK_CLOCK"
LONGEST_START = 600  # seconds


def data(size: Size) -> dict[str, Any]:
    """The images: real ones where they are to be found, else glyphs."""
    return {"source": "mini-imagenet" if os.environ.get(MINI_IMAGENET_VARIABLE) else "glyphs", "image_size": size.image_size}


def draw(size: Size, *, rounds: int) -> dict[str, Any]:
    """Seconds to draw and convert the tasks of a meta-iteration, one number a round; the first, cold one is left out."""
    source = open_data(parse({"data": data(size)}).data)
    stream = EpisodeStream(source, split="train", seed=0, n_way=size.n_way, n_shot=size.shot, n_query=size.n_query)
    seconds = []
    for number in range(rounds + 1):
        clock = time.perf_counter()
        for index in range(number * size.n_tasks, (number + 1) * size.n_tasks):
            stream(index).to(device="cpu", dtype=torch.float32)
        seconds.append(time.perf_counter() - clock)
    return {"seconds": seconds[1:], "source": data(size)["source"]}


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


def start(size: Size, threads: int) -> dict[str, float]:
    """From the start of the process to the first meta-iteration, and that iteration alone, in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        stamps = Path(folder) / "stamps"
        plugin = Path(__file__).with_name("clock.py")
        command = [sys.executable, "-m", "mdtheory", "train", "--out", str(Path(folder) / "run"), "--plugin", str(plugin)]
        begun = time.time()
        subprocess.run(
            [*command, *settings(size, threads)],
            cwd=ROOT,
            env={**os.environ, CLOCK: str(stamps), "OMP_NUM_THREADS": str(threads)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
            timeout=LONGEST_START,
        )
        first, done = (float(line) for line in stamps.read_text().split())
    return {"seconds": first - begun, "first_iteration": done - first}
