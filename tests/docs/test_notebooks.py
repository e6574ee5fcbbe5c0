"""Every executed page runs, checks what it says, and fits on the page."""

from __future__ import annotations

import re
import runpy
import warnings

import matplotlib.pyplot as plt
import pytest
import torch

from tests.docs.pages import GALLERY, NOTEBOOKS, code

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
    checks = sum(bool(re.match(r"\s*assert |.*raise AssertionError", line)) for line in lines)
    assert checks >= (2 if path in GALLERY or path.stem == "recipes" else 5)
    assert [line for line in lines if len(line) > WIDEST] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_page_is_the_same_every_time(path):
    text = path.read_text(encoding="utf-8")
    draws = re.findall(r"torch\.(?:randn|rand|randint)\((?:[^()]|\([^()]*\))*\)", text)
    assert "manual_seed" in text or [draw for draw in draws if "generator=" not in draw] == []


def test_the_gallery_has_eight_pages_each_with_a_picture_and_all_but_one_run_elsewhere():
    texts = {path.stem: path.read_text(encoding="utf-8") for path in GALLERY}
    assert len(texts) == 8 and all("plt.show()" in text for text in texts.values())
    installs = {stem for stem, text in texts.items() if '"pip", "install"' in text}
    assert set(texts) - installs == {"own_statement"}  # the referee is not in the wheel
    for stem in installs:
        cells = [cell for cell in texts[stem].split("# %%") if "[markdown]" not in cell[:12]]
        assert "google.colab" in cells[1] and "import mdtheory" not in cells[1]
        assert "proofs_check" not in texts[stem] and "experiments" not in texts[stem]
