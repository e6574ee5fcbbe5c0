"""Progress on the error stream, and consoles that fail."""

from __future__ import annotations

import io
import os

import pytest

from mdtheory.core import progress
from mdtheory.core.progress import ProgressBar, SafeStream, progress_bar, say


class Failing(io.StringIO):
    """A console whose writes fail, each with the same error."""

    def __init__(self, error: Exception):
        super().__init__()
        self.error = error
        self.attempts = 0

    def write(self, text: str) -> int:
        self.attempts += 1
        raise self.error


FAILURES = [
    OSError(28, "No space left on device"),
    BrokenPipeError(32, "ContractViolation pipe"),
    ValueError("I/O operation on closed file"),
]


@pytest.mark.parametrize("error", FAILURES, ids=repr)
def test_a_console_that_fails_is_left_alone(monkeypatch, error):
    console = Failing(error)
    monkeypatch.setattr("sys.stderr", console)
    say("one")
    bar = ProgressBar("work", total=3)
    bar.update(1, note="loss 1")
    bar.say("above")
    bar.close()
    assert console.attempts >= 2
    stream = SafeStream(console)
    for _ in range(3):
        assert stream.write("lost") == 4
    assert stream.failure is error
    with pytest.raises(type(error)):  # negative control
        console.write("x")


def test_without_a_console_nothing_is_said(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr", None)
    say("one")
    with progress_bar("work") as show:
        show(1, 2)
    assert capsys.readouterr() == ("", "")


def test_what_a_full_stream_refuses_goes_to_the_other_and_what_nobody_reads_does_not():
    for stream, passed in (
        (None, "text"),
        (Failing(FAILURES[0]), "text"),
        (Failing(FAILURES[1]), ""),
    ):
        other = io.StringIO()
        SafeStream(stream, SafeStream(other)).write("text")
        assert other.getvalue() == passed


def test_an_ascii_stream_gets_the_numbers():
    raw = io.BytesIO()
    stream = SafeStream(io.TextIOWrapper(raw, encoding="ascii"))
    stream.write("57.1 ± 0.4 é\n")
    stream.flush()
    assert raw.getvalue() == b"57.1 +/- 0.4 ?\n"
    assert not stream.isatty() and stream.encoding == "ascii"
    with pytest.raises(TypeError, match="must be a str"):
        stream.write(b"bytes")


def test_a_bar_waits_for_work_that_lasts(capsys, monkeypatch):
    with progress_bar("short") as show:
        show(1, 2)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    with progress_bar("long") as show:
        show(1, 2)
    captured = capsys.readouterr()
    assert "long" in captured.err and "1/2" in captured.err and captured.out == ""


def test_a_terminal_is_recognised():
    master, slave = os.openpty()
    with os.fdopen(slave, "w") as terminal:
        assert SafeStream(terminal).isatty()
    os.close(master)
