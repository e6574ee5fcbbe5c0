"""Several processes: the same gradient, the same run, one voice; and what happens when they
part.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from mdtheory.core.types import Episode
from mdtheory.inner.estimators import estimators
from mdtheory.meta import checkpoint, distributed
from mdtheory.meta.distributed import (
    SINGLE_PROCESS,
    PeerLostError,
    Processes,
    meta_gradient,
    process_group,
)
from mdtheory.meta.events import JsonLines, read_metrics
from mdtheory.meta.interrupt import InterruptedRunError
from mdtheory.meta.learner import MetaLearner
from mdtheory.meta.trainer import DivergedError
from tests.meta import fakes
from tests.meta.fakes import Switch, blobs, last, trainer
from tests.meta.processes import Scripted, environment, free_port, run
from tests.meta.recorders import Standin

# -- one gradient
# --------------------------------------------------------------------------------------------------


def _learner(*, batched: bool = False) -> MetaLearner:
    return fakes.learner("metamida", estimator=estimators.get("unrolled")(batched=batched)).double()


def _draw(j: int) -> Episode:
    return blobs(j).to(dtype=torch.float64)


def _gradient(processes: Processes, n_tasks: int, batched: bool) -> Any:
    learner, drawn = _learner(batched=batched), []
    result = meta_gradient(
        learner, lambda j: drawn.append(j) or _draw(j), n_tasks=n_tasks, processes=processes
    )
    learner.accumulate(result)
    grads = {name: value.grad for name, value in learner.meta().items()}
    return drawn, *(checkpoint.plain(part) for part in (result.value, grads, dict(result.stats)))


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("n_tasks", [4, 5])
def test_the_gradient_has_the_same_bits_for_every_number_of_processes(size, n_tasks):
    _, *alone = _gradient(SINGLE_PROCESS, n_tasks, False)
    for rank, (drawn, *found) in enumerate(run(size, _gradient, n_tasks, False)):
        assert drawn == list(range(rank, n_tasks, size))
        torch.testing.assert_close(found, alone, rtol=0, atol=0)


@pytest.mark.parametrize("size", [2, 3])
def test_tasks_solved_at_once_give_the_same_gradient_up_to_rounding(size):
    _, *alone = _gradient(SINGLE_PROCESS, 4, False)
    answers = run(size, _gradient, 4, True)
    for _, *found in answers:
        torch.testing.assert_close(found, alone, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(found, answers[0][1:], rtol=0, atol=0)


def test_forgetting_the_others_would_be_seen():
    """Negative control of the tests above: a rank that steps by its own tasks alone."""
    _, _, alone, _ = _gradient(SINGLE_PROCESS, 4, False)
    learner = _learner()
    own = learner.meta_gradient([_draw(0), _draw(2)]).grads
    assert max(float((own[name] - alone[name]).abs().max()) for name in alone) > 1e-3


# -- one run
# --------------------------------------------------------------------------------------------------


def _run(
    folder: Path, processes: Processes = SINGLE_PROCESS, *, resume: bool = False, **options: Any
) -> dict[str, Any]:
    """Six iterations on four tasks; every rank has a folder of its own, so that it is seen who
    writes.
    """
    own = folder if processes.rank == 0 else folder.with_name(f"{folder.name}-{processes.rank}")
    listeners = [JsonLines(folder / "metrics.jsonl")] if processes.rank == 0 else []
    one = trainer(own, processes=processes, listeners=listeners, **{"n_tasks": 4, **options})
    state = processes.broadcast_object(last(folder) if resume and processes.rank == 0 else None)
    if state is not None:
        one.resume(state)
    one.fit()
    return checkpoint.plain(one.state())


def _train(processes: Processes, folder: Path, resume: bool) -> str:
    return checkpoint.digest(_run(folder, processes, resume=resume))


def _train_running(processes: Processes, folder: Path) -> str:
    torch.manual_seed(0)
    return checkpoint.digest(
        _run(folder, processes, own=fakes.learner("metasgd", network=Switch(), norm="running"))
    )


def _train_recorded(processes: Processes, folder: Path) -> tuple[str, int, list[str]]:
    """With a recorder, as on a card; how many iterations it replayed, and what was said."""
    said: list[str] = []

    class Heard(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    recorder, log = Standin(), logging.getLogger("mdtheory.meta.trainer")
    log.addHandler(heard := Heard())
    try:
        state = _run(folder, processes, recorder=recorder)
    finally:
        log.removeHandler(heard)
    return checkpoint.digest(state), recorder.replays, said


def _same(folder: Path, other: Path) -> None:
    assert checkpoint.digest(last(folder)) == checkpoint.digest(last(other))
    assert read_metrics(folder / "metrics.jsonl") == read_metrics(other / "metrics.jsonl")
    best = [checkpoint.digest(checkpoint.load(path / "best.pt")) for path in (folder, other)]
    assert best[0] == best[1]


@pytest.mark.parametrize("size", [2, 3])
def test_the_run_has_the_same_bits_and_only_the_first_process_writes(tmp_path, size):
    alone = _train(SINGLE_PROCESS, tmp_path / "alone", False)
    assert run(size, _train, tmp_path / "several", False) == [alone] * size
    _same(tmp_path / "several", tmp_path / "alone")
    assert {path.name for path in tmp_path.iterdir()} == {"alone", "several"}


def test_several_processes_record_nothing_and_say_so(tmp_path):
    """Their gradients meet between iterations, which a graph cannot hold: eager, with gloo here
    and NCCL on cards.
    """
    alone = _train(SINGLE_PROCESS, tmp_path / "alone", False)
    for digest, replays, said in run(2, _train_recorded, tmp_path / "several"):
        assert digest == alone and replays == 0
        assert len(said) == 1 and "several processes share the tasks" in said[0]


def test_running_statistics_see_the_tasks_of_all(tmp_path):
    alone = _train_running(SINGLE_PROCESS, tmp_path / "alone")
    assert run(2, _train_running, tmp_path / "two") == [alone] * 2


# -- the end of a process
# ----------------------------------------------------------------------------------------------


def _killed(processes: Processes, folder: Path, where: str) -> None:
    """Rank 1 is killed while it draws a task of iteration 6, or one of the validation after
    iteration 3.
    """
    fatal = {"training": 5 * 4 + 1, "validation": 10_001}[where]

    def stream(index: int) -> Episode:
        if index == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return blobs(index)

    validation = fakes.Validation(stream=lambda index: stream(10_000 + index), every=3, tasks=4)
    _run(folder, processes, stream=stream, validation=validation)


@pytest.mark.parametrize(
    ("where", "size"), [("training", 1), ("training", 2), ("training", 3), ("validation", 2)]
)
def test_a_killed_process_ends_the_others_and_any_number_goes_on(tmp_path, where, size):
    answers = run(2, _killed, tmp_path / "killed", where)
    assert answers[1] == -signal.SIGKILL
    assert answers[0].startswith("PeerLostError: another process of this run has died")
    assert "--resume" in answers[0]
    assert (
        last(tmp_path / "killed")["counters"]["iteration"]
        == {"training": 4, "validation": 2}[where]
    )
    if size == 1:
        _train(SINGLE_PROCESS, tmp_path / "killed", True)
    else:
        run(size, _train, tmp_path / "killed", True)
    _train(SINGLE_PROCESS, tmp_path / "alone", False)
    _same(tmp_path / "killed", tmp_path / "alone")


def _silent(processes: Processes) -> None:
    time.sleep(4 * processes.rank)
    processes.all_reduce_max(0)


def test_a_silent_process_is_not_waited_for_for_ever():
    assert run(2, _silent, timeout=2.0)[0].startswith(
        "PeerLostError: another process of this run has died or does not answer"
    )


def _asked_to_stop(processes: Processes, folder: Path, during: str) -> tuple[int, str]:
    asked = {"step": lambda index: index == 17, "validation": lambda index: index == 10_001}[during]

    def stream(index: int) -> Episode:
        if asked(index):  # task 1 of its iteration or validation: only rank 1 draws it
            os.kill(os.getpid(), signal.SIGTERM)
        return blobs(index)

    validation = fakes.Validation(stream=lambda index: stream(10_000 + index), every=3, tasks=4)
    try:
        _run(folder, processes, stream=stream, validation=validation)
    except InterruptedRunError as request:
        return request.exit_code, str(request).partition(";")[0]
    return 0, "finished"


@pytest.mark.parametrize(
    ("during", "iteration", "validated"), [("step", 5, 3), ("validation", 3, -1)]
)
def test_a_signal_to_one_process_saves_and_stops_all(tmp_path, during, iteration, validated):
    stopped = (128 + signal.SIGTERM, f"stopped by a signal after iteration {iteration}")
    assert run(2, _asked_to_stop, tmp_path / "asked", during) == [stopped] * 2
    state = last(tmp_path / "asked")["counters"]
    assert (state["iteration"], state["validated"]) == (iteration, validated)
    run(2, _train, tmp_path / "asked", True)
    _train(SINGLE_PROCESS, tmp_path / "alone", False)
    _same(tmp_path / "asked", tmp_path / "alone")


# -- what goes wrong
# --------------------------------------------------------------------------------------------------


def _poisoned(index: int) -> Episode:
    task = blobs(index)
    return replace(task, query_x=task.query_x * math.nan) if index == 13 else task


def _diverging(processes: Processes, folder: Path) -> None:
    trainer(folder, processes=processes, n_tasks=4, stream=_poisoned).fit()


def test_a_diverging_task_stops_all_with_the_sentence_of_one_process(tmp_path):
    with pytest.raises(DivergedError) as caught:
        _diverging(SINGLE_PROCESS, tmp_path / "run")
    said = f"DivergedError: {caught.value}"
    assert "not finite in meta-iteration 4" in said
    assert run(2, _diverging, tmp_path / "run") == [said] * 2


def _failing(index: int) -> Episode:
    if index == 9:
        raise OSError("the picture cannot be read")
    return blobs(index)


def _unreadable(processes: Processes, where: str) -> None:
    options: dict[str, Any] = {"stream": _failing}
    if where == "validation":
        options = {
            "validation": fakes.Validation(
                stream=lambda index: _failing(index + 8), every=3, tasks=4
            )
        }
    trainer(processes=processes, n_tasks=4, **options).fit()


@pytest.mark.parametrize("where", ["training", "validation"])
def test_an_error_of_one_process_is_the_error_of_all(where):
    said = "the picture cannot be read"
    assert run(3, _unreadable, where) == [
        f"PeerFailedError: {said}",
        f"OSError: {said}",
        f"PeerFailedError: {said}",
    ]


def _drifting(processes: Processes, folder: Path, what: str) -> None:
    """Rank 1 alone changes a number: of the optimizer before the start, or a weight while it draws
    a task of iteration 4.
    """

    def stream(index: int) -> Episode:
        if what == "weights" and index == 13:
            with torch.no_grad():
                next(iter(one.learner.meta().values())).view(-1)[0].add_(1e-7)
        return blobs(index)

    one = trainer(folder, processes=processes, n_tasks=4, stream=stream)
    if what == "optimizer" and processes.rank == 1:
        one.optimizer.param_groups[0]["lr"] *= 1.0000001
    one.fit()


@pytest.mark.parametrize(
    ("what", "name", "saved"),
    [("weights", "network.layers.0.weight", 2), ("optimizer", "param_groups/0/lr", None)],
)
def test_a_drift_names_rank_and_parameter_and_is_not_saved(tmp_path, what, name, saved):
    answers = run(2, _drifting, tmp_path / "run", what)
    said = (
        "ReplicasDivergedError: all processes must hold the same state, but rank 1 has another "
        f"{what}/{name} than rank 0"
    )
    assert [answer.partition(";")[0] for answer in answers] == [said] * 2
    assert (tmp_path / "run/last.pt").exists() == (saved is not None)
    assert saved is None or last(tmp_path / "run")["counters"]["iteration"] == saved


def test_more_processes_than_tasks_are_refused():
    assert trainer(processes=Scripted(2), n_tasks=2).processes.size == 2
    with pytest.raises(
        ValueError, match="a task for every process, got n_tasks=2 and 3 processes; start fewer"
    ):
        trainer(processes=Scripted(3), n_tasks=2)


# -- who is there
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variables", [{}, {"RANK": "0", "WORLD_SIZE": "1"}, {"WORLD_SIZE": "2"}])
def test_without_others_there_are_no_messages(monkeypatch, variables):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with process_group(torch.device("cpu")) as processes:
        assert processes is SINGLE_PROCESS
        assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("cuda:1", "with several processes, each on its own GPU, got cuda:1"),
        ("cuda", "got 1 GPUs and process 2"),
    ],
)
def test_every_process_takes_its_own_gpu(monkeypatch, device, said):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name, value in (MEETING | {"RANK": "1", "LOCAL_RANK": "1"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=said), process_group(torch.device(device)):
        pass


MEETING = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("name", "values"),
    {
        "WORLD_SIZE": ["", "x", "0", "-1", "1.5", "9" * 20],
        "RANK": ["", "x", "-1", "2"],
        "MASTER_PORT": ["", "x", "65536"],
        "MASTER_ADDR": [""],
    }.items(),
)
def test_variables_that_make_no_sense_are_one_sentence(monkeypatch, name, values):
    for other, value in MEETING.items():
        monkeypatch.setenv(other, value)
    for value in values:
        monkeypatch.setenv(name, value)
        with (
            pytest.raises(ValueError, match=rf"^{name} must .*torchrun$"),
            process_group(torch.device("cpu")),
        ):
            pass


def test_a_port_in_use_is_one_sentence_that_names_it(monkeypatch, capsys):
    monkeypatch.setattr(distributed, "PATIENCE", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        for name, value in (MEETING | {"MASTER_PORT": port}).items():
            monkeypatch.setenv(name, value)
        with (
            pytest.raises(PeerLostError, match=rf"must meet at .* got 127\.0\.0\.1:{port}, "),
            process_group(torch.device("cpu"), timeout=timedelta(seconds=1)),
        ):
            pass
    assert f"waiting for the other processes of this run at 127.0.0.1:{port}" in (
        capsys.readouterr().err
    )


PARTING = """
import weakref
from datetime import timedelta
import torch
from mdtheory.meta.distributed import _Group

group = _Group(torch.device("cpu"), timedelta(minutes=1))
import torch.distributed.nn.functional
assert group.all_gather(3) == [3]
seen = weakref.ref(torch.distributed.group.WORLD)
alive = seen() is not None
group.destroy()
print(alive, seen() is None)
"""


def test_nothing_keeps_the_group_when_it_is_destroyed():
    """Kept, its threads may abort the process at exit: torch.distributed.nn.functional, imported by
    some parts of torch when they are first used, has the group of then among its defaults.
    """
    done = subprocess.run(
        [sys.executable, "-c", PARTING],
        env={**os.environ, **environment(0, 1, free_port())},
        text=True,
        capture_output=True,
        timeout=120,
    )
    assert (done.stdout, done.returncode) == ("True True\n", 0), done.stderr
