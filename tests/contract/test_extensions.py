"""One file each is enough for a new component, and is checked: the right one passes ``mdtheory
check``, a wrong one of the same kind ends it with 1 and the name of the property.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from mdtheory.commands.check import registries
from tests.commands.runs import call, refused

GEOMETRY = '''
from mdtheory.geometry import Geometry, GradientStep, geometries

class Halved(GradientStep):
    def step(self, meta, state, grad, *, task_lr, k, pull):
        moved = {f"z.{n}": state[f"z.{n}"] - RATE * task_lr * g for n, g in grad.items()}
        return {**state, **moved}

@geometries.register("mine")
class Mine(Geometry):
    """Gradient steps."""
    source = "own design"
    def __init__(self):
        super().__init__(rule=Halved())
'''
MAP = '''
from mdtheory.maps import DualMap, maps

@maps.register("mine")
class Cube(DualMap):
    """phi = z + z^3 / 3, elementwise."""
    def point(self, meta, z):
        return {n: v + v**3 / 3 for n, v in z.items()}
    def inverse(self, meta, phi):
        found = {n: v.clone() for n, v in phi.items()}
        for _ in range(STEPS):
            found = {n: v - (v + v**3 / 3 - phi[n]) / (1 + v**2) for n, v in found.items()}
        return found
'''
NETWORK = '''
import torch
from torch import nn
from mdtheory.models import models
from mdtheory.models.base import seeded

@models.register("mine")
class Mine(nn.Module):
    """A linear layer and a tanh."""
    def __init__(self, *, in_features, n_way=5, seed=0):
        super().__init__()
        with seeded(seed):
            self.layer, self.head = nn.Linear(in_features, 4), nn.Linear(4, n_way)
    def forward(self, x):
        return self.head(HIDDEN)
'''
ESTIMATOR = '''
from mdtheory.inner.estimators import TaskGradient, Unrolled, estimators

@estimators.register("mine")
class Mine(Unrolled):
    """The unrolled gradient, times FACTOR."""
    def task_gradient(self, problem, meta, task, noise):
        value, grads, stats = super().task_gradient(problem, meta, task, noise)
        return TaskGradient(value, {n: FACTOR * g for n, g in grads.items()}, stats)
'''
READER = '''
from pathlib import Path
from mdtheory.data.image_index import Found, Item, stamp_of
from mdtheory.data.readers import readers

@readers.register("mine")
def find(path):
    """Files called class-number.png in one folder."""
    files = sorted(path.glob("*-*.png"))
    if not files:
        return None
    def opened():
        items = [Item(f.name.split("-")[0], NAME, "") for f in files]
        return items, iter(files)
    stamps = tuple(stamp_of(f.stat(), f.name, f) for f in files)
    return Found("numbered files", path, stamps, opened)
'''
SOURCE = '''
import torch
from mdtheory.data.sources import DataSource, data_sources

class Dots:
    digest, image_shape = "0" * 64, (1, 8, 8)
    def classes(self, split):
        return (SHARED, f"{split} b")
    def count(self, split, class_index):
        return 3
    def load(self, split, class_index, picks, seed):
        return torch.stack([torch.full((1, 8, 8), (p + class_index) / 9) for p in picks])

@data_sources.register("mine")
class Mine(DataSource):
    """Grey squares."""
    title, image_size, channels, takes_path = "dots", 8, 1, False
    def open(self, path, *, image_size, device="cpu"):
        return Dots()
'''
CASES = {
    "geometry": (GEOMETRY, {"RATE": "1"}, {"RATE": "0.5"}, "neutral"),
    "map": (MAP, {"STEPS": "40"}, {"STEPS": "1"}, "bijective"),
    "network": (
        NETWORK,
        {"HIDDEN": "torch.tanh(self.layer(x.flatten(1)))"},
        {"HIDDEN": "torch.tanh(self.layer(x.flatten(1)).detach())"},
        "differentiable",
    ),
    "estimator": (ESTIMATOR, {"FACTOR": "1"}, {"FACTOR": "2"}, "declared"),
    "reader": (READER, {"NAME": "f.name"}, {"NAME": "'same'"}, "lists"),
    "data source": (SOURCE, {"SHARED": "split"}, {"SHARED": "'shared'"}, "splits share no class"),
}


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """The registries of a new process."""
    for registry in registries().values():
        registry.names()
        monkeypatch.setattr(registry, "_factories", dict(registry._factories))


@pytest.fixture
def checked(tmp_path):
    """``mdtheory check mine --plugin FILE`` on a file with these words filled in."""

    def run(source: str, words: dict[str, str]):
        for word, value in words.items():
            source = source.replace(word, value)
        (tmp_path / "mine.py").write_text(source)
        pictures = tmp_path / "pictures"
        pictures.mkdir()
        for name in ("cat-1", "cat-2", "dog-1"):
            pixels = np.full((9, 9, 3), 7 * len(name), np.uint8)
            Image.fromarray(pixels).save(pictures / f"{name}.png")
        place = ["--path", pictures] if "readers" in source else []
        done = call("check", "mine", "--plugin", tmp_path / "mine.py", "--json", *place)
        return done, {one["check"]: one for one in json.loads(done.stdout)}

    return run


@pytest.mark.parametrize("kind", CASES)
def test_a_right_one_passes(kind, checked):
    source, right, _, _ = CASES[kind]
    done, findings = checked(source, right)
    assert done.exit_code == 0 and all(one["ok"] for one in findings.values()), findings


@pytest.mark.parametrize("kind", CASES)
def test_a_wrong_one_is_named(kind, checked):
    source, _, wrong, name = CASES[kind]
    done, findings = checked(source, wrong)
    assert done.exit_code == 1 and not findings[name]["ok"], findings


def test_an_unknown_slug_is_one_sentence():
    assert "did you mean 'stepwise'?" in refused(call("check", "stepwize"))


def test_a_reader_needs_images():
    assert "--path must name images for the reader 'csv'" in refused(call("check", "csv"))
