"""Planted broken plug-ins: each is told by one sentence what it does not keep, and the sound one
passes everything.
"""

from __future__ import annotations

import pytest
import torch

from mdtheory.contract import Setting, check_geometry, examine
from mdtheory.contract.geometry import PROPERTIES
from mdtheory.core import seeding
from mdtheory.core.tree import ParameterTree
from mdtheory.geometry import Geometry, StepRule
from mdtheory.maps import DualMap


class Rates(StepRule):
    """A learned rate per tensor."""

    def build(self, anchor):
        self.scale = ParameterTree({name: value.new_ones(()) for name, value in anchor.items()})

    def rate(self, meta, name):
        return meta[f"scale.{name}"]

    def step(self, meta, state, grad, *, task_lr, k, pull):
        return {
            **state,
            **{
                f"z.{n}": state[f"z.{n}"] - task_lr * self.rate(meta, n) * g
                for n, g in grad.items()
            },
        }


class Captured(Rates):
    """Its rates are the module's own."""

    def rate(self, meta, name):
        return self.scale.get_parameter(name)


class Detached(Rates):
    """The rates get no gradient through the task."""

    def rate(self, meta, name):
        return 0.5 * meta[f"scale.{name}"].detach() + 0.5 * meta[f"scale.{name}"]


class InPlace(Rates):
    """Moves the state that it was given."""

    def step(self, meta, state, grad, *, task_lr, k, pull):
        for name, g in grad.items():
            state[f"z.{name}"] -= task_lr * self.rate(meta, name) * g
        return dict(state)


class Adds(Rates):
    """Writes into the dictionary that it was given."""

    def step(self, meta, state, grad, **rest):
        state["count"] = torch.ones(())
        return super().step(meta, state, grad, **rest)


class Forgetful(Rates):
    """Keeps a momentum in the state, but drops it after one step."""

    def init(self, meta, noise):
        return {"v.kept": torch.zeros(())}

    def step(self, meta, state, grad, **rest):
        return {
            name: value
            for name, value in super().step(meta, state, grad, **rest).items()
            if name.startswith("z.")
        }


class Flattened(Rates):
    """Returns vectors where the model has matrices."""

    def step(self, meta, state, grad, **rest):
        return {
            name: value.flatten() for name, value in super().step(meta, state, grad, **rest).items()
        }


class Remembers(Rates):
    """Counts its steps on self."""

    count = 0

    def rate(self, meta, name):
        self.count += 1
        return meta[f"scale.{name}"] / self.count


class Unsaved(Rates):
    """Draws what it does not save."""

    def build(self, anchor):
        super().build(anchor)
        self.drawn = torch.rand((), dtype=torch.float64)

    def rate(self, meta, name):
        return meta[f"scale.{name}"] * self.drawn


class Draws(Rates):
    """A new draw of the global generator at every step."""

    def rate(self, meta, name):
        return meta[f"scale.{name}"] + 0.0 * torch.rand((), dtype=torch.float64)


class Looks(Rates):
    """Reads a value of its task into Python."""

    def step(self, meta, state, grad, **rest):
        return (
            super().step(meta, state, grad, **rest)
            if all(g.norm() >= 0 for g in grad.values())
            else state
        )


class Asks(Rates):
    """Steps only while its rates are finite."""

    def rate(self, meta, name):
        rate = meta[f"scale.{name}"]
        return rate if bool(torch.isfinite(rate.detach())) else 0.0 * rate


class LeftBehind(Rates):
    """Its factors are neither parameters nor buffers."""

    def build(self, anchor):
        super().build(anchor)
        self.factor = {name: torch.ones_like(value) for name, value in anchor.items()}

    def rate(self, meta, name):
        return meta[f"scale.{name}"] * self.factor[name]


class Fetches(LeftBehind):
    """Brings its factors from the host in every step."""

    def rate(self, meta, name):
        return meta[f"scale.{name}"] * self.factor[name].to(meta[f"scale.{name}"].device)


class Half(Rates):
    """Starts with half of MAML's step, and does not say so."""

    def rate(self, meta, name):
        return 0.5 * meta[f"scale.{name}"]


class Dead(Rates):
    """A product of two zeros."""

    def build(self, anchor):
        super().build(anchor)
        self.left, self.right = (
            ParameterTree({name: v.new_zeros(()) for name, v in anchor.items()}) for _ in "lr"
        )

    def rate(self, meta, name):
        return meta[f"scale.{name}"] + meta[f"left.{name}"] * meta[f"right.{name}"]


class Misspelt(Rates):
    """Asks for a parameter that it does not have."""

    def rate(self, meta, name):
        return meta[f"sclae.{name}"]


