"""The meta-training loop: what one step is, what it records, and how it complains."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mdtheory.contract.device import WAITS, Watch
from mdtheory.core import tree
from mdtheory.core.types import Episode
from mdtheory.meta import checkpoint
from mdtheory.meta.events import JsonLines, read_metrics, truncate_metrics
from mdtheory.meta.learner import MetaLearner
from mdtheory.meta.trainer import DivergedError, Validation
from tests.meta import fakes
from tests.meta.fakes import Stop, blobs, last, learner, logged, resumed, sgd, trainer, unbroken

# -- one step
# --------------------------------------------------------------------------------------------------


def test_a_step_is_the_optimizer_on_the_mean_gradient_of_the_addressed_tasks():
    asked: list[int] = []

    def stream(index: int) -> Episode:
        asked.append(index)
        return blobs(index)

    one = trainer(stream=stream, optimizer=sgd, n_tasks=3, validation=None)
    for iteration in range(2):
        before = tree.detach(one.learner.meta())
        before = {name: value.clone() for name, value in before.items()}
        gradient = one.learner.meta_gradient([blobs(3 * iteration + j) for j in range(3)]).grads
        one.step()
        for name, value in one.learner.meta().items():
            torch.testing.assert_close(value.detach(), before[name] - 0.5 * gradient[name])
    assert asked == list(range(6))


def test_tasks_may_be_tuples_and_inputs_several_tensors():
    """With the numbers of episodes of one tensor."""

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = learner().network

        def forward(self, x):
            return self.inner(x)

    def tuples(index: int) -> Any:
        task = blobs(index)
        return ({"x": task.support_x}, task.support_y, {"x": task.query_x}, task.query_y)

    found = []
    for stream in (tuples, blobs):
        one = trainer(own=learner(network=Two()), stream=stream, optimizer=sgd, validation=None)
        one.step()
        found.append({name: value.detach() for name, value in one.learner.meta().items()})
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


def test_clipping_by_value_then_by_norm():
    one = trainer(optimizer=sgd, clip_value=0.02, clip_norm=0.05, validation=None)
    before = {name: value.detach().clone() for name, value in one.learner.meta().items()}
    clipped = {
        name: value.clamp(-0.02, 0.02)
        for name, value in one.learner.meta_gradient([blobs(0), blobs(1)]).grads.items()
    }
    size = tree.norm(clipped)
    assert size > 0.05
    one.step()
    for name, value in one.learner.meta().items():
        expected = before[name] - 0.5 * clipped[name] * 0.05 / size
        torch.testing.assert_close(value.detach(), expected, rtol=1e-4, atol=1e-7)


def test_weight_decay_reaches_every_meta_parameter():
    decayed, bare = (
        trainer(optimizer=lambda v, w=w: sgd(v, weight_decay=w), validation=None)
        for w in (0.1, 0.0)
    )
    before = {name: value.detach().clone() for name, value in bare.learner.meta().items()}
    decayed.step(), bare.step()
    for name, value in decayed.learner.meta().items():
        torch.testing.assert_close(
            bare.learner.meta()[name] - value, 0.5 * 0.1 * before[name], rtol=1e-4, atol=1e-6
        )


def test_training_helps():
    losses: list[float] = []
    keep = type("Keep", (Stop,), {"record": lambda self, row: losses.append(row["loss"])})(0)
    trainer(
        iterations=60,
        n_tasks=4,
        validation=None,
        optimizer=lambda v: torch.optim.Adam(v, lr=0.02),
        listeners=[keep],
    ).fit()
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])


def test_the_global_generator_is_untouched_and_seeded_by_iteration():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one = trainer()
    one.fit()
    assert torch.equal(torch.rand(1), expected)
    drawn = []
    for now in (3, 3, 4):
        with one._randomness(now):
            drawn.append(torch.rand(1).item())
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("name", ["iterations", "n_tasks", "checkpoint_every"])
def test_impossible_numbers_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be at least"):
        trainer(**{name: -1})


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"n_tasks": 2.5}, "n_tasks must be at least 1 and whole, got 2.5"),
        ({"clip_norm": -1.0}, "clip_norm must be a number > 0 and finite, got -1.0; 10 is usual"),
        ({"clip_value": 0.0}, "clip_value must be a number > 0"),
        ({"stream": []}, "stream must be a function from an index to an Episode"),
    ],
)
def test_settings_that_would_train_something_else_are_refused(bad, said):
    """A negative bound on the norm would turn every meta-gradient round."""
    with pytest.raises(ValueError, match=said):
        trainer(**bad)


def test_an_optimizer_of_the_model_that_was_copied_is_refused():
    """It would step for hours and train nothing."""
    network = nn.Linear(3, 2)
    one = MetaLearner(network, n_steps=1)

    def of_the_model(values: Any) -> Any:
        return torch.optim.Adam(network.parameters())

    with pytest.raises(ValueError, match=r"over learner.meta\(\).*got 2 of 2 tensors that are not"):
        trainer(own=one, optimizer=of_the_model)
    trainer(own=one, optimizer=lambda values: torch.optim.Adam(one.parameter_groups()))


def test_a_scheduler_of_another_optimizer_is_refused():
    def apart(values: Any) -> Any:
        return sgd(values), torch.optim.lr_scheduler.StepLR(sgd(values), 1)

    with pytest.raises(ValueError, match="the scheduler must be that of the optimizer"):
        trainer(optimizer=apart)


@pytest.mark.parametrize("bad", [{"every": 0}, {"tasks": 0}, {"tasks": 2.5}])
def test_impossible_validations_are_refused(bad):
    with pytest.raises(ValueError, match=f"{next(iter(bad))} must be at least 1"):
        Validation(stream=blobs, **bad)


@pytest.mark.parametrize("minutes", [float("nan"), float("inf")])
def test_minutes_that_never_end_are_refused(minutes):
    with pytest.raises(ValueError, match="minutes must be a finite number"):
        trainer().fit(minutes=minutes)


# -- what goes wrong
# --------------------------------------------------------------------------------------------------


def test_nan_stops_with_iteration_and_parameter_and_keeps_the_last_good_checkpoint(tmp_path):
    def stream(index: int) -> Episode:
        task = blobs(index)
        return replace(task, query_x=task.query_x * math.nan) if index >= 10 else task

    one = logged(tmp_path, stream=stream, validation=None)
    with pytest.raises(
        DivergedError,
        match=(
            r"meta-objective is not finite in meta-iteration 6; .*last\.pt is the last good "
            r"state"
        ),
    ):
        one.fit()
    state = last(tmp_path)
    assert state["counters"]["iteration"] == 4
    assert all(torch.isfinite(value).all() for value in state["weights"].values())
    with pytest.raises(ValueError, match="must be started"):
        one.listeners[0].record({"kind": "train"})


def test_a_gradient_that_is_not_finite_is_named():
    one = trainer(validation=None)
    name = list(one.learner.meta())[-1]
    meta_gradient = one.learner.meta_gradient

    def poisoned(episodes: Any) -> Any:
        result = meta_gradient(episodes)
        result.grads[name][1] = math.inf
        return result

    one.learner.meta_gradient = poisoned
    with pytest.raises(
        DivergedError, match=f"the gradient of {re.escape(name)} is not finite in meta-iteration 1"
    ):
        one.fit()


def test_a_parameter_that_overflows_is_named(tmp_path):
    one = trainer(tmp_path, optimizer=lambda v: sgd(v, lr=1e38, weight_decay=1e10), validation=None)
    name = next(iter(one.learner.meta()))
    with pytest.raises(
        DivergedError, match=f"the value of {re.escape(name)} is not finite in meta-iteration 1"
    ):
        one.fit()
    assert last(tmp_path)["counters"]["iteration"] == 0


@pytest.mark.parametrize("clip_norm", [None, 0.1])
def test_a_gradient_is_named_as_it_was_before_it_was_clipped(clip_norm):
    one = trainer(validation=None, clip_norm=clip_norm)
    names = list(one.learner.meta())
    meta_gradient = one.learner.meta_gradient

    def poisoned(episodes: Any) -> Any:
        result = meta_gradient(episodes)
        result.grads[names[-1]][1] = math.nan
        return result

    one.learner.meta_gradient = poisoned
    with pytest.raises(DivergedError, match=f"the gradient of {re.escape(names[-1])} is"):
        one.fit()


def test_an_iteration_reads_no_single_number_from_the_device():
    """All of it comes in two lists: reading number by number, the host would wait for a GPU as many
    times.
    """
    one = trainer(validation=None, clip_value=1.0, clip_norm=1.0, optimizer=sgd)
    one.step()
    with Watch() as watch:
        one.step()
    assert watch.waits == []
    one._tell = lambda kind, numbers: float(
        one.learner.meta()[next(iter(one.learner.meta()))].detach().sum()
    )
    with Watch() as watch:
        one.step()
    assert watch.waits == [WAITS["_local_scalar_dense"]]


def test_a_full_disk_while_saving_stops_with_one_sentence_and_loses_nothing(tmp_path, monkeypatch):
    one = trainer(tmp_path)
    save, calls = checkpoint.save, []

    def failing(state: Any, path: Path) -> None:
        calls.append(path)
        if len(calls) == 3:
            raise ValueError(
                f"{path} must be written, but the system says: No space left on device"
            )
        save(state, path)

    monkeypatch.setattr(checkpoint, "save", failing)
    with pytest.raises(ValueError, match="No space left"):
        one.fit()
    monkeypatch.undo()
    whole = unbroken(tmp_path / "whole")
    assert checkpoint.digest(resumed(tmp_path)) == checkpoint.digest(whole)


# -- metrics
# --------------------------------------------------------------------------------------------------


def test_metrics_lines_say_what_happened(tmp_path):
    unbroken(tmp_path)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["iteration"] for row in rows if row["kind"] == "train"] == [1, 2, 3, 4, 5, 6]
    assert [row["iteration"] for row in rows if row["kind"] == "validation"] == [3, 6]
    assert all(0 <= row["accuracy"] <= 1 and row["loss"] > 0 for row in rows)
    assert all(
        row["meta_lr"] == 0.01 and row["grad_norm"] > 0 for row in rows if row["kind"] == "train"
    )


def test_best_is_the_highest_validation_accuracy_and_the_first_of_equals(tmp_path):
    state = unbroken(tmp_path, iterations=12)
    found = [
        (row["iteration"], row["accuracy"])
        for row in read_metrics(tmp_path / "metrics.jsonl")
        if row["kind"] == "validation"
    ]
    top = max(score for _, score in found)
    first = next(iteration for iteration, score in found if score == top)
    assert state["counters"]["best_iteration"] == first
    assert state["counters"]["best_score"] == top
    assert checkpoint.load(tmp_path / "best.pt")["counters"]["iteration"] == first


def test_truncation_keeps_whole_lines_up_to_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = [("train", 1), ("validation", 1), ("train", 2)]
    whole = "".join(f'{{"kind": "{kind}", "iteration": {iteration}}}\n' for kind, iteration in rows)
    path.write_text(whole + '{"kind": "tr')
    truncate_metrics(path, iteration=2, validated=1)
    assert [row["iteration"] for row in read_metrics(path)] == [1, 1, 2]
    truncate_metrics(path, iteration=2, validated=0)
    assert read_metrics(path) == [{"kind": "train", "iteration": 1}]
    truncate_metrics(path, iteration=0, validated=-1)
    assert path.read_bytes() == b""
    truncate_metrics(tmp_path / "none.jsonl", iteration=0, validated=-1)
    assert not (tmp_path / "none.jsonl").exists()


def test_nan_is_null_in_metrics(tmp_path):
    lines = JsonLines(tmp_path / "m.jsonl")
    lines.start(done=0, validated=-1, total=1)
    lines.record({"kind": "train", "iteration": 1, "accuracy": math.nan})
    lines.close()
    assert read_metrics(tmp_path / "m.jsonl")[0]["accuracy"] is None


def test_regression_is_trained_and_ranked_by_its_loss(tmp_path):
    def lines(index: int) -> Episode:
        task = blobs(index)
        return replace(
            task, support_y=task.support_x.sum(1, True), query_y=task.query_x.sum(1, True)
        )

    own = learner(
        network=torch.nn.Linear(fakes.FEATURES, 1), loss=torch.nn.functional.mse_loss, task_lr=0.01
    )
    one = logged(
        tmp_path, own=own, stream=lines, validation=Validation(stream=lines, every=3, tasks=4)
    )
    counters = one.fit()
    validations = [
        row["loss"]
        for row in read_metrics(tmp_path / "metrics.jsonl")
        if row["kind"] == "validation"
    ]
    assert counters.best_score == pytest.approx(-min(validations))
