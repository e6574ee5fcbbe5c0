"""The demonstration: three loss geometries, one start, the same tasks; a table, the poster's two
figures, and results.json.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mdtheory.config import RunConfig, open_data, parse
from mdtheory.core import tree
from mdtheory.core.atomic import make_folder, write_atomically
from mdtheory.data.episodes import EpisodeStream
from mdtheory.figures import plots
from mdtheory.figures.contact_sheet import Card, contact_sheet, pixels_of
from mdtheory.inner.solver import trace
from mdtheory.meta import checkpoint
from mdtheory.meta.evaluate import estimate, evaluate
from mdtheory.meta.events import Lines, Row
from mdtheory.meta.learner import MetaLearner
from mdtheory.run.allocator import keep_freed_memory
from mdtheory.run.build import build_stream, build_trainer, load_learner

METHODS = ("maml", "metasgd", "metamida")
BY_COST = ("metamida", "metasgd", "maml")
"""The longest first, so that two processes end at about the same time."""

RUN: dict[str, Any] = {
    "seed": 0,
    "norm": "transductive",
    "device": "cpu",
    "threads": 1,
    "data": {"source": "glyphs"},
    "task": {"n_way": 5, "n_shot": 1, "n_query": 10, "n_steps": 3, "task_lr": 0.1},
    "model": {"name": "conv4", "options": {"channels": 32}},
    "meta": {"n_tasks": 4, "iterations": 100, "optimizer": {"name": "Adam", "meta_lr": 0.001}},
    "validation": {"enabled": False},
    "test": {"tasks": 100},
}
"""What all methods share; a method adds its geometry and nothing else. One thread: more would
decide the last bits.
"""

FIGURES: dict[str, plots.Quantity] = {"task_loss": "support_loss", "gradient_norm": "grad_norm"}
PROCESSES = 2
TRACED, TRACED_STEPS = 40, 6
"""Tasks behind the figures, and their task steps: twice those of meta-training."""

OWN, COMMON = "from each method's own start", f"from one start: {METHODS[0]}'s"


@dataclass(frozen=True)
class Trained:
    """One method: the accuracy on every test task by protocol, before and after, and the events of
    its training.
    """

    before: dict[int, list[float]]
    after: dict[int, list[float]]
    events: list[dict[str, Any]]
    meta_parameters: int


class Memory:
    """A listener that keeps every event."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def start(self, *, done: int, validated: int, total: int) -> None:
        """Nothing to prepare."""

    def record(self, row: Row) -> None:
        """Keep the event."""
        self.rows.append(dict(row))

    def close(self) -> None:
        """Nothing is open."""


