"""The table of a GPU, made without one: its parts on a CPU with a stand-in for the graph."""

from __future__ import annotations

import pytest
import torch
from typer.testing import CliRunner

from experiments.benchmarks import cuda
from experiments.benchmarks.__main__ import main
from experiments.benchmarks.case import Size
from tests.meta.recorders import Standin, capturable_on_a_cpu


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_without_a_card_it_says_one_sentence(tmp_path) -> None:
    import typer

    app = typer.Typer()
    app.command()(main)
    found = CliRunner().invoke(app, ["--device", "cuda", "--records", str(tmp_path)])
    assert found.exit_code == 2 and found.output.strip() == cuda.NO_CARD
    assert not list(tmp_path.iterdir())


def test_the_report_checks_and_measures_every_way(monkeypatch: pytest.MonkeyPatch) -> None:
    capturable_on_a_cpu(monkeypatch)
    said: list[str] = []
    monkeypatch.setattr(cuda, "settings", lambda names: [("maml", 1, "float32")])
    found = cuda.report(
        torch.device("cpu"),
        minutes=0.02,
        size=Size(image_size=16, channels=4, n_steps=1, n_query=1, n_tasks=2),
        recorder=Standin(),
        say=said.append,
        names=["maml"],
    )
    assert found["right"] and len(found["checks"]) == 2
    rows = found["rows"]
    if rows:  # the time may be over before
        assert [row["way"] for row in rows] == ["loop", "vmap", "recorded"]
        assert all(row["problem"] is None and row["gradient_error"] < 1e-2 for row in rows), rows


def test_a_wrong_gradient_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "relative", lambda found, expected: 1.0)
    monkeypatch.setattr(cuda, "settings", lambda names: [])
    size = Size(image_size=16, channels=2, n_steps=1, n_query=1, n_tasks=1)
    said: list[str] = []
    found = cuda.report(
        torch.device("cpu"),
        minutes=1,
        size=size,
        recorder=Standin(),
        say=said.append,
        names=["maml"],
    )
    assert not found["right"] and "WRONG" in said[0]
