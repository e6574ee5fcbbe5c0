"""``mdtheory train``: a configuration in, a folder with checkpoints and metrics out."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mdtheory.commands.console import (
    ForceFlag,
    JsonFlag,
    PluginOption,
    complain,
    one_line,
    use_plugins,
    use_threads,
    write_json,
)

if TYPE_CHECKING:
    import torch

    from mdtheory.config import RunConfig
    from mdtheory.meta.trainer import Counters, MetaTrainer
    from mdtheory.run.folder import RunFolder


OutOption = Annotated[
    Path,
    typer.Option(
        "--out", metavar="DIR", help="Folder for last.pt, best.pt, metrics.jsonl, summary.md."
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="TOML", help="The run; default: MAML on glyphs, 60,000 iterations."
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override one key, e.g. task.n_shot=5; repeat it."
    ),
]
ResumeFlag = Annotated[
    bool, typer.Option("--resume", help="Go on from DIR/last.pt, or start if there is none.")
]
MinutesOption = Annotated[
    float | None,
    typer.Option(
        "--minutes", min=0, help="Save and leave after about so many minutes; --resume goes on."
    ),
]
OtherBitsFlag = Annotated[
    bool,
    typer.Option(
        "--other-bits",
        help="Resume with other threads, kernels, device or torch, though the bits will differ.",
    ),
]


def train(
    out: OutOption,
    config: ConfigOption = None,
    settings: SetOption = None,
    resume: ResumeFlag = False,
    minutes: MinutesOption = None,
    other_bits: OtherBitsFlag = False,
    force: ForceFlag = False,
    plugin: PluginOption = None,
    json_: JsonFlag = False,
) -> None:
    """Meta-train a model with a loss geometry, in a way that can be stopped at any moment.

    Kill it however you like: [bold]--resume[/bold] continues from the last
    checkpoint and, on a CPU, ends with the very bits of a run that was never
    stopped. Ctrl-C finishes the iteration, saves, and leaves with code 130.
    Under [bold]torchrun[/bold] several processes share the tasks of an iteration.

    [bold]Examples[/bold]

      mdtheory train --config experiments/configs/glyphs.toml --out runs/maml

      mdtheory train --config experiments/configs/glyphs.toml --set geometry.name=metamida --out
      runs/metamida

      mdtheory train --config experiments/configs/mini-5w1s-metamida.toml --out runs/mini --resume
      --minutes 60

      torchrun --nproc-per-node 2 -m mdtheory train --config experiments/configs/glyphs.toml --out
      runs/two

    The data set miniImageNet is found by data.path or by the variable
    MDTHEORY_MINI_IMAGENET.
    """
    from mdtheory.config import load, override, parse

    use_plugins(plugin)
    chosen = (
        load(config, settings or [])
        if config is not None
        else parse(override({}, settings or []), origin="--set")
    )
    use_threads(chosen.threads)
    result = run(chosen, out, resume=resume, force=force, minutes=minutes, other_bits=other_bits)
    if result is None:
        return
    if json_:
        write_json(result)
    else:
        for key, value in result.items():
            typer.echo(f"{key}: {value}")


def run(
    config: RunConfig,
    out: Path,
    *,
    resume: bool,
    force: bool,
    minutes: float | None,
    other_bits: bool,
) -> dict[str, Any] | None:
    """Train in ``out``, with the other processes of ``torchrun`` if there are any; the summary for
    stdout, on rank 0 alone.
    """
    from mdtheory.meta.distributed import PeerLostError, process_group
    from mdtheory.meta.interrupt import InterruptedRunError
    from mdtheory.run.build import pick_device
    from mdtheory.run.folder import RunFolder

    device = pick_device(config.device)
    with process_group(device) as processes:
        try:
            with RunFolder(out, resume=resume, force=force, processes=processes) as folder:
                trainer = prepare(config, folder, device, other_bits=other_bits)
                counters = fit(trainer, minutes=minutes)
                return summary(out, counters, config) if processes.rank == 0 else None
        except InterruptedRunError as request:
            if processes.rank == 0:
                complain(f"{request}; --resume goes on")
            raise typer.Exit(request.exit_code) from None
        except PeerLostError:
            raise
        except (ValueError, FloatingPointError, OSError) as error:
            if processes.rank == 0:
                raise
            raise typer.Exit(2) from error  # rank 0 says the same


def prepare(
    config: RunConfig, folder: RunFolder, device: torch.device, *, other_bits: bool
) -> MetaTrainer:
    """The trainer, at the checkpoint's iteration if there is one; on all processes or on none."""
    from mdtheory.config import open_data
    from mdtheory.meta import events
    from mdtheory.run.summary import Summary

    return folder.processes.all_or_none(
        lambda: folder.trainer(
            config,
            open_data(config.data, device),
            listeners=[
                *events.for_run(folder.path, config.geometry.name),
                *events.of_plugins(folder.path, config.model_dump(mode="json")),
                Summary(folder.path, config, intact=folder.intact),
            ],
            other_bits=other_bits,
        )
    )


def summary(out: Path, counters: Counters, config: RunConfig) -> dict[str, Any]:
    """What a run says at its end."""
    from mdtheory.meta import checkpoint

    return {
        "out": str(out),
        "iteration": counters.iteration,
        "finished": counters.iteration >= config.meta.iterations,
        "best_iteration": counters.best_iteration,
        "best_score": counters.best_score,
        "digest": checkpoint.digest(checkpoint.load(out / "last.pt")),
    }


def fit(trainer: MetaTrainer, *, minutes: float | None) -> Counters:
    """``trainer.fit``; that another process is lost is said before ``torchrun``, which knows it
    too, can end this one.
    """
    from mdtheory.meta.distributed import PeerLostError
    from mdtheory.meta.interrupt import StopRequest

    with StopRequest() if trainer.processes.size > 1 else nullcontext():
        try:
            return trainer.fit(minutes=minutes)
        except PeerLostError as error:
            complain(one_line(error))
            raise typer.Exit(2) from error
