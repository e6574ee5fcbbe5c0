"""Images, episodes and synthetic tasks. Nothing heavy is imported before it is asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mdtheory.data.episodes import EpisodeStream, Source
    from mdtheory.data.glyphs import GlyphSet
    from mdtheory.data.images import ClassImages
    from mdtheory.data.open import open_class_folders, open_mini_imagenet
    from mdtheory.data.sources import DataSource, open_source

_HOMES = {
    "ClassImages": "images",
    "DataSource": "sources",
    "EpisodeStream": "episodes",
    "GlyphSet": "glyphs",
    "Source": "episodes",
    "open_class_folders": "open",
    "open_mini_imagenet": "open",
    "open_source": "sources",
}

__all__ = [
    "ClassImages",
    "DataSource",
    "EpisodeStream",
    "GlyphSet",
    "Source",
    "open_class_folders",
    "open_mini_imagenet",
    "open_source",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
