"""Senseless options of optimizer and scheduler are one sentence before the run, not an error in
it.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mdtheory.config import parse
from mdtheory.run.optimizers import rehearse

WRONG = [
    ("optimizer", "Adam", {"differentiable": True}),
    ("optimizer", "Adam", {"capturable": True}),
    ("optimizer", "Adam", {"betas": [0.1]}),
    ("optimizer", "Adam", {"betas": [2.0, 3.0]}),
    ("optimizer", "Adam", {"fused": "x"}),
    ("optimizer", "Adam", {"foreach": 1}),
    ("optimizer", "Adam", {"eps": "a"}),
    ("optimizer", "SGD", {"momentum": -1.0}),
    ("optimizer", "SGD", {"nesterov": True}),
    ("scheduler", "StepLR", {"step_size": 0}),
    ("scheduler", "StepLR", {"step_size": -1}),
    ("scheduler", "StepLR", {"step_size": "x"}),
    ("scheduler", "StepLR", {"step_size": 5, "last_epoch": 5}),
    ("scheduler", "StepLR", {"step_size": 5, "gamma": -0.5}),
    ("scheduler", "MultiStepLR", {"milestones": ["a"]}),
    ("scheduler", "MultiStepLR", {"milestones": [-3]}),
    ("scheduler", "CosineAnnealingLR", {"T_max": 0}),
    ("scheduler", "CosineAnnealingWarmRestarts", {"T_0": 0}),
    ("scheduler", "ExponentialLR", {"gamma": "a"}),
    ("scheduler", "ExponentialLR", {"gamma": 1e300}),
    ("scheduler", "CyclicLR", {"base_lr": 0.1, "max_lr": 0.1, "step_size_up": 0}),
    ("scheduler", "ReduceLROnPlateau", {"patience": "x"}),
    ("scheduler", "ReduceLROnPlateau", {"mode": "x"}),
    ("scheduler", "OneCycleLR", {"max_lr": 0.1, "total_steps": 10}),
    ("scheduler", "ConstantLR", {"factor": 2.0}),
    ("scheduler", "ConstantLR", {"factor": 0.0, "total_iters": 30}),
    ("scheduler", "MultiStepLR", {"milestones": ""}),
    ("scheduler", "MultiStepLR", {"milestones": {}}),
    ("scheduler", "ReduceLROnPlateau", {"mode": "max"}),
    ("optimizer", "SGD", {"dampening": -1.0}),
    ("optimizer", "Muon", {"ns_steps": -1}),
    ("optimizer", "ASGD", {"t0": -1.0}),
]
RIGHT = [
    ("optimizer", "Adam", {"betas": [0.9, 0.99], "amsgrad": True}),
    ("optimizer", "SGD", {"momentum": 0.9, "nesterov": True}),
    ("optimizer", "Adafactor", {}),
    ("scheduler", "StepLR", {"step_size": 20}),
    ("scheduler", "MultiStepLR", {"milestones": [10, 20]}),
    ("scheduler", "CosineAnnealingLR", {"T_max": 60}),
    ("scheduler", "CyclicLR", {"base_lr": 0.1, "max_lr": 0.2, "cycle_momentum": False}),
    ("scheduler", "ReduceLROnPlateau", {"patience": 0, "mode": "min"}),
    ("scheduler", "LinearLR", {"end_factor": 0.0}),
    ("optimizer", "Adafactor", {"beta2_decay": -0.5}),
    ("scheduler", "OneCycleLR", {"max_lr": 0.1, "total_steps": 60}),
    ("scheduler", "CosineAnnealingWarmRestarts", {"T_0": 5}),
]


def tried(part: str, name: str, options: dict[str, Any]) -> None:
    table = {"name": name, "options": options}
    rehearse(parse({"meta": {"iterations": 60, part: table}}), torch.device("cpu"))


@pytest.mark.parametrize(("part", "name", "options"), WRONG, ids=str)
def test_senseless_options_are_one_sentence(part, name, options):
    with pytest.raises(ValueError, match=r"meta\.(optimizer|scheduler)|meta_lr") as caught:
        tried(part, name, options)
    assert "\n" not in str(caught.value)


def test_every_optimizer_that_is_offered_passes():
    with pytest.raises(ValueError, match="known: ") as caught:
        tried("optimizer", "?", {})
    names = str(caught.value).partition("known: ")[2].split(", ")
    assert {"Adam", "SGD"} <= {*names}
    for name in names:
        tried("optimizer", name, {})


@pytest.mark.parametrize(("part", "name", "options"), RIGHT, ids=str)
def test_sensible_options_pass(part, name, options):
    assert tried(part, name, options) is None  # it raises nothing
