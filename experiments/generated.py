"""Files that a command makes from others: written, or compared with what stands there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

import typer

ROOT = Path(__file__).parents[1]

WriteOrCheck = Annotated[
    bool,
    typer.Option(
        "--write/--check",
        help="Write every file that differs, or exit with 1 where one does.",
    ),
]
"""The one option of every command that makes files."""


def settle(made: Mapping[Path, bytes], *, write: bool, owned: Iterable[Path] = ()) -> list[Path]:
    """Write every file, or only find out which differ; the paths that were, or are, not as made.

    ``owned``: files that exist and belong to the same generator; those that it no longer makes are
    stale, and removed.
    """
    stale = [path for path, data in made.items() if not path.is_file() or path.read_bytes() != data]
    left = sorted(set(owned) - set(made))
    if write:
        for path in stale:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(made[path])
        for path in left:
            path.unlink()
    return stale + left


def with_block(text: str, name: str, content: str) -> str:
    """The text with what stands between the comments ``name:begin`` and ``name:end`` replaced;
    unchanged where they are not.
    """
    begin, end = (f"<!-- {name}:{edge} -->" for edge in ("begin", "end"))
    head, found, rest = text.partition(begin)
    return f"{head}{begin}\n{content}{end}{rest.partition(end)[2]}" if found else text


def report(stale: list[Path], *, write: bool, command: str) -> int:
    """Say it, and the exit code: 1 where a check found something."""
    for path in stale:
        typer.echo(
            ("written: " if write else "stale: ")
            + str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)
        )
    if stale and not write:
        typer.echo(f"run `{command} --write`, and commit the result")
    return int(bool(stale) and not write)
