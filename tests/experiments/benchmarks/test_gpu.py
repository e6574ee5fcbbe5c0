"""The table of a GPU, made without one: every line of the command, with a CPU for the card and a
stand-in for the graph.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest
import torch
import typer
from typer.testing import CliRunner

from experiments.benchmarks import pages
from experiments.benchmarks.__main__ import main
from experiments.benchmarks.case import Size, episodes
from experiments.benchmarks.gpu import (
    ceilings,
    checks,
    command,
    compiled,
    pages as gpu_pages,
    ways,
)
from experiments.benchmarks.gpu.ways import RECORDED
from experiments.benchmarks.lower_bound import convolution_bytes
from mdtheory.meta.captured import CudaRecorder
from tests.meta.recorders import Standin, capturable_on_a_cpu

CPU = torch.device("cpu")
TINY = ["channels=2", "image_size=16", "n_steps=1", "n_query=1", "n_tasks=2", "n_way=2"]
SIZE = Size(**{key: int(value) for key, value in (pair.split("=") for pair in TINY)})


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    capturable_on_a_cpu(monkeypatch)
    monkeypatch.setattr(command, "card", lambda: CPU)
    monkeypatch.setattr(command, "recorder_for", lambda device: Standin())
    monkeypatch.setattr(torch, "compile", lambda function, backend: function)
    monkeypatch.setattr(command, "PRECISIONS", ("tf32",))
    monkeypatch.setattr(ceilings, "SIDE", 4)
    monkeypatch.setattr(command, "LONGEST", 0.0)


def call(*arguments: str, records: Path) -> Any:
    app = typer.Typer()
    app.command()(main)
    arguments = (*arguments, *(part for pair in TINY for part in ("--set", pair)))
    given = ["--device", "cuda", "--records", str(records), *arguments]
    return CliRunner().invoke(app, given, catch_exceptions=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_without_a_card_it_says_one_sentence(tmp_path: Path) -> None:
    found = call(records=tmp_path)
    assert found.exit_code == 2 and found.output.strip() == command.NO_CARD
    assert not list(tmp_path.iterdir())


def test_the_command_from_end_to_end(card: None, tmp_path: Path) -> None:
    found = call("--method", "maml", "--shot", "1", "--minutes", "5", records=tmp_path)
    assert found.exit_code == 0, found.output
    record = json.loads((tmp_path / "gpu" / "no-card.json").read_text())
    assert record["right"] and len(record["checks"]) == 3
    assert record["ceilings"]["copy"] > 0 and record["ceilings"]["convolution"]["tf32"] > 0
    rows = {(row["geometry"], row["precision"], row["way"]): row for row in record["rows"]}
    assert {key[:2] for key in rows} == {("maml", "tf32")}
    for (_, kind, way), row in rows.items():
        if row["problem"] is not None:
            assert row["problem"].startswith("not installed"), row
            continue
        assert row["gradient_error"] < 1e-4 and row["seconds"] > 0 and row["ratio"] > 0, row
        assert row["convolution_share"] > 0 and row["copy_share"] > 0
        assert (row["ratio"] == 1.0) == (way == RECORDED), (kind, way)
    known = {way for geometry, _, way in rows if geometry == "maml"}
    assert known == {
        *("ours, loop", "ours, vmap", RECORDED, *ways.LIBRARIES, "jax", "torch.compile")
    }
    assert rows["maml", "tf32", "torch.compile"]["problem"] is None
    assert "ours, recorded" in found.stdout and "all checks right" in found.stdout


def test_what_is_wrong_is_said(card: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(checks, "relative", lambda found, expected: 1.0)
    found = call("--method", "maml", "--minutes", "0", records=tmp_path)
    assert found.exit_code == 1 and "WRONG" in found.stderr and "the time is over" in found.stderr
    record = json.loads((tmp_path / "gpu" / "no-card.json").read_text())
    assert not record["right"] and record["rows"] == []


def test_what_fails_or_takes_too_long_is_a_row(card: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise torch.OutOfMemoryError("no room\nfor it")

    monkeypatch.setattr(
        command,
        "ways",
        lambda *_: iter([ways.Way("a", broken), ways.Way("b", broken, minutes=9.0)]),
    )
    setting = ways.Setting("maml", SIZE, "float32", CPU)
    budget = command.Budget(float("inf"), 0.0)
    most = command.Ceilings(1.0, {"float32": 1.0})
    assert [row.problem for row in command.measured(setting, Standin(), budget, most)] == [
        "no room for it",
        "no room for it",
    ]
    budget = command.Budget(0.0, 0.0)
    assert [row.problem for row in command.measured(setting, Standin(), budget, most)] == [
        "no room for it",
        "left out: it takes about 9 minutes to set up",
    ]


def test_a_recorded_iteration_that_is_another_is_seen(
    card: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check compares two runs, and not one with itself."""
    honest = checks.stepping

    def other(own: Any, tasks: Any, *rest: Any) -> Any:
        return honest(own, tasks[:1] if rest[-1] else tasks, *rest)

    monkeypatch.setattr(checks, "stepping", other)
    found = dict(checks.correctness(CPU, SIZE, ["maml"], Standin()))
    assert found["maml of 16 pixels, vmap"] < 1e-12
    assert found["maml of 16 pixels, recorded"] > 1e-6


