"""The demonstration: three loss geometries, one start, the same tasks; a table, the poster's two figures, and results.json."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mdtheory import plots, tree
from mdtheory.config import RunConfig, parse
from mdtheory.data.episodes import EpisodeStream, Source
from mdtheory.inner.solver import trace
from mdtheory.meta import checkpoint
from mdtheory.meta.builder import build_stream, build_trainer, open_data
from mdtheory.meta.evaluate import Scores, evaluate, paired
from mdtheory.meta.events import Listener, Row
from mdtheory.meta.learner import MetaLearner
from mdtheory.typing import Params

METHODS = ("maml", "metasgd", "metamida")
THREADS = 2
"""Fixed, because the number of threads decides the last bits of results.json."""

RUN: dict[str, Any] = {
    "seed": 0,
    "norm": "transductive",
    "device": "cpu",
    "threads": THREADS,
    "data": {"source": "glyphs"},
    "task": {"n_way": 5, "n_shot": 1, "n_query": 10, "n_steps": 3, "task_lr": 0.1},
    "model": {"name": "conv4", "options": {"channels": 32}},
    "meta": {"n_tasks": 4, "iterations": 150, "optimizer": {"name": "Adam", "meta_lr": 0.003}},
    "test": {"tasks": 200},
}
"""What all methods share; a method adds its geometry and nothing else."""

TRACED, TRACED_STEPS = 60, 6
"""Tasks behind the figures, and their task steps: twice those of meta-training."""


@dataclass(frozen=True)
class Trained:
    """One method: its learner before and after, on the same tasks."""

    learner: MetaLearner
    before: list[Scores]
    after: list[Scores]
    events: list[dict[str, Any]]


class Memory:
    """A listener that keeps every event."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def start(self, *, done: int, total: int) -> None:
        """Nothing to prepare."""

    def record(self, row: Row) -> None:
        """Keep it."""
        self.rows.append(dict(row))

    def close(self) -> None:
        """Nothing is open."""


def run(
    out: Path,
    *,
    changes: Mapping[str, Any] | None = None,
    listeners: Callable[[str], Sequence[Listener]] = lambda method: (),
) -> dict[str, Any]:
    """Train, test and draw in ``out``; what results.json holds. ``changes``: other values for :data:`RUN`'s tables.

    Writes results.json (the same bytes on every run on one machine), table.md, ``<method>.pt``, and task_loss, gradient_norm
    and training as .png and .svg. Uses, and leaves, torch at :data:`THREADS` threads.
    """
    torch.set_num_threads(THREADS)
    out.mkdir(parents=True, exist_ok=True)
    configs = {method: parse(_merged(RUN, {**(changes or {}), "geometry": {"name": method}})) for method in METHODS}
    shared = configs[METHODS[0]]
    source = open_data(shared.data)
    test = build_stream(shared, source, split="test", n_query=max(shared.task.eval_n_query))
    methods = {name: _train(config, source, test, out, listeners(name)) for name, config in configs.items()}
    panels = _panels({name: one.learner for name, one in methods.items()}, test)
    report = {
        "data": {"source": "glyphs", "digest": source.digest},
        "run": json.loads(shared.model_copy(update={"geometry": None}).to_json()),
        "methods": {name: _summary(one, methods[METHODS[0]]) for name, one in methods.items()},
        "figures": {title: {name: _means(paths) for name, paths in by_method.items()} for title, by_method in panels.items()},
    }
    figures: dict[str, plots.Quantity] = {"task_loss": "support_loss", "gradient_norm": "grad_norm"}
    for name, quantity in figures.items():
        plots.save_figure(plots.adaptation_figure(panels, quantity, trained_steps=shared.task.n_steps), out / name)
    plots.save_figure(plots.training_figure({name: one.events for name, one in methods.items()}), out / "training")
    checkpoint.write_atomically(out / "table.md", (markdown(report) + "\n").encode())
    checkpoint.write_atomically(out / "results.json", (json.dumps(report, indent=1, sort_keys=True) + "\n").encode())
    return report


