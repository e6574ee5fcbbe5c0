"""The letters that ship with the package."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mdtheory.data.sources.base import DataSource, data_sources

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from mdtheory.data.episodes import Source


@data_sources.register("glyphs")
class Glyphs(DataSource):
    """Letters of a dozen scripts, warped anew for every pick; see
    :class:`mdtheory.data.glyphs.GlyphSet`.
    """

    title = "glyphs"
    image_size = 28
    channels = 1
    takes_path = False
    strength = 1.6

    def __init__(self, *, strength: float | None = None):
        self.difficulty = 1.6 if strength is None else strength

    def open(
        self, path: str | Path | None, *, image_size: int, device: str | torch.device = "cpu"
    ) -> Source:
        """The glyphs; ``path`` means nothing to them."""
        from mdtheory.data.glyphs import GlyphSet

        return GlyphSet(strength=self.difficulty, image_size=image_size, device=device)
