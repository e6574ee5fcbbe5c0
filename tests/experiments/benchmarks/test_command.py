"""The command, its page, and one measurement in a process of its own."""

from __future__ import annotations

import json
import re

import matplotlib
import pytest
import torch
import typer
from typer.testing import CliRunner

from experiments.benchmarks import bench, measurements as store, pages, training, worker
from experiments.benchmarks.__main__ import main
from experiments.generated import ROOT, settle
from experiments.records import unsealed
from tests.experiments.benchmarks import tiny

SMALLER = [
    part
    for pair in ("channels=2", "image_size=16", "threads=1", "rounds=1", "seconds=0")
    for part in ("--set", pair)
]
ONE = [
    "--method",
    "maml",
    "--shot",
    "1",
    "--n-steps",
    "1",
    "--implementation",
    "plain",
    "--implementation",
    "ours",
]


@pytest.fixture
def jobs(monkeypatch):
    """Finite differences, which have tests of their own, say right without being taken."""
    monkeypatch.setitem(worker.JOBS, "truth", lambda job: {"error": 0.0, "version": "1"})
    return tiny.isolated(monkeypatch)


def call(*arguments: str):
    app = typer.Typer()
    app.command()(main)
    return CliRunner().invoke(app, [*arguments], catch_exceptions=False)


def test_json_and_nothing_else_on_stdout(jobs, tmp_path):
    found = call(*ONE, *SMALLER, "--json", "--records", str(tmp_path))
    assert found.exit_code == 0
    rows = json.loads(found.stdout)
    assert [(row["implementation"], row["estimator"]) for row in rows] == [
        ("plain", None),
        ("ours", "unrolled"),
        ("ours", "stepwise"),
    ]
    assert list(tmp_path.iterdir()) == []  # a part alone is not recorded
    assert "finite differences: plain" in found.stderr and "left" in found.stderr


def test_tables_a_record_and_its_page(jobs, tmp_path):
    found = call(*ONE, *SMALLER, "--name", "one", "--records", str(tmp_path / "records"))
    assert found.exit_code == 0
    assert "Conv4-2, 16 x 16" in found.stdout and "Ours and the fastest right peer" in found.stdout
    assert "one.json" in (tmp_path / "records" / "SHA256SUMS").read_text()
    assert unsealed(tmp_path / "records") == []
    record = store.load(tmp_path / "records" / "one.json")
    made = pages.made(tmp_path / "records", tmp_path / "page.md", tmp_path / "figures", None)
    assert set(made) == {tmp_path / "page.md", tmp_path / "figures" / "benchmarks-one.svg"}
    settle(made, write=True)
    assert (
        settle(
            pages.made(tmp_path / "records", tmp_path / "page.md", tmp_path / "figures", None),
            write=False,
        )
        == []
    )
    text = (tmp_path / "page.md").read_text()
    assert "MAML, float32" in text and "| plain |" in text and record.machine.torch in text
    assert "right (" in text and "WRONG" not in text


def test_resume_refuses_another_run(jobs, tmp_path):
    arguments = [*ONE, *SMALLER, "--name", "one", "--records", str(tmp_path), "--resume", "--json"]
    assert call(*arguments).exit_code == 0
    del jobs[:]
    assert call(*arguments).exit_code == 0
    assert jobs == []
    assert call(*arguments, "--set", "eval_tasks=7").exit_code == 2


def test_what_cannot_be_measured_ends_in_one_sentence(jobs, monkeypatch, tmp_path):
    def failing(job):
        raise RuntimeError("no convolution here")

    monkeypatch.setitem(worker.JOBS, "throughput", failing)
    found = call(*ONE, *SMALLER, "--name", "one", "--records", str(tmp_path))
    assert found.exit_code == 1
    assert (
        f"stopped: no convolution here; what was measured is in {tmp_path / 'one.json'}"
        in found.stderr
    )
    assert len(store.load(tmp_path / "one.json").truths) == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--method", "mamml"], "did you mean 'maml'"),
        (["--implementation", "highr"], "did you mean 'higher'"),
        (["--part", "evaluate"], "did you mean 'evaluation'"),
        (["--set", "round=1"], "did you mean 'rounds'"),
        (["--set", "rounds=many"], "rounds: Input should be a valid integer"),
        (["--set", "channels=0"], "channels: Input should be greater than or equal to 1, got 0"),
        (["--device", "cuda", "--method", "mamml"], "did you mean 'maml'"),
    ],
)
def test_an_unknown_name_is_one_sentence(jobs, arguments, said):
    found = call(*arguments)
    assert found.exit_code == 2
    assert said in " ".join(re.sub("[│\n]", " ", found.stderr).split())


