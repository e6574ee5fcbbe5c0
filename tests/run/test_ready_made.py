"""The ready-made learner of the guide: weights, what the guide says of it, hostile files."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import mdtheory
from mdtheory.meta import checkpoint
from mdtheory.run.build import load_learner
from tests.commands.runs import call, refused, train
from tests.docs.pages import DOCS, commands

ROOT = DOCS.parent
GUIDE = DOCS / "how-to" / "ready-made.md"
LINE = next(line for line in commands(GUIDE) if line.startswith("mdtheory adapt"))
RECORD = ROOT / LINE.split()[2]


def photos(folder, n, seed):
    rng = np.random.default_rng(seed)
    for index, colour in enumerate(
        ((200, 30, 30), (30, 180, 40), (40, 60, 200), (220, 200, 40), (90, 90, 90))
    ):
        place = folder / f"colour{index}"
        place.mkdir(parents=True)
        for k in range(n):
            pixels = np.clip(rng.normal(colour, 25, (48, 64, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(place / f"{k}.jpg")


def test_the_guide_s_command_tells_five_colours_apart(tmp_path, monkeypatch):
    photos(tmp_path / "examples", 3, 0)
    photos(tmp_path / "unknown", 2, 1)
    monkeypatch.chdir(tmp_path)
    words = LINE.replace(LINE.split()[2], str(RECORD)).split()[1:]
    result = call(*words)
    assert result.exit_code == 0, result.output
    assert float(re.search(r"classes: ([\d.]+)%", result.output)[1]) >= 80


def test_without_the_repository_the_sentence_says_where_the_record_lies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "examples", 2, 0)
    sentence = refused(call(*LINE.split()[1:]))
    assert "lie in the project's repository, not in the package" in sentence
    assert LINE.split()[2] in sentence and "experiments/records" in call("adapt", "--help").output


def test_what_the_guide_says_is_what_the_record_holds():
    text = GUIDE.read_text()
    result = json.loads((RECORD / "result.json").read_text())
    (found,) = [
        p for p in result["protocols"] if p["n_query"] == 15 and p["norm"] == "transductive"
    ]
    assert f"{100 * found['accuracy']:.1f} ± {100 * found['half_width']:.1f} %" in text
    assert f"{result['iterations']:,} meta-iterations" in text
    weights = load_file(RECORD / "weights.safetensors")
    anchor = sum(
        v.numel() for k, v in weights.items() if k.startswith("network.") and "running" not in k
    )
    assert f"{anchor:,} numbers" in text and (RECORD / "provenance.json").is_file()


def test_exported_weights_are_the_run_s(tmp_path):
    train(tmp_path / "r")
    assert (
        call(
            "checkpoint", "export", tmp_path / "r" / "best.pt", tmp_path / "w.safetensors"
        ).exit_code
        == 0
    )
    first, again = (load_learner(tmp_path / name)[0] for name in ("r/best.pt", "w.safetensors"))
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    loaded = mdtheory.load(tmp_path / "w.safetensors")
    assert not loaded.training


@pytest.mark.parametrize(
    "harm", ["truncated", "text", "foreign", "nan", "shape", "config", "missing"]
)
def test_a_file_that_is_no_export_is_refused_in_one_sentence(tmp_path, harm):
    path, good = tmp_path / "w.safetensors", RECORD / "weights.safetensors"
    weights, config = load_file(good), checkpoint.load_safetensors(good)["config"]
    name = next(iter(weights))
    if harm == "truncated":
        path.write_bytes(good.read_bytes()[:-100])
    elif harm == "text":
        path.write_text("hello")
    elif harm == "foreign":
        save_file(weights, path)
    elif harm == "nan":
        save_file(weights | {name: weights[name] * float("nan")}, path, metadata={"config": config})
    elif harm == "shape":
        save_file(weights | {name: torch.zeros(3)}, path, metadata={"config": config})
    elif harm == "config":
        save_file(weights, path, metadata={"config": "[1]"})
    sentence = refused(call("evaluate", path, "--tasks", 2))
    assert "must" in sentence and sentence.count("\n") <= 1
