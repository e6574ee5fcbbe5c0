"""Class folders: ``root/<class>/*.jpg``, or ``root/train|val|test/<class>/*.jpg``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from mdtheory.data.files import is_regular
from mdtheory.data.image_index import Found, Item, Payload, Stamp, stamp_of
from mdtheory.data.left_out import DEEPER, Tally, image_suffixes, is_system, subfolders
from mdtheory.data.readers import readers
from mdtheory.data.splits import SPLIT_WORDS

BESIDE = "images beside the class folders"
STRAY = "images in folders beside train, val and test"


@readers.register("class-folders")
def find(path: Path) -> Found | None:
    """Class folders, below split folders or directly; None where neither is there. ``images``
    beside csv tables is no class.
    """
    tally = Tally(path)
    folders = subfolders(path, tally)
    if any(is_regular(path / f"{word}.csv") for word in (*SPLIT_WORDS, "labels")):
        folders = [folder for folder in folders if folder.name != "images"]
    parts = [folder for folder in folders if folder.name.lower() in SPLIT_WORDS]
    if not parts or _is_class(parts, folders):
        if not any(images_in(folder) for folder in folders):
            return None
        _count_beside(path, tally)
        return _found(path, [("", folder) for folder in folders], tally)
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
        tally.others(part)
        classes += [(split, folder) for folder in subfolders(part, tally)]
    for folder in folders:
        if folder not in parts:
            tally.below(folder, STRAY)
    _count_beside(path, tally)
    return _found(path, classes, tally) if classes else None


def _is_class(parts: list[Path], folders: list[Path]) -> bool:
    """Whether the one folder that is called like a split is a class: CIFAR-100 has trains."""
    held = [bool(images_in(folder)) for folder in folders]
    return len(parts) == 1 and len(folders) > 1 and all(held) and not subfolders(parts[0])


def images_in(folder: Path) -> list[os.DirEntry[str]]:
    """The image files directly in a folder, sorted by name; hidden files are left out."""
    # not pathlib: over 60,000 files it takes two seconds longer
    suffixes = image_suffixes()
    with os.scandir(folder) as entries:
        images = [
            e
            for e in entries
            if os.path.splitext(e.name)[1].lower() in suffixes and not is_system(e.name)
        ]
    return sorted(images, key=lambda entry: entry.name)


def stamps_of(images: Sequence[os.DirEntry[str]], below: str) -> list[Stamp]:
    """The stamps of image files in the folder ``below``."""
    return [stamp_of(entry.stat(), f"{below}/{entry.name}", entry.path) for entry in images]


def _count_beside(path: Path, tally: Tally) -> None:
    for image in images_in(path):
        tally.add(image.path, BESIDE)
    tally.others(path)


def _found(path: Path, classes: list[tuple[str, Path]], tally: Tally) -> Found:
    files: list[tuple[str, str, os.DirEntry[str]]] = []
    stamps: list[Stamp] = []
    for split, folder in classes:
        images = images_in(folder)
        if not images:
            raise ValueError(
                f"class folder {str(folder)!r} must hold images (jpg, png, ...), got "
                f"{_instead(folder)}; fill or remove it"
            )
        tally.others(folder)
        tally.below(folder, DEEPER)
        files += [(split, folder.name, image) for image in images]
        stamps += stamps_of(images, folder.relative_to(path).as_posix())

    def opened() -> tuple[list[Item], Iterator[Payload]]:
        return [Item(name, image.name, split) for split, name, image in files], (
            Path(image.path) for _, _, image in files
        )

    return Found("class folders", path, tuple(stamps), opened, tally.result())


def _instead(folder: Path) -> str:
    inside = subfolders(folder)
    if not inside:
        return "none"
    if deeper := next((sub for sub in inside if images_in(sub)), None):
        return (
            f"folders only, with images in {deeper.name!r}: the classes lie one level too deep, so "
            f"move {deeper.name!r} and the folders beside it up, or give the folder that holds them"
        )
    return "folders only"
