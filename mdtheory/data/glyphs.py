"""GlyphSet: the few-shot images that ship with the package, warped on the fly by the episode's
address.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mdtheory.core import seeding
from mdtheory.data.splits import check_split

FILE = Path(__file__).with_name("glyphset.npz")
FILE_SHA256 = "ee73155421c2739edb609c9e787671e0eea05deed0501b66345aa9d6fe4d0490"
WARP_VERSION = 1  # to be raised with any change of `warp` or `draw`, so that digests differ
SPLIT_NAMES = ("train", "validation", "test")
SIDE = 48  # pixels of a frozen bitmap
LEVELS = 16  # its grey levels
IMAGES_PER_CLASS = 600

# Half-widths of the uniform draws at strength 1.
_ANGLE = math.radians(15.0)
_SHEAR = 0.2
_SCALE = 0.15  # of the logarithm, for each axis
_SHIFT = 0.08  # in half-widths of the image
_BOLDER, _THINNER = 0.6, 0.3  # share of the way to the 3 x 3 maximum or minimum
_ELASTIC = 0.08  # in half-widths, at each control point
_CONTROL = 4  # control points of the elastic field per axis
_N_DRAWS = 7 + 2 * _CONTROL**2


@dataclass(frozen=True)
class Prototypes:
    """The frozen bitmaps: rows ``first[c]`` to ``first[c + 1]`` of ``bitmaps`` are class c's faces.

    ``bitmaps``: uint8 ink levels 0..15, shape (n_bitmaps, 48, 48); the other arrays have one entry
    per class, but ``faces`` one per bitmap, an index into ``face_names``.
    """

    bitmaps: Tensor
    first: tuple[int, ...]
    faces: tuple[int, ...]
    codepoints: tuple[int, ...]
    scripts: tuple[str, ...]
    splits: tuple[str, ...]
    face_names: tuple[str, ...]
    built_with: tuple[str, ...]


def read_prototypes(path: Path, *, sha256: str) -> Prototypes:
    """Check a file's hash and unpack it, without pickle. Cost: some 50 ms."""
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no file"
    if found != sha256:
        raise ValueError(f"{path.name} must have sha256 {sha256}, got {found}; reinstall mdtheory")
    with np.load(path, allow_pickle=False) as arrays:
        packed = torch.from_numpy(arrays["packed"])
        bitmaps = torch.stack([packed >> 4, packed & 15], dim=2).reshape(-1, SIDE, SIDE)
        first = np.concatenate([[0], np.cumsum(arrays["n_faces"], dtype=np.int64)])
        lists = (
            first,
            *(
                arrays[n]
                for n in ("faces", "codepoints", "scripts", "splits", "face_names", "built_with")
            ),
        )
        return Prototypes(bitmaps, *(tuple(values.tolist()) for values in lists))


@cache
def prototypes() -> Prototypes:
    """The frozen prototypes that ship with the package, read once per process."""
    return read_prototypes(FILE, sha256=FILE_SHA256)


def draw(seed: int, codepoint: int, picks: Sequence[int]) -> Tensor:
    """Uniform numbers in [-1, 1) on the CPU, each row from its own address. shape: (n_picks, 39)"""
    rows = torch.empty(len(picks), _N_DRAWS, dtype=torch.float32)
    for row, pick in zip(rows, picks, strict=True):
        row.uniform_(
            -1.0, 1.0, generator=seeding.generator("glyph", WARP_VERSION, seed, codepoint, pick)
        )
    return rows


