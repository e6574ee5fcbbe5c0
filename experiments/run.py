"""One cell in this process: train, test, measure, record. It may be stopped at any moment, and the
next call goes on.

Normally started by :mod:`experiments.reproduce`, several at once. What is unfinished lies in a
state folder: last.pt, best.pt, metrics.jsonl, the scores of the test tasks done so far, and the
clock; a finished cell leaves nothing there.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from experiments import controls, probes, provenance, records as store, shards
from experiments.cells import Cell, tier
from experiments.records import WEIGHTS, Adaptation, Provenance, Result, Scores
from experiments.status import OutOfTimeError, Run
from mdtheory.config import RunConfig, open_data
from mdtheory.core.atomic import write_atomically
from mdtheory.data.episodes import Source
from mdtheory.kernels.precision import precision
from mdtheory.meta import checkpoint
from mdtheory.meta.evaluate import evaluate
from mdtheory.meta.events import JsonLines, Lines, read_metrics
from mdtheory.meta.interrupt import InterruptedRunError
from mdtheory.meta.learner import MetaLearner
from mdtheory.meta.restore import restore_weights
from mdtheory.meta.trainer import DivergedError
from mdtheory.run.build import build_learner, build_stream, pick_device
from mdtheory.run.folder import RunFolder

TEST_SHARD = 100  # tasks tested between two looks at the clock


def carry_out(this: Run) -> bool:
    """Go on until the record is there (True) or the time is up (False)."""
    if this.record.is_dir():
        return True
    config = this.config
    torch.set_num_threads(config.threads or 1)
    this.state.mkdir(parents=True, exist_ok=True)
    try:
        with clocked(this, "open"):
            source = open_data(config.data, pick_device(config.device))
        with clocked(this, "train"):
            train(this, config, source)
        with clocked(this, "test"):
            learner, state = best_learner(this, config, source)
            scores = test(this, learner, config, source)
            adaptation, map_probe = measure(this, learner, config, source)
    except OutOfTimeError:
        return False
    write_record(
        this,
        config,
        source,
        learner,
        state,
        scores=scores,
        adaptation=adaptation,
        map_probe=map_probe,
    )
    shutil.rmtree(this.state)
    return True


def train(this: Run, config: RunConfig, source: Source) -> None:
    """Train to the last iteration and its validation, from the last checkpoint on."""
    minutes = None if math.isinf(this.until) else max(0.0, (this.until - time.time()) / 60)
    listeners = [Lines(this.name, every=30), JsonLines(this.state / "metrics.jsonl")]
    with RunFolder(this.state, resume=True) as folder:
        counters = folder.trainer(config, source, listeners=listeners).fit(minutes=minutes)
    if counters.iteration < config.meta.iterations or counters.validated < config.meta.iterations:
        raise OutOfTimeError


def best_learner(
    this: Run, config: RunConfig, source: Source
) -> tuple[MetaLearner, dict[str, Any]]:
    """The learner with the best validation, and the checkpoint that it comes from."""
    state = checkpoint.load(this.state / "best.pt")
    return learner_with(config, source, state), state


def learner_with(config: RunConfig, source: Source, state: dict[str, Any]) -> MetaLearner:
    """A learner in evaluation mode with these weights."""
    learner = build_learner(config, source.image_shape)
    restore_weights(learner, state)
    return learner.eval()


def test(this: Run, learner: MetaLearner, config: RunConfig, source: Source) -> Scores:
    """Correct answers on all test tasks under both protocols; some rows also with statistics of the
    support set alone.
    """
    norms = [config.norm]
    if this.cell.row in tier(this.cell.tier).other_norm and config.norm != "support":
        norms.append("support")
    path = this.state / "scores.json"
    found: Scores = json.loads(path.read_text()) if path.exists() else {}
    for norm in norms:
        tested = learner if norm == config.norm else other_norm(learner, config, source, norm)
        by_query = found.setdefault(
            norm, {str(n_query): [] for n_query in config.task.eval_n_query}
        )
        while (done := len(next(iter(by_query.values())))) < config.test.tasks:
            this.check_time()
            part = correct_answers(
                tested, config, source, start=done, stop=min(done + TEST_SHARD, config.test.tasks)
            )
            for n_query, correct in part.items():
                by_query[n_query] += correct
            write_atomically(path, json.dumps(found).encode())
    return found


def other_norm(learner: MetaLearner, config: RunConfig, source: Source, norm: str) -> MetaLearner:
    """The same weights under another policy of batch statistics."""
    changed = build_learner(config.model_copy(update={"norm": norm}), source.image_shape)
    changed.load_state_dict(learner.state_dict())
    return changed.eval()


def correct_answers(
    learner: MetaLearner, config: RunConfig, source: Source, *, start: int, stop: int
) -> dict[str, list[int]]:
    """Queries per class -> the number of correct answers on each of the test tasks start..stop -
    1.
    """
    protocols = config.task.eval_n_query
    stream = build_stream(config, source, split="test", n_query=max(protocols))
    with precision(config.precision):
        scores = evaluate(
            learner, lambda index: stream(start + index), n_tasks=stop - start, protocols=protocols
        )
    return {
        str(n_query): [round(float(share) * n_query * config.task.n_way) for share in one.accuracy]
        for n_query, one in zip(protocols, scores or [], strict=True)
    }


def measure(
    this: Run, learner: MetaLearner, config: RunConfig, source: Source
) -> tuple[Adaptation, store.MapProbe | None]:
    """The paths on the first test tasks, from the method's own start and from MAML's, and the map's
    monotonicity.
    """
    asked, n_query = tier(this.cell.tier), max(config.task.eval_n_query)
    stream = build_stream(config, source, split="test", n_query=n_query)
    n_tasks = min(asked.path_tasks, config.test.tasks)
    starts: dict[str, Callable[[], Any]] = {
        "own": lambda: {name: value.detach() for name, value in learner.meta().items()},
        "common": lambda: probes.common_start(learner, maml_weights(this)),
    }
    kept, found = this.state / "paths.json", {}
    if kept.exists():
        found = json.loads(kept.read_text())
    for kind, start in starts.items():
        if kind not in found:
            this.check_time()
            meta = start()
            paths = (
                None
                if meta is None
                else probes.paths(learner, meta, stream, n_tasks=n_tasks, n_steps=asked.path_steps)
            )
            found[kind] = None if paths is None else paths.model_dump()
            write_atomically(kept, json.dumps(found).encode())
    this.check_time()
    adaptation = Adaptation(
        tasks=n_tasks, steps=asked.path_steps, queries=n_query * config.task.n_way, **found
    )
    return adaptation, probes.map_probe(learner, stream)


def maml_weights(this: Run) -> Path:
    """Where the MAML cell with the same seed keeps its weights."""
    return this.records / this.cell.start.record(this.seed) / WEIGHTS


def write_record(
    this: Run,
    config: RunConfig,
    source: Source,
    learner: MetaLearner,
    state: dict[str, Any],
    *,
    scores: Scores,
    adaptation: Adaptation,
    map_probe: store.MapProbe | None,
) -> None:
    """All files in a new folder, sealed, checked, and moved into place in one step."""
    last = checkpoint.load(this.state / "last.pt")
    meta = learner.meta()
    result = Result(
        version=1,
        tier=this.cell.tier,
        row=this.cell.row,
        shot=this.cell.shot,
        seed=this.seed,
        config_digest=config.digest,
        data_digest=source.digest,
        iterations=checkpoint.iteration(last),
        target=config.meta.iterations,
        tested_iteration=checkpoint.iteration(state),
        best_validation=last["counters"]["best_score"],
        parameters=sum(value.numel() for value in meta.values()),
        geometry_parameters=sum(
            value.numel() for name, value in meta.items() if not name.startswith("anchor.")
        ),
        protocols=store.protocols_of(scores, config.task.n_way),
        map=map_probe,
    )
    folder = this.state / "record"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    metrics = store.thinned(read_metrics(this.state / "metrics.jsonl"))
    texts = {
        "config.toml": config.to_toml(),
        "result.json": result.model_dump_json(indent=1) + "\n",
        "scores.json": rows_of_numbers(scores),
        "metrics.jsonl": "".join(json.dumps(row) + "\n" for row in metrics),
        "paths.json": rows_of_numbers(adaptation.model_dump()),
        "provenance.json": how(this, config).model_dump_json(indent=1) + "\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    if this.cell.row in tier(this.cell.tier).weights:
        checkpoint.export_safetensors(state, folder / WEIGHTS)
        shards.write((folder / WEIGHTS).read_bytes(), folder / WEIGHTS)
    store.seal(folder)
    this.records.mkdir(parents=True, exist_ok=True)
    folder.rename(this.record)
    if problems := store.verify(this.record):
        raise ValueError(f"the record must be sound, but {problems[0]}; look at {this.record}")


def how(this: Run, config: RunConfig) -> Provenance:
    """Code, machine and times of this run."""
    clock, device = read_clock(this), str(pick_device(config.device))
    cell = this.cell
    return Provenance(
        command=(
            f"python -m experiments.reproduce --tier {cell.tier} --row {cell.row} --shot "
            f"{cell.shot} --seed {this.seed}"
        ),
        finished=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        sittings=max(1, int(clock["sittings"])),
        train_seconds=round(clock["train"], 1),
        test_seconds=round(clock["test"], 1),
        peak_mebibytes=max(clock["peak"], provenance.peak_mebibytes(device)),
        code=provenance.code(),
        machine=provenance.machine(device),
    )


@contextmanager
def clocked(this: Run, part: str) -> Iterator[None]:
    """Add the time spent inside to the cell's clock, however the inside ends."""
    began = time.monotonic()
    try:
        yield
    finally:
        clock = read_clock(this)
        clock[part] += time.monotonic() - began
        clock["sittings"] += part == "open"
        clock["peak"] = max(
            clock["peak"],
            provenance.peak_mebibytes(str(pick_device(this.config.device))),
        )
        write_atomically(this.state / "clock.json", json.dumps(clock).encode())


