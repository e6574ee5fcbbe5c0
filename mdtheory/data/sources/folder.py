"""A folder of the user's own images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mdtheory.data.sources.base import DataSource, data_sources, held_on

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from mdtheory.data.episodes import Source


@data_sources.register("folder")
class Folder(DataSource):
    """One folder per class, or any other known form; see
    :func:`mdtheory.data.open.open_class_folders`.
    """

    title = "own images"

    def open(
        self, path: str | Path | None, *, image_size: int, device: str | torch.device = "cpu"
    ) -> Source:
        """From the folder in ``path``."""
        from mdtheory.data.open import open_class_folders

        return held_on(open_class_folders(str(path), image_size=image_size), device)
