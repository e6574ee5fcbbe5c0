"""``mdtheory evaluate``: trained learners on new tasks, the same tasks for all of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mdtheory.commands.console import (
    ForceFlag,
    JsonFlag,
    PluginOption,
    ThreadsOption,
    demand_new,
    percent,
    use_plugins,
    use_threads,
    write_json,
    write_table,
)
from mdtheory.core.progress import progress_bar, say
from mdtheory.run.load import find_checkpoint

if TYPE_CHECKING:
    from mdtheory.config import RunConfig
    from mdtheory.data.episodes import EpisodeStream, Source
    from mdtheory.meta.evaluate import Scores
    from mdtheory.meta.learner import MetaLearner

MOST_TASKS = 1_000_000
"""More makes no interval worth its hours: this many leave at most 0.1 percentage points."""
TasksOption = Annotated[
    int | None,
    typer.Option(
        "--tasks", min=2, max=MOST_TASKS, help="Tasks (default: test.tasks of the first run)."
    ),
]
SplitOption = Annotated[str, typer.Option("--split", help="train, validation or test.")]
DataOption = Annotated[
    Path | None, typer.Option("--data", metavar="PATH", help="Where the images are now.")
]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:N or auto.")]


def evaluate(
    checkpoints: Annotated[
        list[Path],
        typer.Argument(
            metavar="CKPT...",
            help="Checkpoints or run folders; the first is compared with the others.",
        ),
    ],
    tasks: TasksOption = None,
    split: SplitOption = "test",
    data: DataOption = None,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
    scores: Annotated[
        Path | None,
        typer.Option("--scores", metavar="FILE", help="Also write every task's score as JSON."),
    ] = None,
    force: ForceFlag = False,
    plugin: PluginOption = None,
    json_: JsonFlag = False,
) -> None:
    """Mean accuracy on new tasks with its 95% interval, by each test protocol of the first run.

    The protocols (task.eval_n_query queries per class) look at the same tasks,
    and so do all checkpoints, so that the difference to the first one is paired:
    its interval is much narrower than the two methods' own. With more than 600
    tasks the mean over the first 600 is shown as well. The test tasks are the
    same for every run on a data set, whatever its seed.

    [bold]Examples[/bold]

      mdtheory evaluate runs/maml

      mdtheory evaluate runs/maml runs/metamida --tasks 1000 --scores scores.json

      mdtheory evaluate runs/maml/last.pt --split validation --json
    """
    use_plugins(plugin)
    use_threads(threads)
    if scores is not None:
        demand_new(scores, "--scores", force=force)
        if not scores.parent.is_dir():
            raise ValueError(f"--scores must be in a folder that exists, got {scores}; make it")
    report = run([find_checkpoint(path) for path in checkpoints], tasks, split, data, device)
    unwritten = None if scores is None else _unwritten(scores, report)
    for result in report["results"]:
        del result["scores"]
    if json_:
        write_json(report)
    else:
        _show(report)
    if unwritten is not None:
        raise unwritten


def _unwritten(scores: Path, report: dict[str, Any]) -> ValueError | None:
    """Write every task's score; why that failed, to be said after the numbers."""
    import json

    from mdtheory.core.atomic import write_atomically

    try:
        write_atomically(scores, json.dumps(report, indent=1).encode())
    except ValueError as error:
        return error
    return None


def run(
    paths: list[Path], tasks: int | None, split: str, data: Path | None, device: str
) -> dict[str, Any]:
    """Everything measured, as plain numbers."""
    from mdtheory.kernels.precision import precision
    from mdtheory.meta.evaluate import paired
    from mdtheory.run.build import build_stream

    loaded, source = open_runs(paths, data, device)
    first = loaded[0][1]
    protocols, n_tasks = list(first.task.eval_n_query), first.test.tasks if tasks is None else tasks
    stream = build_stream(first, source, split=split, n_query=max(protocols), trained=True)
    results: list[dict[str, Any]] = []
    reference: list[Any] = []
    for path, (learner, config) in zip(paths, loaded, strict=True):
        say(f"{config.geometry.name}: adapting to {n_tasks} tasks with {learner.eval_steps} steps")
        with precision(config.precision):
            measured = _measured(learner, stream, n_tasks, protocols, label=config.geometry.name)
        reference = reference or measured
        rows = []
        for mine, theirs in zip(measured, reference, strict=True):
            row = {"n_query": mine.n_query, "accuracy": _plain(mine.estimate())}
            if n_tasks > 600:
                row["accuracy_first_600"] = _plain(mine.estimate(600))
            if mine is not theirs:
                row["difference_to_first"] = _plain(paired(theirs, mine))
            rows.append(row)
        results.append(
            {
                "checkpoint": str(path),
                "geometry": config.geometry.name,
                "norm": config.norm,
                "steps": learner.eval_steps,
                "seed": config.seed,
                "protocols": rows,
                "scores": {str(one.n_query): one.accuracy.tolist() for one in measured},
            }
        )
    task = first.task
    problem = {
        "n_way": task.n_way,
        "n_shot": task.n_shot,
        "tasks": n_tasks,
        "split": split,
        "data": source.digest,
    }
    return {**problem, "results": results}


