"""What a reader did not take: how many files, why, and one of them."""

from __future__ import annotations

import functools
import importlib
import logging
import os
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path

from mdtheory.data.files import special

log = logging.getLogger(__name__)

SYSTEM = "hidden or system files"
OTHER = "files without the ending of an image"
TEXTS = "texts and tables"
DEEPER = "images in deeper folders"

_JUNK = frozenset({"thumbs.db", "desktop.ini", "icon\r"})
_JUNK_FOLDERS = frozenset({"__macosx", "__pycache__", "$recycle.bin", "lost+found"})

_TEXT_SUFFIXES = "md txt rst csv tsv json jsonl yaml yml toml xml html pdf py ipynb sh log"
_TEXTS = frozenset("." + word for word in _TEXT_SUFFIXES.split())
_TEXT_NAMES = ("readme", "license", "licence", "copying", "sha256sums", "md5sums", "checksums")
_BASE = "jpg jpeg jpe jfif png bmp webp gif tif tiff ppm pgm pbm pnm"  # read by every Pillow
_WANTING = {
    ".avif": ("AVIF", "AVIF images (a Pillow of 11.3 or newer reads them)"),
    ".heic": ("HEIF", "HEIC images (pip install pillow-heif, then they are read)"),
    ".heif": ("HEIF", "HEIC images (pip install pillow-heif, then they are read)"),
}


@dataclass(frozen=True)
class LeftOut:
    """Some files of one kind that were not taken, and one of them."""

    reason: str
    count: int
    example: str

    def __str__(self) -> str:
        return f"{self.count} {self.reason} such as {self.example!r}"


@functools.cache
def formats() -> tuple[str, ...]:
    """The only formats that Pillow may use here: none of them starts another program."""
    from PIL import features

    known = ["JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM"]
    if "avif" in features.get_supported():
        known.append("AVIF")
    try:
        heif = importlib.import_module("pillow_heif")  # what iPhones write
    except ImportError:
        return tuple(known)
    heif.register_heif_opener()
    return (*known, "HEIF")


@functools.cache
def image_suffixes() -> frozenset[str]:
    """File endings (lower case) that are read as images on this machine."""
    readable = {suffix for suffix, (kind, _) in _WANTING.items() if kind in formats()}
    return frozenset("." + word for word in _BASE.split()) | readable


def is_system(name: str) -> bool:
    """Whether a file or folder is some system's own, such as ``.DS_Store`` or ``__MACOSX``."""
    return name.startswith(".") or name.lower() in _JUNK | _JUNK_FOLDERS


def is_image(name: str) -> bool:
    """Whether a file is taken for an image, by its name."""
    return os.path.splitext(name)[1].lower() in image_suffixes() and not is_system(name)


def is_wanting(name: str) -> bool:
    """Whether a file is an image, by its name, that this machine lacks a package for."""
    suffix = os.path.splitext(name)[1].lower()
    return suffix in _WANTING and suffix not in image_suffixes() and not is_system(name)


def reason_for(name: str) -> str:
    """Why a file that is not taken for an image is not."""
    if is_system(name):
        return SYSTEM
    suffix = os.path.splitext(name)[1].lower()
    if suffix in _TEXTS or name.lower() in _TEXT_NAMES:
        return TEXTS
    return _WANTING.get(suffix, ("", OTHER))[1]


class Tally:
    """Counts what is left out below ``root``."""

    def __init__(self, root: Path):
        self.root = root
        self._seen = dict[str, list[str]]()

    def add(self, path: str | Path, reason: str) -> None:
        """Count one more file that is left out for ``reason``, or since it is a pipe, a socket, a
        device or a link to nothing.
        """
        reason = special(path) or reason
        self._seen.setdefault(reason, []).append(os.path.relpath(path, self.root))

    def others(self, folder: Path) -> None:
        """The files directly in a folder that are no images."""
        with os.scandir(folder) as entries:
            for entry in entries:
                if not is_image(entry.name) and not is_folder(entry):
                    self.add(entry.path, reason_for(entry.name))

    def below(self, folder: Path, reason: str) -> None:
        """Every file in the subfolders of ``folder``: images for ``reason``, the rest for their
        own.
        """
        for sub in subfolders(folder, self):
            for path in walk(sub):
                self.add(path, reason if is_image(path.name) else reason_for(path.name))

    def rest(self, used: Container[Path], reason: str) -> None:
        """Every file below ``root`` that is not in ``used``: images for ``reason``."""
        for path in walk(self.root):
            if path not in used:
                self.add(path, reason if is_image(path.name) else reason_for(path.name))

    def result(self) -> tuple[LeftOut, ...]:
        """The kinds, those that may hold images first."""
        last = (OTHER, TEXTS, SYSTEM)
        order = sorted(self._seen, key=lambda reason: (reason in last, reason))
        return tuple(LeftOut(r, len(self._seen[r]), min(self._seen[r])) for r in order)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether a folder is there, links followed; a link that leads to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def subfolders(folder: Path, tally: Tally | None = None) -> list[Path]:
    """The folders in a folder, sorted; what is a system's own is left out, and counted."""
    found = sorted(path for path in folder.iterdir() if path.is_dir())
    for path in found:
        if tally is not None and is_system(path.name):
            tally.add(path, SYSTEM)
    return [path for path in found if not is_system(path.name)]


def walk(folder: Path) -> Iterator[Path]:
    """Every file below a folder, sorted within each, into linked folders too but into none
    twice.
    """
    seen: set[str] = set()
    waiting = [str(folder)]
    while waiting:
        here = waiting.pop()
        real = os.path.realpath(here)
        if real in seen:
            continue
        seen.add(real)
        with os.scandir(here) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        yield from (Path(entry.path) for entry in entries if not is_folder(entry))
        deeper = [e.path for e in entries if is_folder(e) and not is_system(e.name)]
        waiting += reversed(deeper)


def sentence(left_out: tuple[LeftOut, ...]) -> str:
    """What was left out, in words; empty where nothing of it can be an image."""
    told = [str(one) for one in left_out if one.reason not in (TEXTS, SYSTEM)]
    return "left out: " + "; ".join(told) if told else ""


def warn(left_out: tuple[LeftOut, ...], path: Path) -> None:
    """Say it once in the log."""
    if words := sentence(left_out):
        log.warning("%s in %r", words, str(path))
