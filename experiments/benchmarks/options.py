"""What the command takes, option by option."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from experiments.benchmarks.case import Size

PARTS = ("iterations", "evaluation", "feeding", "start", "processes")
SETTINGS: dict[str, Any] = {
    "threads": 2,
    "rounds": 3,
    "seconds": 3.0,
    "eval_tasks": None,
    "allocator": "system",
}
"""What ``--set`` may change besides the size, with the defaults."""

Grid = Annotated[
    Literal["full", "quick"] | None,
    typer.Option("--grid", help="All of it, or what a break allows."),
]
Methods = Annotated[
    list[str] | None, typer.Option("--method", help="Only this method; may be repeated.")
]
Shots = Annotated[
    list[int] | None, typer.Option("--shot", min=1, help="Images a class; may be repeated.")
]
Steps = Annotated[
    list[int] | None, typer.Option("--n-steps", min=1, help="Task steps; may be repeated.")
]
Implementations = Annotated[
    list[str] | None, typer.Option("--implementation", help="Only this one; may be repeated.")
]
Parts = Annotated[
    list[str] | None, typer.Option("--part", help=f"{', '.join(PARTS)}; may be repeated.")
]
Plugins = Annotated[
    list[Path] | None, typer.Option("--plugin", metavar="FILE", help="One more implementation.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help=f"Of the size ({', '.join(Size.model_fields)}), or {', '.join(SETTINGS)}: CPU threads "
        "and processes of every number, least seconds in each, tasks of the evaluation, and "
        "glibc's memory as it is (system) or kept when freed, as mdtheory train does.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON, and nothing else, to stdout.")]
Name = Annotated[
    str | None,
    typer.Option("--name", help="Record it under this name; a grid is recorded by its own."),
]
Records = Annotated[Path, typer.Option("--records", metavar="DIR", help="Where records are.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with the record of the same settings.")
]
Device = Annotated[
    Literal["cpu", "cuda"], typer.Option("--device", help="cuda: the table of a GPU.")
]
Minutes = Annotated[float, typer.Option("--minutes", min=0, help="On a GPU, about so long.")]


def overridden(pairs: Sequence[str]) -> tuple[Size, dict[str, Any]]:
    """The size, and the other settings, from KEY=VALUE; ``ValueError`` for what is neither."""
    from mdtheory.core.registry import unknown

    size: dict[str, Any] = {}
    others = dict(SETTINGS)
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or key not in {*Size.model_fields, *others}:
            raise unknown("--set", key, [*Size.model_fields, *others])
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        (others if key in others else size)[key] = value
    return Size(**size), others
