"""Labelled images in one uint8 array: the source that all file readers end in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from mdtheory.data.copies import Copies, find_copies
from mdtheory.data.image_index import Pixels
from mdtheory.data.left_out import LeftOut
from mdtheory.data.splits import SPLITS, Division, check_split
from mdtheory.data.stored_pixels import Hashes, StoredPixels, digest_of, hashes_of

if TYPE_CHECKING:  # to look at a data set takes no torch
    import torch
    from torch import Tensor


class ClassImages:
    """Images of named classes, sorted by (class id, file name), with the classes of every split.

    shapes: ``pixels`` uint8 (N, H, W, C), an array, a file of them or a tensor on any device;
    ``class_ids`` and ``files``: one per image, sorted. ``digest`` is the sha256 of the sorted
    (class id, file) list: the address of episodes, the same whatever form the images came in and at
    whatever size they are shown. ``pixels_digest`` names the pixels themselves. ``origin`` says
    where they came from and ``left_out`` what was not taken there; ``hashes`` are those of the
    pixels where they are known. ``ValueError`` where the parts do not belong together.

    >>> import numpy as np, mdtheory
    >>> from mdtheory.data import Division
    >>> images = mdtheory.ClassImages(
    ...     np.zeros((3, 8, 8, 3), np.uint8),
    ...     class_ids=["cat", "cat", "dog"],
    ...     files=["1.png", "2.png", "1.png"],
    ...     division=Division({"train": ("cat",), "test": ("dog",)}, by="hand"),
    ... )
    >>> images.image_shape, images.classes("train"), images.count("train", 0)
    ((3, 8, 8), ('cat',), 2)
    """

    def __init__(
        self,
        pixels: Pixels | Tensor | StoredPixels,
        *,
        class_ids: Sequence[str],
        files: Sequence[str],
        division: Division,
        origin: str = "",
        left_out: tuple[LeftOut, ...] = (),
        hashes: Hashes | None = None,
    ):
        if pixels.ndim != 4 or str(pixels.dtype).removeprefix("torch.") != "uint8":
            raise ValueError(
                f"pixels must be uint8 of shape (N, H, W, C), got {pixels.dtype} "
                f"{tuple(pixels.shape)}; convert them"
            )
        names = list(zip(class_ids, files, strict=False))
        if not len(class_ids) == len(files) == len(pixels) > 0:
            raise ValueError(
                f"there must be one class id and one file name per image, got {len(class_ids)} and "
                f"{len(files)} for "
                f"{len(pixels)} images; name each once"
            )
        if any(a >= b for a, b in pairwise(names)):
            raise ValueError(
                "images must be sorted by (class id, file name) and unique, got another order; "
                "sort "
                "them first"
            )
        self.pixels = pixels
        self.class_ids = tuple(class_ids)
        self.files = tuple(files)
        self.division = division
        self.origin = origin
        self.left_out = left_out
        self._hashes = pixels.hashes if isinstance(pixels, StoredPixels) else hashes
        starts = [row for row, name in enumerate(names) if row == 0 or name[0] != names[row - 1][0]]
        self._range = {names[a][0]: range(a, b) for a, b in pairwise([*starts, len(names)])}
        placed = sorted(name for split in SPLITS for name in division.splits.get(split, ()))
        if placed != sorted(self._range):
            raise ValueError(
                f"the splits must hold each of the {len(self._range)} classes once, got "
                f"{len(placed)} places; correct them"
            )
        self.digest = hashlib.sha256(json.dumps(names, separators=(",", ":")).encode()).hexdigest()
        """sha256 of the sorted (class id, file) list, as hexadecimal digits: the address of
        episodes.
        """

    @property
    def hashes(self) -> Hashes:
        """A hash of every image's pixels; computed once. shape: (N, 16)"""
        if self._hashes is None:
            held = self.pixels
            if not isinstance(held, np.ndarray | StoredPixels):
                held = held.cpu().numpy()
            self._hashes = hashes_of(held)
        return self._hashes

    @property
    def pixels_digest(self) -> str:
        """sha256 over the pixels in order, as hexadecimal digits: equal only for the same images at
        the same size.
        """
        _, *image_shape = self.pixels.shape
        return digest_of(self.hashes, image_shape)

    def check(self) -> None:
        """Read all pixels and compare them with what was decoded; ``ValueError`` where they
        differ.
        """
        if isinstance(self.pixels, StoredPixels):
            self.pixels.check()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what ``load`` returns."""
        _, height, width, channels = self.pixels.shape
        return channels, height, width

    @property
    def notice(self) -> str:
        """What a reader of results should know about the split; empty where there is nothing to
        say.
        """
        return self.division.notice

    def copies(self) -> tuple[Copies, ...]:
        """Identical images that lie in two splits, in two classes of one, or in one class."""
        return find_copies(self.hashes, self.class_ids, self.files, self.division)

    def classes(self, split: str) -> tuple[str, ...]:
        """The sorted class ids of ``train``, ``validation`` or ``test``."""
        check_split(split)
        return self.division.splits.get(split, ())

    def count(self, split: str, class_index: int) -> int:
        """How many images the class at this place of ``classes(split)`` has."""
        return len(self.rows(split, class_index))

    def load(self, split: str, class_index: int, picks: Sequence[int], seed: int = 0) -> Tensor:
        """Images ``picks`` of one class: float32 in [0, 1], shape (len(picks), C, H, W), where the
        pixels live.

        ``seed`` is for sources that draw their images; files have no need of it.
        """
        return self.load_many(split, [class_index], [picks], seed)[0]

    def load_many(
        self,
        split: str,
        class_indices: Sequence[int],
        picks: Sequence[Sequence[int]],
        seed: int = 0,
    ) -> Tensor:
        """Equally many picks of several classes at once, shape (n_classes, n_picks, C, H, W), the
        same bits as by ``load``.

        The scale is a product with the float32 nearest to 1/255: one rounding on any device, so CPU
        and GPU give the same bits.
        """
        import torch

        wanted: list[int] = []
        for class_index, own in zip(class_indices, picks, strict=True):
            rows = self.rows(split, class_index)
            bad = next((pick for pick in own if not 0 <= pick < len(rows)), None)
            if bad is not None:
                raise ValueError(
                    f"picks must lie between 0 and {len(rows) - 1} for class "
                    f"{self.classes(split)[class_index]!r}, got {bad}; "
                    "see count()"
                )
            wanted += [rows[pick] for pick in own]
        if isinstance(self.pixels, torch.Tensor):
            block = self.pixels[torch.tensor(wanted, dtype=torch.int64, device=self.pixels.device)]
        else:
            block = torch.from_numpy(self.pixels[wanted])
        block = block.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        block.mul_(torch.tensor(1 / 255, dtype=torch.float32, device=block.device))
        return block.reshape(
            len(class_indices), len(wanted) // max(len(class_indices), 1), *self.image_shape
        )

    def to_device(self, device: torch.device | str) -> ClassImages:
        """The same images held whole as one uint8 tensor (N, H, W, C) on ``device`` (1.27 GB for
        miniImageNet at 84).
        """
        import torch

        if isinstance(self.pixels, torch.Tensor):
            held = self.pixels.to(device)
        else:
            held = torch.empty(self.pixels.shape, dtype=torch.uint8, device=device)
            for start in range(0, len(self.pixels), 4096):
                held[start : start + 4096] = torch.from_numpy(
                    np.array(self.pixels[start : start + 4096])
                )
        return ClassImages(
            held,
            class_ids=self.class_ids,
            files=self.files,
            division=self.division,
            origin=self.origin,
            left_out=self.left_out,
            hashes=self._hashes,
        )

    def summary(self) -> dict[str, object]:
        """Plain facts for tables and JSON: origin, both digests, image shape, counts, what decided
        the split, the notice, what was left out, and identical images that are told apart.
        """
        counts = {
            split: {
                "classes": len(self.classes(split)),
                "images": sum(len(self._range[name]) for name in self.classes(split)),
            }
            for split in SPLITS
        }
        return {
            "origin": self.origin,
            "digest": self.digest,
            "pixels_digest": self.pixels_digest,
            "image_shape": list(self.image_shape),
            "splits": counts,
            "split_by": self.division.by,
            "notice": self.notice,
            "left_out": [str(one) for one in self.left_out],
            "copies": [str(one) for one in self.copies()],
        }

    def rows(self, split: str, class_index: int) -> range:
        """Where the images of the class at this place of ``classes(split)`` stand in ``pixels``."""
        names = self.classes(split)
        if not 0 <= class_index < len(names):
            raise ValueError(
                f"class_index must be between 0 and {len(names) - 1} in split {split!r}, got "
                f"{class_index}; see classes()"
            )
        return self._range[names[class_index]]
