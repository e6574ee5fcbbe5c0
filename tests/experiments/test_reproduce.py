"""The command: what is done, what is missing, going on, and a fresh run of the smoke tier."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest
from typer import Typer
from typer.testing import CliRunner

from experiments import provenance, reproduce, rerun
from experiments.cells import Cell
from experiments.records import FOLDER, Record, everything
from experiments.reproduce import MALLOC, main, pack_up, unpack
from experiments.status import Run, describe, iterations, wanted

SMOKE = [record.result.row for record in everything() if record.result.tier == "smoke"]
KEYS = {"row", "shot", "tier", "iterations", "target", "protocol", "accuracy", "interval", "record"}


@pytest.fixture
def call():
    """The command in this process."""
    app = Typer()
    app.command()(main)
    return lambda *words: CliRunner().invoke(app, list(words))


def status(call, *words):
    answer = call("--status", "--json", *words)
    assert answer.exit_code == 0, answer.output
    return json.loads(answer.stdout)


def test_the_status_of_the_cpu_tier_is_its_22_cells(call):
    found = status(call, "--tier", "cpu")
    assert len({(one["row"], one["shot"]) for one in found}) == 22
    assert len([one for one in found if one["seed"] == 0]) == 44
    assert all(set(one) >= KEYS and one["tier"] == "cpu" for one in found)


def test_a_finished_cell_says_what_its_record_says(call):
    found = status(call, "--tier", "smoke", "--row", "maml")
    means = {
        one.n_query: one
        for one in Record(FOLDER / "smoke-maml-1shot-seed0").result.protocols
        if one.norm == "transductive"
    }
    assert [one["accuracy"] for one in found] == [means[1].accuracy, means[15].accuracy]
    assert [one["interval"] for one in found] == [means[1].half_width, means[15].half_width]
    assert {one["record"] for one in found} == {"experiments/records/smoke-maml-1shot-seed0"}
    assert {(one["iterations"], one["target"], one["state"]) for one in found} == {
        (20, 20, "finished")
    }


def test_a_missing_and_an_unfinished_cell(tmp_path):
    run = Run(Cell("smoke", "maml", 1), 0, records=tmp_path, states=tmp_path)
    assert {one["state"] for one in describe(run)} == {"missing"}
    run.state.mkdir()
    (run.state / "metrics.jsonl").write_text('{"kind": "train", "iteration": 7}\n{"kind": "tr')
    (one, _) = describe(run)
    assert (one["state"], one["iterations"], one["accuracy"], one["record"]) == (
        "unfinished",
        7,
        None,
        None,
    )
    (run.state / "diverged.txt").write_text("x")
    assert describe(run)[0]["state"] == "diverged"
    assert iterations(tmp_path / "nothing.jsonl") == 0


def test_the_status_of_every_tier_loads_no_torch():
    code = "from experiments.status import describe, wanted; [describe(run) for run in wanted()]"
    code += "; import sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=reproduce.ROOT).returncode == 0


@pytest.mark.parametrize(
    "words", [["--row", "maml"], ["--tier", "gpu"], ["--tier", "cpu", "--row", "protonet"]]
)
def test_what_there_is_not_is_refused(call, words):
    answer = call(*words)
    assert answer.exit_code == 2 and "must" in answer.output


def test_seeds_come_one_after_the_other():
    assert [run.seed for run in wanted(["glyphs"])] == sorted(
        run.seed for run in wanted(["glyphs"])
    )
    assert {run.seed for run in wanted(["glyphs"], row="maml", seed=7)} == {7}


def test_no_time_at_all_starts_nothing(call, tmp_path):
    answer = call("--tier", "smoke", "--minutes", "0", "--into", str(tmp_path))
    assert answer.exit_code == 0
    assert not any(tmp_path.rglob("*.pt"))


def test_a_device_that_is_not_there_ends_with_one_sentence(call, monkeypatch, tmp_path):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    words = ["--tier", "omniglot-b", "--device", "cuda", "--minutes", "25", "--into", str(tmp_path)]
    answer = call(*words)
    assert answer.exit_code == 2 and answer.output.startswith("device must exist")
    assert answer.output.count("\n") == 1 and not any(tmp_path.iterdir())


def test_a_device_changes_neither_the_cell_nor_its_digest():
    cell = Cell("omniglot-b", "maml-5way", 1)
    here, there = Run(cell, 0), Run(cell, 0, device="cuda:1")
    assert (here.config.device, there.config.device) == ("auto", "cuda:1")
    assert here.config.digest == there.config.digest


def test_a_packed_state_comes_back_whole(tmp_path):
    cell = Cell("smoke", "maml", 1)
    here, there = (Run(cell, 0, states=tmp_path / name) for name in ("state", "elsewhere"))
    here.state.mkdir(parents=True)
    (here.state / "last.pt").write_bytes(bytes(range(200)))
    (here.state / "metrics.jsonl").write_bytes(b'{"iteration": 3}\n')
    pack_up(here, target=tmp_path / "packed")
    unpack(there, origin=tmp_path / "packed")
    for name in ("last.pt", "metrics.jsonl"):
        assert (there.state / name).read_bytes() == (here.state / name).read_bytes()
    (there.state / "last.pt").write_bytes(b"newer")
    unpack(there, origin=tmp_path / "packed")
    assert (there.state / "last.pt").read_bytes() == b"newer"


class Instant:
    """A process that has ended at the second look."""

    def __init__(self, returncode=0):
        self.looks, self.returncode = 0, returncode

    def poll(self):
        self.looks += 1
        return self.returncode if self.looks > 1 else None


@pytest.fixture
def started(monkeypatch):
    """The names of the cells in the order in which they are started, and what ran beside each."""
    log: dict[str, list[str]] = {}
    alive: dict[str, Instant] = {}

    def start(run):
        log[run.name] = [name for name, process in alive.items() if process.looks < 2]
        alive[run.name] = Instant(3 if run.cell.row == "ecml" else 0)
        return alive[run.name]

    monkeypatch.setattr(reproduce, "start", start)
    monkeypatch.setattr(reproduce.time, "sleep", lambda seconds: None)
    return log


def test_maml_runs_before_the_cells_that_start_where_it_does(started, tmp_path, capsys):
    runs = wanted(["glyphs"], records=tmp_path, states=tmp_path)
    assert reproduce.work_on(runs, jobs=2) == 1  # one of them diverges
    assert set(started) == {run.name for run in runs}
    assert list(started)[:2] == ["glyphs-maml-1shot-seed0", "glyphs-maml-1shot-seed1"]
    assert max(len(beside) for beside in started.values()) == 1
    for name, beside in started.items():
        assert f"glyphs-maml-1shot-{name[-5:]}" not in beside
    assert "glyphs-ecml-1shot-seed0: diverged" in capsys.readouterr().err


@pytest.mark.slow
def test_a_signal_stops_the_command_and_saves(tmp_path):
    command = [
        sys.executable,
        "-m",
        "experiments.reproduce",
        "--tier",
        "smoke",
        "--row",
        "prior",
        "--into",
        str(tmp_path),
    ]
    with subprocess.Popen(
        command, cwd=reproduce.ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        metrics = tmp_path / "state/smoke-prior-1shot-seed0/metrics.jsonl"
        until = time.monotonic() + 120
        while iterations(metrics) < 1 and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert (metrics.parent / "last.pt").is_file()
    assert not (tmp_path / "records").exists()


@pytest.mark.slow
@pytest.mark.parametrize("row", SMOKE)
def test_a_fresh_run_of_the_smoke_tier_is_its_record(row, tmp_path):
    app = Typer()
    app.command()(rerun.main)
    done = CliRunner().invoke(app, ["--tier", "smoke", "--row", row, "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output


def test_another_result_of_a_fresh_run_is_found(tmp_path, monkeypatch):
    import shutil

    name = "smoke-maml-1shot-seed0"
    shutil.copytree(FOLDER / name, tmp_path / name)
    assert rerun.differences(tmp_path / name, FOLDER / name) == []
    scores = json.loads((tmp_path / name / "result.json").read_text())
    scores["protocols"][1]["accuracy"] = 0.9
    (tmp_path / name / "result.json").write_text(json.dumps(scores))
    for same in (True, False):
        monkeypatch.setattr(rerun, "same_machine", lambda record, same=same: same)
        assert len(rerun.differences(tmp_path / name, FOLDER / name)) == 1
    assert rerun.differences(tmp_path / name, tmp_path / "nothing") != []


def test_a_machine_without_a_compiler_is_another(monkeypatch):
    record = Record(FOLDER / "smoke-maml-1shot-seed0")
    here = provenance.machine("cpu")
    for noted, same in ((here.compiled, True), (None, True), (not here.compiled, False)):
        kept = record.provenance.model_copy(
            update={"machine": here.model_copy(update={"compiled": noted})}
        )
        monkeypatch.setattr(Record, "provenance", property(lambda self, kept=kept: kept))
        assert rerun.same_machine(record) is same


def test_a_tier_like_another_starts_from_the_other_s_maml():
    assert Cell("own", "metacurvature-symmetric", 5).start == Cell("cpu", "maml", 5)
    assert Cell("cpu", "metamida", 1).start == Cell("cpu", "maml", 1)


def test_the_environment_of_a_run_keeps_freed_memory():
    assert set(MALLOC) == {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_"}
