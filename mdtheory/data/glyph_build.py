"""The command that renders, filters and freezes GlyphSet: ``python -m mdtheory.data.glyph_build
[--out FILE] [--sheet FILE]``.

Only whoever changes the data set runs it: the result ships with the package (``glyphset.npz``),
because a new FreeType or a new font release may shift grey levels. What is kept, in this order:

1. letters (Unicode categories Lu, Ll, Lt, Lo) of the scripts in ``SPLITS`` without a decomposition
   (no accents, no compatibility forms) and neither mathematical nor modifier letters, in the text
   faces of ``FACES`` only;
2. bitmaps that are neither blocks nor bundles of bare strokes (``is_bare``);
3. class by class, those with the fewest faces first: bitmaps whose correlation with every kept
   bitmap of every other class, in any split and under small rotations of either, is below
   ``MAX_CORRELATION``;
4. classes with at least ``MIN_FACES`` such bitmaps.

So no two bitmaps of different classes are near-duplicates, whatever their faces. Cost: about a
minute on one core.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Annotated

import matplotlib
import numpy as np
import typer
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from numpy.typing import NDArray
from PIL import Image, ImageFont, features
from scipy import ndimage
from scipy.spatial import ConvexHull

from mdtheory.data.glyphs import FILE, FILE_SHA256, LEVELS, SIDE, SPLIT_NAMES, GlyphSet

Bitmaps = NDArray[np.uint8]
"""Ink levels 0..15. shape: (n, 48, 48)"""

Features = dict[float, NDArray[np.float32]]
"""For every angle, one row of unit length and zero mean per bitmap. shape: (n, 784)"""

_STYLES = ("", "-Oblique", "-Bold", "-BoldOblique")
FACES = (
    *(f"DejaVuSans{style}" for style in _STYLES),
    *(f"DejaVuSansMono{style}" for style in _STYLES),
    *(f"DejaVuSerif{style.replace('Oblique', 'Italic')}" for style in _STYLES),
    *("STIXGeneral", "STIXGeneralItalic", "STIXGeneralBol", "STIXGeneralBolIta"),
)
"""The text faces of matplotlib; its other fonts are placeholders, symbols, display cuts or not
encoded by Unicode.
"""

SPLITS = {
    "train": ("canadian syllabics", "cyrillic", "latin", "lisu", "old italic"),
    "validation": ("coptic", "greek", "hebrew"),
    "test": ("arabic", "armenian", "georgian", "lao"),
}
"""Whole scripts; the Coptic letters of Unicode's Greek block stay with Greek."""

MIN_FACES = 4
MAX_CORRELATION = 0.9
ANGLES = (0.0, -15.0, -7.5, 7.5, 15.0)  # degrees; 0 first
BLUR = 0.7  # standard deviation in pixels of the 28 x 28 image
BARE = 0.85  # share of its components' convex hulls that a bundle of strokes or a block fills
_EM = 192  # pixels of the first, fine rendering
_EXTENT = 36  # the longer side of the ink, in pixels of the 48 x 48 bitmap


def script_of(codepoint: int) -> str | None:
    """The script by the character's Unicode name, None if it is none of ``SPLITS``."""
    name = unicodedata.name(chr(codepoint), "").lower()
    scripts = (script for names in SPLITS.values() for script in names)
    return next((script for script in scripts if name.startswith(script + " ")), None)


def is_candidate(codepoint: int) -> bool:
    """Rule 1 of the module, without the faces."""
    character = chr(codepoint)
    if unicodedata.category(character) not in ("Lu", "Ll", "Lt", "Lo") or unicodedata.decomposition(
        character
    ):
        return False
    name = unicodedata.name(character, "")
    return (
        "MATHEMATICAL" not in name and "MODIFIER" not in name and script_of(codepoint) is not None
    )


def font_file(face: str) -> Path:
    """Where matplotlib keeps the face."""
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{face}.ttf"


def coverage() -> dict[int, list[int]]:
    """Every candidate's faces (indices into ``FACES``), for those with at least ``MIN_FACES``, by
    code point.
    """
    faces: dict[int, list[int]] = defaultdict(list)
    for index, face in enumerate(FACES):
        for codepoint, glyph in FT2Font(str(font_file(face))).get_charmap().items():
            if glyph and is_candidate(codepoint):
                faces[codepoint].append(index)
    return {
        codepoint: faces[codepoint]
        for codepoint in sorted(faces)
        if len(faces[codepoint]) >= MIN_FACES
    }


