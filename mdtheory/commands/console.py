"""What all commands share: where words and tables go, JSON, plug-ins, and the places of
checkpoints.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TextIO, cast

import typer

from mdtheory.core import limit
from mdtheory.core.progress import SafeStream, say
from mdtheory.core.text import printable

JsonFlag = Annotated[bool, typer.Option("--json", help="Write JSON, and nothing else, to stdout.")]
PluginOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        metavar="FILE",
        help="A Python file that registers a geometry, model, ...; may be repeated.",
    ),
]
ThreadsOption = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads.")]
EXPECTED = (ValueError, FloatingPointError, OSError)
"""Errors of input or machine: one sentence and exit code 2. Anything else is our bug and keeps its
traceback.
"""
ForceFlag = Annotated[bool, typer.Option("--force", help="Replace files that are there already.")]


def complain(text: str) -> None:
    """One sentence about what went wrong, on the error stream; what it quotes moves no cursor."""
    say(f"mdtheory: {printable(text)}")


class Words(logging.Handler):
    """Log records on the error stream: what they quote (a path, a compiler's answer) moves no
    cursor.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, line by line."""
        for line in self.format(record).splitlines():
            say(printable(line))


def one_line(error: BaseException) -> str:
    """The message of an error without line breaks; the system's own words where it is an
    ``OSError``.
    """
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
    return " ".join(str(error).split()) or type(error).__name__


def lacks_threads(error: BaseException) -> bool:
    """Whether the system refused a thread (Python says so in words only)."""
    return isinstance(error, RuntimeError) and "can't start new thread" in str(error)


def lacks_memory(error: BaseException) -> bool:
    """Whether the system or torch ran out of memory (on a CPU torch says so in words only)."""
    words = r"DefaultCPUAllocator|\bout of memory\b|not enough memory|Storage size calculation"
    return isinstance(error, MemoryError) or re.search(words, str(error)) is not None


def prepare_streams() -> SafeStream:
    """Make the standard streams of this program such that no console can end a run; the one that
    takes results, which the error stream takes instead where it cannot.

    A stream that is closed from the start gets the null device, so that no file that is opened
    later takes its number, and with it the words of libraries.
    """
    for number in range(3):
        with contextlib.suppress(OSError):
            try:
                os.fstat(number)
            except OSError:
                os.open(os.devnull, os.O_RDWR)
    errors = SafeStream(sys.stderr)
    results = SafeStream(sys.stdout, errors)
    sys.stderr = cast(TextIO, errors)
    sys.stdout = cast(TextIO, results)
    logging.lastResort = Words(logging.WARNING)
    threading.excepthook = _say_of_thread
    return results


def _say_of_thread(failed: threading.ExceptHookArgs) -> None:
    """A thread of somebody else's has failed: one sentence with its place; the work goes on."""
    places = traceback.extract_tb(failed.exc_traceback)
    where = f" in {places[-1].filename}, line {places[-1].lineno}" if places else ""
    error = failed.exc_value or failed.exc_type()
    complain(f"a thread ended with {failed.exc_type.__name__}: {one_line(error)}{where}")


def demand_arguments(arguments: Sequence[str]) -> None:
    """``ValueError`` for an empty argument or option: an unset variable of the shell, which as a
    path would be the current folder.
    """
    for argument in arguments:
        if re.fullmatch(r"(--[\w-]+=)?\s*", argument):
            raise ValueError(
                f"every argument must say something, got {argument!r} (a variable that is not "
                "set?); leave it out, or fill it in"
            )


def use_plugins(paths: Iterable[Path] | None) -> None:
    """Import every ``--plugin`` file; ``ValueError`` for one that cannot be imported, whatever it
    does: see :func:`plugin_failure`. What it prints goes to the error stream.
    """
    from mdtheory.core.registry import load_plugin

    for path in paths or ():
        in_use.append(path)
        try:
            with limit.plugin_limit():
                load_plugin(path)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if isinstance(error, ValueError) and plugin_failure(error) is None:
                raise  # the registry's own sentence
            said = f"{type(error).__name__}: {one_line(error)}"
            raise ValueError(
                f"--plugin must be Python that can be imported, got {path}: {said}"
            ) from error


@contextlib.contextmanager
def handling_ctrl_c(handler: Any) -> Iterator[None]:
    """SIGINT goes to ``handler`` inside, and to the present handler again afterwards; ``None``
    changes nothing.
    """
    if handler is None:
        yield
        return
    outside = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, outside)


in_use: list[Path] = []
"""The plug-ins of the command that runs."""


