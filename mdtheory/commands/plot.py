"""``mdtheory plot``: figures from any runs: how they trained, how they adapt, how they compare."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mdtheory.commands.console import (
    ForceFlag,
    JsonFlag,
    PluginOption,
    ThreadsOption,
    complain,
    one_line,
    run_names,
    use_plugins,
    use_threads,
    write_json,
)
from mdtheory.commands.evaluate import MOST_TASKS, DataOption, DeviceOption, SplitOption
from mdtheory.core.atomic import make_folder
from mdtheory.core.progress import say
from mdtheory.run.load import find_checkpoint

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from mdtheory.data.episodes import EpisodeStream
    from mdtheory.meta.learner import MetaLearner

METRICS = "metrics.jsonl"
NAMES = ("training", "adaptation", "comparison")


def plot(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run folders or checkpoints.")
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder for the figures.")
    ] = Path("figures"),
    tasks: Annotated[
        int,
        typer.Option(
            "--tasks", min=2, max=MOST_TASKS, help="Tasks that are adapted to, for the figures."
        ),
    ] = 100,
    split: SplitOption = "test",
    data: DataOption = None,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
    force: ForceFlag = False,
    plugin: PluginOption = None,
    json_: JsonFlag = False,
) -> None:
    """Draw runs, each figure as .png and .svg: training, adaptation, comparison.

    training: query loss and accuracy against the meta-iteration, from each
    folder's metrics.jsonl. adaptation: task loss, gradient norm and query
    accuracy along twice as many task steps as in training, on the same test tasks
    for all. comparison, of two runs
    or more: accuracy, and the paired differences to the first. A figure that
    cannot be drawn (the images are elsewhere, there are no metrics) is said; the
    others are drawn, and the exit code is 1.

    [bold]Examples[/bold]

      mdtheory plot runs/maml

      mdtheory plot runs/maml runs/metasgd runs/metamida --tasks 200 --out figures/three
    """
    use_plugins(plugin)
    use_threads(threads)
    _demand_room(out, force=force)
    names = run_names(runs)
    done: list[Path] = []
    complaints: list[str] = []
    for draw in (
        lambda: _training(runs, names, complaints),
        lambda: _adaptation(runs, names, tasks, split, data, device),
    ):
        try:
            done += _save(draw(), out)
        except (ValueError, OSError) as error:
            complaints.append(one_line(error))
    if json_:
        write_json([str(path) for path in done])
    else:
        for path in done:
            typer.echo(str(path))
    for complaint in complaints:
        complain(complaint)
    if complaints:
        raise typer.Exit(1)


def _demand_room(out: Path, *, force: bool) -> None:
    found = [out / f"{name}.{kind}" for name in NAMES for kind in ("png", "svg")]
    there = next((path for path in found if os.path.lexists(path)), None)
    if there is not None and not force:
        raise ValueError(
            f"--out must be a folder without these figures, got {there}; choose another, or "
            "replace them with --force"
        )
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out must be a folder, got the file {out}; choose another")


def _save(figures: Mapping[str, Figure], out: Path) -> list[Path]:
    from mdtheory.figures import save_figure

    make_folder(out)
    return [path for name, figure in figures.items() for path in save_figure(figure, out / name)]


def _training(
    runs: Sequence[Path], names: Sequence[str], complaints: list[str]
) -> dict[str, Figure]:
    """Of the runs that have metrics; the others are complained about."""
    from mdtheory.figures import training_figure
    from mdtheory.meta.events import read_metrics

    curves = {}
    for run, name in zip(runs, names, strict=True):
        path = (run if run.is_dir() else run.parent) / METRICS
        rows = read_metrics(path)
        if any(row["kind"] == "train" for row in rows):
            curves[name] = rows
        else:
            complaints.append(f"training must be drawn from metrics, but {path} holds none")
    return {"training": training_figure(curves)} if curves else {}


def _adaptation(
    runs: Sequence[Path],
    names: Sequence[str],
    n_tasks: int,
    split: str,
    data: Path | None,
    device: str,
) -> dict[str, Figure]:
    """One adaptation to every task serves all figures: its accuracy after ``eval_steps`` steps is
    what ``mdtheory evaluate`` measures.
    """
    from mdtheory.commands.evaluate import open_runs
    from mdtheory.figures import comparison_figure, steps_figure
    from mdtheory.meta.evaluate import estimate
    from mdtheory.run.build import build_stream

    loaded, source = open_runs([find_checkpoint(path) for path in runs], data, device)
    first = loaded[0][1]
    n_query = max(first.task.eval_n_query)
    stream = build_stream(first, source, split=split, n_query=n_query, trained=True)
    longest = 2 * max(learner.eval_steps for learner, _ in loaded)
    curves = {}
    for name, (learner, _) in zip(names, loaded, strict=True):
        say(f"{name}: {longest} steps on each of {n_tasks} tasks")
        curves[name] = _traced(learner, stream, n_tasks, longest)
    title = f"{first.task.n_way}-way {first.task.n_shot}-shot, {n_tasks} {split} tasks"
    trained = loaded[0][0].n_steps
    drawn = {"adaptation": steps_figure(curves, trained_steps=trained, title=title)}
    if len(runs) > 1:
        scores = {
            name: curves[name]["query_accuracy"][:, learner.eval_steps]
            for name, (learner, _) in zip(names, loaded, strict=True)
        }
        reference = scores[names[0]]
        drawn["comparison"] = comparison_figure(
            {name: estimate(own) for name, own in scores.items()},
            {name: estimate(scores[name] - reference) for name in names[1:]},
            tasks=n_tasks,
        )
    return drawn


def _traced(
    learner: MetaLearner, stream: EpisodeStream, n_tasks: int, n_steps: int
) -> dict[str, np.ndarray]:
    """What :class:`~mdtheory.inner.solver.Trace` holds, of many tasks. shapes: (n_tasks,
    n_steps + 1)
    """
    import numpy as np

    from mdtheory.core.progress import progress_bar

    found = []
    with progress_bar("adapting") as progress:
        for index in range(n_tasks):
            found.append(learner.trace(stream(index), n_steps=n_steps))
            progress(index + 1, n_tasks)
    return {
        key: np.stack([getattr(one, key).double().cpu().numpy() for one in found])
        for key in ("support_loss", "grad_norm", "query_accuracy")
    }
