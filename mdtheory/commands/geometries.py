"""``mdtheory geometries``: what can be learned, and what it costs."""

from __future__ import annotations

import inspect
import time
from itertools import pairwise
from typing import Annotated, Any

import typer

from mdtheory.commands.console import (
    JsonFlag,
    PluginOption,
    plugin_limit,
    use_plugins,
    write_json,
    write_table,
)
from mdtheory.core.progress import progress_bar


def geometries(
    time_: Annotated[
        bool, typer.Option("--time", help="Also measure a task step of each; takes a while.")
    ] = False,
    plugin: PluginOption = None,
    json_: JsonFlag = False,
) -> None:
    """List the loss geometries: where each comes from, how many meta-parameters it adds, and, where
    asked, what a task step costs.

    parameters: what the geometry adds to the 121,093 of Conv4-64 (84 x 84 colour
    images, 5 classes). step (with --time): one measured task step (gradient and
    move) of a small Conv4 (16 channels, 28 x 28) on 5 images, in milliseconds.

    [bold]Examples[/bold]

      mdtheory geometries

      mdtheory geometries --time

      mdtheory geometries --plugin momentum.py --json
    """
    from mdtheory.geometry import geometries as registry

    use_plugins(plugin)
    found = []
    with progress_bar("geometries") as progress:
        for place, name in enumerate(names := registry.names()):
            with plugin_limit():
                found.append(describe(name, timed=time_))
            progress(place + 1, len(names))
    if json_:
        write_json(found)
        return
    rows = [
        [
            g["name"],
            f"{g['parameters']:,}",
            *([f"{1000 * g['step_seconds']:.1f}"] if time_ else []),
            summary(registry.get(g["name"])),
            g["source"],
        ]
        for g in found
    ]
    write_table(
        "loss geometries",
        ["name", "parameters", *(["step (ms)"] if time_ else []), "what it does", "source"],
        rows,
        words=(0, 3, 4) if time_ else (0, 2, 3),
    )


def summary(factory: Any) -> str:
    """The first paragraph of its docstring, in one line."""
    return " ".join((inspect.getdoc(factory) or "").split("\n\n")[0].split())


def describe(name: str, *, timed: bool) -> dict[str, Any]:
    """Name, source, parameters on Conv4-64 and, if ``timed``, seconds of a task step of one
    geometry.
    """
    from mdtheory.geometry import geometries as registry
    from mdtheory.meta.learner import MetaLearner
    from mdtheory.models.conv4 import Conv4

    backbone = Conv4()
    full = MetaLearner(backbone, registry.get(name)())
    added = sum(value.numel() for value in full.meta().values()) - sum(
        value.numel() for value in backbone.parameters()
    )
    found = {"name": name, "source": full.geometry.source, "parameters": added}
    if timed:
        small = MetaLearner(Conv4(in_channels=1, image_size=28, channels=16), registry.get(name)())
        found["step_seconds"] = step_seconds(small)
    return found


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
