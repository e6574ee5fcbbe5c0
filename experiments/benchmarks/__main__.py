"""``python -m experiments.benchmarks``: seconds, memory and rightness of a meta-iteration, ours and
others', side by side.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from experiments.benchmarks import options as given
from experiments.benchmarks.options import PARTS
from experiments.generated import ROOT

if TYPE_CHECKING:
    from experiments.benchmarks.measurements import BenchRecord, Settings

HERE = Path(__file__).parent
GRIDS: dict[str, dict[str, Any]] = {
    "full": {"shots": (1, 5), "steps": (1, 5, 10, 20), "eval_tasks": 600},
    "quick": {"shots": (1,), "steps": (1, 5), "eval_tasks": 20},
}


def main(
    grid: given.Grid = None,
    method: given.Methods = None,
    shot: given.Shots = None,
    n_steps: given.Steps = None,
    implementation: given.Implementations = None,
    part: given.Parts = None,
    plugin: given.Plugins = None,
    changed: given.Overrides = None,
    as_json: given.AsJson = False,
    name: given.Name = None,
    records: given.Records = HERE / "records",
    resume: given.Resume = False,
    device: given.Device = "cpu",
    minutes: given.Minutes = 4.0,
) -> None:
    """Measure meta-iterations in fresh processes, the implementations in turn, and judge every
    meta-gradient.

    Without --grid: the quick grid, or the part of it that --method, --shot,
    --n-steps, --implementation or --part name. Other libraries come with
    mdtheory[bench]; one that is not installed is listed as unavailable. What
    lies elsewhere is found by PYTHONPATH.

    Examples:

      python -m experiments.benchmarks --grid quick --set rounds=1

      python -m experiments.benchmarks --method maml --shot 1 --n-steps 5 --json

      python -m experiments.benchmarks --grid full --resume

      python -m experiments.benchmarks --device cuda --minutes 4

    --json: a list of objects with implementation, method, estimator, order,
    precision, shot, n_steps, channels, image_size, threads, seconds, peak_mib,
    ratio_to_ours, gradient_error; null where there is no such number.
    """
    named = any([method, shot, n_steps, implementation, part])
    called = name or (None if named and grid is None else grid or "quick")
    file = None if called is None else records / f"{called}.json"
    try:
        if device == "cuda":
            raise typer.Exit(_on_a_gpu(method, shot, n_steps, changed, minutes, records))
        chosen = {"shots": shot, "steps": n_steps, "parts": part}
        settings = _settings(grid, chosen, method, implementation, plugin, changed)
    except ValueError as error:
        raise typer.BadParameter(_sentence(error)) from None
    _tell(_measured(settings, file, resume=resume), file, as_json=as_json)


def _on_a_gpu(
    method: list[str] | None,
    shot: list[int] | None,
    n_steps: list[int] | None,
    changed: list[str] | None,
    minutes: float,
    records: Path,
) -> int:
    """The table of a GPU; its exit code."""
    from experiments.benchmarks.gpu import command
    from mdtheory.commands.console import write_table
    from mdtheory.core.registry import unknown
    from mdtheory.geometry import geometries

    names = geometries.names()
    for slug in method or ():
        if slug not in names:
            raise unknown("--method", slug, names)
    size, _ = given.overridden(changed or ())
    if n_steps:
        size = size.model_copy(update={"n_steps": n_steps[0]})
    return command.main(
        minutes=minutes,
        size=size,
        names=method or sorted(names, key=lambda slug: (slug != "maml", slug != "metamida")),
        shots=shot or (1, 5),
        records=records,
        say=lambda text: typer.echo(text, err=True),
        show=lambda one: write_table(one.title, one.columns, one.rows, caption=one.note),
    )


def _sentence(error: ValueError) -> str:
    """What is wrong, in one line."""
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}, got {first['input']!r}"


def _measured(settings: Settings, file: Path | None, *, resume: bool) -> BenchRecord:
    """The record; the command ends where a measurement did."""
    from experiments.benchmarks.bench import Failed

    try:
        return _run(settings, file, resume=resume)
    except Failed as failure:
        kept = f"; what was measured is in {file}, --resume goes on" if file else ""
        typer.echo(f"stopped: {failure}{kept}", err=True)
        raise typer.Exit(1) from None


def _tell(found: BenchRecord, file: Path | None, *, as_json: bool) -> None:
    """The tables or the numbers, and where the record is."""
    from experiments.benchmarks import measurements as store
    from experiments.benchmarks.summary import tables
    from mdtheory.commands.console import write_table

    if as_json:
        typer.echo(json.dumps(store.rounded(found.rows()), indent=1))
    else:
        for one in tables(found):
            write_table(one.title, one.columns, one.rows, caption=one.note)
    if file is not None:
        typer.echo(
            f"record: {file.relative_to(ROOT) if file.is_relative_to(ROOT) else file}", err=True
        )


def _settings(
    grid: str | None,
    chosen: dict[str, Any],
    method: list[str] | None,
    implementation: list[str] | None,
    plugin: list[Path] | None,
    changed: list[str] | None,
) -> Settings:
    """The settings, with every name checked: the grid's, or of a lone cell what was named."""
    from experiments.benchmarks.case import METHODS
    from experiments.benchmarks.implementations import OURS, PLAIN, implementations
    from experiments.benchmarks.measurements import Settings
    from mdtheory.core.registry import load_plugin, unknown

    base = {**GRIDS[grid or "quick"], "parts": PARTS}
    if grid is None and any([method, implementation, *chosen.values()]):
        base |= {"steps": (5,), "parts": ("iterations",)}
    base |= {key: tuple(value) for key, value in chosen.items() if value}
    plugins = tuple(str(path) for path in plugin or ())
    for path in plugins:
        load_plugin(path)
    for slug in method or ():
        if slug not in METHODS:
            raise unknown("--method", slug, list(METHODS))
    for slug in base["parts"]:
        if slug not in PARTS:
            raise unknown("--part", slug, list(PARTS))
    known = implementations.names()
    for slug in implementation or ():
        implementations.get(slug)
    everybody = [PLAIN, *(one for one in known if one not in (PLAIN, OURS)), OURS]
    size, others = given.overridden(changed or ())
    others = {key: value for key, value in others.items() if value is not None}
    return Settings(
        methods=tuple(method or METHODS),
        implementations=tuple(implementation or everybody),
        plugins=plugins,
        size=size,
        **{**base, **others},
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
