"""Broken off at any moment and resumed: the bits of the run that was never stopped."""

from __future__ import annotations

import functools
import math
import os
import signal
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import lr_scheduler

from mdtheory.core.types import Episode
from mdtheory.kernels import compile
from mdtheory.meta import checkpoint, numerics
from mdtheory.meta.events import read_metrics
from mdtheory.meta.interrupt import SIGNALS, InterruptedRunError, StopRequest
from mdtheory.meta.trainer import RunInfo, Validation
from tests.meta.fakes import (
    Switch,
    blobs,
    broken_off,
    last,
    learner,
    logged,
    resumed,
    sgd,
    trainer,
    unbroken,
)


@pytest.mark.parametrize("after", [1, 2, 3, 4, 5, 6])
def test_killed_after_any_iteration_and_resumed_is_the_same_run(tmp_path, after):
    whole = unbroken(tmp_path / "whole")
    broken_off(tmp_path / "broken", after)
    again = resumed(tmp_path / "broken")
    assert checkpoint.digest(again) == checkpoint.digest(whole)
    assert read_metrics(tmp_path / "broken/metrics.jsonl") == read_metrics(
        tmp_path / "whole/metrics.jsonl"
    )
    best = [
        checkpoint.digest(checkpoint.load(tmp_path / name / "best.pt"))
        for name in ("whole", "broken")
    ]
    assert best[0] == best[1]


def test_another_seed_of_tasks_gives_another_digest(tmp_path):
    """Negative control of the test above."""
    whole = unbroken(tmp_path / "a")
    other = unbroken(tmp_path / "b", stream=lambda index: blobs(index + 1))
    assert checkpoint.digest(whole) != checkpoint.digest(other)


def _with(optimizer: Any, scheduler: Any = None) -> Any:
    def make(values: Any) -> Any:
        made = optimizer(values)
        return (made, None if scheduler is None else scheduler(made))

    return make


OPTIMIZERS = {
    "sgd-nesterov": _with(
        lambda v: torch.optim.SGD(v, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
    ),
    "adamw": _with(lambda v: torch.optim.AdamW(v, lr=0.01)),
    "amsgrad": _with(lambda v: torch.optim.Adam(v, lr=0.01, amsgrad=True)),
    "rmsprop": _with(lambda v: torch.optim.RMSprop(v, lr=0.01, centered=True, momentum=0.5)),
    "adagrad": _with(lambda v: torch.optim.Adagrad(v, lr=0.1)),
    "nadam": _with(lambda v: torch.optim.NAdam(v)),
    "rprop": _with(lambda v: torch.optim.Rprop(v)),
    "adafactor": _with(lambda v: torch.optim.Adafactor(v)),
    "step": _with(sgd, lambda o: lr_scheduler.StepLR(o, 2)),
    "milestones": _with(sgd, lambda o: lr_scheduler.MultiStepLR(o, [2, 4, 4])),
    "cosine": _with(sgd, lambda o: lr_scheduler.CosineAnnealingLR(o, 6)),
    "restarts": _with(sgd, lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 2)),
    "one-cycle": _with(sgd, lambda o: lr_scheduler.OneCycleLR(o, 0.5, total_steps=8)),
    "cyclic": _with(
        sgd, lambda o: lr_scheduler.CyclicLR(o, 0.1, 0.5, step_size_up=2, cycle_momentum=False)
    ),
    "linear": _with(sgd, lambda o: lr_scheduler.LinearLR(o)),
    "polynomial": _with(sgd, lambda o: lr_scheduler.PolynomialLR(o, 6)),
    "plateau": _with(sgd, lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0, threshold=1.0)),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_and_scheduler_resumes_to_the_bit(tmp_path, name):
    whole = unbroken(tmp_path / "whole", optimizer=OPTIMIZERS[name])
    broken_off(tmp_path / "broken", 5, optimizer=OPTIMIZERS[name])
    assert last(tmp_path / "broken")["counters"]["iteration"] == 4
    assert checkpoint.digest(
        resumed(tmp_path / "broken", optimizer=OPTIMIZERS[name])
    ) == checkpoint.digest(whole)


