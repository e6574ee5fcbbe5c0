"""What a training step waits for: drawing its tasks."""

from __future__ import annotations

import os
import time
from typing import Any

import torch

from experiments.benchmarks.case import Size
from mdtheory.config import open_data, parse
from mdtheory.data.episodes import EpisodeStream
from mdtheory.data.open import MINI_IMAGENET_VARIABLE


def data(size: Size) -> dict[str, Any]:
    """The images: real ones where they are to be found, else glyphs."""
    return {
        "source": "mini-imagenet" if os.environ.get(MINI_IMAGENET_VARIABLE) else "glyphs",
        "image_size": size.image_size,
    }


def draw(size: Size, *, rounds: int) -> dict[str, Any]:
    """Seconds to draw and convert the tasks of a meta-iteration, one number a round; the first,
    cold one is left out.
    """
    source = open_data(parse({"data": data(size)}).data)
    stream = EpisodeStream(
        source, split="train", seed=0, n_way=size.n_way, n_shot=size.shot, n_query=size.n_query
    )
    seconds = []
    for number in range(rounds + 1):
        clock = time.perf_counter()
        for index in range(number * size.n_tasks, (number + 1) * size.n_tasks):
            stream(index).to(device="cpu", dtype=torch.float32)
        seconds.append(time.perf_counter() - clock)
    return {"seconds": seconds[1:], "source": data(size)["source"]}
