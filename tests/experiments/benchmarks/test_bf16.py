"""The plain loop in bf16: itself where formulas are judged, rounded where it is timed, and judged
by bf16's own bar.
"""

from __future__ import annotations

import pytest
import torch

from experiments.benchmarks.bench import judged
from experiments.benchmarks.case import Precision, Work, episodes, first_weights
from experiments.benchmarks.correctness import SMALL, distance
from experiments.benchmarks.implementations import bf16, kind
from tests.experiments.benchmarks.tiny import settings

NAMES = ("plain-bf16", "plain-bf16-factors")


def gradient(name: str, precision: Precision):
    work = Work(implementation=name, precision=precision, size=SMALL)
    return kind(name)(work, first_weights(SMALL, work.dtype)).meta_gradient(
        episodes(SMALL, work.dtype)
    )


@pytest.mark.parametrize("name", NAMES)
def test_in_float64_it_is_the_plain_loop(name):
    own, plain = gradient(name, "float64"), gradient("plain", "float64")
    assert all(torch.equal(own[key], value) for key, value in plain.items())


@pytest.mark.parametrize("name", NAMES)
def test_in_bf16_it_is_rounded(name):
    """Eight binary digits: far more than float32's error, and still a gradient of the same
    thing.
    """
    exact = gradient("plain", "float64")
    assert distance(gradient("plain", "float32"), exact) < 1e-4
    assert 1e-3 < distance(gradient(name, "bf16"), exact) < 0.9


def test_rounding_keeps_eight_digits_and_the_derivative():
    x = torch.linspace(-3, 3, 101, requires_grad=True)
    rounded = bf16._rounded(x)
    rounded.sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))
    error = (rounded - x).abs().detach()
    assert torch.all(error <= 2.0**-8 * x.abs()) and error.max() > 2.0**-10
    assert torch.equal(bf16._rounded(rounded), rounded)


def test_the_formula_is_judged_in_float64_alone():
    works = [work for work in judged(settings(*NAMES)) if work.implementation in NAMES]
    assert [(work.implementation, work.precision) for work in works] == [
        (name, "float64") for name in NAMES
    ]
