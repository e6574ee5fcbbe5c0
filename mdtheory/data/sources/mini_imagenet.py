"""miniImageNet with the split of Ravi and Larochelle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mdtheory.data.sources.base import DataSource, data_sources, held_on

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from mdtheory.data.episodes import Source


@data_sources.register("mini-imagenet")
class MiniImageNet(DataSource):
    """100 classes of 600 photographs; see :func:`mdtheory.data.open.open_mini_imagenet`."""

    title = "miniImageNet"
    variable = "MDTHEORY_MINI_IMAGENET"

    def open(
        self, path: str | Path | None, *, image_size: int, device: str | torch.device = "cpu"
    ) -> Source:
        """From the folder in ``path``, or in the environment variable."""
        from mdtheory.data.open import open_mini_imagenet

        return held_on(open_mini_imagenet(self.place(path), image_size=image_size), device)
