"""Who listens: bars, lines, TensorBoard, and signals."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import signal
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mdtheory.meta import events
from mdtheory.meta.interrupt import InterruptedRunError, StopRequest
from tests.faults.process import forked
from tests.meta.fakes import trainer


def row(iteration: int, kind: str = "train", accuracy: float = 0.5) -> dict:
    return {"kind": kind, "iteration": iteration, "loss": 1.25, "accuracy": accuracy}


def told(listener: events.Listener) -> None:
    listener.start(done=2, validated=2, total=4)
    listener.record(row(3))
    listener.record(row(3, "validation", 0.75))
    listener.record(row(4, accuracy=float("nan")))
    listener.close()


def test_lines_are_plain_and_end_with_the_last(capsys):
    told(events.Lines("maml", every=1000))
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert captured.out == ""
    assert lines[0].startswith("maml 3/4: loss 1.250, accuracy 50.0%, ") and lines[0].endswith(
        "min left"
    )
    assert lines[1] == "maml 3: validation loss 1.250, accuracy 75.0%"
    assert lines[2].startswith("maml 4/4: loss 1.250, ") and "accuracy" not in lines[2]


def test_lines_are_rare(capsys):
    lines = events.Lines("maml", every=1000)
    lines.start(done=0, validated=-1, total=500)
    for iteration in range(1, 400):
        lines.record(row(iteration))
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_bar_writes_to_the_error_stream_only(capsys):
    told(events.Bar("maml"))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "validation loss 1.250, accuracy 75.0%" in captured.err
    assert "4/4" in captured.err and "/s" in captured.err


def test_a_terminal_gets_the_bar_and_a_pipe_gets_lines(monkeypatch):
    assert isinstance(events.on_console(), events.Lines)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(events.on_console(), events.Bar)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(events.on_console(), events.Lines)


def test_tensorboard_is_written_where_it_is_installed(tmp_path):
    pytest.importorskip("tensorboard", reason="the tensorboard extra is not installed")
    listeners = events.for_run(tmp_path)
    assert any(isinstance(one, events.TensorBoard) for one in listeners)
    trainer(tmp_path, listeners=listeners).fit()
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    (file,) = (tmp_path / "tensorboard").iterdir()
    tags = {
        value.tag for event in EventFileLoader(str(file)).Load() for value in event.summary.value
    }
    assert {
        "train/loss",
        "train/accuracy",
        "train/grad_norm",
        "train/meta_lr",
        "validation/accuracy",
    } <= tags


def test_without_tensorboard_everything_else_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    listeners = events.for_run(tmp_path)
    assert [type(one) for one in listeners] == [events.Lines, events.JsonLines]


def test_a_second_signal_acts_as_it_would_outside():
    outside = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell's background job ignores SIGINT
    try:
        with pytest.raises(KeyboardInterrupt), StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.signum == signal.SIGINT
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, outside)


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="signals are not held back")
def test_two_signals_at_once_are_a_first_and_a_second():
    """The second, whose handler was gone by then, was dropped with a traceback."""

    def work() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        both = {signal.SIGINT, signal.SIGTERM}
        with StopRequest():
            signal.pthread_sigmask(signal.SIG_BLOCK, both)
            for signum in both:
                os.kill(os.getpid(), signum)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, both)

    outcome = forked(work)
    assert outcome.code == -signal.SIGTERM
    assert outcome.err == ""


def test_a_hang_up_that_was_ignored_stays_ignored():
    """As by ``nohup``."""
    outside = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.signum is None
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.signum == signal.SIGHUP
    finally:
        signal.signal(signal.SIGHUP, outside)


def test_in_another_thread_signals_are_left_alone():
    handlers = []

    def work() -> None:
        with StopRequest():
            handlers.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [before]


def test_an_interruption_travels_between_processes():
    again = pickle.loads(pickle.dumps(InterruptedRunError("saved", signal.SIGTERM)))
    assert (str(again), again.exit_code) == ("saved", 143)


def test_ctrl_c_before_the_training_is_one_word_and_130(monkeypatch):
    from mdtheory.cli import app

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mdtheory.config.load", interrupted)
    result = CliRunner().invoke(app, ["train", "--config", "x.toml", "--out", "nowhere"])
    assert (result.exit_code, result.stderr) == (130, "mdtheory: stopped\n")


def test_a_disk_without_room_is_a_sentence_that_names_the_file(tmp_path, capfd):
    lines = events.JsonLines(tmp_path / "metrics.jsonl")
    lines.start(done=0, validated=-1, total=1)
    lines._file.close()
    lines.path = Path("/dev/full")
    lines._open()
    with pytest.raises(ValueError, match=r"^/dev/full must be written, but the system says: No"):
        lines.record({"kind": "train", "iteration": 1})
    lines.close()


def test_a_log_that_cannot_be_written_is_one_sentence(tmp_path, monkeypatch, capfd):
    """TensorBoard writes in a thread of its own, which would print its traceback."""
    pytest.importorskip("tensorboard")
    from tensorboard.summary.writer.record_writer import RecordWriter

    def full(*data: object) -> None:
        raise OSError(28, "No space left on device")

    log = events.TensorBoard(tmp_path / "log")
    before = threading.excepthook
    log.start(done=0, validated=-1, total=1)
    monkeypatch.setattr(RecordWriter, "write", full)
    log.record({"kind": "train", "iteration": 1, "loss": 1.0})
    with pytest.raises(ValueError, match="log must be written, but the system says: No space"):
        log.close()
    assert capfd.readouterr().err == "" and threading.excepthook is before


HARM = {
    "deleted": lambda path: path.unlink(),
    "cut": lambda path: os.truncate(path, 10),
    "emptied": lambda path: path.write_text(""),
    "added to": lambda path: path.write_bytes(path.read_bytes() + b"mine\n"),
    "replaced": lambda path: os.replace(path.with_name("other"), path),
    "moved": lambda path: path.rename(path.with_name("moved")),
}


@pytest.mark.parametrize("harm", HARM)
def test_metrics_that_somebody_changes_meanwhile_are_said(tmp_path, capsys, harm):
    """Every later line went to a file without a name, or behind a gap, without a word."""
    path = tmp_path / "metrics.jsonl"
    (tmp_path / "other").write_text("other\n")
    lines = events.JsonLines(path)
    lines.start(done=0, validated=-1, total=4)
    lines.record(row(1))
    assert capsys.readouterr().err == ""
    HARM[harm](path)
    for iteration in (2, 3):
        lines.record(row(iteration))
    lines.close()
    assert capsys.readouterr().err.count(f"note: {path} was deleted or changed by another") == 1
    assert [one["iteration"] for one in events.read_metrics(path)][-2:] == [2, 3]


@pytest.mark.parametrize(
    "odd",
    [
        {"iteration": 1.5},
        {"iteration": True},
        {"loss": "x"},
        {"loss": [1]},
        {"accuracy": {}},
        {"loss": 10**400},
        {"loss": float("inf")},
        {"tasks": False},
    ],
    ids=str,
)
def test_a_line_that_no_listener_wrote_is_no_event(tmp_path, odd):
    path = tmp_path / "metrics.jsonl"
    lines = [row(1) | odd, row(2), row(3) | {"loss": None}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert events.read_metrics(path) == lines[1:]


def test_metrics_that_are_no_file_are_not_waited_for(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert events.read_metrics(path) == []
    os.mkfifo(path)
    with pytest.raises(ValueError, match="must be a regular file, got a named pipe"):
        events.JsonLines(path).start(done=0, validated=-1, total=1)
