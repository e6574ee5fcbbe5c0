"""Which classes train, validate and test: miniImageNet by WordNet id, other sources by what they
say themselves.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

SPLITS = ("train", "validation", "test")
"""The three splits, in the order of every table."""

SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
} | dict.fromkeys(("val", "valid", "validation"), "validation")
"""How files and folders in circulation call the splits (compared in lower case)."""

WNID = re.compile(r"n\d{8}")
"""A WordNet id: ``n`` and eight digits."""

_TRAIN = """
n01532829 n01558993 n01704323 n01749939 n01770081 n01843383 n01910747 n02074367 n02089867 n02091831
n02101006 n02105505 n02108089 n02108551 n02108915 n02111277 n02113712 n02120079 n02165456 n02457408
n02606052 n02687172 n02747177 n02795169 n02823428 n02966193 n03017168 n03047690 n03062245 n03207743
n03220513 n03337140 n03347037 n03400231 n03476684 n03527444 n03676483 n03838899 n03854065 n03888605
n03908618 n03924679 n03998194 n04067472 n04243546 n04251144 n04258138 n04275548 n04296562 n04389033
n04435653 n04443257 n04509417 n04515003 n04596742 n04604644 n04612504 n06794110 n07584110 n07697537
n07747607 n09246464 n13054560 n13133613
"""
_VALIDATION = """
n01855672 n02091244 n02114548 n02138441 n02174001 n02950826 n02971356 n02981792 n03075370 n03417042
n03535780 n03584254 n03770439 n03773504 n03980874 n09256479
"""
_TEST = """
n01930112 n01981276 n02099601 n02110063 n02110341 n02116738 n02129165 n02219486 n02443484 n02871525
n03127925 n03146219 n03272010 n03544143 n03775546 n04146614 n04149813 n04418357 n04522168 n07613480
"""

MINI_IMAGENET: dict[str, tuple[str, ...]] = {
    "train": tuple(_TRAIN.split()),
    "validation": tuple(_VALIDATION.split()),
    "test": tuple(_TEST.split()),
}
"""The 64/16/20 WordNet ids of miniImageNet's splits (ravi2017optimization), sorted."""


@dataclass(frozen=True)
class Division:
    """The sorted classes of each split, what decided it (``by``), and what a reader should know
    (``notice``, may be empty).
    """

    splits: Mapping[str, tuple[str, ...]]
    by: str
    notice: str = ""


def split_word(text: str) -> str:
    """The split that the first split word of a name stands for (``mini-imagenet-cache-val.pkl`` ->
    validation), or ''.
    """
    return next(
        (SPLIT_WORDS[word] for word in re.split(r"[^a-z]+", text.lower()) if word in SPLIT_WORDS),
        "",
    )


def check_split(split: object) -> None:
    """``ValueError`` for what is no split, with the one that was probably meant."""
    if split not in SPLITS:
        near = split_word(split) if isinstance(split, str) else ""
        remedy = f"did you mean {near!r}?" if near else "correct it"
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}; {remedy}")


def divide_mini_imagenet(own: Mapping[str, str]) -> Division:
    """miniImageNet's split of the classes in ``own`` (class id -> the source's own split, '' where
    it has none).

    WordNet ids decide alone. A source without any keeps its own split, and the notice says so.
    ``ValueError`` for ids that are not miniImageNet's, for ids mixed with other names, and for a
    source with neither ids nor splits.
    """
    ids = [name for name in own if WNID.fullmatch(name)]
    if not ids:
        return _own_division(own)
    if len(ids) < len(own):
        other = min(set(own) - set(ids))
        raise ValueError(
            f"class names must all be WordNet ids or none of them, got {ids[0]!r} and {other!r}; "
            "separate the two sets of "
            "images"
        )
    right = {wnid: split for split in SPLITS for wnid in MINI_IMAGENET[split]}
    strangers = sorted(set(own) - set(right))
    if strangers:
        raise ValueError(
            f"miniImageNet must hold only its own 100 classes, got {len(strangers)} others such as "
            f"{strangers[0]!r}; "
            "remove them, or read the folder as your own classes with open_class_folders"
        )
    moved = sum(1 for wnid, split in own.items() if split and split != right[wnid])
    notice = (
        f"{moved} classes lie under another split than their WordNet id says: the id decides; "
        if moved
        else ""
    )
    if len(own) < 100:
        notice += f"only {len(own)} of the 100 classes are here; "
    splits = {
        split: tuple(wnid for wnid in MINI_IMAGENET[split] if wnid in own) for split in SPLITS
    }
    return Division(splits, "WordNet id", notice.removesuffix("; "))