@pytest.mark.parametrize("forgotten", ["optimizer", "scheduler"])
def test_forgetting_a_part_would_be_seen(tmp_path, forgotten):
    """Negative control: without that part of the state the bits differ."""
    make = _with(
        lambda v: torch.optim.SGD(v, lr=0.1, momentum=0.9), lambda o: lr_scheduler.StepLR(o, 2)
    )
    whole = unbroken(tmp_path / "whole", optimizer=make)
    broken_off(tmp_path / "broken", 5, optimizer=make)
    one = trainer(tmp_path / "broken", optimizer=make)
    state = last(tmp_path / "broken")
    fresh = one.state()[forgotten]
    one.resume({**state, forgotten: checkpoint.plain(fresh)})
    one.fit()
    assert checkpoint.digest(last(tmp_path / "broken")) != checkpoint.digest(whole)


def test_plateau_follows_the_validation():
    make = _with(
        sgd, lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0, threshold=0.99, factor=0.1)
    )
    one = trainer(optimizer=make)
    one.fit()
    assert one.optimizer.param_groups[0]["lr"] == pytest.approx(0.05)


def test_running_statistics_are_learned_saved_and_resumed(tmp_path):
    def make() -> Any:
        return learner("metasgd", network=Switch(), norm="running")

    torch.manual_seed(0)
    networks = [make() for _ in range(3)]
    for one in networks[1:]:
        one.load_state_dict(networks[0].state_dict())
    start = networks[0].network.norm.running_mean.clone()
    whole = unbroken(tmp_path / "whole", own=networks[0])
    broken_off(tmp_path / "broken", 3, own=networks[1])
    assert checkpoint.digest(resumed(tmp_path / "broken", own=networks[2])) == checkpoint.digest(
        whole
    )
    assert not torch.equal(whole["weights"]["network.norm.running_mean"], start)


def test_time_up_saves_and_goes_on_later(tmp_path):
    whole = unbroken(tmp_path / "whole")
    (tmp_path / "short").mkdir()
    counters = logged(tmp_path / "short").fit(minutes=0)
    assert counters.iteration == 0
    assert checkpoint.digest(resumed(tmp_path / "short")) == checkpoint.digest(whole)


@pytest.mark.parametrize("signum", SIGNALS)
@pytest.mark.parametrize("during", ["step", "validation"])
def test_a_signal_finishes_saves_and_leaves(tmp_path, signum, during):
    whole = unbroken(tmp_path / "whole")
    folder = tmp_path / "asked"
    folder.mkdir()
    handler = signal.getsignal(signum)

    def stream(index: int) -> Episode:
        if during == "step" and index == 7:
            os.kill(os.getpid(), signum)
        return blobs(index)

    def tested(index: int) -> Episode:
        if during == "validation" and index == 2:
            os.kill(os.getpid(), signum)
        return blobs(10_000 + index)

    one = logged(folder, stream=stream, validation=Validation(stream=tested, every=3, tasks=4))
    with pytest.raises(InterruptedRunError, match="saved in") as caught:
        one.fit()
    assert caught.value.exit_code == 128 + signum
    assert signal.getsignal(signum) is handler
    state = last(folder)
    assert state["counters"]["iteration"] == (4 if during == "step" else 3)
    assert state["counters"]["validated"] == (3 if during == "step" else -1)
    assert checkpoint.digest(resumed(folder)) == checkpoint.digest(whole)
    assert read_metrics(folder / "metrics.jsonl") == read_metrics(tmp_path / "whole/metrics.jsonl")


@pytest.mark.skipif(not hasattr(signal, "SIGXCPU"), reason="no limits of processor time")
def test_the_end_of_the_processor_time_is_told_every_second():
    """Only the first asks; a second one, that nobody meant, killed a run that was being saved."""
    with StopRequest() as stop:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGXCPU)
        assert stop.signum == signal.SIGXCPU
    assert signal.getsignal(signal.SIGXCPU) is signal.SIG_DFL


