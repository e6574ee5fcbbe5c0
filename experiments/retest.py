"""Test a record's kept weights again: ``python -m experiments.retest experiments/records/<record>
--tasks 100``.

The correct answers on the first test tasks must be the recorded ones; on another machine, all but a
few of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments import shards
from experiments.records import WEIGHTS, Record

ALLOWED = 0.005  # of all answers may differ on another machine


def recount(record: Record, n_tasks: int) -> dict[str, list[int]]:
    """Queries per class -> correct answers on the first test tasks, from the kept weights."""
    from safetensors.torch import load

    from experiments.run import correct_answers, learner_with
    from mdtheory.config import open_data
    from mdtheory.run.build import pick_device

    config = record.config
    source = open_data(config.data, pick_device(config.device))
    learner = learner_with(config, source, {"weights": load(shards.read(record.folder / WEIGHTS))})
    return correct_answers(learner, config, source, start=0, stop=n_tasks)


def changed(record: Record, n_tasks: int) -> float:
    """The largest share of answers, over the protocols, that came out otherwise."""
    config, shares = record.config, []
    for n_query, correct in recount(record, n_tasks).items():
        before = record.scores[config.norm][n_query][:n_tasks]
        gaps = sum(abs(a - b) for a, b in zip(before, correct, strict=True))
        shares.append(gaps / (n_tasks * int(n_query) * config.task.n_way))
    return max(shares)


def main(
    record: Annotated[Path, typer.Argument(help="The folder of a record with kept weights.")],
    tasks: Annotated[int, typer.Option(min=1, help="The first so many test tasks.")] = 100,
) -> None:
    """Exit code 0 when the answers are the recorded ones."""
    share = changed(Record(record), tasks)
    typer.echo(
        f"{record.name}: {100 * share:.3f}% of the answers on {tasks} tasks differ from the record"
    )
    raise typer.Exit(int(share > ALLOWED))


if __name__ == "__main__":
    typer.run(main)
