"""Generated reference tables: geometries and mirror maps from their registries, the command line
from its own help.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

from mdtheory_pages.api import public_name
from mdtheory_pages.files import Pages
from mdtheory_pages.ledger import cell, markdown


def write(pages: Pages) -> None:
    """All of them."""
    pages.write("geometries.md", geometries_page())
    pages.write("maps.md", maps_page())
    pages.write("cli.md", cli_page())
    pages.write("configuration.md", configuration_page())


def first_sentence(thing: Any) -> str:
    """The first paragraph of a docstring."""
    return " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())


def geometries_page() -> str:
    """Every registered geometry."""
    from mdtheory.geometry import geometries

    lines = [
        "# Loss geometries\n",
        (
            "One file each in `mdtheory/geometry/`; `mdtheory geometries` lists them, and with "
            "`--time` counts their parameters and times a task step.\n"
        ),
    ]
    lines += ["| slug | what it does | source | starts as MAML |", "|---|---|---|---|"]
    for slug in geometries.names():
        factory = geometries.get(slug)
        made = factory()
        link = f"[`{slug}`](#{public_name(factory)})"
        neutral = "yes" if made.starts_as_maml else "no"
        lines.append(
            f"| {link} | {cell(first_sentence(factory))} | {cell(made.source)} | {neutral} |"
        )
    return "\n".join(lines) + "\n"


def maps_page() -> str:
    """Every registered map."""
    from mdtheory.maps.base import MirrorMap, maps

    lines = [
        "# Maps between z and phi\n",
        (
            "A `MirrorMap` is the gradient of a strictly convex potential and can be asked for it; "
            "a "
            "`DualMap` is a bijection.\n"
        ),
    ]
    lines += ["| slug | type | what it is |", "|---|---|---|"]
    for slug in maps.names():
        factory = maps.get(slug)
        kind = "MirrorMap" if issubclass(factory, MirrorMap) else "DualMap"
        lines.append(
            f"| [`{slug}`](#{public_name(factory)}) | {kind} | {cell(first_sentence(factory))} |"
        )
    return "\n".join(lines) + "\n"


def cli_page() -> str:
    """The help text of every command."""
    import typer.main
    from typer.testing import CliRunner

    from mdtheory.cli import app

    runner, group = CliRunner(), typer.main.get_command(app)
    lines = [
        "# Command line\n",
        "What `--help` prints; every command writes JSON alone to stdout with `--json`.\n",
    ]
    for path in [(), *_commands(group)]:
        title = " ".join(("mdtheory", *path))
        result = runner.invoke(
            app,
            [*path, "--help"],
            env={"COLUMNS": "84", "TERMINAL_WIDTH": "84", "NO_COLOR": "1", "TERM": "dumb"},
        )
        if result.exit_code != 0:
            raise ValueError(
                f"{title} --help must work, got exit code {result.exit_code}: "
                f"{result.output[-300:]}"
            )
        text = re.sub(r"\x1b\[[0-9;]*m", "", result.output).strip("\n")
        body = "\n".join(line.rstrip() for line in text.splitlines())
        lines.append(f"## {title}\n\n```text\n{body}\n```\n")
    return "\n".join(lines)


def _commands(group: Any, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for name, command in group.commands.items():
        found.append((*prefix, name))
        if hasattr(command, "commands"):
            found += _commands(command, (*prefix, name))
    return found


def configuration_page() -> str:
    """Every section and key of a run's TOML file, from the schema."""
    from pydantic import BaseModel
    from pydantic_core import PydanticUndefined

    from mdtheory.config import RunConfig

    lines = [
        "# Configuration\n",
        "A run is one TOML file. An unknown key is an error with the nearest known name; `mdtheory "
        "train --set KEY=VALUE` "
        "overrides single keys; every run folder holds the resolved `config.toml`.\n",
    ]

    def section(model: type[BaseModel], where: str) -> None:
        lines.append(f"## {f'[{where}]' if where else 'Top level'}\n")
        lines.append(
            markdown(" ".join((inspect.getdoc(model) or "").replace("``", "`").split())) + "\n"
        )
        lines.extend(["| key | type | default |", "|---|---|---|"])
        inner = []
        for name, info in model.model_fields.items():
            nested = _section_of(info.annotation)
            if nested is not None:
                inner.append((nested, f"{where}.{name}" if where else name))
                continue
            default = "computed" if info.default is PydanticUndefined else f"`{info.default!r}`"
            lines.append(f"| `{name}` | {cell(_type(info.annotation))} | {cell(default)} |")
        lines.append("")
        for nested, path in inner:
            section(nested, path)

    section(RunConfig, "")
    return "\n".join(lines)


def _section_of(annotation: Any) -> Any:
    from typing import get_args

    from pydantic import BaseModel

    for candidate in (annotation, *get_args(annotation)):
        if inspect.isclass(candidate) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _type(annotation: Any) -> str:
    from typing import Annotated, Literal, get_args, get_origin

    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0])
    if origin is Literal:
        return " or ".join(f"`{value!r}`" for value in arguments)
    if arguments and origin is not dict:
        words = [
            _type(argument) for argument in arguments if argument not in (type(None), Ellipsis)
        ]
        return f"list of {words[0]}" if origin is tuple else " or ".join(words)
    return "table" if origin is dict else getattr(annotation, "__name__", str(annotation))
