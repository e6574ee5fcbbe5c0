"""Sources of images by name, for configurations and the command line: one file per kind."""

from __future__ import annotations

import inspect
from typing import Any

from mdtheory.registry import Registry

sources: Registry = Registry("data set", "mdtheory.data.sources")
"""Every known set of images: a function that makes a source (see ``mdtheory.data.episodes.Source``)."""


def open_source(name: str, **options: Any) -> Any:
    """The source registered under ``name``, e.g. ``open_source("mini-imagenet", image_size=42)``.

    ``ValueError`` for an unknown name, and for options that this source does not take.
    """
    factory = sources.get(name)
    try:
        inspect.signature(factory).bind(**options)
    except TypeError as error:
        known = ", ".join(inspect.signature(factory).parameters)
        raise ValueError(
            f"data set {name!r} must be given its own options ({known}), got others: {error}; correct them"
        ) from error
    return factory(**options)
