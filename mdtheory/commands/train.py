"""``mdtheory train``: a configuration in, a folder with checkpoints and metrics out."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mdtheory.commands.console import (
    JsonFlag,
    PluginOption,
    complain,
    load_plugins,
    one_line,
    use_threads,
    write_json,
)

if TYPE_CHECKING:
    from mdtheory.config import RunConfig
    from mdtheory.meta.distributed import Processes
    from mdtheory.meta.trainer import Counters, MetaTrainer


def train(
    out: Annotated[
        Path,
        typer.Option("--out", metavar="DIR", help="Folder for last.pt, best.pt, metrics.jsonl."),
    ],
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="TOML", help="The run; default: MAML on glyphs."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Override one key, e.g. task.n_shot=5; repeat it."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from DIR/last.pt, or start if there is none.")
    ] = False,
    minutes: Annotated[
        float | None,
        typer.Option(
            "--minutes", min=0, help="Save and leave after about so many minutes; --resume goes on."
        ),
    ] = None,
    any_threads: Annotated[
        bool,
        typer.Option(
            "--any-threads",
            help="Resume with another number of threads, though the bits will differ.",
        ),
    ] = False,
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

    load_plugins(plugin)
    chosen = (
        load(config, settings or [])
        if config is not None
        else parse(override({}, settings or []), origin="--set")
    )
    use_threads(chosen.threads)
    result = run(chosen, out, resume=resume, minutes=minutes, any_threads=any_threads)
    if result is None:
        return
    if json_:
        write_json(result)
    else:
        for key, value in result.items():
            typer.echo(f"{key}: {value}")


def run(
    config: RunConfig, out: Path, *, resume: bool, minutes: float | None, any_threads: bool
) -> dict[str, Any] | None:
    """Train in ``out``, with the other processes of ``torchrun`` if there are any; the summary for
    stdout, on rank 0 alone.
    """
    from mdtheory.meta import checkpoint
    from mdtheory.meta.distributed import PeerLostError, process_group
    from mdtheory.meta.interrupt import InterruptedRunError
    from mdtheory.run.build import pick_device

    with process_group(pick_device(config.device)) as processes:
        try:
            trainer = prepare(config, out, processes, resume=resume, any_threads=any_threads)
            counters = fit(trainer, minutes=minutes)
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
    if processes.rank > 0:
        return None
    return {
        "out": str(out),
        "iteration": counters.iteration,
        "finished": counters.iteration >= config.meta.iterations,
        "best_iteration": counters.best_iteration,
        "best_score": counters.best_score,
        "digest": checkpoint.digest(checkpoint.load(out / "last.pt")),
    }


def prepare(
    config: RunConfig, out: Path, processes: Processes, *, resume: bool, any_threads: bool
) -> MetaTrainer:
    """The trainer, at the checkpoint's iteration if there is one; on all processes or on none."""
    from mdtheory.meta import events
    from mdtheory.run.build import open_data, pick_device
    from mdtheory.run.folder import RunFolder

    folder = RunFolder(out, resume=resume, processes=processes)
    return processes.all_or_none(
        lambda: folder.trainer(
            config,
            open_data(config.data, pick_device(config.device)),
            listeners=events.for_run(out, config.geometry.name),
            any_threads=any_threads,
        )
    )


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
