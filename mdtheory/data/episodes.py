"""Episodes by address: the data set, the split, a seed and an index decide everything in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    def image_shape(self) -> tuple[int, ...]:
        """(C, H, W), or the shape of an item that is no image."""
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


class TooSmallError(ValueError):
    """A split has too few classes, or a class too few images, for the tasks that are asked for.

    ``lower``: the arguments that may be lowered; ``otherwise``: what else helps; ``always``: what
    of it helps one who does not call the library himself (default: all).
    """

    def __init__(self, what: str, *, lower: Sequence[str], otherwise: str, always: str = ""):
        super().__init__("; ".join((what, _remedy(lower, otherwise))))
        self.what = what
        self.lower = lower
        self.always = always or otherwise

    def told(self, options: Mapping[str, str]) -> ValueError:
        """The same with the options that stand for the arguments; one without cannot be lowered."""
        known = [options[name] for name in self.lower if name in options]
        return ValueError("; ".join((self.what, _remedy(known, self.always))))


def _remedy(lower: Sequence[str], otherwise: str) -> str:
    return f"lower {' or '.join(lower)}, or {otherwise}" if lower else otherwise


class EpisodeStream:
    """``stream(index) -> Episode``: the same tasks for every method, resume and number of
    processes.

    The address is sha256 over (source.digest, split, seed, index). The first ``n_way`` places of
    one permutation of the classes are the task's classes; within a class the first ``n_shot``
    places of one permutation of its images are the support and the next ``n_query`` the queries. So
    a task with fewer queries, or fewer classes, is a part of the one with more, and a 1-shot
    support is part of a 5-shot one. Images have shapes (n_way * n_shot, C, H, W) and (n_way *
    n_query, C, H, W), class-major; labels 0..n_way-1 by place in the permutation. ``ValueError`` at
    once where any class of the split has too few images; with ``unequal=True`` a small class gives
    what it has instead: at most n_shot to the support, at least one of its (two or more) images to
    the queries, and no more than n_query, so that classes of one episode may differ in number.

    >>> import mdtheory
    >>> sizes = {"n_way": 5, "n_shot": 1, "n_query": 15}
    >>> tasks = mdtheory.EpisodeStream(mdtheory.GlyphSet(), split="train", seed=0, **sizes)
    >>> tasks(0).support_x.shape, tasks(0).query_x.shape
    (torch.Size([5, 1, 28, 28]), torch.Size([75, 1, 28, 28]))
    >>> tasks(7).seed == tasks(7).seed != tasks(8).seed
    True
    """

    def __init__(
        self,
        source: Source,
        *,
        split: str,
        seed: int,
        n_way: int,
        n_shot: int,
        n_query: int,
        unequal: bool = False,
    ):
        for name, value, least in (
            ("seed", seed, 0),
            ("n_way", n_way, 2),
            ("n_shot", n_shot, 1),
            ("n_query", n_query, 1),
        ):
            check_whole(name, value, least)
        if isinstance(source, type) or not hasattr(source, "classes"):
            got = source.__name__ if isinstance(source, type) else type(source).__name__
            raise ValueError(f"source must be a Source, such as GlyphSet(), got {got}; make one")
        names = source.classes(split)
        if n_way > len(names):
            raise TooSmallError(
                f"n_way must be at most {len(names)}, the number of classes in split {split!r}, "
                f"got {n_way}",
                lower=("n_way",) if len(names) >= 2 else (),
                otherwise=_way_out(source, n_way, len(names)),
            )
        least = 2 if unequal else n_shot + n_query
        said = "2" if unequal else f"n_shot + n_query = {least}"
        for k, name in enumerate(names):
            if source.count(split, k) < least:
                more = "give it more images, or remove the class"
                raise TooSmallError(
                    f"every class must have at least {said} images, got {source.count(split, k)} "
                    f"in class {name!r} of split {split!r}",
                    lower=() if unequal else ("n_shot", "n_query"),
                    otherwise=more if unequal else f"pass unequal=True, {more}",
                    always=more,
                )
        self.unequal = unequal
        self.source = source
        self.split = split
        self.seed = seed
        self.n_way = n_way
        self.n_shot = n_shot
        self.n_query = n_query

    def address(self, index: int) -> int:
        """The 63-bit address of an episode."""
        check_whole("index", index, 0)
        return address_seed(self.source.digest, self.split, self.seed, index)

    def noise_seed(self, index: int) -> int:
        """The address of a method's own noise for an episode."""
        return address_seed(self.address(index), "noise")

    def chosen(self, index: int) -> list[tuple[int, list[int]]]:
        """What is in an episode, nothing loaded: n_way pairs of a class index and its n_shot +
        n_query image places (fewer for a small class where the numbers may be unequal).
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
        if self.unequal:
            return self._unequal(address, classes, picks)
        images = load_many(self.source, self.split, classes, picks, address_seed(address, "images"))
        labels = torch.arange(self.n_way, device=images.device)
        return Episode(
            support_x=images[:, : self.n_shot].flatten(0, 1),
            support_y=labels.repeat_interleave(self.n_shot),
            query_x=images[:, self.n_shot :].flatten(0, 1),
            query_y=labels.repeat_interleave(self.n_query),
            seed=self.noise_seed(index),
        )

    def _unequal(
        self, address: int, classes: Sequence[int], picks: Sequence[Sequence[int]]
    ) -> Episode:
        seed = address_seed(address, "images")
        parts = [
            self.source.load(self.split, k, own, seed)
            for k, own in zip(classes, picks, strict=True)
        ]
        shots = [min(self.n_shot, len(part) - 1) for part in parts]
        pairs = list(zip(parts, shots, strict=True))
        labels = torch.arange(self.n_way, device=parts[0].device)
        queries = [len(part) - n for part, n in pairs]
        return Episode(
            support_x=torch.cat([part[:n] for part, n in pairs]),
            support_y=labels.repeat_interleave(labels.new_tensor(shots)),
            query_x=torch.cat([part[n:] for part, n in pairs]),
            query_y=labels.repeat_interleave(labels.new_tensor(queries)),
            seed=address_seed(address, "noise"),
        )


def _way_out(source: Source, n_way: int, there: int) -> str:
    """What to do where a split has too few classes."""
    counts = {split: len(source.classes(split)) for split in ("train", "validation", "test")}
    told = ", ".join(f"{split} {n}" for split, n in counts.items())
    divide = (
        f"divide the classes yourself (now {told}), by class folders below train, val and test, so "
        f"that every split that is used has at least {n_way}"
    )
    if there >= 2:
        return divide
    enough = [split for split, n in counts.items() if n >= n_way]
    other = f", or use split {enough[0]!r}" if enough else ""
    return f"a task needs at least two, so {divide}{other}"


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


def check_whole(name: str, value: object, least: int) -> None:
    """``ValueError`` for what is no whole number of at least ``least``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number >= {least}, got {value!r}; correct it")
