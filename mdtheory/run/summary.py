"""``summary.md``: a run's folder explains itself, to one who finds it a year later."""

from __future__ import annotations

import math
import os
import shlex
from collections import deque
from collections.abc import Callable
from pathlib import Path

import torch

import mdtheory
from mdtheory.config import RunConfig
from mdtheory.core.atomic import write_atomically
from mdtheory.core.progress import say
from mdtheory.core.text import printable
from mdtheory.meta.events import Row, read_metrics

NAME = "summary.md"
MARK = "<!-- Written by mdtheory train, and written again at every validation; notes of yours "
MARK += "belong in another file. -->"
NEEDED = {"train": {"loss", "accuracy"}, "validation": {"loss", "accuracy", "tasks"}}
"""What an event must say to be told."""
TAIL = 50
"""Training iterations whose mean is shown."""

FILES = {
    "config.toml": "the run, resolved to its last default: `mdtheory train --config config.toml`",
    "last.pt": "the newest state; `--resume` goes on from it, to the same bits on a CPU",
    "best.pt": "the best validated state: what `evaluate`, `adapt` and `mdtheory.load` take",
    "metrics.jsonl": "every iteration and every validation, one JSON object a line",
    "tensorboard": "the same for TensorBoard, where that is installed",
}


def is_ours(path: Path) -> bool:
    """Whether a file is a summary that a run wrote."""
    return path.is_file() and path.read_bytes().startswith(MARK.encode())


class Summary:
    """A listener that keeps ``summary.md`` in a run's folder up to date; a file of that name that
    no run wrote stays as it is, and no run ends because it cannot be written. Nothing is written
    where ``intact()`` says that the folder is another one now.
    """

    def __init__(
        self, folder: Path, config: RunConfig, *, intact: Callable[[], bool] = lambda: True
    ):
        self.folder = folder
        self.config = config
        self._intact = intact
        self._training: deque[Row] = deque(maxlen=TAIL)
        self._validations: list[Row] = []
        self._done = 0
        self._started = False
        self._complained = False

    def start(self, *, done: int, validated: int, total: int) -> None:
        """Read what earlier processes measured, and say that the run goes on."""
        self._training.clear()
        self._validations.clear()
        for row in read_metrics(self.folder / "metrics.jsonl"):
            if not row.keys() >= NEEDED[row["kind"]]:
                continue
            if row["iteration"] <= (done if row["kind"] == "train" else validated):
                self._keep(row)
        self._done = done
        self._started = True
        self._write()

    def record(self, row: Row) -> None:
        """Keep the event; a validation writes the page."""
        self._keep(row)
        if row["kind"] == "validation":
            self._write()

    def close(self) -> None:
        """The last word."""
        if self._started:
            self._write()

    def _keep(self, row: Row) -> None:
        if row["kind"] == "train":
            self._training.append(row)
            self._done = int(row["iteration"])
        else:
            self._validations.append(row)

    def _write(self) -> None:
        if not self._intact():
            return
        path = self.folder / NAME
        if os.path.lexists(path) and not is_ours(path):
            self._complain(f"{path} is something else, and stays as it is")
            return
        try:
            write_atomically(path, self.text().encode())
        except ValueError as error:
            self._complain(str(error))

    def _complain(self, text: str) -> None:
        if not self._complained:
            say(f"note: no summary of the run: {text}")
        self._complained = True

    def text(self) -> str:
        """The page: what was trained, how far, how well, the files, and what to do next."""
        config, folder = self.config, printable(str(self.folder))
        task, meta = config.task, config.meta
        size = config.data.image_size
        lines = [
            MARK,
            f"# {task.n_way}-way {task.n_shot}-shot on {config.data.source}: "
            f"{config.geometry.name}",
            "",
            f"Meta-training of the network `{config.model.name}` on images of {size} x {size} "
            f"pixels with the loss geometry `{config.geometry.name}`. Task steps: {task.n_steps}, "
            f"at rate {task.task_lr:g}; tasks a meta-iteration: {meta.n_tasks}; norm policy: "
            f"`{config.norm}`; seed: {config.seed}.",
            "",
            *self._progress(),
            "",
            "| file | what it is |",
            "|---|---|",
            *(f"| `{name}` | {what} |" for name, what in FILES.items()),
            "",
            "```console",
            *self._next(folder),
            "```",
            "",
            f"mdtheory {mdtheory.__version__}, torch {torch.__version__}, configuration "
            f"{config.digest[:16]}.",
        ]
        return "\n".join(lines) + "\n"

    def _progress(self) -> list[str]:
        total = self.config.meta.iterations
        state = "finished" if self._done >= total else "not finished"
        lines = [f"- {self._done} of {total} meta-iterations are done: {state}."]
        if self._training:
            n, shown = len(self._training), _shown(list(self._training))
            lines.append(f"- Training, mean of the last {n} iterations: {shown}.")
        if not self._validations:
            return [*lines, "- Not validated yet."]
        best, last = max(self._validations, key=_score), self._validations[-1]
        lines += [
            f"- Validation, on {best['tasks']} tasks: best after iteration {best['iteration']}, "
            f"{_shown([best])}; last after iteration {last['iteration']}, {_shown([last])}.",
        ]
        task, accuracy = self.config.task, best["accuracy"]
        if accuracy is not None and math.isfinite(accuracy):
            chance, asked = 1 / task.n_way, best["tasks"] * task.n_way * task.n_query
            lines.append(f"- Guessing would give {100 * chance:.1f}%.")
            if accuracy <= chance + 2 * math.sqrt(chance * (1 - chance) / asked):
                lines.append("- **No better than guessing so far**: train longer, or change rates.")
        return lines

    def _next(self, folder: str) -> list[str]:
        name, config = shlex.quote(folder), shlex.quote(f"{folder}/config.toml")
        return [
            f"$ mdtheory train --config {config} --out {name} --resume",
            f"$ mdtheory evaluate {name}",
            f"$ mdtheory plot {name}",
            f"$ mdtheory compare {name} another-run",
        ]


def _score(row: Row) -> float:
    accuracy = row["accuracy"]
    if accuracy is not None and math.isfinite(accuracy):
        return float(accuracy)
    return -float(row["loss"]) if row["loss"] is not None else -math.inf


def _shown(rows: list[Row]) -> str:
    """Mean loss and accuracy of some events."""
    parts = []
    for key, text in (("loss", "loss {:.3f}"), ("accuracy", "accuracy {:.1%}")):
        values = [row[key] for row in rows if row.get(key) is not None]
        values = [value for value in values if math.isfinite(value)]
        if values:
            parts.append(text.format(sum(values) / len(values)))
    return ", ".join(parts) or "no finite number"
