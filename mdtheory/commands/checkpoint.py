"""``mdtheory checkpoint``: look into a checkpoint, compare two, publish the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mdtheory.commands.console import ForceFlag, JsonFlag, demand_new, write_json

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Look into a checkpoint, compare two, publish the weights.",
)
File = Annotated[Path, typer.Argument(metavar="FILE", help="A checkpoint, e.g. runs/maml/last.pt.")]


@app.command()
def digest(file: File) -> None:
    """Print one sha256 over weights, optimizer, scheduler, random state and counters.

    Two runs with the same digest are in the same state to the bit; times, paths
    and versions do not count.

    [bold]Example[/bold]

      mdtheory checkpoint digest runs/maml/last.pt
    """
    from mdtheory.meta import checkpoint

    typer.echo(checkpoint.digest(checkpoint.load(file)))


@app.command()
def show(file: File, json_: JsonFlag = False) -> None:
    """Print what a checkpoint says about itself: progress, versions, sizes and the configuration.

    [bold]Example[/bold]

      mdtheory checkpoint show runs/maml/best.pt
    """
    import json

    from mdtheory.meta import checkpoint
    from mdtheory.run.build import config_of

    state = checkpoint.load(file)
    config = config_of(state, origin=str(file))
    facts = {
        "digest": checkpoint.digest(state),
        **state["counters"],
        "geometry": config.geometry.name,
        "model": config.model.name,
        "norm": config.norm,
        "tensors": len(state["weights"]),
        "numbers": sum(value.numel() for value in state["weights"].values()),
        "threads": state["threads"],
        "torch": state["torch"],
        "mdtheory": state["mdtheory"],
        "config_digest": state["config_digest"],
        "data_digest": state["data_digest"],
    }
    if json_:
        write_json({**facts, "config": json.loads(config.to_json())})
        return
    for key, value in facts.items():
        typer.echo(f"{key}: {value}")
    typer.echo("\n" + config.to_toml().rstrip())


@app.command()
def export(
    file: File,
    target: Annotated[
        Path, typer.Argument(metavar="OUT", help="The file to write, ending in .safetensors.")
    ],
    force: ForceFlag = False,
) -> None:
    """Write the weights as a safetensors file, with the configuration and the digest as metadata.

    [bold]Example[/bold]

      mdtheory checkpoint export runs/maml/best.pt maml.safetensors
    """
    from mdtheory.meta import checkpoint

    if target.suffix != ".safetensors":
        raise ValueError(f"OUT must end in .safetensors, got {target}; rename it")
    demand_new(target, "OUT", force=force)
    checkpoint.export_safetensors(checkpoint.load(file), target)
    typer.echo(str(target))
