"""Omniglot: handwritten characters of 50 alphabets (Lake et al. 2015)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from mdtheory.data.files import expanded
from mdtheory.data.sources.base import DataSource, data_sources, held_on
from mdtheory.data.splits import Division, by_digest

if TYPE_CHECKING:
    import torch

    from mdtheory.data.episodes import Source
    from mdtheory.data.image_index import Found, Item, Payload
    from mdtheory.data.images import ClassImages

EVALUATION = frozenset(
    [
        *("Angelic", "Atemayar_Qelisayer", "Atlantean", "Aurek-Besh", "Avesta", "Ge_ez"),
        *("Glagolitic", "Gurmukhi", "Kannada", "Keble", "Malayalam", "Manipuri", "Mongolian"),
        *("Old_Church_Slavonic_(Cyrillic)", "Oriya", "Sylheti", "Syriac_(Serto)", "Tengwar"),
        *("Tibetan", "ULOG"),
    ]
)
"""The 20 alphabets of the official evaluation set; all others are background."""

VALIDATION_ALPHABETS = 5
TRAIN_CHARACTERS, VALIDATION_CHARACTERS = 1100, 100
ANGLES = (0, 90, 180, 270)


@data_sources.register("omniglot")
class Omniglot(DataSource):
    """1,623 characters, each drawn by 20 people: grey squares, ink 1 on paper 0.

    ``split``: "alphabets" trains on the official background set and tests on the evaluation set
    (Lake et al. 2015); five background alphabets, the last in the order of sha256 of their names,
    validate. "characters" cuts all characters, in that order of their own names, into 1,100, 100
    and the rest, as Finn et al. (2017) did at random. ``rotations``: every character turned by 90,
    180 and 270 degrees is a class of its own, in the split of the upright one (Santoro et al.
    2016). Read from Parquet files with the column ``label`` = "alphabet/character", or from the
    original folders ``alphabet/character/*.png``, below ``images_background`` and
    ``images_evaluation`` or not.
    """

    title = "Omniglot"
    image_size = 28
    channels = 1
    variable = "MDTHEORY_OMNIGLOT"

    def __init__(
        self, *, split: Literal["alphabets", "characters"] = "alphabets", rotations: bool = False
    ):
        if split not in ("alphabets", "characters"):
            raise ValueError(
                f"split must be 'alphabets' or 'characters', got {split!r}; the first is official"
            )
        self.split = split
        self.rotations = rotations

    def open(
        self, path: str | Path | None, *, image_size: int, device: str | torch.device = "cpu"
    ) -> Source:
        """From the folder in ``path``, or in the environment variable."""
        from mdtheory.data.open import open_found

        upright = open_found(self.find(self.place(path)), image_size=image_size, divide=self.divide)
        return held_on(_inked(upright, ANGLES if self.rotations else (0,)), device)

    def find(self, path: str | Path) -> Found:
        """Parquet files, or the original folders."""
        from mdtheory.data.open import detect

        folder = expanded(path)
        return _folders(folder) if folder.is_dir() and _characters(folder) else detect(folder)

    def divide(self, own: Mapping[str, str]) -> Division:
        """Which characters ("alphabet/character") train, validate and test."""
        strange = next((name for name in own if "/" not in name), None)
        if strange is not None:
            raise ValueError(
                "Omniglot's classes must be called alphabet/character, got "
                f"{strange!r}; keep the original folders, or read it with data.source = 'folder'"
            )
        if self.split == "characters":
            order = by_digest(own)
            cuts = (TRAIN_CHARACTERS, TRAIN_CHARACTERS + VALIDATION_CHARACTERS)
            parts = [order[: cuts[0]], order[cuts[0] : cuts[1]], order[cuts[1] :]]
            by, notice = "sha256 of the character's name", ""
        else:
            background = by_digest({_alphabet(name) for name in own} - EVALUATION)
            held = set(background[-VALIDATION_ALPHABETS:])
            rest = set(background) - held
            groups = (rest, held, EVALUATION)
            parts = [[name for name in own if _alphabet(name) in group] for group in groups]
            by = "official split by alphabet"
            notice = f"validation: {', '.join(sorted(held))}, taken from the background set"
        names = ("train", "validation", "test")
        splits = {name: tuple(sorted(part)) for name, part in zip(names, parts, strict=True)}
        return Division(splits, by, notice)


def _alphabet(name: str) -> str:
    return name.partition("/")[0]


def _inked(upright: ClassImages, angles: tuple[int, ...]) -> ClassImages:
    """Ink 1 on paper 0 in one channel, and a class for every angle (degrees, against the clock)."""
    from mdtheory.data.images import ClassImages

    ink = 255 - np.asarray(upright.pixels)[..., :1]
    turned = np.concatenate([np.rot90(ink, angle // 90, axes=(1, 2)) for angle in angles])
    names = [
        (_turned(class_id, angle), file)
        for angle in angles
        for class_id, file in zip(upright.class_ids, upright.files, strict=True)
    ]
    order = sorted(range(len(names)), key=names.__getitem__)
    splits = {
        split: tuple(sorted(_turned(name, angle) for name in members for angle in angles))
        for split, members in upright.division.splits.items()
    }
    return ClassImages(
        np.ascontiguousarray(turned[order]),
        class_ids=[names[row][0] for row in order],
        files=[names[row][1] for row in order],
        division=Division(splits, upright.division.by, upright.division.notice),
        origin=upright.origin,
        left_out=upright.left_out,
    )


def _turned(name: str, angle: int) -> str:
    return f"{name}/{angle:03d}" if angle else name


def _characters(root: Path) -> list[tuple[str, Path]]:
    """(alphabet/character, folder) of the original layout, with or without its two sets."""
    sets = [root / name for name in ("images_background", "images_evaluation")]
    tops = [folder for folder in sets if folder.is_dir()] or [root]
    return [
        (f"{alphabet.name}/{character.name}", character)
        for top in tops
        for alphabet in sorted(top.iterdir())
        if alphabet.is_dir() and not alphabet.name.startswith(".")
        for character in sorted(alphabet.iterdir())
        if character.is_dir() and not character.name.startswith(".")
    ]


def _folders(root: Path) -> Found:
    """The original layout; nothing is read yet."""
    from mdtheory.data.image_index import Found, Item
    from mdtheory.data.readers.folder import images_in, stamps_of

    found = [(name, folder, images_in(folder)) for name, folder in _characters(root)]

    def opened() -> tuple[list[Item], Iterator[Payload]]:
        items = [Item(name, image.name, "") for name, _, images in found for image in images]
        return items, (Path(image.path) for _, _, images in found for image in images)

    stamps = [
        stamp
        for _, folder, images in found
        for stamp in stamps_of(images, folder.relative_to(root).as_posix())
    ]
    return Found("Omniglot's folders", root, tuple(stamps), opened)
