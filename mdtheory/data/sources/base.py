"""What every data source says of itself, and the registry of all of them."""

from __future__ import annotations

import inspect
import os
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from mdtheory.core.registry import Registry

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from mdtheory.data.episodes import Source
    from mdtheory.data.image_index import Found
    from mdtheory.data.images import ClassImages

data_sources: Registry = Registry("data", "mdtheory.data.sources")
"""Every known source, by the name that a configuration gives it."""


class DataSource(ABC):
    """A set of images by name. Subclasses set the class attributes and write :meth:`open`.

    ``title``: its name in prose. ``image_size``: pixels where a configuration says nothing.
    ``channels``: 1 for grey, 3 for colour. ``takes_path``: whether it lies in a folder, which is
    ``data.path`` or, where that is not given, the value of the environment variable ``variable``.
    ``strength``: the usual difficulty, for a source that draws its images; ``None`` for others.
    """

    title: ClassVar[str]
    image_size: ClassVar[int] = 84
    channels: ClassVar[int] = 3
    takes_path: ClassVar[bool] = True
    variable: ClassVar[str] = ""
    strength: ClassVar[float | None] = None

    @abstractmethod
    def open(
        self, path: str | Path | None, *, image_size: int, device: str | torch.device = "cpu"
    ) -> Source:
        """The images, squares of ``image_size`` pixels held on ``device``; ``ValueError`` in one
        sentence where they cannot be had.
        """

    def find(self, path: str | Path) -> Found:
        """The form in which the images lie in a folder, from names alone; ``ValueError`` for
        none.
        """
        from mdtheory.data.open import detect

        return detect(path)

    def place(self, path: str | Path | None) -> str | Path:
        """``path``, or what the environment variable names; ``ValueError`` where both are
        missing.
        """
        found = path or os.environ.get(self.variable)
        if not found:
            raise ValueError(
                f"{self.title} must be given by path or by {self.variable}, got neither; name the "
                "folder with its images"
            )
        return found


def source_class(name: str) -> type[DataSource]:
    """The registered class; ``ValueError`` for an unknown name, or for what is no
    :class:`DataSource`.
    """
    found = data_sources.get(name)
    if not (isinstance(found, type) and issubclass(found, DataSource)):
        raise ValueError(
            f"data source {name!r} must be a subclass of DataSource, got {found!r}; derive it"
        )
    if inspect.isabstract(found):
        raise ValueError(f"data source {name!r} must have open(), got {found!r} without; write it")
    return found


def held_on(images: ClassImages, device: str | torch.device) -> ClassImages:
    """The images as they are for a CPU, which reads them from the cache; whole on another
    device.
    """
    return images if str(device).startswith("cpu") else images.to_device(device)


def open_source(
    name: str,
    path: str | Path | None = None,
    *,
    image_size: int | None = None,
    device: str | torch.device = "cpu",
    **options: Any,
) -> Source:
    """The images of a registered source, e.g. ``open_source("omniglot", rotations=True)``.

    ``image_size`` defaults to the source's own; ``options`` are its constructor's.
    """
    source = source_class(name)(**options)
    size = source.image_size if image_size is None else image_size
    return source.open(path, image_size=size, device=device)
