"""From a name and options to the object, with one sentence for an option that does not fit."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

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
    given = {key: value for key, value in fixed.items() if takes_all or key in known} | part.options
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


def open_data(config: DataConfig, device: str | torch.device = "cpu") -> Source:
    """The images of a configuration; on a GPU they are kept there whole."""
    from mdtheory.data.sources import data_sources

    source = construct(data_sources, config, strength=config.strength)
    return source.open(config.path, image_size=config.image_size, device=device)