def _own_division(own: Mapping[str, str]) -> Division:
    unsplit = sorted(name for name, split in own.items() if not split)
    if unsplit:
        raise ValueError(
            f"miniImageNet must come with WordNet ids or with its split, got class {unsplit[0]!r} "
            "with neither; "
            "put train, validation or test into the file or folder names, or read it with "
            "open_class_folders"
        )
    notice = (
        "the source has no WordNet ids: its own split is used and cannot be checked against "
        "that of Ravi and Larochelle"
    )
    return Division(_grouped(own), "the source's own split", notice)


def divide_by_fractions(own: Mapping[str, str], fractions: Sequence[float]) -> Division:
    """The source's own split where it has one; otherwise by ``fractions`` (train, validation, test)
    of the classes in hashed order.

    The order is that of sha256 of the class id, so it depends on no file system; the number of
    validation and of test classes is rounded and the rest train.
    """
    named = [name for name, split in own.items() if split]
    if len(named) == len(own):
        return Division(_grouped(own), "the source's own split")
    if named:
        raise ValueError(
            f"either every class or none must lie under a split, got {named[0]!r} under "
            f"{own[named[0]]!r} and "
            f"{min(set(own) - set(named))!r} under none; move the classes into train, validation "
            "and test"
        )
    try:
        right = len(fractions) == 3 and min(fractions) >= 0 and abs(sum(fractions) - 1) <= 1e-6
    except TypeError:
        right = False
    if not right:
        raise ValueError(
            "fractions must be three numbers >= 0 with sum 1 (train, validation, test), got "
            f"{fractions!r}; correct them"
        )
    order = by_digest(own)
    n_test = round(fractions[2] * len(order))
    n_validation = min(round(fractions[1] * len(order)), len(order) - n_test)
    cut = len(order) - n_test - n_validation
    parts = (order[:cut], order[cut : cut + n_validation], order[cut + n_validation :])
    splits = {split: tuple(sorted(part)) for split, part in zip(SPLITS, parts, strict=True)}
    return Division(splits, "sha256 of the class name")


def alike(names: Iterable[str]) -> str:
    """A sentence on the first two class names that differ in case, blanks, invisible characters or
    the Unicode form of their letters alone, and so may be one class; empty where there are none.

    >>> alike(["cat", "dog", "Cat "])
    "the classes 'cat' and 'Cat ' may be one: rename or join them if they are"
    """
    seen: dict[str, str] = {}
    for name in names:
        seen_as = (c for c in name if unicodedata.category(c) != "Cf")  # Cf: takes no room
        key = " ".join(unicodedata.normalize("NFKC", "".join(seen_as)).casefold().split())
        if seen.setdefault(key, name) != name:
            pair = f"the classes {seen[key]!r} and {name!r}"
            return f"{pair} may be one: rename or join them if they are"
    return ""


def by_digest(names: Iterable[str]) -> list[str]:
    """The names in the order of their sha256: arbitrary, but the same everywhere."""
    return sorted(
        names, key=lambda name: hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
    )


def _grouped(own: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    return {
        split: tuple(sorted(name for name, its in own.items() if its == split)) for split in SPLITS
    }