def test_another_configuration_is_refused(tmp_path):
    unbroken(tmp_path / "a")
    one = trainer(tmp_path / "a", info=RunInfo(config_digest="other"))
    with pytest.raises(ValueError, match="must come from this configuration"):
        one.resume(last(tmp_path / "a"))


def test_other_images_are_refused(tmp_path):
    unbroken(tmp_path / "a")
    one = trainer(tmp_path / "a", info=RunInfo(config_digest="d", data_digest="other"))
    with pytest.raises(ValueError, match="must be those that the run began with"):
        one.resume(last(tmp_path / "a"))


@pytest.mark.parametrize(
    ("name", "said"),
    [("pixels_digest", "but their pixels have another"), ("split_digest", "must hold the classes")],
)
@pytest.mark.parametrize("before", ["", "mine", "other"])
def test_other_pixels_or_splits_under_the_same_names_are_refused(tmp_path, before, name, said):
    """Also by other processes of a run; what says nothing of them is no change."""
    mine = {"config_digest": "d", "data_digest": "i"}
    state = checkpoint.plain(trainer(info=RunInfo(**mine, **{name: before})).state())
    one = trainer(info=RunInfo(**mine, **{name: "mine"}))
    if before == "other":
        with pytest.raises(ValueError, match=said):
            one.resume(state)
    else:
        one.resume(state)
    assert (checkpoint.digests(state) == checkpoint.digests(one.state())) == (before == "mine")


def test_another_number_of_threads_is_refused_unless_asked_for(tmp_path):
    unbroken(tmp_path / "a")
    state = last(tmp_path / "a") | {"threads": torch.get_num_threads() + 1}
    with pytest.raises(ValueError, match=f"checkpoint's {state['threads']} threads"):
        trainer(tmp_path / "a").resume(state)
    one = trainer(tmp_path / "a")
    one.resume(state, other_bits=True)
    assert one.counters.iteration == 6


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("kernels", "block-0123456789abcdef"),
        ("kernels", "plain"),
        ("precision", "medium"),
        ("processor", "another"),
        ("device", "a GPU"),
        ("torch", "2.0.0"),
    ],
)
def test_another_numerical_path_is_refused_unless_asked_for(tmp_path, monkeypatch, entry, value):
    compiled = SimpleNamespace(identity="block-1") if value == "plain" else None
    library = functools.cache(lambda: compiled)
    monkeypatch.setattr(numerics, "library", library)
    monkeypatch.setattr(compile, "library", library)
    unbroken(tmp_path / "a")
    state = last(tmp_path / "a")
    trainer(tmp_path / "a").resume(state)  # negative control: nothing has changed
    state["numerics"][entry] = value
    with pytest.raises(ValueError, match=f"change the bits .{entry}: {value} before, "):
        trainer(tmp_path / "a").resume(state)
    one = trainer(tmp_path / "a")
    one.resume(state, other_bits=True)
    assert one.counters.iteration == 6


def test_kernels_that_were_used_before_are_still_named_before_they_are_used_again(monkeypatch):
    library = functools.cache(lambda: None)
    monkeypatch.setattr(numerics, "library", library)
    monkeypatch.setattr(compile, "library", library)
    here = torch.device("cpu")
    assert numerics.numerical_path(here)["kernels"] == numerics.UNUSED
    assert numerics.numerical_path(here, {"kernels": "block-1"})["kernels"] == "plain"
    library()
    assert numerics.numerical_path(here)["kernels"] == "plain"
    assert numerics.difference({"kernels": "plain"}, {"kernels": numerics.UNUSED}) is None


def test_weights_of_another_type_are_refused(tmp_path):
    unbroken(tmp_path / "a")
    for dtype in (torch.int64, torch.float16, torch.float64):
        state = last(tmp_path / "a")
        name = next(iter(state["weights"]))
        state["weights"][name] = state["weights"][name].to(dtype)
        with pytest.raises(ValueError, match=f"{name} is {dtype}, not torch.float32"):
            trainer(tmp_path / "a").resume(state)