def read_clock(this: Run) -> dict[str, float]:
    """Seconds by part, sittings and peak memory so far."""
    path = this.state / "clock.json"
    return (
        json.loads(path.read_text())
        if path.exists()
        else {"open": 0.0, "train": 0.0, "test": 0.0, "sittings": 0, "peak": 0.0}
    )


def rows_of_numbers(value: Any, indent: str = "") -> str:
    """JSON with one list of numbers a line, so that a change is a change of few lines."""
    if isinstance(value, dict):
        inside = ",\n".join(
            f"{indent} {json.dumps(key)}: {rows_of_numbers(item, indent + ' ').strip()}"
            for key, item in value.items()
        )
        return f"{{\n{inside}\n{indent}}}" + ("" if indent else "\n")
    if isinstance(value, list) and value and isinstance(value[0], list):
        return "[\n" + ",\n".join(f"{indent} {json.dumps(row)}" for row in value) + f"\n{indent}]"
    return json.dumps(value)


def main(
    tier: Annotated[str, typer.Option()],
    row: Annotated[str, typer.Option()],
    shot: Annotated[int, typer.Option()],
    seed: Annotated[int, typer.Option()],
    records: Annotated[Path, typer.Option()],
    states: Annotated[Path, typer.Option()],
    until: Annotated[float, typer.Option()] = math.inf,
    device: Annotated[str | None, typer.Option()] = None,
) -> None:
    """Exit code 0: the record is there; 75: the time is up; 3: it diverged; 128 + n: signal n."""
    controls.register()
    cell = Cell(tier, row, shot)
    this = Run(cell, seed, records=records, states=states, until=until, device=device)
    try:
        code = 0 if carry_out(this) else 75
    except InterruptedRunError as request:
        code = request.exit_code
    except DivergedError as error:
        write_atomically(this.state / "diverged.txt", f"{error}\n".encode())
        typer.echo(f"{this.name}: {error}", err=True)
        code = 3
    raise typer.Exit(code)


if __name__ == "__main__":
    typer.run(main)