def test_what_breaks_off_is_said_and_the_rest_goes_on(
    card: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("an illegal\naddress")

    monkeypatch.setattr(checks, "_recorded", broken)
    found = dict(checks.correctness(CPU, SIZE, ["maml", "metasgd"], Standin()))
    assert list(found)[2::3] == ["maml: an illegal address", "metasgd: an illegal address"]
    assert found["maml: an illegal address"] == float("inf")

    monkeypatch.setattr(command, "exact", broken)
    setting, most = ways.Setting("maml", SIZE, "float32", CPU), command.Ceilings(1.0, {})
    (row,) = command.measured(setting, Standin(), command.Budget(0.0, 0.0), most)
    assert (row.way, row.problem) == ("float64", "an illegal address")


def test_an_error_beyond_rounding_is_wrong() -> None:
    """Float32's kernels are judged by nothing else: in float64 others convolve."""
    plain = asdict(command.Row("plain", "maml", "float32", 1, 1.0, gradient_error=4e-3))
    for error, right in ((1e-2, True), (2e-2, False), (9e-4, True)):
        row = command.Row(RECORDED, "metamida", "float32", 1, 1.0, gradient_error=error)
        assert command.fair(row, {"rows": [plain]}) is right
        assert command.fair(replace(row, shot=5), {"rows": [plain]})  # nothing to compare with


def test_the_lines_that_only_a_card_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """With torch's own signatures, and nothing behind them."""
    first = torch.device("cuda", 0)
    for name in ("synchronize", "empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, create_autospec(getattr(torch.cuda, name)))
    held = create_autospec(torch.cuda.max_memory_allocated, return_value=2**31)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", held)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert command.card() == first
    ceilings.wait(first)
    command._fresh(first)
    assert command._held(first) == 2.0
    assert isinstance(command.recorder_for(first), CudaRecorder)


def record(card: str, finished: str, *, right: bool = True) -> dict[str, Any]:
    """As a card's would be; nothing in it was measured."""
    ours = command.Row(RECORDED, "maml", "float32", 1, 0.01, 1.0, 2.5, 0.3, 0.1, 5e-4)
    return {
        "code": {"version": "9.9", "commit": "c" * 40}, "finished": finished, "card": card,
        "torch": "0.0+cu0", "triton": "0.0", "kernels": "Triton's", "size": SIZE.model_dump(),
        "checks": {"maml of 16 pixels, vmap": 1e-12 if right else 0.5}, "right": right,
        "ceilings": {"copy": 3e12, "convolution": {"float32": 5e13, "tf32": 1e14}},
        "rows": [
            asdict(row)
            for row in (
                ours,
                replace(ours, way="plain", seconds=0.5, ratio=50.0, gradient_error=6e-4),
                replace(ours, way="parallel-metalearn", seconds=0.04, gradient_error=0.2),
                replace(ours, geometry="metamida", seconds=0.025),
                replace(ours, geometry="certified", seconds=0.125),
                replace(ours, shot=5, seconds=0.0625),
                command.Row("jax", "maml", "float32", 1, problem="not installed (jax)"),
            )
        ],
    }  # fmt: skip


def test_a_record_is_on_the_page_and_in_the_readme(tmp_path: Path) -> None:
    folder, readme = tmp_path / "records", tmp_path / "README.md"
    readme.write_text("<!-- speed:begin -->\nold\n<!-- speed:end -->\n")
    files = tmp_path / "page.md", tmp_path / "figures"
    made = pages.made(folder, *files, readme)
    for text in made.values():
        assert gpu_pages.NO_RECORD in text.decode() and "--device cuda" in gpu_pages.NO_RECORD

    (folder / "gpu").mkdir(parents=True)
    for name, one in (
        ("new", record("Made-up Card", "2999-01-02")),
        ("old", record("Older Card", "2999-01-01", right=False)),
    ):
        (folder / "gpu" / f"{name}.json").write_text(json.dumps(one))
    made = pages.made(folder, *files, readme)
    page, short = made[files[0]].decode(), made[readme].decode()
    assert gpu_pages.NO_RECORD not in page + short
    assert "Made-up Card" in page and "Older Card" in page and "cccccccccccc" in page
    assert "a check is WRONG" in page and "Wrong: maml of 16 pixels, vmap" in page
    assert "| jax | maml | 1 | float32 | not installed (jax) |" in page
    assert "| ours, recorded | certified | 1 | float32 | 125.0 ms | 8.0 it/s |" in page
    assert "Made-up Card" in short and "Older Card" not in short
    assert "| ours, recorded | float32 | 100.0 | 1.00 | 2.5 | right (5.0e-04) |" in short
    assert "| ours, recorded, metamida | float32 | 40.0 |" in short
    assert "| parallel-metalearn | float32 | 25.0 | 1.00 | 2.5 | WRONG (2.0e-01) |" in short
    assert "certified" not in short and "16.0" not in short and "jax" not in short


@pytest.mark.slow
def test_the_compiled_one_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "BACKEND", "eager")
    setting = ways.Setting("maml", SIZE, "float32", CPU)
    tasks = episodes(SIZE, torch.float32)
    (way,) = (w for w in ways.ways(setting, tasks, Standin()) if w.name == "torch.compile")
    assert checks.relative(way.ready().gradient(), command.exact(setting)) < 1e-4


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_the_one_in_jax_is_right(card: None) -> None:
    setting = ways.Setting("maml", SIZE, "float32", CPU)
    tasks = episodes(SIZE, torch.float32)
    (way,) = (way for way in ways.ways(setting, tasks, Standin()) if way.name == "jax")
    assert checks.relative(way.ready().gradient(), command.exact(setting)) < 1e-4


def test_the_bytes_that_are_moved_at_least() -> None:
    size = Size(n_steps=1, channels=1, image_size=16, n_way=2, n_query=1, n_tasks=1)
    first = (2 * 4 + 2 * 2) * 4 * 16**2 * 4  # support and query passes, channels, side, bytes
    rest = sum((2 * 9 + 2 * 3) * 2 * side**2 * 4 for side in (8, 4, 2))
    assert convolution_bytes(size) == first + rest
