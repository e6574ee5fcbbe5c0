"""The embedded letters, under the name ``glyphs``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mdtheory.data.sources import sources

if TYPE_CHECKING:
    from mdtheory.data.glyphs import GlyphSet


@sources.register("glyphs")
def open_glyphs(strength: float = 1.6, image_size: int = 28, device: str = "cpu") -> GlyphSet:
    """The set of letters that ships with the package, at a difficulty and an image size."""
    from mdtheory.data.glyphs import GlyphSet

    return GlyphSet(strength=strength, image_size=image_size, device=device)