def run(out: Path, *, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Train, test and draw in ``out``, in two processes of one thread; what results.json holds.

    ``changes``: other values for :data:`RUN`'s tables. Writes results.json (the same bytes on every
    run on one machine), table.md, ``<method>.pt``, a test task with the last method's predictions
    as task.png, and the figures task_loss, gradient_norm and training as .png and .svg.
    """
    configs = {
        method: parse(_merged(RUN, {**(changes or {}), "geometry": {"name": method}}))
        for method in METHODS
    }
    shared = configs[METHODS[0]]
    _demand_own(out, configs)
    make_folder(out)
    jobs = [(start, method) for start in (OWN, COMMON) for method in BY_COST]
    with _workers() as pool:
        found = pool.map(_train, [configs[method] for method in BY_COST], repeat(out))
        trained = dict(zip(BY_COST, found, strict=True))
        paths = dict(
            zip(jobs, pool.map(_paths, *zip(*jobs, strict=True), repeat(out)), strict=True)
        )
    panels = {
        start: {method: paths[start, method] for method in METHODS} for start in (OWN, COMMON)
    }
    report = {
        "data": {"source": "glyphs", "digest": open_data(shared.data).digest},
        "run": json.loads(shared.to_json()) | {"geometry": None},
        "methods": {method: _summary(trained[method], trained[METHODS[0]]) for method in METHODS},
        "figures": {
            start: {method: _means(one) for method, one in by_method.items()}
            for start, by_method in panels.items()
        },
    }
    for name, quantity in FIGURES.items():
        plots.save_figure(
            plots.adaptation_figure(panels, quantity, trained_steps=shared.task.n_steps), out / name
        )
    plots.save_figure(
        plots.training_figure({method: trained[method].events for method in METHODS}),
        out / "training",
    )
    write_atomically(out / "task.png", task_sheet(out / f"{METHODS[-1]}.pt"))
    write_atomically(out / "table.md", (markdown(report) + "\n").encode())
    write_atomically(
        out / "results.json", (json.dumps(report, indent=1, sort_keys=True) + "\n").encode()
    )
    return report


@contextlib.contextmanager
def _workers() -> Iterator[ProcessPoolExecutor]:
    """:data:`PROCESSES` processes, which end with this one however it ends; ``ChildProcessError``
    where one of them is killed.
    """
    pool = ProcessPoolExecutor(
        PROCESSES, mp_context=multiprocessing.get_context("spawn"), initializer=_begin
    )
    try:
        with pool:
            yield pool
    except BrokenProcessPool as error:
        raise ChildProcessError(
            "the demo's processes must live to its end, but one was killed, perhaps for lack of "
            "memory; start it again"
        ) from error


def _begin() -> None:
    keep_freed_memory()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


def task_sheet(trained: Path, *, n_query: int = 6) -> bytes:
    """The first test task as a PNG: for every class the support image, framed, and queries with
    what the trained learner says of each.
    """
    learner, config = load_learner(trained)
    stream = build_stream(config, open_data(config.data), split="test", n_query=n_query)
    task, names = stream(0), stream.source.classes("test")
    adapted = learner.adapt(task.support_x, task.support_y).eval()
    with torch.no_grad():
        said = adapted(task.query_x).argmax(-1).tolist()
    images, sections = task.query_x.numpy(), []
    for label, (index, _) in enumerate(stream.chosen(0)):
        own = [k for k, true in enumerate(task.query_y.tolist()) if true == label]
        words = ["right" if said[k] == label else f"taken for {said[k] + 1}" for k in own]
        support = task.support_x.numpy()[task.support_y.tolist().index(label)]
        cards = [Card(pixels_of(support), "support", framed=True)]
        cards += [Card(pixels_of(images[k]), word) for k, word in zip(own, words, strict=True)]
        sections.append((f"{label + 1}: {names[index]}", cards))
    return contact_sheet(sections)


def _demand_own(out: Path, configs: Mapping[str, RunConfig]) -> None:
    """``ValueError`` for a folder with files that the demo would replace and did not write: those
    beside a results.json of its own, or beside all checkpoints of its own, are.
    """
    with contextlib.suppress(OSError, ValueError, TypeError, LookupError):
        if set(json.loads((out / "results.json").read_bytes())["methods"]) == set(METHODS):
            return
    own = 0
    for method, config in configs.items():
        with contextlib.suppress(ValueError):
            if checkpoint.load(out / f"{method}.pt")["config_digest"] == config.digest:
                own += 1
                continue
        _demand_none(out / f"{method}.pt")
    if own == len(configs):
        return  # killed while it wrote what follows the last checkpoint
    for name in (*FIGURES, "training"):
        _demand_none(out / f"{name}.png")
        _demand_none(out / f"{name}.svg")
    _demand_none(out / "task.png")
    _demand_none(out / "table.md")
    _demand_none(out / "results.json")


def _demand_none(path: Path) -> None:
    if os.path.lexists(path):
        raise ValueError(
            f"--out must be a folder without files of the demo's names, got {path}, which it did "
            "not write; choose another folder"
        )


def rows(report: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of the table: every method before and after, with 95% intervals, and paired
    against the first.
    """
    protocols = list(next(iter(report["methods"].values()))["protocols"])
    heading = ["method"]
    for n_query in protocols:
        heading += [
            f"untrained, {n_query} per class",
            f"trained, {n_query} per class",
            f"minus {METHODS[0]}",
        ]
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
        f"{run['task']['n_way']}-way {run['task']['n_shot']}-shot on glyphs (strength "
        f"{run['data']['strength']}), accuracy "
        f"in % ± 95% interval over {run['test']['tasks']} test tasks of unseen scripts, with so "
        "many queries per class; minus "
        f"{METHODS[0]}: paired differences. Norm policy {run['norm']}, {run['task']['n_steps']} "
        "task steps, "
        f"{run['meta']['iterations']} meta-iterations of {run['meta']['n_tasks']} tasks."
    )