def rows(report: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of the table: every method before and after, with 95% intervals, and paired against the first."""
    protocols = list(next(iter(report["methods"].values()))["protocols"])
    heading = ["method"]
    for n_query in protocols:
        heading += [f"untrained, {n_query} per class", f"trained, {n_query} per class", f"minus {METHODS[0]}"]
    body = []
    for name, method in report["methods"].items():
        row = [name]
        for protocol in method["protocols"].values():
            row += [_percent(protocol["untrained"]), _percent(protocol["trained"])]
            row.append("" if name == METHODS[0] else _percent(protocol["minus_first"], sign="+"))
        body.append(row)
    return heading, body


def caption(report: Mapping[str, Any]) -> str:
    """What the numbers of the table are."""
    run = report["run"]
    return (
        f"{run['task']['n_way']}-way {run['task']['n_shot']}-shot on glyphs (strength {run['data']['strength']}), accuracy "
        f"in % ± 95% interval over {run['test']['tasks']} test tasks of unseen scripts, with so many queries per class; minus "
        f"{METHODS[0]}: paired differences. Norm policy {run['norm']}, {run['task']['n_steps']} task steps, "
        f"{run['meta']['iterations']} meta-iterations of {run['meta']['n_tasks']} tasks."
    )


def markdown(report: Mapping[str, Any]) -> str:
    """The table as Markdown."""
    heading, body = rows(report)
    lines = ["| " + " | ".join(heading) + " |", "|" + "---|" * len(heading), *("| " + " | ".join(row) + " |" for row in body)]
    return caption(report) + "\n\n" + "\n".join(lines)


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    both = {**base, **changes}
    return {
        key: _merged(base[key], value) if isinstance(base.get(key), Mapping) and isinstance(value, Mapping) else value
        for key, value in both.items()
    }


def _train(config: RunConfig, source: Source, test: EpisodeStream, out: Path, listeners: Sequence[Listener]) -> Trained:
    memory = Memory()
    trainer = build_trainer(config, source, listeners=[memory, *listeners])
    trainer.validation = None
    before = _test(trainer.learner, config, test)
    trainer.fit()
    checkpoint.save(trainer.state(), out / f"{config.geometry.name}.pt")
    return Trained(trainer.learner, before, _test(trainer.learner, config, test), memory.rows)


def _test(learner: MetaLearner, config: RunConfig, test: EpisodeStream) -> list[Scores]:
    return evaluate(learner, test, n_tasks=config.test.tasks, protocols=config.task.eval_n_query) or []


def _panels(learners: Mapping[str, MetaLearner], test: EpisodeStream) -> dict[str, dict[str, plots.Paths]]:
    """Adaptations from every method's own start, and from the first method's: its dual start is then g^-1 of that point."""
    first = learners[METHODS[0]]
    common = tree.sub(tree.detach(first.meta()), "anchor.")
    own, shared = {}, {}
    for name, learner in learners.items():
        meta = tree.detach(learner.meta())
        dual = learner.geometry.map.inverse(tree.sub(meta, "geometry.map."), common)
        own[name] = _paths(learner, meta, test)
        shared[name] = _paths(learner, {**meta, **tree.prefixed("anchor.", dual)}, test)
    return {"from each method's own start": own, f"from one start: {METHODS[0]}'s": shared}


def _paths(learner: MetaLearner, meta: Params, test: EpisodeStream) -> plots.Paths:
    problem = learner.problem()
    found = [trace(problem, meta, test(index), n_steps=TRACED_STEPS) for index in range(TRACED)]
    return plots.Paths(*(torch.stack([getattr(one, key) for one in found]).numpy() for key in ("support_loss", "grad_norm")))


def _means(paths: plots.Paths) -> dict[str, list[float]]:
    return {"task_loss": np.mean(paths.support_loss, 0).tolist(), "gradient_norm": np.mean(paths.grad_norm, 0).tolist()}


def _summary(mine: Trained, first: Trained) -> dict[str, Any]:
    protocols = {}
    for before, after, reference in zip(mine.before, mine.after, first.after, strict=True):
        protocols[str(after.n_query)] = {
            "untrained": vars(before.estimate()),
            "trained": vars(after.estimate()),
            "minus_first": vars(paired(reference, after)),
            "scores": after.accuracy.tolist(),
        }
    added = sum(value.numel() for name, value in mine.learner.meta().items() if name.startswith("geometry."))
    return {"protocols": protocols, "meta_parameters_of_geometry": added}


def _percent(value: Mapping[str, float], sign: str = "") -> str:
    return f"{100 * value['mean']:{sign}.2f} ± {100 * value['half_width']:.2f}"
