"""Class folders: ``root/<class>/*.jpg``, or ``root/train|val|test/<class>/*.jpg``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from mdtheory.data.image_index import IMAGE_SUFFIXES, Found, Item, Payload
from mdtheory.data.readers import readers
from mdtheory.data.splits import SPLIT_WORDS


@readers.register("class-folders")
def find(path: Path) -> Found | None:
    """Class folders, below split folders or directly; None where neither is there. ``images``
    beside csv tables is no class.
    """
    folders = _subfolders(path)
    tables = any((path / f"{word}.csv").is_file() for word in SPLIT_WORDS)
    if tables:
        folders = [folder for folder in folders if folder.name != "images"]
    parts = [folder for folder in folders if folder.name.lower() in SPLIT_WORDS]
    if not parts:
        if not any(images_in(folder) for folder in folders):
            return None
        return _found(path, [("", folder) for folder in folders])
    stray = next((folder for folder in folders if folder not in parts and images_in(folder)), None)
    if stray is not None:
        raise ValueError(
            "class folders must all lie under train, val or test or none of them, got "
            f"{stray.name!r} beside {parts[0].name!r} "
            f"in {str(path)!r}; move it"
        )
    classes: list[tuple[str, Path]] = []
    seen: dict[str, str] = {}
    for part in parts:
        split = SPLIT_WORDS[part.name.lower()]
        if split in seen:
            raise ValueError(
                f"{str(path)!r} must hold one {split} folder, got {seen[split]!r} and "
                f"{part.name!r}; remove one"
            )
        seen[split] = part.name
        if images_in(part):
            raise ValueError(
                f"{str(part)!r} must hold one folder per class, got images directly; move them "
                "into "
                "class folders"
            )
        classes += [(split, folder) for folder in _subfolders(part)]
    return _found(path, classes) if classes else None


def images_in(folder: Path) -> list[os.DirEntry[str]]:
    """The image files directly in a folder, sorted by name; hidden files are left out."""
    # not pathlib: over 60,000 files it takes two seconds longer
    with os.scandir(folder) as entries:
        images = [
            e
            for e in entries
            if os.path.splitext(e.name)[1].lower() in IMAGE_SUFFIXES and not e.name.startswith(".")
        ]
    return sorted(images, key=lambda entry: entry.name)


def stamps_of(images: Sequence[os.DirEntry[str]], below: str) -> list[tuple[str, int, int]]:
    """(path, size in bytes, mtime in ns) of image files in the folder ``below``."""
    return [
        (f"{below}/{entry.name}", (status := entry.stat()).st_size, status.st_mtime_ns)
        for entry in images
    ]


def _subfolders(path: Path) -> list[Path]:
    return sorted(f for f in path.iterdir() if f.is_dir() and not f.name.startswith((".", "__")))


def _found(path: Path, classes: list[tuple[str, Path]]) -> Found:
    files: list[tuple[str, str, os.DirEntry[str]]] = []
    stamps: list[tuple[str, int, int]] = []
    for split, folder in classes:
        images = images_in(folder)
        if not images:
            inside = "folders only" if _subfolders(folder) else "none"
            raise ValueError(
                f"class folder {str(folder)!r} must hold images (jpg, png, ...), got {inside}; "
                "fill "
                "or remove it"
            )
        files += [(split, folder.name, image) for image in images]
        stamps += stamps_of(images, folder.relative_to(path).as_posix())

    def opened() -> tuple[list[Item], Iterator[Payload]]:
        return [Item(name, image.name, split) for split, name, image in files], (
            Path(image.path) for _, _, image in files
        )

    return Found("class folders", path, tuple(stamps), opened)