class Skewed(DualMap):
    """Doubles, and its inverse does not halve."""

    def point(self, meta, z):
        return {name: 2 * value for name, value in z.items()}

    def inverse(self, meta, phi):
        return dict(phi)


class SameNoise(Geometry):
    """Every task has the same noise."""

    source = "own design"

    def draw(self, seed):
        return {"noise": torch.randn(3, generator=seeding.generator("planted"))}


class OtherNoise(SameNoise):
    """The noise is another one each time."""

    def draw(self, seed):
        return {"noise": torch.randn(3)}


class Bare(Geometry):
    source = "own design"


class Sourceless(Geometry):
    """A method from nowhere."""


def of(rule):
    """A sound geometry but for its rule."""
    made = SameNoise(rule=rule())
    made.draw = Geometry.draw.__get__(made)
    return made


FAULTS = {
    "captured parameters": (
        lambda: of(Captured),
        "only_meta",
        "must read everything learned from meta",
    ),
    "no gradient": (lambda: of(Detached), "differentiable", "must be the slope of its objective"),
    "changes its argument": (
        lambda: of(InPlace),
        "state",
        "step must leave its arguments as they are, but it changed 'z.",
    ),
    "adds to its argument": (
        lambda: of(Adds),
        "state",
        "step must leave its arguments as they are, but it changed the dict",
    ),
    "drops the state": (
        lambda: of(Forgetful),
        "state",
        "step must return the whole state, got one without 'v.kept'",
    ),
    "changes a shape": (lambda: of(Flattened), "state", "step must keep the shape of 'z."),
    "remembers on self": (lambda: of(Remembers), "repeatable", "solved the same way twice"),
    "remembers in a sweep": (lambda: of(Remembers), "stepwise", "stepwise must equal unrolled"),
    "remembers after it": (
        lambda: of(Remembers),
        "adapted",
        "adapt must give the module of the last point",
    ),
    "draws in a step": (
        lambda: of(Draws),
        "repeatable",
        "no hook may draw from the global generator",
    ),
    "does not save": (
        lambda: of(Unsaved),
        "saved",
        "a loaded state_dict must bring back the same learner",
    ),
    "reads into Python": (
        lambda: of(Looks),
        "batched",
        "tasks computed together must give what a loop gives, got none",
    ),
    "waits": (
        lambda: of(Asks),
        "resident",
        "must not wait for the device, but with unrolled one reads a value into Python",
    ),
    "fetches": (
        lambda: of(Fetches),
        "resident",
        "must not wait for the device, but with unrolled one copies a tensor between",
    ),
    "left behind": (
        lambda: of(LeftBehind),
        "resident",
        "must keep its tensors on one device, but torch says: ",
    ),
    "half a step": (lambda: of(Half), "neutral", "must be MAML's to 1e-6, got a difference of"),
    "dead parameters": (
        lambda: of(Dead),
        "learns",
        "by the second meta-step, but 8 of 16 have none",
    ),
    "misspelt": (lambda: of(Misspelt), "state", "its code raised KeyError: 'sclae."),
    "wrong inverse": (
        lambda: Geometry(map=Skewed()),
        "bijective",
        "map.inverse(map.point(z)) must be z",
    ),
    "noise without address": (OtherNoise, "addressed", "draw(seed) must depend on its seed alone"),
    "noise of all tasks": (SameNoise, "addressed", "draw(seed) must differ from task to task"),
    "no docstring": (Bare, "described", "Bare must have a docstring, got none"),
    "no source": (Sourceless, "described", "Sourceless.source must name where the method is from"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_one_sentence(fault):
    make, property, said = FAULTS[fault]
    found = examine(Setting(make, "mlp"), property)
    assert found.verdict == "broken"
    assert found.said.startswith("on mlp: ") and said in found.said and "\n" not in found.said


@pytest.mark.parametrize("property", PROPERTIES)
def test_the_same_rule_without_fault_keeps_everything(property):
    assert examine(Setting(lambda: of(Rates), "mlp"), property).verdict == "holds"


def test_every_property_has_a_fault_that_breaks_it():
    assert set(PROPERTIES) == {property for _, property, _ in FAULTS.values()}


def test_one_broken_property_leaves_the_others():
    findings = {found.property: found for found in check_geometry(lambda: of(Half))}
    assert findings["neutral"].verdict == "broken" and findings["neutral"].said.startswith("on mlp")
    assert [name for name, found in findings.items() if found.verdict != "holds"] == ["neutral"]
    assert findings["saved"].said == "a state_dict brings everything back"