def _measured(
    learner: MetaLearner, stream: EpisodeStream, n_tasks: int, protocols: list[int], *, label: str
) -> list[Scores]:
    """The scores by every protocol, with the time that is left on the error stream."""
    from mdtheory.meta.evaluate import evaluate as measure

    with progress_bar(label) as shown:
        found = measure(
            learner,
            stream,
            n_tasks=n_tasks,
            protocols=protocols,
            progress=lambda done: shown(done, n_tasks),
        )
    return found or []


def open_runs(
    paths: list[Path], data: Path | None, device: str
) -> tuple[list[tuple[MetaLearner, RunConfig]], Source]:
    """The learners of runs that were trained for one problem, with their configurations, and the
    images of the first; ``data``: where those are now.
    """
    from mdtheory.config import open_data
    from mdtheory.run.build import load_trained, split_digest

    trained = [load_trained(path, device=device) for path in paths]
    loaded = [(learner, config) for learner, config, _ in trained]
    _same_problem([config for _, config in loaded], paths)
    first = loaded[0][1]
    if data is not None and not first.data.kind.takes_path:
        raise ValueError(
            f"--data must be left out for a run on {first.data.source}, which needs no folder, got "
            f"{data}; remove it"
        )
    place = first.data if data is None else first.data.model_copy(update={"path": str(data)})
    like = next(iter(loaded[0][0].parameters()))
    source = open_data(place, like.device)
    here = source.digest, split_digest(source)
    for path, (_, _, digests) in zip(paths, trained, strict=True):
        if any(theirs not in ("", ours) for theirs, ours in zip(digests, here, strict=True)):
            say(
                f"caution: {path} was trained on other images, other classes of them, or another "
                "division of the classes than is tested here: what it was trained on may be among "
                "them"
            )
    return loaded, source


def _same_problem(configs: list[Any], paths: list[Path]) -> None:
    """Refuse to compare what was trained for different problems."""
    for config, path in zip(configs, paths, strict=True):
        for where in (
            ("task", "n_way"),
            ("task", "n_shot"),
            ("data", "source"),
            ("data", "image_size"),
            ("data", "strength"),
        ):
            mine, theirs = (
                getattr(getattr(one, where[0]), where[1]) for one in (config, configs[0])
            )
            if mine != theirs:
                raise ValueError(
                    f"all checkpoints must be trained for one problem, got {'.'.join(where)} = "
                    f"{mine} in {path} and {theirs} "
                    f"in {paths[0]}; evaluate them one by one"
                )


def _plain(estimate: Any) -> dict[str, Any]:
    return {"mean": estimate.mean, "half_width": estimate.half_width, "n": estimate.n}


def _show(report: dict[str, Any]) -> None:
    title = (
        f"{report['n_way']}-way {report['n_shot']}-shot, {report['split']} split, "
        f"{report['tasks']} tasks, accuracy in %"
    )
    columns, rows = ["method"], []
    for protocol in report["results"][0]["protocols"]:
        columns.append(f"{protocol['n_query']} per class")
        columns += ["first 600"] if "accuracy_first_600" in protocol else []
        columns += ["difference"] if len(report["results"]) > 1 else []
    for result in report["results"]:
        row = [f"{result['geometry']}, norm {result['norm']}, {result['steps']} steps"]
        for protocol in result["protocols"]:
            row.append(percent(protocol["accuracy"]))
            row += (
                [percent(protocol["accuracy_first_600"])]
                if "accuracy_first_600" in protocol
                else []
            )
            if len(report["results"]) > 1:
                row.append(
                    percent(protocol["difference_to_first"], "+")
                    if "difference_to_first" in protocol
                    else ""
                )
        rows.append(row)
    caption = (
        "± 95% interval over tasks; N per class: queries scored together; difference: paired, "
        "to the first row"
    )
    write_table(title, columns, rows, caption=". ".join([caption, *_like_guessing(report)]))


def _like_guessing(report: dict[str, Any]) -> list[str]:
    """A sentence on the methods whose interval, by some protocol, does not lie above chance."""
    chance = 1 / report["n_way"]
    names = [
        result["geometry"]
        for result in report["results"]
        if any(
            one["accuracy"]["mean"] - one["accuracy"]["half_width"] <= chance
            for one in result["protocols"]
        )
    ]
    told = f"Not shown to be better than guessing ({100 * chance:.1f}%): {', '.join(names)}"
    return [told] if names else []
