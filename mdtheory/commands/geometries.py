"""``mdtheory geometries``: what can be learned, and what it costs."""

from __future__ import annotations

import inspect
import time
from itertools import pairwise
from typing import Any

from mdtheory.commands.console import (
    JsonFlag,
    PluginOption,
    plugin_limit,
    use_plugins,
    write_json,
    write_table,
)


def geometries(plugin: PluginOption = None, json_: JsonFlag = False) -> None:
    """List the loss geometries: where each comes from, how many meta-parameters it adds, what a
    task step costs.

    parameters: what the geometry adds to the 121,093 of Conv4-64 (84 x 84 colour
    images, 5 classes). step: one measured task step (gradient and move) of a
    small Conv4 (16 channels, 28 x 28) on 5 images, in milliseconds.

    [bold]Examples[/bold]

      mdtheory geometries

      mdtheory geometries --plugin momentum.py --json
    """
    from mdtheory.geometry import geometries as registry

    use_plugins(plugin)
    found = []
    for name in registry.names():
        with plugin_limit():
            found.append(describe(name))
    if json_:
        write_json(found)
        return
    rows = [
        [
            g["name"],
            f"{g['parameters']:,}",
            f"{1000 * g['step_seconds']:.1f}",
            summary(registry.get(g["name"])),
            g["source"],
        ]
        for g in found
    ]
    write_table(
        "loss geometries",
        ["name", "parameters", "step (ms)", "what it does", "source"],
        rows,
        words=(0, 3, 4),
    )


def summary(factory: Any) -> str:
    """The first paragraph of its docstring, in one line."""
    return " ".join((inspect.getdoc(factory) or "").split("\n\n")[0].split())


def describe(name: str) -> dict[str, Any]:
    """Name, source, parameters on Conv4-64 and seconds of a task step of one geometry."""
    from mdtheory.geometry import geometries as registry
    from mdtheory.meta.learner import MetaLearner
    from mdtheory.models.conv4 import Conv4

    backbone = Conv4()
    full = MetaLearner(backbone, registry.get(name)())
    added = sum(value.numel() for value in full.meta().values()) - sum(
        value.numel() for value in backbone.parameters()
    )
    small = MetaLearner(Conv4(in_channels=1, image_size=28, channels=16), registry.get(name)())
    return {
        "name": name,
        "source": full.geometry.source,
        "parameters": added,
        "step_seconds": step_seconds(small),
    }


def step_seconds(learner: Any, *, repeats: int = 5) -> float:
    """The fastest of some task steps (gradient at the point, move, new point) on five random grey
    images.
    """
    import torch

    from mdtheory.core import seeding
    from mdtheory.core.types import Episode
    from mdtheory.inner.solver import states

    images = torch.rand(5, 1, 28, 28, generator=seeding.generator("step_seconds"))
    labels = torch.arange(5)
    task = learner.task(Episode(images, labels, images, labels))
    way = states(learner.problem(n_steps=repeats), learner.meta(), task)
    moments = [time.perf_counter() for _ in way]
    return min(after - before for before, after in pairwise(moments[1:]))
