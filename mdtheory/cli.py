"""The command line: one file a command, nothing heavy imported before a command runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import mdtheory
from mdtheory.commands import (
    adapt,
    check,
    checkpoint,
    compare,
    data,
    demo,
    doctor,
    evaluate,
    geometries,
    plot,
    train,
)
from mdtheory.run.allocator import keep_freed_memory


class Guarded(TyperGroup):
    """Turns an expected error into one sentence on the error stream and exit code 2; a console that
    fails ends nothing.
    """

    def main(self, args: Sequence[str] | None = None, *rest: Any, **options: Any) -> Any:
        """Run the program on ``args`` (default: those of the process)."""
        from mdtheory.commands.console import complain, demand_arguments, one_line, prepare_streams

        results = prepare_streams()
        try:
            demand_arguments(sys.argv[1:] if args is None else args)
        except ValueError as error:
            complain(one_line(error))
            raise SystemExit(2) from error
        try:
            return super().main(args, *rest, **options)
        except SystemExit as end:
            results.flush()
            if results.failure is None or isinstance(results.failure, BrokenPipeError) or end.code:
                raise
            complain(
                "the standard output must take the result, but the system says: "
                f"{one_line(results.failure)}; it is above, on the error stream"
            )
            raise SystemExit(2) from None

    def invoke(self, ctx: Any) -> Any:
        """Run the command, under the handler of Ctrl-C that the context brings, if any."""
        from mdtheory.commands.console import (
            EXPECTED,
            complain,
            handling_ctrl_c,
            in_use,
            lacks_memory,
            lacks_threads,
            one_line,
            plugin_failure,
        )

        in_use.clear()
        try:
            with handling_ctrl_c(ctx.obj):
                return super().invoke(ctx)
        except KeyboardInterrupt:
            complain("stopped")
            raise typer.Exit(130) from None
        except BaseException as error:
            if (said := plugin_failure(error)) is not None:
                complain(said)
            elif isinstance(error, typer.Exit):
                raise
            elif isinstance(error, EXPECTED):
                complain(one_line(error))
            elif isinstance(error, RuntimeError | MemoryError) and lacks_memory(error):
                complain(
                    f"the run must fit in memory, but {one_line(error)}; choose a smaller model, "
                    "or fewer tasks or steps"
                )
            elif lacks_threads(error):
                complain(
                    f"the system must allow a few threads, but {one_line(error)}; raise the limit "
                    "of processes (ulimit -u)"
                )
            else:
                raise
            raise typer.Exit(2) from error


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
    """Meta-learning with learned loss geometries: from many small tasks, learn where gradient steps
    start and how they move.

    Start with [bold]mdtheory demo[/bold] (no data needed, a few minutes), then [bold]mdtheory
    train --help[/bold]. Every command has examples in its --help, and writes JSON alone to stdout
    with --json.
    """
    keep_freed_memory()


app.command()(demo.demo)
app.command()(train.train)
app.command()(evaluate.evaluate)
app.command()(compare.compare)
app.command()(plot.plot)
app.command()(adapt.adapt)
app.command()(geometries.geometries)
app.command()(check.check)
app.add_typer(data.app, name="data")
app.add_typer(checkpoint.app, name="checkpoint")
app.command()(doctor.doctor)
