"""The contract of data sources, on right ones and on planted faults."""

from __future__ import annotations

import pytest
import torch

from mdtheory.contract.source import PROPERTIES, check_source
from mdtheory.data.glyphs import GlyphSet


class Dots:
    """A right source of two classes a split; faults are planted by subclasses."""

    digest = "0" * 64
    image_shape = (1, 4, 4)

    def classes(self, split):
        return (f"{split} a", f"{split} b")

    def count(self, split, class_index):
        return 3

    def load(self, split, class_index, picks, seed):
        return torch.stack([torch.full((1, 4, 4), (pick + class_index) / 9) for pick in picks])


class Leaking(Dots):
    def classes(self, split):
        return ("shared", f"{split} b")


class Unnamed(Dots):
    digest = "dots"


class TooBright(Dots):
    def load(self, split, class_index, picks, seed):
        return 255 * super().load(split, class_index, picks, seed)


class Drifting(Dots):
    drawn = 0

    def load(self, split, class_index, picks, seed):
        self.drawn += 1
        return super().load(split, class_index, picks, seed) / (1 + self.drawn)


class Raising(Dots):
    def count(self, split, class_index):
        raise KeyError(class_index)


def broken(source) -> list[str]:
    return [one.property for one in check_source(source) if one.verdict == "broken"]


@pytest.mark.parametrize("source", [Dots(), GlyphSet(image_size=12)], ids=["dots", "glyphs"])
def test_right_sources_pass(source):
    assert broken(source) == []


@pytest.mark.parametrize(
    ("wrong", "property"),
    [
        (Leaking, "splits share no class"),
        (Unnamed, "digest names the set"),
        (TooBright, "images have their shape"),
        (Drifting, "address decides the image"),
        (Raising, "images have their shape"),
    ],
)
def test_a_planted_fault_is_found(wrong, property):
    assert property in PROPERTIES and property in broken(wrong())
