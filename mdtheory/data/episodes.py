"""Episodes by address: the data set, the split, a seed and an index decide everything in one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mdtheory.core.seeding import seed as address_seed
from mdtheory.core.types import Episode


class Source(Protocol):
    """Where images come from. ``digest`` names the set; ``image_shape`` is (C, H, W)."""

    @property
    def digest(self) -> str:
        """Hexadecimal digits that no other set of images has."""
        ...

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        ...

    def classes(self, split: str) -> Sequence[str]:
        """The class names of a split, in a fixed order."""
        ...

    def count(self, split: str, class_index: int) -> int:
        """How many images of that class there are to pick from."""
        ...

    def load(self, split: str, class_index: int, picks: Sequence[int], seed: int) -> Tensor:
        """float32 in [0, 1], shape (len(picks), C, H, W); the j-th image depends on ``picks[:j +
        1]`` and ``seed`` only.
        """
        ...


def permutation(n: int, *address: str | int) -> list[int]:
    """A permutation of range(n) that the address alone decides: the order of n raw 64-bit words of
    PCG64.

    numpy promises the raw words of a bit generator for ever (unlike ``Generator.permutation``), so
    tasks outlive library versions. Two equal words have probability below n^2 / 2^65; the stable
    sort then keeps their order.
    """
    words = np.random.PCG64(address_seed(*address)).random_raw(n)
    return np.argsort(words, kind="stable").tolist()


class EpisodeStream:
    """``stream(index) -> Episode``: the same tasks for every method, resume and number of
    processes.

    The address is sha256 over (source.digest, split, seed, index). The first ``n_way`` places of
    one permutation of the classes are the task's classes; within a class the first ``n_shot``
    places of one permutation of its images are the support and the next ``n_query`` the queries. So
    a task with fewer queries, or fewer classes, is a part of the one with more, and a 1-shot
    support is part of a 5-shot one. Images have shapes (n_way * n_shot, C, H, W) and (n_way *
    n_query, C, H, W), class-major; labels 0..n_way-1 by place in the permutation. ``ValueError`` at
    once where any class of the split has too few images.

    >>> import mdtheory
    >>> sizes = {"n_way": 5, "n_shot": 1, "n_query": 15}
    >>> tasks = mdtheory.EpisodeStream(mdtheory.GlyphSet(), split="train", seed=0, **sizes)
    >>> tasks(0).support_x.shape, tasks(0).query_x.shape
    (torch.Size([5, 1, 28, 28]), torch.Size([75, 1, 28, 28]))
    >>> tasks(7).seed == tasks(7).seed != tasks(8).seed
    True
    """

    def __init__(
        self, source: Source, *, split: str, seed: int, n_way: int, n_shot: int, n_query: int
    ):
        for name, value, least in (
            ("seed", seed, 0),
            ("n_way", n_way, 2),
            ("n_shot", n_shot, 1),
            ("n_query", n_query, 1),
        ):
            _check_whole(name, value, least)
        names = source.classes(split)
        if n_way > len(names):
            raise ValueError(
                f"n_way must be at most {len(names)}, the number of classes in split {split!r}, "
                "got "
                f"{n_way}; lower it"
            )
        for k, name in enumerate(names):
            if source.count(split, k) < n_shot + n_query:
                raise ValueError(
                    f"every class must have at least n_shot + n_query = {n_shot + n_query} images, "
                    "got "
                    f"{source.count(split, k)} in class "
                    f"{name!r} of split {split!r}; lower n_shot or n_query, or remove the class"
                )
        self.source, self.split, self.seed = source, split, seed
        self.n_way, self.n_shot, self.n_query = n_way, n_shot, n_query

    def address(self, index: int) -> int:
        """The 63-bit address of an episode."""
        _check_whole("index", index, 0)
        return address_seed(self.source.digest, self.split, self.seed, index)

    def noise_seed(self, index: int) -> int:
        """The address of a method's own noise for an episode."""
        return address_seed(self.address(index), "noise")

    def chosen(self, index: int) -> list[tuple[int, list[int]]]:
        """What is in an episode, nothing loaded: n_way pairs of a class index and its n_shot +
        n_query image places.
        """
        address, n = self.address(index), self.n_shot + self.n_query
        classes = permutation(len(self.source.classes(self.split)), address, "classes")[
            : self.n_way
        ]
        return [
            (k, permutation(self.source.count(self.split, k), address, "images", k)[:n])
            for k in classes
        ]

    def __call__(self, index: int) -> Episode:
        """The episode at ``index`` (>= 0), on the device where the source keeps its images."""
        address, chosen = self.address(index), self.chosen(index)
        classes, picks = [k for k, _ in chosen], [own for _, own in chosen]
        images = load_many(self.source, self.split, classes, picks, address_seed(address, "images"))
        labels = torch.arange(self.n_way, device=images.device)
        return Episode(
            support_x=images[:, : self.n_shot].flatten(0, 1),
            support_y=labels.repeat_interleave(self.n_shot),
            query_x=images[:, self.n_shot :].flatten(0, 1),
            query_y=labels.repeat_interleave(self.n_query),
            seed=self.noise_seed(index),
        )


def load_many(
    source: Source, split: str, classes: Sequence[int], picks: Sequence[Sequence[int]], seed: int
) -> Tensor:
    """Equally many picks of several classes, shape (n_classes, n_picks, C, H, W); at once where the
    source can.
    """
    at_once = getattr(source, "load_many", None)
    if at_once is not None:
        return at_once(split, classes, picks, seed)
    return torch.stack(
        [source.load(split, k, own, seed) for k, own in zip(classes, picks, strict=True)]
    )


def _check_whole(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number >= {least}, got {value!r}; correct it")