@pytest.mark.parametrize("wrong", ["int64", "half", "NaN"])
def test_an_optimizer_s_numbers_that_torch_would_cast_are_refused(tmp_path, wrong):
    unbroken(tmp_path / "a")
    found = last(tmp_path / "a")
    kept = found["optimizer"]["state"][0]
    change = {"int64": Tensor.long, "half": Tensor.half, "NaN": lambda x: x * math.nan}[wrong]
    kept["exp_avg"] = change(kept["exp_avg"])
    with pytest.raises(ValueError, match="must fit this run, but exp_avg"):
        trainer(tmp_path / "a").resume(found)


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("options", "lr", "x"),
        ("options", "lr", 5.0),
        ("options", "betas", [0.1]),
        ("options", "amsgrad", True),
        ("options", "differentiable", True),
        ("state", "exp_avg", None),
        ("state", "step", torch.tensor(-5.0)),
    ],
)
def test_an_optimizer_s_state_that_torch_would_fail_on_is_refused(tmp_path, part, name, value):
    unbroken(tmp_path / "a")
    found = last(tmp_path / "a")
    optimizer = found["optimizer"]
    for table in optimizer["param_groups"] if part == "options" else optimizer["state"].values():
        if value is None:
            del table[name]
        else:
            table[name] = value
    with pytest.raises(ValueError, match="must fit this run, but") as caught:
        trainer(tmp_path / "a").resume(found)
    assert "\n" not in str(caught.value)


def test_one_parameter_s_state_that_lacks_a_number_is_refused(tmp_path):
    """Not the first one, with which a step is tried."""
    unbroken(tmp_path / "a")
    found = last(tmp_path / "a")
    del found["optimizer"]["state"][1]["exp_avg_sq"]
    with pytest.raises(ValueError, match="must fit this run, but parameter 1 lacks exp_avg_sq"):
        trainer(tmp_path / "a").resume(found)


@pytest.mark.parametrize("index", [0, 1])
def test_the_only_parameter_of_its_kind_that_lacks_a_number_is_refused(tmp_path, index):
    """A weight or a bias with no other to compare it with: the step that is tried has both."""

    def linear() -> Any:
        return learner(network=torch.nn.Linear(5, 3))

    unbroken(tmp_path / "a", own=linear())
    found = last(tmp_path / "a")
    del found["optimizer"]["state"][index]["exp_avg_sq"]
    with pytest.raises(ValueError, match="must fit this run, but 'exp_avg_sq'"):
        trainer(tmp_path / "a", own=linear()).resume(found)


def test_more_iterations_than_the_run_has_are_refused(tmp_path):
    unbroken(tmp_path / "a")
    state = last(tmp_path / "a")
    state["counters"] |= {"iteration": 10**18}
    with pytest.raises(ValueError, match="but it has 1000000000000000000 behind it"):
        trainer(tmp_path / "a").resume(state)


@pytest.mark.parametrize(
    "changes",
    [
        {"weights": {}},
        {"weights": {"network.layers.0.weight": torch.ones(1)}},
        {"optimizer": {}},
        {"optimizer": {"state": {}, "param_groups": []}},
        {
            "optimizer": {
                "state": {0: {"exp_avg": torch.ones(9, 9, 9)}},
                "param_groups": [{"params": [0, 1, 2, 3], "lr": 0.1}],
            }
        },
        {
            "counters": {
                "iteration": 1,
                "validated": 1,
                "best_iteration": 1,
                "best_score": 1.0,
                "more": 1,
            }
        },
    ],
)
def test_a_checkpoint_that_does_not_fit_is_one_sentence(tmp_path, changes):
    unbroken(tmp_path / "a")
    with pytest.raises(ValueError, match="must fit") as caught:
        trainer(tmp_path / "a").resume(last(tmp_path / "a") | changes)
    assert "\n" not in str(caught.value)
