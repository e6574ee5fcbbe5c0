"""A card that the kernels do not fit: one sentence, torch's own operations, the same numbers. Every
card here is a fake.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch

from mdtheory.core.types import Episode
from mdtheory.kernels import conv_norm_pool, have_triton
from mdtheory.meta.learner import MetaLearner
from mdtheory.models.conv4 import Conv4

CARD = torch.device("cuda", 0)


class Trial:
    """In place of the smallest kernel."""

    def __init__(self, error: Exception | None = None):
        self.error, self.launched = error, 0

    def __getitem__(self, grid: Any) -> Any:
        return self.launch

    def launch(self, *arguments: Any, **options: Any) -> None:
        assert not any(isinstance(one, torch.Tensor) for one in arguments)
        self.launched += 1
        if self.error is not None:
            raise self.error


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[Trial]:
    """A card of compute capability 9.0 whose trial kernel runs."""
    trial = Trial()
    monkeypatch.setattr(have_triton, "_nothing", trial)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    have_triton.why_not.cache_clear()
    yield trial
    have_triton.why_not.cache_clear()


needs_triton = pytest.mark.skipif(
    have_triton.triton is None, reason="Triton is not installed: there is nothing to ask"
)


@needs_triton
def test_the_first_question_may_be_asked_inside_a_transform(card: Trial) -> None:
    """Where a new tensor has no memory that a kernel could be given."""
    answers: list[Any] = []

    def loss(x: torch.Tensor) -> torch.Tensor:
        answers.append(have_triton.why_not(CARD))
        return x.sum()

    torch.func.vmap(torch.func.grad(loss))(torch.ones(2, 2))
    assert answers == [None] and card.launched == 1


FAKES = {
    "no Triton": ("Triton is not installed", lambda patch, card: patch("triton", None)),
    "an old card": ("compute capability 8.0 or newer, got 7.5", None),
    "a driver": (
        "Triton cannot compile for this card (RuntimeError: the driver is too old)",
        lambda patch, card: patch("_nothing", Trial(RuntimeError("the driver\nis too old"))),
    ),
}


@pytest.mark.parametrize("fake", FAKES)
def test_a_card_that_does_not_fit_has_one_sentence_and_the_same_numbers(
    fake: str, card: Trial, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sentence, change = FAKES[fake]
    if fake != "no Triton" and have_triton.triton is None:
        pytest.skip("Triton is not installed: the other sentence is true")
    if change is None:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    else:
        change(lambda name, value: monkeypatch.setattr(have_triton, name, value), card)
    monkeypatch.setattr(conv_norm_pool, "machine", _machine_of_a_card(conv_norm_pool.machine))

    own = MetaLearner(Conv4(image_size=16, channels=2), n_steps=1, probe="off").double()
    labels = torch.arange(5)
    episode = Episode(torch.rand(5, 3, 16, 16), labels, torch.rand(5, 3, 16, 16), labels)
    with caplog.at_level(logging.WARNING, logger="mdtheory.kernels.have_triton"):
        found = own.meta_gradient([episode]).grads
    said = [r.message for r in caplog.records if r.name == "mdtheory.kernels.have_triton"]
    assert len(said) == 1 and sentence in said[0], said
    with conv_norm_pool.plain():
        expected = own.meta_gradient([episode]).grads
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def _machine_of_a_card(machine: Any) -> Any:
    """Every question is asked as on the card."""
    return lambda device: machine(CARD)


def test_without_a_card_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    have_triton.why_not.cache_clear()
    with caplog.at_level(logging.WARNING):
        have_triton.why_not(torch.device("cpu"))
    assert not caplog.records
