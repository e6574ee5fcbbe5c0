"""Hostile inputs, drawn at random from each kind: one sentence and exit code 2, or no harm."""

from __future__ import annotations

import json
import os
import random
import shutil
import string
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mdtheory.config.writing import dump_toml
from mdtheory.meta import checkpoint
from tests.commands.runs import TINY, settings
from tests.faults.process import Outcome, command, ended, started
from tests.faults.runs import Whole
from tests.meta.test_hostile_checkpoints import PLANTED, planted

VALUES: list[Any] = [
    -1,
    0,
    1,
    10**9,
    2**63 - 1,
    -0.5,
    1e300,
    True,
    "",
    "x",
    "~nosuchuser/x",
    "\x1b[2J",
]
VALUES += [[], ["a"], [0.1], [-3], {}, {"x": 1}, [[1]], "a\nb", "../..", "=1+1"]
OPTIONS = (
    "betas",
    "fused",
    "capturable",
    "differentiable",
    "momentum",
    "foreach",
    "eps",
    "amsgrad",
)
RATES = ("step_size", "gamma", "T_max", "milestones", "patience", "last_epoch", "max_lr", "factor")
LENGTHS = ("meta.iterations", "meta.n_tasks", "task.n_steps", "validation.tasks")
"""How much a run has to do: a billion is no fault, but years."""
SCHEDULERS = ("StepLR", "MultiStepLR", "ExponentialLR", "CosineAnnealingLR", "ReduceLROnPlateau")
SCHEDULERS += ("OneCycleLR", "CyclicLR", "LinearLR", "PolynomialLR")


def refused_or_harmless(outcome: Outcome) -> str | None:
    """The rule for every input."""
    fault = outcome.fault()
    said = [line for line in outcome.err.splitlines() if line.startswith("mdtheory: ")]
    if fault is None and outcome.code == 2 and len(said) > 1:
        return f"{len(said)} sentences"
    return f"{fault}" if fault else None


