"""Pictures from folders for one task: what cannot be read is listed, and the rest goes on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mdtheory.data.decode_image import decode
from mdtheory.data.image_index import Pixels
from mdtheory.data.left_out import (
    DEEPER,
    LeftOut,
    Tally,
    is_folder,
    is_image,
    is_wanting,
    reason_for,
    subfolders,
    walk,
)


@dataclass(frozen=True)
class Unread:
    """A file that should have been read, and why it could not be."""

    file: Path
    why: str


@dataclass(frozen=True)
class Pictures:
    """Image files with the name of their folder, decoded: ``pixels`` uint8 (N, size, size, 3);
    the ``unread`` ones, and what is ``left_out`` since it is no image.
    """

    files: tuple[Path, ...]
    folders: tuple[str, ...]
    pixels: Pixels
    unread: tuple[Unread, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    def tensor(self, *, channels: int) -> Tensor:
        """float32 in [0, 1]; one channel means ink: 1 on black, 0 on white. shape: (N, C, H, W)"""
        x = torch.from_numpy(self.pixels).permute(0, 3, 1, 2).float() / 255
        return 1 - x.mean(dim=1, keepdim=True) if channels == 1 else x.contiguous()


def read_examples(folder: Path, *, size: int) -> Pictures:
    """All images in the subfolders of ``folder``, the subfolder being the class; images deeper down
    are left out. ``ValueError`` where a class has none that can be read.
    """
    demand_folder(folder, "--support")
    tally, named = Tally(folder), list[tuple[Path, str]]()
    classes = subfolders(folder, tally)
    _count_files(folder, tally, "images beside the class folders")
    for sub in classes:
        own = _images(sub, tally)
        tally.below(sub, DEEPER)
        if not own:
            deeper = next((one for one in subfolders(sub) if _images(one, Tally(one))), None)
            raise ValueError(
                f"every class of --support must have images, got none in {str(sub)!r}; "
                + (
                    f"they lie one level too deep, in {deeper.name!r}: move them up, or give "
                    f"{str(sub)!r}"
                    if deeper
                    else "add some or remove it"
                )
            )
        named += [(path, sub.name) for path in own]
    found = _decode(named, size, tally)
    for sub in classes:
        if sub.name not in found.folders:
            why = next(one.why for one in found.unread if one.file.parent == sub)
            raise ValueError(
                f"every class of --support must have images that can be read, got none in "
                f"{str(sub)!r}: {why}"
            )
    return found


def read_queries(folder: Path, *, size: int) -> Pictures:
    """All images in ``folder`` and below it, at any depth; ``ValueError`` where none can be
    read.
    """
    demand_folder(folder, "--query")
    tally, named = Tally(folder), list[tuple[Path, str]]()
    for path in walk(folder):
        if is_image(path.name) or is_wanting(path.name):
            first = path.relative_to(folder).parts[0]
            named.append((path, "" if path.parent == folder else first))
        else:
            tally.add(path, reason_for(path.name))
    if not named:
        told = tally.result()
        found = f"none but {told[0]}" if told else "none"
        raise ValueError(f"--query must hold images, got {found} in {str(folder)!r}; check it")
    found_ = _decode(named, size, tally)
    if not found_.files:
        raise ValueError(
            f"--query must hold images that can be read, got none in {str(folder)!r}: "
            f"{found_.unread[0].why}"
        )
    return found_


def demand_folder(folder: Path, option: str) -> None:
    """``ValueError`` where ``folder`` is none."""
    if not folder.is_dir():
        raise ValueError(f"{option} must be a folder, got {str(folder)!r}; check the path")


def _images(folder: Path, tally: Tally) -> list[Path]:
    """What should be read as images directly in a folder; the rest is counted."""
    with os.scandir(folder) as entries:
        files = sorted((Path(e.path) for e in entries if not is_folder(e)), key=lambda p: p.name)
    for path in files:
        if not (is_image(path.name) or is_wanting(path.name)):
            tally.add(path, reason_for(path.name))
    return [path for path in files if is_image(path.name) or is_wanting(path.name)]


def _count_files(folder: Path, tally: Tally, reason: str) -> None:
    for path in _images(folder, tally):
        tally.add(path, reason)


def _decode(named: Sequence[tuple[Path, str]], size: int, tally: Tally) -> Pictures:
    kept: list[tuple[Path, str]] = []
    pixels: list[Pixels] = []
    unread: list[Unread] = []
    for path, name in named:
        try:
            if not is_image(path.name):
                raise ValueError(
                    f"{str(path)!r} must be in a format that is read here, got "
                    f"{reason_for(path.name)}; convert it"
                )
            pixels.append(decode(path, image_size=size, name=repr(str(path))))
            kept.append((path, name))
        except ValueError as error:
            unread.append(Unread(path, str(error)))
    stacked = np.stack(pixels) if pixels else np.zeros((0, size, size, 3), np.uint8)
    files, folders = tuple(path for path, _ in kept), tuple(name for _, name in kept)
    return Pictures(files, folders, stacked, tuple(unread), tally.result())
