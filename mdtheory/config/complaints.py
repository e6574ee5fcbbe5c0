"""One sentence for a configuration that pydantic refuses: which key, what was expected, what was
found.
"""

from __future__ import annotations

import difflib
import re
import reprlib
import typing
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from mdtheory.config.schema import RunConfig, Section


def show(value: Any) -> str:
    """A short repr on one line."""
    return reprlib.repr(value)


def sentence(error: ValidationError) -> str:
    """The first complaint (an unknown key before others) as one sentence, with the number of the
    rest.
    """
    problems = sorted(
        error.errors(include_url=False), key=lambda problem: problem["type"] != "extra_forbidden"
    )
    first, others = problems[0], len(problems) - 1
    more = f" (and {others} more)" if others else ""
    return _describe(first["type"], tuple(first["loc"]), first["msg"], first.get("input")) + more


def _describe(kind: str, location: tuple[int | str, ...], message: str, found: Any) -> str:
    key, section = _key(location), _section(location)
    if kind == "extra_forbidden":
        owner = _section(location[:-1]) or RunConfig
        return f"{key} is not a known key; {nearest(str(location[-1]), list(owner.model_fields))}"
    if kind == "missing":
        return f"{key} must be given, got nothing; add it"
    if kind == "value_error" and section:
        return f"{key}.{message.removeprefix('Value error, ')}"
    expected = re.sub(r"^(Value error, |\w+ should )", "", message)
    expected = re.sub(r"a valid dictionary( or instance of \w+)?", "a table", expected).replace(
        "a valid tuple", "a list"
    )
    return f"{key} must {expected.removeprefix('must ')}, got {show(found)}; correct it"


def nearest(name: str, known: list[str]) -> str:
    """The most similar known name as a question, or all of them."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known) or 'none'}"


def _key(location: Sequence[int | str]) -> str:
    """``task.eval_n_query[1]``, with anything unprintable shown as its repr."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (
                part if re.fullmatch(r"[\w-]{1,60}", part) else show(part)
            )
    return text


def _section(location: Sequence[int | str]) -> type[Section] | None:
    """The section class at a location, if there is one."""
    current: type[Section] | None = RunConfig
    for part in location:
        if current is None or part not in current.model_fields:
            return None
        kind = current.model_fields[str(part)].annotation
        candidates = [
            one
            for one in (kind, *typing.get_args(kind))
            if isinstance(one, type) and issubclass(one, Section)
        ]
        current = candidates[0] if candidates else None
    return current
