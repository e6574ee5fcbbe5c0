"""The demonstration in small: all of its files, the same bytes twice."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mdtheory.config import open_data
from mdtheory.meta import checkpoint
from mdtheory.run import demo
from mdtheory.run.build import build_stream, load_learner

SMALL = {
    "task": {"n_query": 2, "eval_n_query": [1, 2], "n_steps": 1},
    "model": {"options": {"channels": 4}},
    "meta": {"n_tasks": 1, "iterations": 3},
    "test": {"tasks": 3},
}


@pytest.fixture(scope="module")
def twice(tmp_path_factory):
    """Two runs into two folders."""
    folders = [tmp_path_factory.mktemp("demo") for _ in range(2)]
    return folders, [demo.run(folder, changes=SMALL) for folder in folders]


def test_results_are_the_same_bytes(twice):
    (first, second), _ = twice
    names = {path.name for path in first.iterdir()}
    assert names >= {"results.json", "table.md", "maml.pt", "metasgd.pt", "metamida.pt"}
    assert "task.png" in names
    assert names >= {
        f"{name}.{kind}"
        for name in ("task_loss", "gradient_norm", "training")
        for kind in ("png", "svg")
    }
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_results_hold_neither_times_nor_paths(twice):
    (first, _), _ = twice
    text = (first / "results.json").read_text()
    assert str(first) not in text
    assert "seconds" not in text


def test_all_start_as_one_and_the_numbers_agree(twice):
    (first, _), (report, _) = twice
    assert json.loads((first / "results.json").read_text()) == json.loads(json.dumps(report))
    methods = report["methods"]
    for n_query in ("1", "2"):
        untrained = [
            methods[name]["protocols"][n_query]["untrained"]["mean"] for name in demo.METHODS
        ]
        assert untrained == pytest.approx([untrained[0]] * 3, abs=0.01)
        mine, reference = (methods[name]["protocols"][n_query] for name in ("metamida", "maml"))
        gap = np.mean(mine["scores"]) - np.mean(reference["scores"])
        assert mine["minus_first"]["mean"] == pytest.approx(gap, abs=1e-6)
    assert methods["maml"]["meta_parameters_of_geometry"] == 0


def test_the_common_start_is_one_point_for_all(twice):
    """At k = 0 the task loss from MAML's start is the same for every method, though their dual
    starts differ.
    """
    _, (report, _) = twice
    own, common = report["figures"].values()
    losses = [common[name]["task_loss"][0] for name in demo.METHODS]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)
    assert common["maml"] == own["maml"]
    assert own["metamida"]["task_loss"][0] != pytest.approx(losses[0], rel=1e-5)
    assert all(
        math.isfinite(value)
        for panel in (own, common)
        for one in panel.values()
        for value in one["gradient_norm"]
    )


def test_the_table_names_everything(twice):
    (first, _), _ = twice
    table = (first / "table.md").read_text()
    for words in (
        "| maml |",
        "| metasgd |",
        "| metamida |",
        "±",
        "Norm policy transductive",
        "3 test tasks",
        "minus maml",
    ):
        assert words in table


def test_its_checkpoints_are_learners(twice):
    (first, _), _ = twice
    learner, config = load_learner(first / "metamida.pt")
    assert config.geometry.name == "metamida"
    assert checkpoint.load(first / "metamida.pt")["counters"]["iteration"] == 3
    task = build_stream(config, open_data(config.data), split="test", n_query=2)(0)
    assert learner(task.support_x, task.support_y, task.query_x).shape == (10, 5)


@pytest.mark.parametrize("name", ["results.json", "table.md", "training.svg", "maml.pt"])
def test_a_file_of_something_else_is_not_replaced(twice, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match=f"got .*{name}, which it did not write"):
        demo.run(tmp_path, changes=SMALL)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]


def test_the_demo_may_start_over_in_its_own_folder(twice, tmp_path):
    """Whether it was finished or stopped after its first checkpoint."""
    configs = {"maml": load_learner(twice[0][0] / "maml.pt")[1]}
    demo._demand_own(twice[0][0], configs)
    shutil.copy(twice[0][0] / "maml.pt", tmp_path)
    demo._demand_own(tmp_path, configs)
    (tmp_path / "task_loss.png").write_text("killed between the figures and results.json")
    demo._demand_own(tmp_path, configs)
    with pytest.raises(ValueError, match=r"task_loss\.png, which it did not write"):
        demo._demand_own(tmp_path, {**configs, "metasgd": configs["maml"]})


def _end_one() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _write_number(path: Path) -> None:
    path.write_text(str(os.getpid()))
    time.sleep(60)


def test_a_killed_process_of_the_demo_is_one_sentence():
    """The pool waited for its answer for ever."""
    with (
        pytest.raises(ChildProcessError, match="live to its end, but one was killed"),
        demo._workers() as pool,
    ):
        pool.submit(_end_one).result(timeout=60)


@pytest.mark.skipif(sys.platform == "win32", reason="kills by signal")
def test_the_demo_s_processes_end_with_it(tmp_path):
    import multiprocessing

    def parent() -> None:
        with demo._workers() as pool:
            pool.submit(_write_number, tmp_path / "pid").result()

    process = multiprocessing.get_context("fork").Process(target=parent)
    process.start()
    deadline = time.monotonic() + 60
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.join()
    worker = Path("/proc", (tmp_path / "pid").read_text(), "stat")
    while worker.exists() and worker.read_text().split()[2] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)
