"""What every source of images owes to the episodes: splits that share nothing, and images that an
address decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import torch

from mdtheory.contract.check import Finding, findings
from mdtheory.contract.setting import ContractViolation
from mdtheory.data.episodes import Source, load_many
from mdtheory.data.splits import SPLITS


def demand(holds: bool, sentence: str) -> None:
    """:class:`ContractViolation` with the sentence where something does not hold."""
    if not holds:
        raise ContractViolation(sentence)


def splits_share_no_class(source: Source) -> None:
    """No class is in two splits, or twice in one."""
    placed = [name for split in SPLITS for name in source.classes(split)]
    twice = next((name for name in placed if placed.count(name) > 1), None)
    demand(twice is None, f"class {twice!r} has two places in the splits")
    demand(bool(source.classes("train")), "split 'train' has no class")


def digest_names_the_set(source: Source) -> None:
    """The digest is 64 hexadecimal digits, the same on every reading."""
    found = source.digest
    demand(re.fullmatch("[0-9a-f]{64}", found) is not None, f"the digest is {found!r}")
    demand(source.digest == found, "the digest changes from one reading to the next")


def images_have_their_shape(source: Source) -> None:
    """Images are float32 in [0, 1] of ``image_shape``, as many as were picked."""
    for split, index in _some(source):
        images = source.load(split, index, [0, 1], seed=3)
        shape = (2, *source.image_shape)
        demand(images.shape == shape, f"images have shape {tuple(images.shape)}, not {shape}")
        demand(images.dtype == torch.float32, f"images are {images.dtype}, not float32")
        low, high = float(images.min()), float(images.max())
        demand(0 <= low <= high <= 1, f"images lie between {low:g} and {high:g}, not 0 and 1")


def address_decides_the_image(source: Source) -> None:
    """The same pick and seed give the same bits, alone, among others, and class by class or at
    once.
    """
    for split, index in _some(source):
        both, alone = (source.load(split, index, picks, seed=3) for picks in ([1, 0], [1]))
        again = source.load(split, index, [1, 0], seed=3)
        demand(torch.equal(both, again), "a second reading gives other images")
        demand(torch.equal(both[:1], alone), "an image changes with what is read after it")
        at_once = load_many(source, split, [index, index], [[1, 0], [1, 0]], seed=3)
        demand(torch.equal(at_once[0], both), "load_many gives other images than load")


PROPERTIES: dict[str, Callable[[Source], None]] = {
    "splits share no class": splits_share_no_class,
    "digest names the set": digest_names_the_set,
    "images have their shape": images_have_their_shape,
    "address decides the image": address_decides_the_image,
}
"""Every property by name; each raises :class:`ContractViolation` where the source does not keep
it.
"""


def check_source(source: Source) -> Iterator[Finding]:
    """One finding for every property of a data source, in their order."""
    return findings(lambda: [source], PROPERTIES)


def _some(source: Source) -> list[tuple[str, int]]:
    """The first and the last class of every split that has two images of it."""
    return [
        (split, index)
        for split in SPLITS
        for index in sorted({0, len(source.classes(split)) - 1} - {-1})
        if source.count(split, index) > 1
    ]
