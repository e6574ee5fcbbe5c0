"""``python -m experiments.benchmarks``: seconds, memory and rightness of a meta-iteration, ours and
others', side by side.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from experiments.generated import ROOT

if TYPE_CHECKING:
    from experiments.benchmarks.measurements import BenchRecord, Settings

HERE = Path(__file__).parent
GRIDS: dict[str, dict[str, Any]] = {
    "full": {"shots": (1, 5), "steps": (1, 5, 10, 20), "eval_tasks": 600},
    "quick": {"shots": (1,), "steps": (1, 5), "eval_tasks": 20},
}
PARTS = ("iterations", "evaluation", "feeding", "start", "processes")


def main(
    grid: Annotated[
        Literal["full", "quick"] | None,
        typer.Option("--grid", help="All of it, or what a break allows."),
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option("--method", help="Only this method; may be repeated.")
    ] = None,
    shot: Annotated[
        list[int] | None, typer.Option("--shot", min=1, help="Images a class; may be repeated.")
    ] = None,
    n_steps: Annotated[
        list[int] | None, typer.Option("--n-steps", min=1, help="Task steps; may be repeated.")
    ] = None,
    implementation: Annotated[
        list[str] | None, typer.Option("--implementation", help="Only this one; may be repeated.")
    ] = None,
    part: Annotated[
        list[str] | None, typer.Option("--part", help=f"{', '.join(PARTS)}; may be repeated.")
    ] = None,
    threads: Annotated[
        int, typer.Option("--threads", min=1, help="CPU threads of every process.")
    ] = 2,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Processes for every number.")] = 3,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0, help="At least so long in every process.")
    ] = 3.0,
    channels: Annotated[int, typer.Option("--channels", min=1, help="Of Conv4.")] = 64,
    image_size: Annotated[int, typer.Option("--image-size", min=16, help="Pixels of a side.")] = 84,
    eval_tasks: Annotated[
        int | None, typer.Option("--eval-tasks", min=1, help="Tasks of the evaluation.")
    ] = None,
    allocator: Annotated[
        Literal["system", "kept"],
        typer.Option(
            "--allocator",
            help="For all: glibc as it is, or told to keep freed memory, as mdtheory train does.",
        ),
    ] = "system",
    plugin: Annotated[
        list[Path] | None, typer.Option("--plugin", metavar="FILE", help="One more implementation.")
    ] = None,
    json_: Annotated[
        bool, typer.Option("--json", help="Write JSON, and nothing else, to stdout.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="The JSON goes there instead.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", help="Record it under this name; a grid is recorded by its own."),
    ] = None,
    records: Annotated[
        Path, typer.Option("--records", metavar="DIR", help="Where records are.")
    ] = HERE / "records",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the record of the same settings.")
    ] = False,
    device: Annotated[
        Literal["cpu", "cuda"], typer.Option("--device", help="cuda: the table of a GPU.")
    ] = "cpu",
    minutes: Annotated[
        float, typer.Option("--minutes", min=0, help="On a GPU, about so long.")
    ] = 4.0,
) -> None:
    """Measure meta-iterations in fresh processes, the implementations in turn, and judge every
    meta-gradient.

    Without --grid: the quick grid, or the part of it that --method, --shot,
    --n-steps, --implementation or --part name. Other libraries come with
    mdtheory[bench]; one that is not installed is listed as unavailable. What
    lies elsewhere is found by PYTHONPATH.

    Examples:

      python -m experiments.benchmarks --grid quick --rounds 1

      python -m experiments.benchmarks --method maml --shot 1 --n-steps 5 --json

      python -m experiments.benchmarks --grid full --resume

      python -m experiments.benchmarks --device cuda --minutes 4

    --json: a list of objects with implementation, method, estimator, order,
    precision, shot, n_steps, channels, image_size, threads, seconds, peak_mib,
    ratio_to_ours, gradient_error; null where there is no such number.
    """
    from experiments.benchmarks import measurements as store
    from experiments.benchmarks.bench import Failed
    from experiments.benchmarks.case import Size
    from experiments.benchmarks.summary import tables
    from mdtheory.commands.console import write_table

    if device == "cuda":
        from experiments.benchmarks import cuda

        size = Size(channels=channels, image_size=image_size)
        raise typer.Exit(
            cuda.main(
                minutes=minutes,
                size=size,
                records=records,
                say=lambda text: typer.echo(text, err=True),
            )
        )
    named = any([method, shot, n_steps, implementation, part])
    base = GRIDS[grid or "quick"]
    lone = named and grid is None
    try:
        settings = _settings(
            method=method,
            implementation=implementation,
            plugin=plugin,
            shots=tuple(shot or base["shots"]),
            steps=tuple(n_steps or ((5,) if lone else base["steps"])),
            parts=tuple(part or (("iterations",) if lone else PARTS)),
            size=Size(channels=channels, image_size=image_size),
            threads=threads,
            rounds=rounds,
            seconds=seconds,
            eval_tasks=eval_tasks or base["eval_tasks"],
            allocator=allocator,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    called = name or (None if lone else grid or "quick")
    file = None if called is None else records / f"{called}.json"
    try:
        found = _run(settings, file, resume=resume)
    except Failed as failure:
        typer.echo(
            f"stopped: {failure}"
            + (f"; what was measured is in {file}, --resume goes on" if file else ""),
            err=True,
        )
        raise typer.Exit(1) from None
    if json_ or out is not None:
        text = json.dumps(store.rounded(found.rows()), indent=1)
        if out is None:
            typer.echo(text)
        else:
            out.write_text(text + "\n", encoding="utf-8")
    if not json_:
        for one in tables(found):
            write_table(one.title, one.columns, one.rows, caption=one.note)
    if file is not None:
        typer.echo(
            f"record: {file.relative_to(ROOT) if file.is_relative_to(ROOT) else file}", err=True
        )


def _settings(
    *,
    method: list[str] | None,
    implementation: list[str] | None,
    plugin: list[Path] | None,
    **others: Any,
) -> Settings:
    """The settings, with every name checked."""
    from experiments.benchmarks.case import METHODS
    from experiments.benchmarks.implementations import OURS, PLAIN, implementations
    from experiments.benchmarks.measurements import Settings
    from mdtheory.core.registry import load_plugin, unknown

    plugins = tuple(str(path) for path in plugin or ())
    for path in plugins:
        load_plugin(path)
    for slug in method or ():
        if slug not in METHODS:
            raise unknown("--method", slug, list(METHODS))
    for slug in others["parts"]:
        if slug not in PARTS:
            raise unknown("--part", slug, list(PARTS))
    known = implementations.names()
    for slug in implementation or ():
        implementations.get(slug)
    chosen = implementation or [PLAIN, *(one for one in known if one not in (PLAIN, OURS)), OURS]
    return Settings(
        methods=tuple(method or METHODS), implementations=tuple(chosen), plugins=plugins, **others
    )


def _run(settings: Settings, file: Path | None, *, resume: bool) -> BenchRecord:
    """Everything that is missing, with progress on stderr; kept in the file, if any, after each
    part.
    """
    from experiments.benchmarks import bench, measurements as store, progress

    begun = bench.blank(settings)
    if resume and file is not None and file.is_file():
        stored = store.load(file)
        if (stored.settings, stored.code.sources, stored.machine) != (
            begun.settings,
            begun.code.sources,
            begun.machine,
        ):
            raise typer.BadParameter(
                "--resume must find a record of the same settings, sources and machine, got "
                f"another in {file}; leave it out, "
                "or choose another --name"
            )
        begun = stored
    with progress.bar(bench.expected(begun)) as tell:
        return bench.run(
            begun, tell=tell, keep=lambda one: store.save(one, file) if file is not None else None
        )


if __name__ == "__main__":
    typer.run(main)