@cache
def _font(face: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_file(FACES[face]), _EM, layout_engine=ImageFont.Layout.BASIC)


def render(codepoint: int, face: int) -> Bitmaps:
    """One glyph: its ink scaled until the longer side is 36 pixels, centred, in 16 grey levels.
    shape: (48, 48)
    """
    mask = _font(face).getmask(chr(codepoint), mode="L")
    fine = np.array(mask, dtype=np.uint8).reshape(mask.size[1], mask.size[0])
    inked = np.argwhere(fine > 127)
    if not len(inked):
        raise ValueError(
            f"U+{codepoint:04X} must have ink in {FACES[face]}, got a blank glyph; exclude the "
            "code "
            "point"
        )
    (top, left), (bottom, right) = inked.min(0), inked.max(0) + 1
    ink = Image.fromarray(fine[top:bottom, left:right])
    scale = _EXTENT / max(ink.size)
    width, height = (max(1, round(length * scale)) for length in ink.size)
    bitmap = Image.new("L", (SIDE, SIDE))
    bitmap.paste(
        ink.resize((width, height), Image.Resampling.BOX),
        ((SIDE - width) // 2, (SIDE - height) // 2),
    )
    return ((np.asarray(bitmap, dtype=np.int64) * (LEVELS - 1) + 127) // 255).astype(np.uint8)


def is_bare(bitmap: Bitmaps) -> bool:
    """Whether every component about fills its convex hull: a block, a dot, one straight stroke, or
    several apart.
    """
    components, n_components = ndimage.label(bitmap >= LEVELS / 2, structure=np.ones((3, 3)))
    area = hull = 0.0
    for index in range(1, n_components + 1):
        pixels = np.argwhere(components == index)
        corners = np.concatenate([pixels + offset for offset in ((0, 0), (0, 1), (1, 0), (1, 1))])
        area += len(pixels)
        hull += ConvexHull(corners).volume  # in the plane, SciPy's volume is the area
    return area >= BARE * hull


def describe(bitmaps: Bitmaps, angles: Sequence[float] = ANGLES) -> Features:
    """Each bitmap rotated, blurred, reduced to 28 x 28, centred and normed: inner products are
    correlations.
    """
    ink = bitmaps.astype(np.float32) / (LEVELS - 1)
    rows = {}
    for angle in angles:
        turned = ndimage.rotate(ink, angle, axes=(1, 2), reshape=False, order=1) if angle else ink
        blurred = ndimage.gaussian_filter(turned, (0.0, BLUR * SIDE / 28, BLUR * SIDE / 28))
        small = ndimage.zoom(blurred, (1, 28 / SIDE, 28 / SIDE), order=1).reshape(len(bitmaps), -1)
        centred = small - small.mean(1, keepdims=True)
        rows[angle] = (centred / np.linalg.norm(centred, axis=1, keepdims=True)).astype(np.float32)
    return rows


def likeness(first: Features, second: Features) -> NDArray[np.float32]:
    """The largest correlation of every pair over the rotations of either. shape: (n_first,
    n_second)
    """
    pairs = [(first[angle], second[0.0]) for angle in first] + [
        (first[0.0], second[angle]) for angle in second
    ]
    return np.max([left @ right.T for left, right in pairs], axis=0)


def select(classes: Sequence[NDArray[np.int64]], features: Features) -> list[NDArray[np.int64]]:
    """Rules 3 and 4: per class its kept rows of ``features``, empty where the class is dropped."""
    kept: list[NDArray[np.int64]] = [rows[:0] for rows in classes]
    bank = {angle: np.empty_like(values) for angle, values in features.items()}
    size = 0
    for index in sorted(range(len(classes)), key=lambda i: len(classes[i])):
        rows = classes[index]
        if size and len(rows):
            own = {angle: values[rows] for angle, values in features.items()}
            others = {angle: values[:size] for angle, values in bank.items()}
            rows = rows[likeness(own, others).max(1) < MAX_CORRELATION]
        if len(rows) < MIN_FACES:
            continue
        for angle, values in features.items():
            bank[angle][size : size + len(rows)] = values[rows]
        size += len(rows)
        kept[index] = rows
    return kept


def build(path: Path) -> str:
    """Write the frozen file, the same bytes for the same libraries; returns its sha256."""
    covered = coverage()
    pairs = [(codepoint, face) for codepoint, faces in covered.items() for face in faces]
    bitmaps = np.stack([render(*pair) for pair in pairs])
    usable = np.array([not is_bare(bitmap) for bitmap in bitmaps])
    codepoints = np.array([codepoint for codepoint, _ in pairs])
    classes = [np.flatnonzero((codepoints == codepoint) & usable) for codepoint in covered]
    kept = {
        c: rows
        for c, rows in zip(covered, select(classes, describe(bitmaps)), strict=True)
        if len(rows)
    }
    rows = np.concatenate(list(kept.values()))
    packed = bitmaps[rows, 0::2] << 4 | bitmaps[rows, 1::2]
    split_of = {script: split for split in SPLIT_NAMES for script in SPLITS[split]}
    scripts = [script_of(codepoint) or "" for codepoint in kept]
    np.savez_compressed(
        path,
        packed=packed,
        faces=np.array([pairs[row][1] for row in rows], dtype=np.uint8),
        n_faces=np.array([len(kept_rows) for kept_rows in kept.values()], dtype=np.uint8),
        codepoints=np.array(list(kept), dtype=np.int32),
        scripts=np.array(scripts),
        splits=np.array([split_of[script] for script in scripts]),
        face_names=np.array(FACES),
        built_with=np.array(built_with()),
    )
    return hashlib.sha256(path.read_bytes()).hexdigest()


def built_with() -> list[str]:
    """The versions that decide the pixels and the choice of characters."""
    return [
        f"matplotlib {matplotlib.__version__}",
        f"freetype {features.version('freetype2')}",
        f"pillow {features.version('pil')}",
        f"unicode {unicodedata.unidata_version}",
    ]


def draw_sheet(path: Path) -> None:
    """Draw four letters of every script, each in one image at strength 0, two at 1.0 and three at
    1.6.
    """
    columns = ((0.0, range(1)), (1.0, range(1, 3)), (1.6, range(3, 6)))
    n_letters, gap, side = 4, 6, 28
    sources = {strength: GlyphSet(strength=strength) for strength, _ in columns}
    rows, labels = [], []
    for split in SPLIT_NAMES:
        classes = sources[0.0].classes(split)
        for script in SPLITS[split]:
            own = [index for index, name in enumerate(classes) if name.startswith(script + " ")]
            blocks = []
            for letter in range(n_letters):
                index = own[(2 * letter + 1) * len(own) // (2 * n_letters)]
                for strength, picks in columns:
                    images = sources[strength].load(split, index, picks, 0)[:, 0].numpy()
                    blocks += [*images, np.zeros((side, 2))]
                blocks.append(np.zeros((side, gap)))
            rows.append(np.concatenate(blocks, axis=1))
            labels.append(f"{script}\n{split}, {len(own)} classes")
    ink = np.concatenate(rows)
    figure = Figure(
        figsize=(12, 12 * ink.shape[0] / ink.shape[1] + 0.4), dpi=110, layout="constrained"
    )
    axes = figure.subplots()
    axes.imshow(ink, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    axes.set_yticks([side * (row + 0.5) for row in range(len(rows))], labels, fontsize=8)
    axes.set_xticks([])
    axes.set_title(
        "GlyphSet: every letter unwarped, then twice at strength 1.0, then three times at 1.6",
        fontsize=10,
    )
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    figure.savefig(path, metadata={"Software": None}, bbox_inches="tight")


def main(
    out: Annotated[
        Path, typer.Option(help="The file to write (default: the one in the package).")
    ] = FILE,
    sheet: Annotated[
        Path | None,
        typer.Option(help="Draw samples of the frozen set into this picture; build nothing."),
    ] = None,
) -> None:
    """Rebuild the frozen GlyphSet."""
    if sheet is not None:
        draw_sheet(sheet)
        typer.echo(f"drew {sheet}")
        return
    found = build(out)
    verdict = (
        "the frozen one"
        if found == FILE_SHA256
        else "not the frozen one: to adopt it, set FILE_SHA256 in glyphs.py"
    )
    typer.echo(f"wrote {out}, sha256 {found} ({verdict})")


if __name__ == "__main__":
    typer.run(main)
