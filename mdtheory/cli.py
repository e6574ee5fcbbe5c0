"""The command line: nine commands, one file each, nothing heavy imported before a command runs."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import mdtheory
from mdtheory.commands import (
    adapt,
    check,
    checkpoint,
    data,
    demo,
    doctor,
    evaluate,
    geometries,
    train,
)
from mdtheory.run.allocator import keep_freed_memory

EXPECTED = (ValueError, FloatingPointError, OSError)
"""Errors of input or machine: one sentence and exit code 2. Anything else is our bug and keeps its
traceback.
"""


class Guarded(TyperGroup):
    """Turns an expected error into one sentence on the error stream and exit code 2."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        from mdtheory.commands.console import complain, lacks_memory, one_line

        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except EXPECTED as error:
            complain(one_line(error))
            raise typer.Exit(2) from error
        except (RuntimeError, MemoryError) as error:
            if not lacks_memory(error):
                raise
            complain(
                f"the run must fit in memory, but {one_line(error)}; choose a smaller model, or "
                "fewer tasks or steps"
            )
            raise typer.Exit(2) from error
        except KeyboardInterrupt:
            complain("stopped")
            raise typer.Exit(130) from None


app = typer.Typer(
    name="mdtheory",
    cls=Guarded,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(mdtheory.__version__)
        raise typer.Exit


VersionFlag = Annotated[
    bool,
    typer.Option(
        "--version", help="Print the version and leave.", callback=_version, is_eager=True
    ),
]


@app.callback()
def main(version: VersionFlag = False) -> None:
    """Meta-learning with learned loss geometries: mirror descent learns how to learn a task from a
    few examples.

    Start with [bold]mdtheory demo[/bold] (no data needed, about two minutes), then [bold]mdtheory
    train --help[/bold]. Every command has examples in its --help, and writes JSON alone to stdout
    with --json.
    """
    keep_freed_memory()


app.command()(demo.demo)
app.command()(train.train)
app.command()(evaluate.evaluate)
app.command()(adapt.adapt)
app.command()(geometries.geometries)
app.command()(check.check)
app.add_typer(data.app, name="data")
app.add_typer(checkpoint.app, name="checkpoint")
app.command()(doctor.doctor)
