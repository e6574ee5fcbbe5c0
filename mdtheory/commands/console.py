"""What all commands share: where words and tables go, JSON, plug-ins, and the places of
checkpoints.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from mdtheory.core.progress import say

JsonFlag = Annotated[bool, typer.Option("--json", help="Write JSON, and nothing else, to stdout.")]
PluginOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        metavar="FILE",
        help="A Python file that registers a geometry, model, ...; may be repeated.",
    ),
]


def complain(text: str) -> None:
    """One sentence about what went wrong, on the error stream."""
    say(f"mdtheory: {text}")


def one_line(error: BaseException) -> str:
    """The message of an error without line breaks; the system's own words where it is an
    ``OSError``.
    """
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
    return " ".join(str(error).split()) or type(error).__name__


def lacks_memory(error: BaseException) -> bool:
    """Whether the system or torch ran out of memory (torch says so in words only)."""
    return isinstance(error, MemoryError) or "memory" in str(error).lower()


def load_plugins(paths: Iterable[Path] | None) -> None:
    """Import every ``--plugin`` file; ``ValueError`` for one that is not Python, lacks what it
    imports, or takes a slug.
    """
    from mdtheory.core.registry import load_plugin

    for path in paths or ():
        try:
            load_plugin(path)
        except (
            SyntaxError,
            ImportError,
            NameError,
            AttributeError,
            TypeError,
            LookupError,
        ) as error:
            said = f"{type(error).__name__}: {one_line(error)}"
            raise ValueError(
                f"--plugin must be Python that can be imported, got {path}: {said}"
            ) from error


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


def use_threads(threads: int | None) -> None:
    """Set torch's number of CPU threads, where the configuration says one."""
    import torch

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
