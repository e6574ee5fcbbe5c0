"""The pilot at the poster's size, tested by this project's own evaluation: ``python -m
experiments.pilot FOLDER``.

FOLDER holds ``<row>-best.pt`` of rows that were trained together on a GPU by a prototype, to fewer
iterations than tier paper asks for: weights of the best validation, one seed, TF32. They are no
cells and no records: what is measured on them is kept in ``pilot/``, as
:mod:`experiments.factorial` keeps it, and shown beside the tables of tier paper, never in them.
"""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import Field

from experiments.cells import Cell
from experiments.factorial import PLAIN, Sitting, Subject, finished, label, wanted_tasks
from experiments.generated import ROOT
from experiments.records import Count, Digest, Paths, Section, Share, seal
from mdtheory.config import RunConfig

OUT = ROOT / "experiments" / "pilot"
FACTORIAL = OUT / "factorial"
ROWS = ("metamida-published", "metacurvature-symmetric")
SHOT = 1
PATH_STEPS = 10


class Training(Section):
    """``pilot/training.json``, by row: how far, and how good on validation tasks. ``config_digest``
    is that of the cell of tier paper, ``weights`` the sha256 of the file, ``seconds`` what all rows
    together took, validations included.
    """

    config_digest: Digest
    weights: Digest
    iterations: Count
    tested_iteration: Count
    best_validation: Share
    seconds: Annotated[float, Field(ge=0)]


class Curves(Section):
    """``pilot/paths.json``: cell -> paths on the first test tasks."""

    tasks: Count
    steps: Count
    queries: Count
    cells: dict[str, Paths]


def load(folder: Path, row: str) -> dict[str, Any]:
    """One file of weights, which must come from the cell's configuration."""
    import torch

    found = torch.load(folder / f"{row}-best.pt", weights_only=True, map_location="cpu")
    wanted = config(row).digest
    if found["config_digest"] != wanted:
        raise ValueError(
            f"{row}-best.pt must have been trained with the configuration {wanted[:12]} of tier "
            f"paper, got {found['config_digest'][:12]}; look for another file"
        )
    return found


def config(row: str) -> RunConfig:
    """That of the cell, on a CPU."""
    return Cell("paper", row, SHOT).config(0).model_copy(update={"device": "cpu"})


def subject(folder: Path, row: str) -> Subject:
    """A row of the pilot beside its MAML."""
    return Subject(
        name=row,
        maml="maml",
        config=config(row),
        maml_config=config("maml"),
        weights=lambda: whole(folder, row),
        maml_weights=lambda: whole(folder, "maml"),
        digest=file_digest(folder, row),
        maml_digest=file_digest(folder, "maml"),
    )


def whole(folder: Path, row: str) -> dict[str, Any]:
    """The ``state_dict`` of a learner: the file's meta-parameters under its names, and the norms'
    running statistics, which no transductive test reads, as they are at the start.
    """
    from mdtheory.run.build import build_learner, image_shape_of

    made = dict(build_learner(config(row), image_shape_of(config(row))).state_dict())
    for name, value in load(folder, row)["weights"].items():
        key = name.replace("anchor.", "network.", 1) if name.startswith("anchor.") else name
        if key not in made:
            raise ValueError(f"{row}-best.pt must fit the row's learner, got {name!r}")
        made[key] = value
    return made


def file_digest(folder: Path, row: str) -> str:
    """sha256 of the file of weights."""
    return hashlib.sha256((folder / f"{row}-best.pt").read_bytes()).hexdigest()


def trained(folder: Path) -> dict[str, Training]:
    """What the files say of their training."""
    found = {}
    for row in ("maml", *ROWS):
        one = load(folder, row)
        found[row] = Training(
            config_digest=one["config_digest"],
            weights=file_digest(folder, row),
            iterations=one["iterations"],
            tested_iteration=one["best_iteration"],
            best_validation=one["best_validation"],
            seconds=json.loads((folder / f"{row}-metrics.json").read_text())["seconds"],
        )
    return found


def curves(folder: Path, n_tasks: int, kept: Path) -> Curves:
    """Paths of every cell; saved to ``kept`` after each."""
    from experiments import probes
    from experiments.run import rows_of_numbers
    from mdtheory.config import open_data
    from mdtheory.core import tree
    from mdtheory.run.build import build_stream

    first = config("maml")
    n_query = max(first.task.eval_n_query)
    source = open_data(first.data)
    stream = build_stream(first, source, split="test", n_query=n_query)
    queries = n_query * first.task.n_way
    if kept.exists():
        found = Curves.model_validate_json(kept.read_text())
    else:
        found = Curves(tasks=n_tasks, steps=PATH_STEPS, queries=queries, cells={})
    for row in ROWS:
        for place, learner in subject(folder, row).learners(source).items():
            name = f"{row}: {label(*place)}"
            known = [path for other, path in found.cells.items() if other.endswith(label(*PLAIN))]
            if place == PLAIN and known:  # MAML's, the same beside every row
                found.cells[name] = known[0]
            if name not in found.cells:
                meta = tree.detach(learner.meta())
                found.cells[name] = probes.paths(
                    learner, meta, stream, n_tasks=found.tasks, n_steps=PATH_STEPS
                )
                kept.write_text(rows_of_numbers(found.model_dump()))
    return found


def main(
    folder: Annotated[Path, typer.Argument(help="Where the files of weights lie.")],
    tasks: Annotated[int, typer.Option(min=20, help="Test tasks of every cell.")] = 1000,
    validation: Annotated[int, typer.Option(min=2, help="Validation tasks of every rate.")] = 50,
    path_tasks: Annotated[int, typer.Option(min=0, help="Test tasks of the paths.")] = 100,
    minutes: Annotated[float, typer.Option(min=0, help="Stop; the next call goes on.")] = 1e9,
) -> None:
    """Test every row of the pilot from both starts."""
    import torch

    torch.set_num_threads(1)
    FACTORIAL.mkdir(parents=True, exist_ok=True)
    about = {row: one.model_dump() for row, one in trained(folder).items()}
    (OUT / "training.json").write_text(json.dumps(about, indent=1) + "\n")
    until = time.time() + 60 * minutes
    for row in ROWS:
        if not finished(FACTORIAL / f"{row}.json", wanted_tasks(tasks, config(row))):
            sitting = Sitting(
                subject(folder, row), tasks=tasks, validation=validation, out=FACTORIAL, until=until
            )
            if not sitting.run():
                raise typer.Exit(75)
    if path_tasks:
        curves(folder, path_tasks, OUT / "paths.json")
    seal(OUT)


if __name__ == "__main__":
    typer.run(main)