def markdown(report: Mapping[str, Any]) -> str:
    """The table of the methods and their accuracies as Markdown."""
    heading, body = rows(report)
    lines = [
        "| " + " | ".join(heading) + " |",
        "|" + "---|" * len(heading),
        *("| " + " | ".join(row) + " |" for row in body),
    ]
    return caption(report) + "\n\n" + "\n".join(lines)


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    both = {**base, **changes}
    return {
        key: _merged(base[key], value)
        if isinstance(base.get(key), Mapping) and isinstance(value, Mapping)
        else value
        for key, value in both.items()
    }


def _train(config: RunConfig, out: Path) -> Trained:
    """One method from start to test, in a process of its own."""
    torch.set_num_threads(1)
    memory, name, source = Memory(), config.geometry.name, open_data(config.data)
    trainer = build_trainer(config, source, listeners=[memory, Lines(name, every=5)])
    test = build_stream(config, source, split="test", n_query=max(config.task.eval_n_query))
    before = _test(trainer.learner, config, test)
    trainer.fit()
    checkpoint.save(trainer.state(), out / f"{name}.pt")
    added = sum(
        value.numel()
        for key, value in trainer.learner.meta().items()
        if key.startswith("geometry.")
    )
    return Trained(before, _test(trainer.learner, config, test), memory.rows, added)


def _test(learner: MetaLearner, config: RunConfig, test: EpisodeStream) -> dict[int, list[float]]:
    protocols = config.task.eval_n_query
    scores = evaluate(learner, test, n_tasks=config.test.tasks, protocols=protocols) or []
    return {n_query: one.accuracy.tolist() for n_query, one in zip(protocols, scores, strict=True)}


def _paths(start: str, method: str, out: Path) -> plots.Paths:
    """Adaptations from the method's own start, or from the first method's: the dual start is then
    g^-1 of that point.
    """
    torch.set_num_threads(1)
    learner, config = load_learner(out / f"{method}.pt")
    test = build_stream(config, open_data(config.data), split="test", n_query=1)
    meta = tree.detach(learner.meta())
    if start == COMMON:
        first = tree.sub(tree.detach(load_learner(out / f"{METHODS[0]}.pt")[0].meta()), "anchor.")
        meta |= tree.prefixed(
            "anchor.", learner.geometry.map.inverse(tree.sub(meta, "geometry.map."), first)
        )
    problem = learner.problem()
    found = [
        trace(problem, meta, learner.task(test(index)), n_steps=TRACED_STEPS)
        for index in range(min(TRACED, config.test.tasks))
    ]
    return plots.Paths(
        *(
            torch.stack([getattr(one, key) for one in found]).numpy()
            for key in ("support_loss", "grad_norm")
        )
    )


def _means(paths: plots.Paths) -> dict[str, list[float]]:
    return {
        "task_loss": np.mean(paths.support_loss, 0).tolist(),
        "gradient_norm": np.mean(paths.grad_norm, 0).tolist(),
    }


def _summary(mine: Trained, first: Trained) -> dict[str, Any]:
    protocols = {}
    for n_query, scores in mine.after.items():
        after, reference = torch.tensor(scores), torch.tensor(first.after[n_query])
        protocols[str(n_query)] = {
            "untrained": vars(estimate(torch.tensor(mine.before[n_query]))),
            "trained": vars(estimate(after)),
            "minus_first": vars(estimate(after - reference)),
            "scores": scores,
        }
    return {"protocols": protocols, "meta_parameters_of_geometry": mine.meta_parameters}


def _percent(value: Mapping[str, float], sign: str = "") -> str:
    return f"{100 * value['mean']:{sign}.2f} ± {100 * value['half_width']:.2f}"
