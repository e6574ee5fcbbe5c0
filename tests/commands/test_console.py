"""Consoles that fail, arguments that say nothing, plug-ins that fail, files that are there."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mdtheory.commands import check, console
from mdtheory.core import limit
from mdtheory.core.progress import SafeStream
from mdtheory.core.registry import load_plugin
from mdtheory.geometry import geometries
from mdtheory.meta.trainer import MetaTrainer
from tests.commands.runs import call, process, refused, settings, train
from tests.faults.process import forked, shell

FAILING = {
    "imported": "1 / 0",
    "asserts": "assert False",
    "ends": "import sys; sys.exit(0)",
    "ends with 3": "import sys; sys.exit(3)",
    "not implemented": "raise NotImplementedError",
    "base": "raise BaseException('x')",
    "group": "raise ExceptionGroup('many', [ValueError('x')])",
    "recursion": "def f(): f()\nf()",
    "memory": "raise RuntimeError('shared memory plugin is missing')",
    "bytes": "\x00",
}
LATE = """
from mdtheory.geometry import Geometry, geometries

@geometries.register({slug!r})
class Mine(Geometry):
    '''Fails in its first step.'''
    source = "own"

    def step(self, *arguments, **options):
        {wrong}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "maml"
    train(out)
    return out


@pytest.mark.parametrize("name", FAILING)
def test_a_plugin_that_cannot_be_imported_is_one_sentence(tmp_path, name):
    plugin = tmp_path / "mine.py"
    plugin.write_text("print('words')\n" * (name != "bytes") + FAILING[name])
    result = call("train", "--out", tmp_path / "r", "--plugin", plugin, *settings())
    assert result.exit_code == 2 and result.stdout == ""
    said = [line for line in result.stderr.splitlines() if line != "words"]
    assert len(said) == 1 and "--plugin must be Python that can be imported" in said[0]


@pytest.mark.parametrize(
    "wrong",
    [
        "1 / 0",
        "raise SystemExit(0)",
        "assert False",
        "raise RuntimeError('memory')",
        "import typer; raise typer.Exit(0)",
    ],
)
def test_a_plugin_that_fails_later_is_one_sentence_with_its_line(tmp_path, wrong):
    plugin = tmp_path / "mine.py"
    slug = f"late-{abs(hash(wrong))}"
    plugin.write_text(LATE.format(slug=slug, wrong=wrong))
    result = call(
        "train", "--out", tmp_path / "r", "--plugin", plugin, *settings(geometry__name=slug)
    )
    assert f"a plug-in must not fail, but {plugin}, line 10 ends with " in refused(result)


def test_a_plugin_whose_answer_the_library_cannot_take_is_one_sentence(tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text(LATE.format(slug="nothing", wrong="return 3"))
    line = ["train", *settings(geometry__name="nothing"), "--out"]
    said = refused(call(*line, tmp_path / "a", "--plugin", plugin))
    assert f"a plug-in must suit the library, but with {plugin} in use" in said
    assert "ends with AttributeError: 'int' object" in said and "mdtheory check" in said
    # negative control: without a plug-in the same error is a bug, and keeps its traceback
    assert isinstance(call(*line, tmp_path / "b").exception, AttributeError)


def test_an_error_of_the_library_is_not_the_plugins(tmp_path):
    """Negative control: what the library raises below a plug-in keeps its own sentence."""
    plugin = tmp_path / "mine.py"
    plugin.write_text("from mdtheory.geometry import geometries\ngeometries.get('no-such')")
    with pytest.raises(ValueError, match="no-such") as caught:
        load_plugin(plugin)
    assert console.plugin_failure(caught.value) is None


def test_a_plugin_that_never_ends_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(limit, "PLUGIN_SECONDS", 0.2)
    plugin = tmp_path / "mine.py"
    plugin.write_text("while True:\n try:\n  while True: pass\n except Exception: pass")
    assert "LateError: it must end within 0.2 seconds" in refused(
        call("geometries", "--plugin", plugin)
    )
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.parametrize("how", ["pass", "signal.signal(signal.SIGALRM, signal.SIG_IGN)"])
def test_a_plugin_that_catches_its_end_ends_with_the_process(tmp_path, how):
    """``except:`` without a name, or the alarm switched off: it ran for ever."""
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        f"import signal\n{how}\nfrom time import sleep\n"
        "while True:\n try:\n  while True: sleep(0.01)\n except: pass"
    )

    def work() -> None:
        limit.PLUGIN_SECONDS, limit.GRACE = 1.0, 0.2
        console.use_plugins([plugin])

    outcome = forked(work)
    assert outcome.code == 2
    assert "mdtheory: a plug-in must end within 1 seconds, got one" in outcome.err


