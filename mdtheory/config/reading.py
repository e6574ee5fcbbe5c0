"""From TOML text to a checked :class:`RunConfig`."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mdtheory.config.complaints import sentence, show
from mdtheory.config.schema import RunConfig

LARGEST_FILE = 1 << 20  # bytes; a run configuration is some hundred lines


def load(path: str | Path, overrides: Iterable[str] = ()) -> RunConfig:
    """Read a TOML file, apply ``key.sub=value`` overrides in order, check everything.
    ``ValueError``: one sentence.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise ValueError(
                f"{path}: the configuration must be a TOML file, got no file there; check the path"
            )
        if path.stat().st_size > LARGEST_FILE:
            raise ValueError(
                f"{path}: the configuration must be under {LARGEST_FILE} bytes; is this the right "
                "file?"
            )
        text = path.read_bytes().decode("utf-8-sig")  # some editors write such a mark
    except OSError as error:
        raise ValueError(
            f"{path}: the configuration must be readable, got {error.strerror!r}; check the path"
        ) from None
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: the configuration must be UTF-8 text, got byte {error.start} of another kind"
        ) from None
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{path}: the configuration must be valid TOML: {reason}; correct the file"
        ) from None
    return parse(override(data, overrides), origin=str(path))


COMPONENTS = ("model", "geometry", "estimator")
"""Keys under which a component may stand by its name alone."""


def override(data: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A copy of ``data`` with each ``key.sub=value`` set; the value is read as TOML, or as a plain
    string. ``ValueError`` for one that would undo what an earlier one set below its key.
    """
    result = dict(data)
    done: list[list[str]] = []
    for item in overrides:
        key, equals, text = item.partition("=")
        parts = [part.strip() for part in key.split(".")]
        if not equals or not all(parts):
            raise ValueError(
                f"--set must look like task.n_way=5, got {show(item)}; write key.sub=value"
            )
        if any(len(before) > len(parts) and before[: len(parts)] == parts for before in done):
            raise ValueError(
                f"--set {show(item)} must come before those of its own keys, which it would undo; "
                "put it first"
            )
        done.append(parts)
        table = result
        for part in parts[:-1]:
            inner = table.get(part, {})
            if isinstance(inner, str) and part in COMPONENTS:
                inner = {"name": inner}
            if not isinstance(inner, Mapping):
                raise ValueError(
                    f"--set {show(item)}: {part} must be a table, got {show(inner)}; shorten the "
                    "key"
                )
            table[part] = dict(inner)
            table = table[part]
        table[parts[-1]] = _value(text.strip())
    return result


def parse(data: Mapping[str, Any], *, origin: str = "configuration") -> RunConfig:
    """A checked configuration from nested tables; ``origin`` (a file name) stands at the head of
    every complaint.
    """
    try:
        return RunConfig.model_validate(dict(data))
    except ValidationError as error:
        raise ValueError(f"{origin}: {sentence(error)}") from None


def _value(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return parsed["value"] if set(parsed) == {"value"} else text
