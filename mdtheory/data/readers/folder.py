"""Class folders: ``root/<class>/*.jpg``, or ``root/train|val|test/<class>/*.jpg``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mdtheory.data.listing import IMAGE_SUFFIXES, Found, Item, Payload, stamp
from mdtheory.data.readers import readers
from mdtheory.data.splits import SPLIT_WORDS


@readers.register("class-folders")
def find(path: Path) -> Found | None:
    """Class folders, below split folders or directly; None where neither is there. ``images`` beside csv tables is no class."""
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
            f"class folders must all lie under train, val or test or none of them, got {stray.name!r} beside {parts[0].name!r} "
            f"in {str(path)!r}; move it"
        )
    classes: list[tuple[str, Path]] = []
    seen: dict[str, str] = {}
    for part in parts:
        split = SPLIT_WORDS[part.name.lower()]
        if split in seen:
            raise ValueError(f"{str(path)!r} must hold one {split} folder, got {seen[split]!r} and {part.name!r}; remove one")
        seen[split] = part.name
        if images_in(part):
            raise ValueError(f"{str(part)!r} must hold one folder per class, got images directly; move them into class folders")
        classes += [(split, folder) for folder in _subfolders(part)]
    return _found(path, classes) if classes else None


def images_in(folder: Path) -> list[Path]:
    """The image files directly in a folder, sorted by name; hidden files are left out."""
    return sorted(f for f in folder.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES and not f.name.startswith("."))


def _subfolders(path: Path) -> list[Path]:
    return sorted(f for f in path.iterdir() if f.is_dir() and not f.name.startswith((".", "__")))


def _found(path: Path, classes: list[tuple[str, Path]]) -> Found:
    files: list[Path] = []
    items: list[Item] = []
    for split, folder in classes:
        images = images_in(folder)
        if not images:
            inside = "folders only" if _subfolders(folder) else "none"
            raise ValueError(f"class folder {str(folder)!r} must hold images (jpg, png, ...), got {inside}; fill or remove it")
        files += images
        items += [Item(folder.name, image.name, split) for image in images]

    def opened() -> tuple[list[Item], Iterator[Payload]]:
        return items, iter(files)

    return Found("class folders", path, tuple(stamp(file, path) for file in files), opened)