def test_what_the_log_quotes_moves_no_cursor(capsys):
    """A compiler's answer or a path went to the terminal as it was."""
    console.prepare_streams()
    logging.lastResort.emit(
        logging.makeLogRecord({"msg": "the compiler says: %s", "args": ("\x1b[2J\nno",)})
    )
    assert capsys.readouterr().err == "the compiler says: \\x1b[2J\nno\n"
    assert logging.lastResort.level == logging.WARNING


def test_a_plugin_that_never_ends_later_is_ended(tmp_path, monkeypatch):
    plugin = tmp_path / "mine.py"
    plugin.write_text(LATE.format(slug="endless", wrong="while True: pass"))
    load_plugin(plugin)
    monkeypatch.setattr(geometries, "names", lambda: ["maml"])
    assert call("geometries", "--time").exit_code == 0  # all that a step imports is there now
    monkeypatch.setattr(limit, "PLUGIN_SECONDS", 1)
    monkeypatch.setattr(geometries, "names", lambda: ["endless"])
    assert f"{plugin}, line 10 ends with LateError" in refused(call("geometries", "--time"))


def test_every_property_of_a_component_is_examined_in_time(monkeypatch):
    def findings() -> Iterator[str]:
        yield from ("holds", "holds")
        while True:
            pass

    monkeypatch.setattr(limit, "PLUGIN_SECONDS", 0.2)
    found = check.in_time(findings())
    assert [next(found), next(found)] == ["holds", "holds"]
    with pytest.raises(limit.LateError):
        next(found)
    assert list(check.in_time(iter(["holds"]))) == ["holds"]


def test_a_failing_thread_is_one_sentence(capsys):
    """A plug-in's, or tensorboard's: its traceback stood among the words of the run."""
    console.prepare_streams()
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("mdtheory: a thread ended with ZeroDivisionError: division by zero in ")


def _no_thread(*_):
    raise RuntimeError("can't start new thread")


def test_a_refused_thread_is_one_sentence(monkeypatch, tmp_path):
    """As under ``ulimit -u``, wherever in the run a thread is begun."""

    def refuse(self, **_):
        threading.Thread().start()

    monkeypatch.setattr(threading.Thread, "start", _no_thread)
    monkeypatch.setattr(MetaTrainer, "fit", refuse)
    sentence = refused(call("train", "--out", tmp_path / "run", *settings()))
    assert "the system must allow a few threads, but can't start new thread; raise" in sentence