def _table(flat: dict[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *path, last = key.split(".")
        table = nested
        for part in path:
            table = table.setdefault(part, {})
        table[last] = value
    return nested


def configuration(rng: random.Random, folder: Path, whole: Whole) -> str | None:
    """A run whose file holds one senseless value, or is damaged."""
    flat = TINY | {"task.eval_n_query": [1, 2], "meta.iterations": 2}
    kind = rng.randrange(4)
    if kind == 0:
        flat[f"meta.optimizer.options.{rng.choice(OPTIONS)}"] = rng.choice(VALUES)
    elif kind == 1:
        flat["meta.scheduler.name"] = rng.choice(SCHEDULERS)
        flat[f"meta.scheduler.options.{rng.choice(RATES)}"] = rng.choice(VALUES)
    elif kind == 2:
        key = rng.choice([*TINY, "data.path", "data.source", "geometry.name", "norm", "dtype"])
        flat[key] = rng.choice([one for one in VALUES if key not in LENGTHS or one != 10**9])
    folder.mkdir()
    text = dump_toml(_table(flat)).encode()
    if kind == 3:
        text = damaged(rng, text)
    (folder / "run.toml").write_bytes(text)
    arguments = ["train", "--config", folder / "run.toml", "--out", folder / "out"]
    return refused_or_harmless(command(*arguments, patience=120 if kind == 3 else 60))


def damaged(rng: random.Random, data: bytes) -> bytes:
    """Bits flipped, cut off, zeroed, or something in front or behind."""
    out = bytearray(data)
    kind = rng.randrange(5)
    at = rng.randrange(max(1, len(out)))
    if kind == 0:
        out[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del out[at:]
    elif kind == 2:
        out[at : at + 64] = bytes(len(out[at : at + 64]))
    else:
        noise = rng.randbytes(rng.randrange(1, 50))
        out = bytearray(noise) + out if kind == 3 else out + noise
    return bytes(out)


def broken_checkpoint(rng: random.Random, folder: Path, whole: Whole) -> str | None:
    """A checkpoint with damage: refused, or with the same digest."""
    folder.mkdir()
    data = (whole.folder / "last.pt").read_bytes()
    (folder / "last.pt").write_bytes(damaged(rng, data))
    outcome = command("checkpoint", "digest", folder / "last.pt")
    if outcome.code == 0 and outcome.out.strip() != whole.digest:
        return "SILENT: another digest"
    return refused_or_harmless(outcome)


def crafted_checkpoint(rng: random.Random, folder: Path, whole: Whole) -> str | None:
    """Content that no trainer writes: refused by every command."""
    folder.mkdir()
    path = planted(folder, PLANTED[rng.choice(list(PLANTED))]())
    name = rng.choice(["digest", "show", "export"])
    more = [folder / "w.safetensors"] if name == "export" else []
    outcome = command("checkpoint", name, path, *more)
    return refused_or_harmless(outcome) or (None if outcome.code == 2 else "SILENT: accepted")


def edited_checkpoint(rng: random.Random, folder: Path, whole: Whole) -> str | None:
    """A sound file with one part of another run or another type: refused."""
    folder.mkdir()
    state = torch.load(whole.folder / "last.pt", weights_only=True)
    kind = rng.randrange(4)
    if kind == 0:
        name = rng.choice(list(state["weights"]))
        state["weights"][name].view(-1)[0] += rng.choice([1e-6, -1.0, 1e30])
    elif kind == 1:
        kept = rng.choice(list(state["optimizer"]["state"].values()))
        kept["step"] = rng.choice([torch.tensor(-1.0), torch.tensor(0.5), 3, True])
    elif kind == 2:
        state["counters"][rng.choice(["iteration", "extra"])] = rng.choice([0, 1, "x", 2.5])
    else:
        state[rng.choice(["config", "data_digest", "torch"])] += rng.choice([" ", "\x1b[2J"])
    torch.save(state, folder / "last.pt")
    outcome = command("checkpoint", rng.choice(["digest", "show"]), folder / "last.pt")
    return refused_or_harmless(outcome) or (None if outcome.code == 2 else "SILENT: accepted")


def broken_folder(rng: random.Random, folder: Path, whole: Whole) -> str | None:
    """A run's folder with one damaged file: refused, or resumed to the same digest."""
    shutil.copytree(whole.folder, folder)
    name = rng.choice(["metrics.jsonl", "config.toml", "best.pt", "last.pt"])
    file = folder / name
    if rng.random() < 0.3:
        file.unlink()
    else:
        file.write_bytes(damaged(rng, file.read_bytes()))
    settings_of_run = ["--set", "meta.iterations=60"]
    config = whole.folder / "config.toml"
    outcome = command("train", "--out", folder, "--resume", "--config", config, *settings_of_run)
    if fault := refused_or_harmless(outcome):
        return f"{name}: {fault}"
    if outcome.code == 0:
        state = checkpoint.load(folder / "last.pt")
        return None if checkpoint.digest(state) == whole.digest else f"SILENT: {name}, other digest"
    return None


def arguments(rng: random.Random, folder: Path, whole: Whole) -> str | None:
    """Command lines that make no sense."""
    folder.mkdir()
    run, odd = (
        str(whole.folder),
        rng.choice(["", "-1", "x", "1e9", "100000000", "/dev/zero", "\x1b[m"]),
    )
    line = rng.choice(
        [
            ["evaluate", run, "--threads", odd],
            ["evaluate", run, "--tasks", odd],
            ["evaluate", run, "--data", odd or "/etc", "--tasks", "2"],
            ["evaluate", run, "--device", odd],
            ["evaluate", odd],
            ["train", "--out", odd, *settings()],
            ["train", "--out", str(folder / "r"), "--minutes", odd, *settings()],
            ["train", "--out", str(folder / "r"), "--set", odd],
            ["train", "--out", str(folder / "r"), "--config", odd],
            ["train", "--out", str(folder / "r"), "--plugin", odd],
            ["checkpoint", "show", odd],
            ["checkpoint", "export", f"{run}/last.pt", odd],
            ["adapt", run, "--support", odd, "--query", odd],
            ["data", "check", odd],
            ["geometries", "--plugin", odd],
            ["check", odd],
        ]
    )
    return refused_or_harmless(command(*line, cwd=folder))


PLUGINS = [
    "1 / 0",
    "assert False",
    "raise RuntimeError('shared memory plugin is missing')",
    "import sys; sys.exit(0)",
    "import sys; sys.exit(3)",
    "raise NotImplementedError",
    "raise BaseException('x')",
    "raise ExceptionGroup('many', [ValueError('x')])",
    "def f(): f()\nf()",
    "raise StopIteration",
    "print('words'); import no_such_module",
    "x = ",
    "\x00",
    "from mdtheory.geometry import Geometry, geometries\n"
    "@geometries.register('mine')\nclass Mine(Geometry):\n"
    "    source = 'own'\n    def step(self, *a, **k):\n        WRONG",
]
WRONG = ["1 / 0", "raise SystemExit(0)", "assert False", "raise RuntimeError('memory')", "[][0]"]


def plugin(rng: random.Random, folder: Path, whole: Whole) -> str | None:
    """A plug-in that fails, when it is imported or in the middle of a run."""
    folder.mkdir()
    text = rng.choice(PLUGINS).replace("WRONG", rng.choice(WRONG))
    (folder / "mine.py").write_text(text)
    more = settings(geometry__name="mine") if "Mine" in text else settings()
    line = ["train", "--out", folder / "r", "--plugin", folder / "mine.py", *more]
    outcome = command(*line)
    return refused_or_harmless(outcome) or (None if outcome.code == 2 else f"accepted: {text[:40]}")


def overwriting(rng: random.Random, folder: Path, whole: Whole) -> str | None:
    """A file that the program did not make stays as it is."""
    folder.mkdir()
    name = rng.choice(
        ["config.toml", "metrics.jsonl", "best.pt", "last.pt", ".mine.part", "s.json"]
    )
    content = "".join(rng.choices(string.printable, k=30)).encode()
    (folder / name).write_bytes(content)
    line: list[Any] = ["train", "--out", folder, *settings(meta__iterations=1)]
    if name == "s.json":
        line = ["evaluate", whole.folder, "--tasks", 2, "--scores", folder / name]
    elif rng.random() < 0.5:
        line.append("--resume")
    outcome = command(*line)
    if (folder / name).read_bytes() != content:
        return f"LOST: {name}"
    return refused_or_harmless(outcome)


def photographs(folder: Path, rng: random.Random) -> None:
    """Three classes of noise for each split."""
    for split in ("train", "val", "test"):
        for name in "abc":
            place = folder / split / f"{split}-{name}"
            place.mkdir(parents=True)
            for index in range(3):
                noise = np.frombuffer(rng.randbytes(16 * 16 * 3), np.uint8).reshape(16, 16, 3)
                Image.fromarray(noise).save(place / f"{index}.png")


def images(rng: random.Random, folder: Path, whole: Whole) -> str | None:
    """A folder of images with something odd in it."""
    photographs(folder, rng)
    place = folder / "train" / "train-a"
    kind = rng.randrange(7)
    if kind == 0:
        (place / "0.png").write_bytes(damaged(rng, (place / "0.png").read_bytes()))
    elif kind == 1:
        (place / "0.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n")
    elif kind == 2:
        os.mkfifo(place / "fifo.png")
    elif kind == 3:
        (place / "0.png").write_bytes(rng.randbytes(100))
    elif kind == 4:
        place.rename(place.with_name("a\nb\x1b[2J"))
    elif kind == 5:
        (place / "gone.png").symlink_to(folder / "nowhere")
    else:
        return special_file(rng, folder)
    outcome = command("data", "check", folder)
    return refused_or_harmless(outcome)


def special_file(rng: random.Random, folder: Path) -> str | None:
    """A pipe or a link to nothing in the place of a table, a text or a class: named."""
    name = rng.choice(["train.csv", "labels.csv", "notes.txt", "train/train-z", "val/pipe"])
    if rng.random() < 0.5:
        os.mkfifo(folder / name)
    else:
        (folder / name).symlink_to(rng.choice(["/nowhere", "/dev/zero"]))
    outcome = command("data", "check", folder)
    told = name in outcome.out + outcome.err and "texts and tables" not in outcome.out
    return refused_or_harmless(outcome) or (None if told else f"SILENT: {name} is not named")


def one_cache(rng: random.Random, folder: Path, whole: Whole) -> str | None:
    """Two processes fill one cache, and one may be killed; then it is damaged: never believed."""
    photographs(folder / "photos", rng)
    variables = {"MDTHEORY_CACHE": str(folder / "cache")}
    line = ["data", "check", folder / "photos", "--json"]
    both = [started(*line, variables=variables) for _ in range(2)]
    if rng.random() < 0.5:
        both[0].kill()
    outcomes = [ended(process) for process in both]
    if fault := outcomes[1].fault(codes=(0,)):
        return fault
    first = json.loads(outcomes[1].out)
    for file in (folder / "cache").rglob("*"):
        if file.is_file() and file.suffix in (".npy", ".json") and rng.random() < 0.7:
            file.write_bytes(damaged(rng, file.read_bytes()))
    again = ended(started(*line, variables=variables))
    if fault := refused_or_harmless(again):
        return fault
    same = again.code == 2 or json.loads(again.out) == first
    return None if same else "SILENT: other images"


INPUTS = {
    "configurations": configuration,
    "damaged checkpoints": broken_checkpoint,
    "crafted checkpoints": crafted_checkpoint,
    "edited checkpoints": edited_checkpoint,
    "damaged run folders": broken_folder,
    "arguments": arguments,
    "plug-ins": plugin,
    "overwriting": overwriting,
    "images": images,
    "two processes, one cache": one_cache,
}