def warp(bitmaps: Tensor, draws: Tensor, *, strength: float, size: int) -> Tensor:
    """Bitmaps with another stroke weight, rotated, sheared, scaled, shifted and bent; ink is 1,
    paper 0.

    ``bitmaps``: (n, 48, 48) levels on any device; ``draws``: (n, 39) as by :func:`draw`. Every
    amplitude is proportional to ``strength`` (the stroke weight saturates at one pixel). Strokes: x
    + w (max x - x) or x - w (x - min x) over 3 x 3 neighbours. Positions p of the result read the
    bitmap at A p + t + e(p), A = rotation * shear * diag(scales), e the bicubic field through 4 x 4
    random vectors; bilinear, paper outside. Everything is elementwise, so an image has the same
    bits alone as in a batch. shape: (n, 1, size, size)
    """
    device = bitmaps.device
    ink = bitmaps.to(torch.float32) / (LEVELS - 1)
    weight = (strength * draws[:, 6]).to(device)[:, None, None]
    amount = torch.where(weight > 0, _BOLDER * weight, -_THINNER * weight).clamp(max=1)
    ink = ink + amount * (_extreme(ink, weight.sign()) - ink)
    positions = _positions(draws, strength=strength, size=size, device=device)
    return F.grid_sample(ink[:, None], positions, align_corners=False).clamp(0, 1)


def _extreme(ink: Tensor, sign: Tensor) -> Tensor:
    """The 3 x 3 maximum where ``sign`` is 1, minimum where it is -1, nothing where it is 0. shape:
    (n, 48, 48)
    """
    signed = F.pad(sign * ink, (1, 1, 1, 1))
    rows = torch.maximum(torch.maximum(signed[:, :-2], signed[:, 1:-1]), signed[:, 2:])
    return sign * torch.maximum(torch.maximum(rows[:, :, :-2], rows[:, :, 1:-1]), rows[:, :, 2:])


def _positions(draws: Tensor, *, strength: float, size: int, device: torch.device) -> Tensor:
    """Where :func:`warp` reads, in half-widths from the centre. shape: (n, size, size, 2)"""
    amount = (
        strength * draws.double()
    )  # the few numbers of an image on the CPU in float64: the same for every device
    angle, shear = _ANGLE * amount[:, 0], _SHEAR * amount[:, 1]
    scale = torch.exp(_SCALE * amount[:, 2:4])
    cos, sin = torch.cos(angle), torch.sin(angle)
    across = torch.stack([cos * scale[:, 0], sin * scale[:, 0]], dim=1)
    down = torch.stack(
        [(cos * shear - sin) * scale[:, 1], (sin * shear + cos) * scale[:, 1]], dim=1
    )
    columns = (
        torch.stack([across, down, _SHIFT * amount[:, 4:6]]).float().to(device)[..., None, None]
    )
    centres = ((2 * torch.arange(size, dtype=torch.float32) + 1) / size - 1).to(device)
    affine = columns[0] * centres + columns[1] * centres[:, None] + columns[2]
    control = (_ELASTIC * amount[:, 7:]).float().to(device).reshape(-1, 2, _CONTROL, _CONTROL)
    unit = torch.eye(_CONTROL, dtype=torch.float32)[None, None]
    basis = F.interpolate(unit, (size, _CONTROL), mode="bicubic", align_corners=True)[0, 0].to(
        device
    )
    total = affine
    for row, column in itertools.product(range(_CONTROL), repeat=2):
        total = total + control[:, :, row, column, None, None] * (
            basis[:, row, None] * basis[:, column]
        )
    return total.movedim(1, -1)