def test_only_what_says_so_is_called_lack_of_memory():
    assert console.lacks_memory(MemoryError())
    assert console.lacks_memory(RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert console.lacks_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    assert not console.lacks_memory(RuntimeError("shared memory plugin is missing"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--out", ""],
        ["train", "--out="],
        ["train", "--out", " "],
        ["evaluate", ""],
        ["data", "sheet", ""],
    ],
)
def test_an_argument_that_says_nothing_is_refused(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "every argument must say something" in refused(call(*arguments))
    assert list(tmp_path.iterdir()) == []


def test_too_many_threads_are_one_sentence(run, tmp_path):
    for line in (
        ["evaluate", run, "--threads", 100_000_000],
        ["train", "--out", tmp_path / "r", *settings(threads=4000)],
    ):
        assert "threads must be at most" in refused(call(*line))


def test_data_for_a_run_that_needs_none_is_refused(run):
    assert "--data must be left out" in refused(call("evaluate", run, "--data", "/etc"))


def test_scores_without_a_folder_are_refused_before_anything_is_measured(run, tmp_path):
    said = refused(call("evaluate", run, "--scores", tmp_path / "no" / "s.json"))
    assert "--scores must be in a folder that exists" in said


def test_scores_and_weights_are_not_replaced_without_force(run, tmp_path):
    target = tmp_path / "kept.safetensors"
    for line in (
        ["evaluate", run, "--tasks", 2, "--scores", target],
        ["checkpoint", "export", run / "last.pt", target],
    ):
        for stands in ("file", "link"):
            target.unlink(missing_ok=True)
            if stands == "file":
                target.write_text("mine")
            else:
                target.symlink_to(tmp_path / "nowhere")
            assert "must be a new file" in refused(call(*line))
            assert target.is_symlink() or target.read_text() == "mine"
        target.unlink()
        target.write_text("mine")
        assert call(*line, "--force").exit_code == 0
        assert target.read_bytes() != b"mine"


def test_full_output_is_said_and_the_result_is_on_the_error_stream(run, monkeypatch, capsys):
    """In this process: what stdout refuses goes to stderr, and the exit code is 2."""

    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    errors = io.StringIO()
    monkeypatch.setattr("sys.stdout", Full())
    monkeypatch.setattr("sys.stderr", errors)
    from mdtheory.cli import app

    with pytest.raises(SystemExit) as caught:
        app(["checkpoint", "digest", str(run / "last.pt")], prog_name="mdtheory")
    assert caught.value.code == 2
    digest, sentence = errors.getvalue().splitlines()
    assert len(digest) == 64
    assert "the standard output must take the result" in sentence


@pytest.mark.parametrize(
    "script",
    [
        '"$@" 2>&-',
        '"$@" 2>/dev/full',
        '"$@" 2>&1 | head -1; exit ${PIPESTATUS[0]}',
        '"$@" <&- >&- 2>&-',
    ],
)
def test_no_console_ends_a_run(run, tmp_path, script):
    out = tmp_path / "r"
    outcome = shell(script, "train", "--out", out, *settings(), patience=120)
    assert outcome.fault(codes=(0,)) is None, outcome
    assert (out / "metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize(
    "script", ['PYTHONIOENCODING=ascii "$@"', '"$@" 2>&1 >/dev/full', '"$@" 2>&1 >&-']
)
def test_no_console_loses_a_result(run, script):
    outcome = shell(script, "evaluate", run, "--tasks", 2, patience=120)
    assert outcome.fault() is None, outcome
    assert "+/-" in outcome.out or "±" in outcome.out


def test_a_stream_that_is_closed_takes_no_file_s_words(tmp_path):
    """The first file that is opened would else be the error stream of every library."""
    script = (
        "from mdtheory.commands.console import prepare_streams; prepare_streams(); import os, sys;"
        f"file = open({str(tmp_path / 'f')!r}, 'w'); sys.exit(file.fileno())"
    )
    done = subprocess.run(["bash", "-c", '"$@" 2>&-', "bash", sys.executable, "-c", script])
    assert done.returncode > 2


def test_ctrl_c_at_the_start_is_one_sentence(tmp_path):
    for seconds in (0.15, 0.3, 0.6):
        one = process("train", "--out", tmp_path / "r", *settings(meta__iterations=2000))
        time.sleep(seconds)
        os.kill(one.pid, signal.SIGINT)
        _, errors = one.communicate(timeout=60)
        # before the interpreter reads the first line of the program, Python's own words are said
        assert one.returncode in (130, -signal.SIGINT, 1)
        assert "mdtheory/" not in errors.replace(str(Path(__file__).parents[2]), "")


def test_the_streams_of_a_program_are_safe(monkeypatch):
    monkeypatch.setattr("sys.stdout", None)
    monkeypatch.setattr("sys.stderr", io.StringIO())
    results = console.prepare_streams()
    assert isinstance(sys.stdout, SafeStream) and results is sys.stdout
    console.write_json({"x": float("nan")})
    assert json.loads(sys.stderr.stream.getvalue()) == {"x": None}
