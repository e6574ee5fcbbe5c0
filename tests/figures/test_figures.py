"""Figures and sheets: the numbers they draw, and the same bytes every time."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mdtheory.core import seeding
from mdtheory.figures import plots
from mdtheory.figures.contact_sheet import CELL, GAP, Card, contact_sheet, pixels_of


def paths(scale: float) -> plots.Paths:
    rng = np.random.default_rng(seeding.seed("paths", int(scale)))
    values = scale * np.exp(-np.arange(5))[None] * rng.uniform(0.5, 1.5, (20, 5))
    return plots.Paths(values, 3 * values)


def adaptation(quantity: plots.Quantity = "support_loss"):
    panels = {"own": {"a": paths(1), "b": paths(2)}, "common": {"a": paths(3), "b": paths(4)}}
    return plots.adaptation_figure(panels, quantity, trained_steps=2), panels


@pytest.mark.parametrize("quantity", ["support_loss", "grad_norm"])
def test_lines_are_means_and_bands_are_quartiles(quantity):
    figure, panels = adaptation(quantity)
    for axis, methods in zip(figure.axes, panels.values(), strict=True):
        for line, band, one in zip(axis.lines, axis.collections, methods.values(), strict=False):
            values = getattr(one, quantity)
            np.testing.assert_allclose(line.get_ydata(), values.mean(0))
            corners = band.get_paths()[0].vertices
            for k in range(5):
                at = corners[corners[:, 0] == k, 1]
                np.testing.assert_allclose(
                    [at.min(), at.max()], np.quantile(values[:, k], [0.25, 0.75])
                )
    assert figure.axes[0].get_yscale() == "log"
    assert figure.axes[0].get_ylabel() == plots.LABELS[quantity]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]


def test_training_curves_are_running_means_with_validations():
    rows = [
        {"kind": "train", "iteration": i, "loss": float(i), "accuracy": 0.5} for i in range(1, 8)
    ]
    rows.append({"kind": "validation", "iteration": 7, "loss": 1.0, "accuracy": 0.25})
    figure = plots.training_figure({"a": rows}, window=3)
    line, marks = figure.axes[0].lines
    np.testing.assert_allclose(line.get_ydata(), [1, 1.5, 2, 3, 4, 5, 6])
    np.testing.assert_allclose(marks.get_ydata(), [1.0])
    np.testing.assert_allclose(figure.axes[1].lines[1].get_ydata(), [25])


def test_figures_have_the_same_bytes_every_time_and_no_dates(tmp_path):
    for name in ("a", "b"):
        figure, _ = adaptation()
        written = plots.save_figure(figure, tmp_path / name)
        assert [path.suffix for path in written] == [".png", ".svg"]
    for kind in ("png", "svg"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    assert "<dc:date>" not in (tmp_path / "a.svg").read_text()
    with Image.open(tmp_path / "a.png") as image:
        assert image.width > 1000


def test_drawing_leaves_the_users_settings_alone():
    import matplotlib

    before = dict(matplotlib.rcParams)
    adaptation()
    assert dict(matplotlib.rcParams) == before


def test_colours_are_distinct_for_as_many_methods_as_there_are():
    assert len(set(plots.COLOURS)) == len(plots.COLOURS) == len(set(plots.MARKERS))


def test_a_sheet_holds_every_card(tmp_path):
    cards = [
        Card(np.full((9, 9, 3), 20 * i, np.uint8), "a very long caption that cannot fit")
        for i in range(12)
    ]
    (tmp_path / "s.png").write_bytes(contact_sheet([("twelve", cards), ("none", [])]))
    with Image.open(tmp_path / "s.png") as sheet:
        pixels = np.asarray(sheet)
    top = GAP + 15 + GAP
    for index in range(12):
        left, upper = GAP + index % 10 * (CELL + GAP), top + index // 10 * (CELL + 15 + GAP)
        assert (pixels[upper + CELL // 2, left + CELL // 2] == 20 * index).all()


def test_ink_is_drawn_dark_and_colours_stay():
    assert pixels_of(np.ones((1, 2, 2), np.float32)).max() == 0
    colour = np.stack([np.full((2, 2), value, np.float32) for value in (0, 0.5, 1)])
    assert pixels_of(colour)[0, 0].tolist() == [0, 128, 255]
