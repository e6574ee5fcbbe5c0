"""From a name and options to the object, with one sentence for an option that does not fit."""

from __future__ import annotations

import collections.abc
import copy
import inspect
import typing
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from mdtheory.config.complaints import nearest, show
from mdtheory.config.schema import Component, DataConfig
from mdtheory.core.registry import Registry

if TYPE_CHECKING:
    import torch

    from mdtheory.data.episodes import Source


def construct(registry: Registry, part: Component | DataConfig, **fixed: Any) -> Any:
    """``registry.get(part.name)(**fixed, **part.options)``. ``ValueError``: one sentence for an
    option that does not fit.

    ``fixed``: what the rest of the configuration decides (e.g. n_way), passed where the factory
    takes it.
    """
    factory = registry.get(part.name)
    known = inspect.signature(factory).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in known.values())
    where = f"{registry.kind}.options"
    for key in part.options:
        if key in fixed:
            raise ValueError(
                f"{where} must not hold {key!r}, which another section decides; remove it"
            )
        if key not in known and not takes_all:
            hint = nearest(key, [name for name in known if name not in fixed])
            raise ValueError(f"{where}.{key} is not a known key of {part.name!r}; {hint}")
    given = {key: value for key, value in fixed.items() if takes_all or key in known}
    given |= typed_options(factory, where.removesuffix(".options"), part.options, of=part.name)
    required = [
        p.name
        for p in known.values()
        if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]
    missing = [name for name in required if name not in given]
    if missing:
        raise ValueError(
            f"{where} of {part.name!r} must hold {missing[0]!r}, got no such key; add it"
        )
    try:
        return factory(**given)
    except TypeError as error:
        raise ValueError(
            f"{where} of {part.name!r} must have the right types, got {show(part.options)}: {error}"
        ) from error


def typed_options(
    factory: Any, where: str, options: Mapping[str, Any], *, of: str = "torch"
) -> dict[str, Any]:
    """A copy of the options, each of the type with which ``factory`` annotates it (nothing is
    converted: "5" is no number, true no 1); ``ValueError`` for another type. What has no
    annotation, or one that cannot be read, is left as it is.
    """
    chosen = copy.deepcopy(dict(options))
    hints = _hints(factory)
    for key, value in chosen.items():
        if key not in hints:
            continue
        try:
            adapter = TypeAdapter(hints[key], config=ConfigDict(arbitrary_types_allowed=True))
        except PydanticUserError:
            continue
        given = tuple(value) if isinstance(value, list) else value
        said = ""
        try:
            found = adapter.validate_python(given, strict=True)
            if isinstance(found, Iterator):  # of an Iterable the items are checked as they are read
                list(found)
                said = "" if isinstance(value, list) else "Input should be a list"
        except ValidationError as error:
            said = error.errors(include_url=False)[0]["msg"]
        if said:
            raise ValueError(
                f"{where}.options.{key} must be what {of} takes, got {show(value)} ({said}); "
                "correct it"
            )
    return chosen


def _hints(factory: Any) -> dict[str, Any]:
    target = inspect.getattr_static(factory, "__init__") if isinstance(factory, type) else factory
    names = {name: getattr(collections.abc, name) for name in collections.abc.__all__}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return typing.get_type_hints(target, localns=names)
        except (NameError, TypeError, AttributeError):
            return {}


def open_data(config: DataConfig, device: str | torch.device = "cpu") -> Source:
    """The images of a configuration; on a GPU they are kept there whole."""
    from mdtheory.data.sources import data_sources

    source = construct(data_sources, config, strength=config.strength)
    return source.open(config.path, image_size=config.image_size, device=device)
