"""Every executed page runs, checks what it says, and fits on the page."""

from __future__ import annotations

import re
import runpy
import warnings

import matplotlib.pyplot as plt
import pytest
import torch

from tests.docs.pages import NOTEBOOKS, code

WIDEST = 79


@pytest.fixture
def as_found():
    """Put the defaults back that a page sets for itself."""
    dtype, settings = torch.get_default_dtype(), plt.rcParams.copy()
    yield
    torch.set_default_dtype(dtype)
    plt.rcParams.update(settings)
    plt.close("all")


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_page_runs_and_its_assertions_hold(path, as_found, monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.gcf()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # torch.func.jvp, and tensors that matplotlib takes, warn
        runpy.run_path(str(path))
    pictures = path.read_text(encoding="utf-8").count("plt.show()")
    assert len(shown) == pictures


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_page_checks_its_formulas_and_fits(path):
    lines = code(path)
    assert sum(bool(re.match(r"\s*assert |.*raise AssertionError", line)) for line in lines) >= 5
    assert [line for line in lines if len(line) > WIDEST] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_page_is_the_same_every_time(path):
    text = path.read_text(encoding="utf-8")
    draws = re.findall(r"torch\.(?:randn|rand|randint)\((?:[^()]|\([^()]*\))*\)", text)
    assert "manual_seed" in text or [draw for draw in draws if "generator=" not in draw] == []
