"""Images, episodes and synthetic tasks. Nothing heavy is imported before it is asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mdtheory.data.episodes import EpisodeStream, Source
    from mdtheory.data.images import ClassImages
    from mdtheory.data.sources import open_source, sources
    from mdtheory.data.sources.files import open_class_folders, open_mini_imagenet

_HOMES = {
    "ClassImages": "images",
    "EpisodeStream": "episodes",
    "Source": "episodes",
    "open_class_folders": "sources.files",
    "open_mini_imagenet": "sources.files",
    "open_source": "sources",
    "sources": "sources",
}

__all__ = [
    "ClassImages",
    "EpisodeStream",
    "Source",
    "open_class_folders",
    "open_mini_imagenet",
    "open_source",
    "sources",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
