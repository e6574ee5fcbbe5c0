"""The same image under two names: what a test set must not share with training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mdtheory.data.splits import Division
from mdtheory.data.stored_pixels import Hashes


@dataclass(frozen=True)
class Copies:
    """Identical images in two places, the number of such pairs of neighbours, and one pair."""

    where: str
    count: int
    example: tuple[str, str]

    def __str__(self) -> str:
        first, second = self.example
        what = "1 image is" if self.count == 1 else f"{self.count} images are"
        return f"{what} there twice, {self.where}, such as {first!r} and {second!r}"


def find_copies(
    hashes: Hashes, class_ids: Sequence[str], files: Sequence[str], division: Division
) -> tuple[Copies, ...]:
    """Images whose pixels are equal: in two splits, in two classes of one, or in one class, where
    an example may be asked for as a query. shape of ``hashes``: (N, 16)
    """
    split_of = {name: split for split, names in division.splits.items() for name in names}
    keys = np.ascontiguousarray(hashes).view(np.dtype((np.void, hashes.shape[1])))[:, 0]
    order = np.argsort(keys, kind="stable")
    same = np.flatnonzero(keys[order[1:]] == keys[order[:-1]])
    found: dict[str, list[tuple[int, int]]] = {}
    for at in same.tolist():
        a, b = sorted((int(order[at]), int(order[at + 1])))
        splits = sorted({split_of[class_ids[a]], split_of[class_ids[b]]})
        if len(splits) > 1:
            found.setdefault(f"in the splits {' and '.join(splits)}", []).append((a, b))
        elif class_ids[a] != class_ids[b]:
            found.setdefault(f"in two classes of split {splits[0]}", []).append((a, b))
        else:
            found.setdefault(f"in one class of split {splits[0]}", []).append((a, b))

    def name(row: int) -> str:
        return f"{class_ids[row]}/{files[row]}"

    return tuple(
        Copies(where, len(pairs), (name(pairs[0][0]), name(pairs[0][1])))
        for where, pairs in sorted(found.items())
    )