class GlyphSet:
    """About a thousand letters of a dozen scripts, each in 4 to 16 type faces, as endless 28 x 28
    grey images.

    A source of images for episodes. The splits are by script: no alphabet is in two of them. Pick j
    of a class is drawn in its face number j modulo its faces, and warped by numbers from the
    address (``seed``, code point, j) alone: the same address gives the same bits on one machine,
    and the same image within 1e-5 on any device. A class offers 600 picks; another seed warps each
    of them anew. Own design; the letters are rendered from DejaVu and STIX (see LICENSES), so this
    is a synthetic data set and not handwriting.

    ``strength``: the difficulty, a factor on all amplitudes; 0 only chooses faces. ``device``:
    where the bitmaps live and the images are made.

    shapes: images (n, 1, image_size, image_size), float32 in [0, 1].

    >>> import mdtheory
    >>> glyphs = mdtheory.GlyphSet()
    >>> glyphs.load("test", 0, [0, 1], seed=0).shape, glyphs.count("test", 0)
    (torch.Size([2, 1, 28, 28]), 600)
    """

    def __init__(
        self, *, strength: float = 1.6, image_size: int = 28, device: str | torch.device = "cpu"
    ):
        if (
            isinstance(strength, bool)
            or not isinstance(strength, int | float)
            or not 0 <= strength < math.inf
        ):
            raise ValueError(
                f"strength must be a finite number >= 0, got {strength!r}; 1.6 is usual, 1.0 is "
                "milder"
            )
        if (
            isinstance(image_size, bool)
            or not isinstance(image_size, int)
            or not 8 <= image_size <= 1024
        ):
            raise ValueError(
                f"image_size must be a whole number of pixels from 8 to 1024, got {image_size!r}; "
                "28 is usual"
            )
        self.strength = float(strength)
        self.image_size = image_size
        self._known = prototypes()
        self._bitmaps = self._known.bitmaps.to(device)
        self._members = {
            split: [index for index, own in enumerate(self._known.splits) if own == split]
            for split in SPLIT_NAMES
        }

    @property
    def digest(self) -> str:
        """sha256 over the frozen file, the version of the warp, the strength and the image size
        (not the device).
        """
        text = (
            f"glyphset {FILE_SHA256} warp {WARP_VERSION} strength {self.strength!r} size "
            f"{self.image_size}"
        )
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(1, image_size, image_size)."""
        return (1, self.image_size, self.image_size)

    def classes(self, split: str) -> tuple[str, ...]:
        """The classes of a split by code point, such as ``"greek U+03B1"``."""
        known = self._known
        return tuple(
            f"{known.scripts[index]} U+{known.codepoints[index]:04X}" for index in self._of(split)
        )

    def count(self, split: str, class_index: int) -> int:
        """600 picks for every class."""
        self._class(split, class_index)
        return IMAGES_PER_CLASS

    def bitmaps(self, split: str, class_index: int) -> Tensor:
        """A class's frozen bitmaps, unwarped. shape: (n_faces, 48, 48), uint8 levels 0..15"""
        index = self._class(split, class_index)
        return self._bitmaps[self._known.first[index] : self._known.first[index + 1]]

    def load(self, split: str, class_index: int, picks: Sequence[int], seed: int) -> Tensor:
        """The images of one class at these picks. shape: (n_picks, 1, size, size), float32 in [0,
        1]
        """
        return self.load_many(split, [class_index], [picks], seed)[0]

    def load_many(
        self, split: str, class_indices: Sequence[int], picks: Sequence[Sequence[int]], seed: int
    ) -> Tensor:
        """Equally many picks of several classes in one batch, the same bits as by :meth:`load`.

        Cost: 80 images in a few milliseconds on one core. shape: (n_classes, n_picks, 1, size,
        size)
        """
        rows, draws = [], []
        for class_index, own in zip(class_indices, picks, strict=True):
            index = self._class(split, class_index)
            first, last = self._known.first[index : index + 2]
            bad = next((pick for pick in own if not 0 <= pick < IMAGES_PER_CLASS), None)
            if bad is not None:
                raise ValueError(
                    f"picks must be in 0..{IMAGES_PER_CLASS - 1}, got {bad}; ask count(split, "
                    "class_index) first"
                )
            rows.append([first + pick % (last - first) for pick in own])
            draws.append(draw(seed, self._known.codepoints[index], own))
        chosen = self._bitmaps[torch.tensor(rows, device=self._bitmaps.device).reshape(-1)]
        images = warp(chosen, torch.cat(draws), strength=self.strength, size=self.image_size)
        return images.reshape(len(rows), -1, *self.image_shape)

    def _of(self, split: str) -> list[int]:
        check_split(split)
        return self._members[split]

    def _class(self, split: str, class_index: int) -> int:
        members = self._of(split)
        if not 0 <= class_index < len(members):
            raise ValueError(
                f"class_index must be in 0..{len(members) - 1} for split {split!r}, got "
                f"{class_index}; see classes()"
            )
        return members[class_index]
