"""Images in files: miniImageNet in every form that circulates, and folders of your own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mdtheory.data.images import ClassImages
from mdtheory.data.open import detect, open_found
from mdtheory.data.progress import Progress
from mdtheory.data.sources import sources
from mdtheory.data.splits import divide_by_fractions, divide_mini_imagenet

MINI_IMAGENET_VARIABLE = "MDTHEORY_MINI_IMAGENET"
"""The environment variable that names the folder of miniImageNet."""


@sources.register("mini-imagenet")
def open_mini_imagenet(
    path: str | Path | None = None,
    image_size: int = 84,
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
) -> ClassImages:
    """miniImageNet (vinyals2016matching, split of ravi2017optimization) from a folder in any form that circulates.

    Parquet files, class folders (below train/val/test or not), a flat ``images`` folder with csv tables, or pickles; ``path``
    defaults to the environment variable ``MDTHEORY_MINI_IMAGENET``. WordNet ids decide the split; a source without ids keeps
    its own and says so in ``notice``. Decoded once to squares of ``image_size`` pixels below ``cache_dir`` (``MDTHEORY_CACHE``
    or ``~/.cache/mdtheory``).
    """
    if path is None:
        path = os.environ.get(MINI_IMAGENET_VARIABLE) or None
        if path is None:
            raise ValueError(
                f"miniImageNet must be given by path or by {MINI_IMAGENET_VARIABLE}, got neither; name the folder with its "
                "Parquet files, "
                "class folders, csv tables or pickles"
            )
    return open_found(detect(path), image_size, cache_dir, progress, divide_mini_imagenet)


@sources.register("class-folders")
def open_class_folders(
    path: str | Path,
    image_size: int = 84,
    fractions: Sequence[float] = (0.64, 0.16, 0.2),
    cache_dir: str | Path | None = None,
    in_memory: bool = False,
    progress: Progress | None = None,
) -> ClassImages:
    """Your own images, of any size: one folder per class, below train/val/test folders or not (or any other form that is
    known).

    Without split folders, ``fractions`` (train, validation, test) of the classes go to each split in an order that their names
    decide. Images are squeezed to squares of ``image_size``; ``in_memory`` leaves out the cache, for a handful of images.
    """
    divide = partial(divide_by_fractions, fractions=fractions)
    return open_found(detect(path), image_size, cache_dir, progress, divide, in_memory=in_memory)
