"""The pretrained encoder's laboratory: the page from the record, and the mechanics on a tiny
encoder.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from experiments.encoder import features, methods, page
from mdtheory import EpisodeStream, GlyphSet
from tests.docs.pages import DOCS, blocks

SIZES = {"train": 12, "validation": 5, "test": 8}


def test_the_page_is_made_from_the_record():
    assert page.PAGE.read_text(encoding="utf-8") == page.made()


def test_a_changed_record_changes_the_page():
    """Negative control."""
    record = json.loads(page.RECORD.read_text())
    before = page.tables(record), page.conclusion(record)
    for row in ("1", "5"):
        record["rows"]["linear probe"][row]["correct"] = [75] * 400
    after = page.tables(record), page.conclusion(record)
    assert before[0] != after[0] and before[1] != after[1]
    assert "linear probe (-11.1" in after[1] and "linear probe (+" in before[1]


def test_differences_are_paired_on_the_tasks_that_both_met():
    record = json.loads(page.RECORD.read_text())
    name = "fine-tuning, all weights"
    own, base = (page.accuracies(record, one, "5") for one in (name, page.REFERENCE))
    mean, half, _ = page.differences(record, "5")[name]
    gaps = own - base[: len(own)]
    assert mean == pytest.approx(gaps.mean())
    assert half == pytest.approx(1.96 * gaps.std(ddof=1) / len(gaps) ** 0.5)
    assert set(record["provenance"]) >= {"code", "machine", "finished"}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Features of glyphs by a tiny random encoder, kept in a cache of their own."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 32), nn.Tanh())
    few = features.Few(Tiny(GlyphSet()), SIZES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MDTHEORY_CACHE", str(tmp_path_factory.mktemp("cache")))
        first = features.features(few, encoder, "tiny")
        patch.setattr(features, "_encode", None)  # what is kept is not computed again
        second = features.features(few, encoder, "tiny")
    assert np.array_equal(first.table["test"][3], second.table["test"][3])
    return few, encoder, first


class Tiny:
    """Ten images of every class, the same in every task."""

    def __init__(self, source):
        self.source, self.image_shape = source, source.image_shape
        self.digest, self.classes = source.digest, source.classes

    def count(self, split, class_index):
        return 10

    def load(self, split, class_index, picks, seed=0):
        return self.source.load(split, class_index, picks, seed=0)  # drawn once, like files


def streams(source, split):
    return EpisodeStream(source, split=split, seed=0, n_way=3, n_shot=2, n_query=4)


def test_features_are_the_encoder_s_on_the_same_task(table):
    few, encoder, made = table
    images, task = streams(few, "test")(1), streams(made, "test")(1)
    with torch.no_grad():
        assert torch.allclose(encoder(images.support_x), task.support_x, atol=1e-3)
    assert torch.equal(images.query_y, task.query_y)
    assert len(few.classes("test")) == 8 and few.digest != few.source.digest


def test_every_row_solves_a_task(table):
    few, _, made = table
    tasks, task = streams(made, "train"), streams(made, "test")(0)
    how = {"iterations": 2, "n_tasks": 2, "rate": 1e-3}
    solvers = [methods.nearest_centroid, methods.linear_probe]
    solvers.append(methods.prototypical(methods.Head(32, 3).embedding, tasks, **how))
    for row in methods.ROWS.values():
        made_learner = methods.learner(row, 32, 3, n_steps=2, task_lr=0.1, seed=0)
        solvers.append(methods.meta_train(made_learner, tasks, **how))
    for solve in solvers:
        scores = solve(task)
        assert scores.shape == (12, 3) and torch.isfinite(scores).all()
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, 8), nn.BatchNorm1d(8))
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    tuned = methods.fine_tune(encoder, streams(few, "test")(0), n_steps=2, rate=1e-2)
    assert tuned.shape == (12, 3)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_the_value_that_is_right_most_often_is_chosen(table):
    """The planted fault beside it: a stream in which another value wins."""
    _, _, made = table
    tasks = streams(made, "validation")

    def says(best):
        def make(value):
            return lambda task: torch.nn.functional.one_hot(
                task.query_y if value == best else (task.query_y + 1) % 3
            )

        return make

    for best in (0.1, 0.5):
        chosen = methods.choose(says(best), (0.02, 0.1, 0.5), tasks, 3)
        assert chosen.value == best and methods.right(chosen, tasks(7)) == 12


def test_the_probe_and_the_centroids_are_right_where_classes_are_far_apart():
    from mdtheory import Episode

    y = torch.arange(3).repeat_interleave(2)
    x = 5 * torch.eye(3)[y] + 0.1 * torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    task = Episode(x, y, x.flip(0), y.flip(0))
    for solve in (methods.nearest_centroid, methods.linear_probe):
        assert torch.equal(solve(task).argmax(-1), task.query_y)


def test_the_guide_s_program_runs():
    program = blocks(DOCS / "how-to" / "encoder.md", "python")[0]
    names = {}
    exec(compile(program, "encoder.md", "exec"), names)
    moved = {name: p.grad for name, p in names["head"].named_parameters()}
    assert moved and all(grad.abs().sum() > 0 for grad in moved.values())
    assert all(p.grad is None for p in names["encoder"].parameters())
