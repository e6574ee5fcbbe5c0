"""``mdtheory compare``: two runs or more on the same tasks, and whether they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from mdtheory.commands.console import (
    JsonFlag,
    PluginOption,
    ThreadsOption,
    percent,
    run_names,
    use_plugins,
    use_threads,
    write_json,
    write_table,
)
from mdtheory.commands.evaluate import DataOption, DeviceOption, SplitOption, TasksOption
from mdtheory.run.load import find_checkpoint

SURE = 0.05
"""A difference counts as one if its corrected p value is below this."""


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN RUN...", help="Run folders or checkpoints; the first is the reference."
        ),
    ],
    tasks: TasksOption = None,
    split: SplitOption = "test",
    data: DataOption = None,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
    plugin: PluginOption = None,
    json_: JsonFlag = False,
) -> None:
    """Whether a run is better than another: the paired difference on the same tasks.

    Every run meets the same test tasks. The 95% interval is that of the mean
    of the differences task by task, which is much narrower than the runs' own
    intervals suggest. With several runs the p values are corrected (Holm). The
    interval is over tasks, for these weights: another training seed gives other
    weights, so compare several seeds before you say that a method is better.

    [bold]Examples[/bold]

      mdtheory compare runs/maml runs/metamida

      mdtheory compare runs/maml runs/metasgd runs/metamida --tasks 1000 --json
    """
    if len(runs) < 2:
        raise ValueError(
            f"there must be at least two runs to compare, got {len(runs)}; name another, or see "
            "`mdtheory evaluate` for one"
        )
    from mdtheory.commands.evaluate import run as measure

    use_plugins(plugin)
    use_threads(threads)
    paths = [find_checkpoint(path) for path in runs]
    report = comparison(measure(paths, tasks, split, data, device), run_names(runs))
    if json_:
        write_json(report)
    else:
        _show(report)


def comparison(measured: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Paired differences to the first run, by protocol; p values corrected over the runs that are
    compared with it.
    """
    from mdtheory.core.estimate import estimate, holm

    first, *others = measured["results"]
    protocols = []
    for n_query in first["scores"]:
        reference = first["scores"][n_query]
        rows = [
            _paired(name, reference, one["scores"][n_query])
            for name, one in zip(names[1:], others, strict=True)
        ]
        for row, corrected in zip(rows, holm([row["p"] for row in rows]), strict=True):
            row["p_corrected"] = corrected
            row["verdict"] = verdict(row)
        about = {"n_query": int(n_query), "reference": vars(estimate(reference))}
        protocols.append({**about, "runs": rows})
    kept = ("n_way", "n_shot", "tasks", "split", "data")
    return {
        **{key: measured[key] for key in kept},
        "reference": names[0],
        "seeds": [one["seed"] for one in measured["results"]],
        "protocols": protocols,
    }


def verdict(row: Mapping[str, Any]) -> str:
    """better, worse, undecided, or the same on every task."""
    if row["better"] == row["worse"] == 0:
        return "the same"
    if row["p_corrected"] >= SURE:
        return "undecided"
    return "better" if row["difference"]["mean"] > 0 else "worse"


def _paired(name: str, reference: Sequence[float], scores: Sequence[float]) -> dict[str, Any]:
    from mdtheory.core.estimate import estimate, p_value

    gaps = [mine - theirs for mine, theirs in zip(scores, reference, strict=True)]
    return {
        "run": name,
        "accuracy": vars(estimate(scores)),
        "difference": vars(estimate(gaps)),
        "p": p_value(gaps),
        "better": sum(gap > 0 for gap in gaps),
        "equal": sum(gap == 0 for gap in gaps),
        "worse": sum(gap < 0 for gap in gaps),
    }


def _show(report: Mapping[str, Any]) -> None:
    reference = report["reference"]
    columns = ["run", "accuracy", f"minus {reference}", "p", "better / equal / worse", "verdict"]
    for protocol in report["protocols"]:
        rows = [[reference, percent(protocol["reference"]), "", "", "", ""]]
        for one in protocol["runs"]:
            tasks = f"{one['better']} / {one['equal']} / {one['worse']}"
            shown = [percent(one["accuracy"]), percent(one["difference"], "+")]
            p = p_text(one["p_corrected"])
            rows.append([one["run"], *shown, p, tasks, one["verdict"]])
        title = (
            f"{report['n_way']}-way {report['n_shot']}-shot, {report['split']} split, "
            f"{report['tasks']} tasks, {protocol['n_query']} queries per class, accuracy in %"
        )
        write_table(title, columns, rows, caption=_caption(report), words=(0, 5))


def _caption(report: Mapping[str, Any]) -> str:
    seeds = ", ".join(str(seed) for seed in sorted(set(report["seeds"])))
    corrected = ", Holm's correction" if len(report["protocols"][0]["runs"]) > 1 else ""
    return (
        f"± 95% interval over tasks; minus {report['reference']}: paired; p: two-sided, of no "
        f"difference{corrected}; tasks on which the run is better, equal, worse. Training seed: "
        f"{seeds}; other seeds would move the difference, too"
    )


def p_text(p: float) -> str:
    """Two digits, or that it is smaller than can be said.

    >>> p_text(0.0312), p_text(0.00001)
    ('0.031', '< 0.001')
    """
    return "< 0.001" if p < 0.001 else f"{p:.2g}"
