"""``mdtheory geometries``: what can be learned, and what it costs. The plain list imports no
torch.
"""

from __future__ import annotations

import inspect
import time
from contextlib import nullcontext
from importlib.metadata import entry_points
from itertools import pairwise
from typing import Annotated, Any

import typer

from mdtheory.commands.console import (
    JsonFlag,
    PluginOption,
    use_plugins,
    write_json,
    write_table,
)
from mdtheory.core.limit import plugin_limit
from mdtheory.core.progress import progress_bar
from mdtheory.core.written import Entry, entries, first_paragraph

PACKAGE = "mdtheory.geometry"


def geometries(
    time_: Annotated[
        bool, typer.Option("--time", help="Also count parameters and measure a task step; slow.")
    ] = False,
    plugin: PluginOption = None,
    json_: JsonFlag = False,
) -> None:
    """List the loss geometries: what each does and where it comes from; with --time also what it
    adds and costs.

    parameters (with --time): what the geometry adds to the 121,093 of Conv4-64 (84 x
    84 colour images, 5 classes). step (with --time): one measured task step (gradient
    and move) of a small Conv4 (16 channels, 28 x 28) on 5 images, in milliseconds.

    [bold]Examples[/bold]

      mdtheory geometries

      mdtheory geometries --time

      mdtheory geometries --plugin momentum.py --json
    """
    use_plugins(plugin)
    if time_ or plugin or entry_points(group=PACKAGE):
        found = registered(timed=time_)
    else:
        found = [described(entry) for entry in entries(PACKAGE)]
    if json_:
        write_json(found)
        return
    rows = [
        [
            g["name"],
            *([f"{g['parameters']:,}", f"{1000 * g['step_seconds']:.1f}"] if time_ else []),
            g["summary"].replace("``", ""),
            g["source"],
        ]
        for g in found
    ]
    write_table(
        "loss geometries",
        ["name", *(["parameters", "step (ms)"] if time_ else []), "what it does", "source"],
        rows,
        words=(0, 3, 4) if time_ else (0, 1, 2),
    )


def described(entry: Entry) -> dict[str, Any]:
    """Name, summary and source, as in the table."""
    return {"name": entry.name, "summary": entry.summary, "source": entry.source}


def registered(*, timed: bool) -> list[dict[str, Any]]:
    """All geometries of the registry, plug-ins and installed ones too; with parameters and seconds
    of a task step if ``timed``.
    """
    from mdtheory.geometry import geometries as registry

    found = []
    names = registry.names()
    with progress_bar("geometries") if timed else nullcontext() as progress:
        for place, name in enumerate(names):
            with plugin_limit():
                factory = registry.get(name)
                summary = first_paragraph(inspect.getdoc(factory))
                one = described(Entry(name, summary, factory().source))
                found.append(one | (measured(name) if timed else {}))
            if progress:
                progress(place + 1, len(names))
    return found


def measured(name: str) -> dict[str, Any]:
    """Parameters on Conv4-64, and seconds of a task step on a small one."""
    from mdtheory.geometry import geometries as registry
    from mdtheory.meta.learner import MetaLearner
    from mdtheory.models.conv4 import Conv4

    backbone = Conv4()
    full = MetaLearner(backbone, registry.get(name)())
    added = sum(value.numel() for value in full.meta().values()) - sum(
        value.numel() for value in backbone.parameters()
    )
    small = MetaLearner(Conv4(in_channels=1, image_size=28, channels=16), registry.get(name)())
    return {"parameters": added, "step_seconds": step_seconds(small)}


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