def test_the_page_and_the_figures_in_git_are_what_the_records_make():
    pinned = re.search(
        r"^matplotlib==(\S+)", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE
    )[1]
    made = pages.made()
    if matplotlib.__version__ != pinned:
        made = {path: data for path, data in made.items() if path.suffix == ".md"}
    assert (
        settle(made, write=False, owned=[] if matplotlib.__version__ != pinned else pages.owned())
        == []
    )


def test_the_readme_shows_the_fastest_of_each_implementation_of_its_record(tmp_path):
    record = store.everything()[pages.HEADLINE]
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- speed:begin -->\nold\n<!-- speed:end -->\nafter\n")
    store.save(record, tmp_path / "records" / f"{pages.HEADLINE}.json")
    text = pages.made(tmp_path / "records", tmp_path / "page.md", tmp_path / "figures", readme)[
        readme
    ].decode()
    assert text.startswith("before\n") and "old" not in text
    assert text.endswith("<!-- speed:end -->\nafter\n")
    lines = {line.split(" | ")[0][2:]: line for line in text.splitlines() if line[:2] == "| "}
    (size,) = record.sizes()
    timed = [one for one in record.of_size(size) if one.seconds is not None]
    for one in timed:
        if (one.work.implementation, one.work.estimator) == ("ours", "stepwise"):
            assert pages._label(one.work) not in lines  # the faster of ours is there
            continue
        ratio = one.seconds / record.find("ours", "maml", size).seconds
        if "bf16" in one.work.implementation:
            assert pages._label(one.work) not in lines
            continue
        shown = f"| {one.seconds:.2f} | {ratio:.2f} | {one.peak_mib:,.0f} |"
        assert shown in lines[pages._label(one.work)]
    assert len(timed) > 8 and "WRONG" in lines["parallel-metalearn-native-norm"]


def test_a_page_without_records_says_so(tmp_path):
    assert "No record is here yet" in pages.page(store.everything(tmp_path), {})


def test_a_measurement_in_a_process_of_its_own(tmp_path):
    for name, source in {"wrong": tiny.WRONG, "absent": tiny.ABSENT}.items():
        (tmp_path / f"{name}.py").write_text(source)
    plugins = tuple(str(tmp_path / f"{name}.py") for name in ("wrong", "absent"))
    workers = bench.Workers(tiny.settings(plugins=plugins))
    found = workers(
        "iteration",
        work={"implementation": "planted-wrong", "size": tiny.SIZE.model_dump()},
        seconds=0.0,
    )
    assert len(found["seconds"]) == 1 and found["seconds"][0] > 0 and found["peak_mib"] >= 0
    absent = workers("truth", work={"implementation": "planted-absent", "precision": "float64"})
    assert "no_such_library" in absent["unavailable"]
    with pytest.raises(
        bench.Failed, match="method must be one that planted-wrong knows, got 'metamida'"
    ):
        workers("truth", work={"implementation": "planted-wrong", "method": "metamida"})


def test_the_peak_is_measured_above_what_was_there():
    ground = worker.memory_so_far()
    block = torch.ones(16 * 2**20 // 4)
    assert worker.status("VmHWM") - ground > 0.9 * 16 * 2**20
    del block
    ground = worker.memory_so_far()
    assert worker.status("VmHWM") - ground < 8 * 2**20


@pytest.mark.slow
def test_the_start_of_training_is_timed(monkeypatch):
    monkeypatch.delenv("MDTHEORY_MINI_IMAGENET", raising=False)
    found = training.start(tiny.SIZE, threads=1)
    assert found["seconds"] > 0 and found["first_iteration"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_an_iteration_of_training_is_timed_in_processes(monkeypatch, processes):
    monkeypatch.delenv("MDTHEORY_MINI_IMAGENET", raising=False)
    monkeypatch.setattr(training, "ITERATIONS", 3)
    _, begun, *ends = training.stamps(tiny.SIZE, threads=1, iterations=4, processes=processes)
    assert len(ends) == 4 and begun < ends[0] < ends[-1]
    assert 0 < training.iteration(tiny.SIZE, 1, processes) < 10