def plugin_failure(error: BaseException) -> str | None:
    """The sentence for an error that a plug-in raised, with file and line; ``None`` for any other.

    Whose error it is, is decided by the innermost frame that is not a library's. With plug-ins
    :data:`in_use` an error that nobody expects is theirs too: they may have returned what the
    library cannot take.
    """
    from mdtheory.core.registry import PLUGIN_PREFIX

    place, last, own = None, "", False
    for frame, line in traceback.walk_tb(error.__traceback__):
        name = frame.f_globals.get("__name__", "")
        if name in (__name__, limit.__name__):
            continue  # the alarm of time_limit rings inside any other frame
        last = f"{frame.f_code.co_filename}, line {line}"
        if name.startswith(PLUGIN_PREFIX):
            place, own = last, True
        elif name.partition(".")[0] == "mdtheory":
            own = False
    said = f"ends with {type(error).__name__}: {one_line(error)}"
    if own:
        return f"a plug-in must not fail, but {place} {said}; correct it"
    if not in_use or not isinstance(error, Exception) or expected(error):
        return None
    return (
        f"a plug-in must suit the library, but with {', '.join(map(str, in_use))} in use "
        f"{place or last} {said}; `mdtheory check` with --plugin examines it"
    )


def expected(error: BaseException) -> bool:
    """Whether an error is of input or machine, or a command's own end: nobody's bug."""
    own = (*EXPECTED, typer.Exit, typer.Abort)
    return isinstance(error, own) or lacks_memory(error) or lacks_threads(error)


def write_findings(findings: Sequence[dict[str, Any]], *, json_: bool) -> None:
    """What was checked (``check``, ``ok``, ``found``), a line each or as JSON; exit code 1 if
    anything is not ok.
    """
    if json_:
        write_json(findings)
    else:
        for finding in findings:
            typer.echo(
                f"{'OK  ' if finding['ok'] else 'FAIL'}  {finding['check']}: {finding['found']}"
            )
    if not all(finding["ok"] for finding in findings):
        raise typer.Exit(1)


def write_json(value: Any) -> None:
    """JSON on stdout, NaN as null."""
    typer.echo(json.dumps(_finite(value), indent=2, ensure_ascii=False))


def write_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    caption: str = "",
    words: Sequence[int] = (0,),
) -> None:
    """A table on stdout; ``words``: the columns that are no numbers."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=title, caption=caption or None, title_justify="left", caption_justify="left"
    )
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index in words else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 140).print(
        table
    )


def percent(value: Mapping[str, Any], sign: str = "") -> str:
    """A mean with its half-width, both in per cent.

    >>> percent({"mean": 0.5, "half_width": 0.012}, "+")
    '+50.00 ± 1.20'
    """
    return f"{100 * value['mean']:{sign}.2f} ± {100 * value['half_width']:.2f}"


def run_names(paths: Sequence[Path]) -> list[str]:
    """What runs are called in tables and figures: the names of their folders or files, or the paths
    as given where two are called the same.

    >>> run_names([Path("runs/maml"), Path("other.pt")])
    ['maml', 'other.pt']
    >>> run_names([Path("a/maml"), Path("b/maml"), Path("a/maml")])
    ['a/maml', 'b/maml', 'a/maml (3)']
    """
    for names in ([path.resolve().name for path in paths], [str(path) for path in paths]):
        if len(set(names)) == len(names):
            return [printable(name) for name in names]
    seen: set[str] = set()
    for place, name in enumerate(names):
        names[place] = f"{name} ({place + 1})" if name in seen else name
        seen.add(name)
    return [printable(name) for name in names]


def demand_new(path: Path, option: str, *, force: bool) -> None:
    """``ValueError`` where a file, or a link to nowhere, stands in the place of a new one, or of
    the folder that it is to be in.
    """
    above = next((folder for folder in path.parents if os.path.lexists(folder)), Path())
    if not above.is_dir():
        raise ValueError(f"{option} must be in a folder, got {path}, but {above} is none; move it")
    if os.path.lexists(path) and not (force and path.is_file()):
        raise ValueError(
            f"{option} must be a new file, got {path}, which is there already; choose another "
            "name, or replace the file with --force"
        )


def use_threads(threads: int | None) -> None:
    """Set torch's number of CPU threads, where the configuration says one; ``ValueError`` for more
    than a machine takes.
    """
    import torch

    most = max(256, 4 * (os.cpu_count() or 1))
    if threads is not None and threads > most:
        raise ValueError(f"threads must be at most {most} here, got {threads}; lower it")
    if threads is not None:
        torch.set_num_threads(threads)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
