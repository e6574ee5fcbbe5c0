"""From a path to a source: which form it has, whether a cache is there, which classes train and
test.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from mdtheory.core.cache_dir import default_cache_dir
from mdtheory.core.progress import Progress, progress_bar
from mdtheory.data.cache import open_cached
from mdtheory.data.decode_all import decode_in_memory
from mdtheory.data.decode_image import demand_size
from mdtheory.data.files import expanded
from mdtheory.data.image_index import Found, Pixels, unreadable
from mdtheory.data.images import ClassImages
from mdtheory.data.left_out import is_image, walk, warn
from mdtheory.data.readers import readers, tables
from mdtheory.data.splits import Division, alike, divide_by_fractions, divide_mini_imagenet
from mdtheory.data.stored_pixels import StoredPixels

MINI_IMAGENET_VARIABLE = "MDTHEORY_MINI_IMAGENET"
"""The environment variable that names the folder of miniImageNet."""

log = logging.getLogger(__name__)

PACKED = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst")


def open_mini_imagenet(
    path: str | Path | None = None,
    *,
    image_size: int = 84,
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
) -> ClassImages:
    """miniImageNet (vinyals2016matching, split of ravi2017optimization) from a folder in any form
    that circulates.

    Parquet files, class folders (below train/val/test or not), a flat ``images`` folder with csv
    tables, or pickles; ``path`` defaults to the environment variable ``MDTHEORY_MINI_IMAGENET``.
    WordNet ids decide the split; a source without ids keeps its own and says so in ``notice``.
    Decoded once to squares of ``image_size`` pixels below ``cache_dir`` (``MDTHEORY_CACHE`` or
    ``~/.cache/mdtheory``).

    shapes: what it loads is (n, 3, image_size, image_size). ``ValueError`` where there is no folder
    or its form is not known:

    >>> import mdtheory
    >>> mdtheory.open_mini_imagenet("nowhere")
    Traceback (most recent call last):
    ...
    ValueError: the path of a data set must be an existing folder, got 'nowhere'; check the path
    """
    if path is None:
        path = os.environ.get(MINI_IMAGENET_VARIABLE) or None
        if path is None:
            raise ValueError(
                f"miniImageNet must be given by path or by {MINI_IMAGENET_VARIABLE}, got neither; "
                "name the folder with its "
                "Parquet files, class folders, csv tables or pickles"
            )
    return open_found(
        detect(path),
        image_size=image_size,
        divide=divide_mini_imagenet,
        cache_dir=cache_dir,
        progress=progress,
    )


def open_class_folders(
    path: str | Path,
    *,
    image_size: int = 84,
    fractions: Sequence[float] = (0.64, 0.16, 0.2),
    cache_dir: str | Path | None = None,
    in_memory: bool = False,
    progress: Progress | None = None,
) -> ClassImages:
    """Your own images, of any size: one folder per class, below train/val/test folders or not, or
    any other known form.

    Without split folders, ``fractions`` (train, validation, test) of the classes go to each split
    in an order that their names decide. Images are squeezed to squares of ``image_size``;
    ``in_memory`` leaves out the cache, for a handful of images.

    shapes: what it loads is (n, 3, image_size, image_size).

    >>> import tempfile, pathlib, mdtheory
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for split, name in [("train", "cat"), ("val", "dog"), ("test", "owl")]:
    ...         path = pathlib.Path(folder, split, name)
    ...         path.mkdir(parents=True)
    ...         Image.new("RGB", (20, 10)).save(path / "1.png")
    ...     images = mdtheory.open_class_folders(folder, image_size=8, in_memory=True)
    >>> images.classes("validation"), images.load("test", 0, [0], seed=0).shape
    (('dog',), torch.Size([1, 3, 8, 8]))
    """
    divide = partial(divide_by_fractions, fractions=fractions)
    return open_found(
        detect(path),
        image_size=image_size,
        divide=divide,
        cache_dir=cache_dir,
        progress=progress,
        in_memory=in_memory,
    )


def detect(path: str | Path) -> Found:
    """The one form that the folder has; ``ValueError`` for none, for several at once, and for what
    is not a readable folder.
    """
    folder = expanded(path)
    try:
        if folder.is_file():
            remedy = (
                "unpack it first"
                if folder.suffix.lower() in PACKED
                else "give the folder that holds it"
            )
            raise ValueError(
                f"the path of a data set must be a folder, got the file {str(folder)!r}; {remedy}"
            )
        if not folder.is_dir():
            raise ValueError(
                f"the path of a data set must be an existing folder, got {str(folder)!r}; check "
                "the "
                "path"
            )
        found = [hit for hit in (readers.get(slug)(folder) for slug in readers) if hit is not None]
        if not found:
            raise ValueError(_nothing(folder))
    except OSError as error:
        raise unreadable(error.filename or folder, error) from error
    if len(found) > 1:
        raise ValueError(
            f"{str(folder)!r} must hold images in one form, got "
            f"{' and '.join(hit.form for hit in found)}; give the folder "
            "of one of them"
        )
    return found[0]


def _nothing(folder: Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir())
    packed = [name for name in names if name.lower().endswith(PACKED)]
    if packed:
        return (
            f"{str(folder)!r} must hold unpacked images, got only packed files such as "
            f"{packed[0]!r}; unpack them first"
        )
    held = (
        ", ".join(repr(name) for name in names[:4]) + (" ..." if len(names) > 4 else "")
        if names
        else "an empty folder"
    )
    first = next(filter(lambda p: is_image(p.name), walk(folder)), None)
    remedy = "check the path" if first is None else _remedy(folder, first)
    return (
        f"{str(folder)!r} must hold Parquet files, class folders with images, an images folder "
        "with train.csv, val.csv and test.csv or with labels.csv, pickles or .npz archives, got "
        f"{held}; {remedy}"
    )


def _remedy(folder: Path, first: Path) -> str:
    """What to do where the image ``first`` lies in ``folder`` and is of no known form."""
    place, table = first.relative_to(folder), folder / "labels.csv"
    depth = len(place.parts)
    if depth <= 2 and table.is_file():
        held = tables.header(table)
        return "'labels.csv' must be a table in UTF-8 with the columns file and label, got " + (
            f"{held}; correct its first line" if held else "another file; save it as CSV UTF-8"
        )
    others = (one for one in sorted(folder.iterdir()) if one.suffix.lower() in (".csv", ".tsv"))
    if depth <= 2 and (other := next((one for one in others if tables.labelled(one)), None)):
        return f"a table of labels must be called 'labels.csv', got {other.name!r}; rename it"
    if depth == 1:
        return f"{place.name!r} lies one level too high: put it into a folder that is its class"
    return (
        f"{place.as_posix()!r} lies {_levels(depth - 2)} too deep: give {str(first.parents[1])!r}, "
        "or move the classes up"
    )


def _levels(n: int) -> str:
    return "one level" if n == 1 else f"{n} levels"


def open_found(
    found: Found,
    *,
    image_size: int,
    divide: Callable[[Mapping[str, str]], Division],
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
    in_memory: bool = False,
) -> ClassImages:
    """The source of what ``detect`` found, squares of ``image_size`` pixels; ``divide`` says which
    classes train and test.
    """
    demand_size(image_size)
    warn(found.left_out, found.path)
    pixels: Pixels | StoredPixels
    if in_memory:
        pixels, listing = decode_in_memory(found, image_size=image_size)
    else:
        where = expanded(cache_dir) if cache_dir is not None else default_cache_dir()
        with nullcontext(progress) if progress else progress_bar("reading images") as shown:
            pixels, listing = open_cached(
                found, image_size=image_size, cache_dir=where, check=divide, progress=shown
            )
    images = ClassImages(
        pixels,
        class_ids=listing.class_ids,
        files=listing.files,
        division=divide(listing.own_split),
        origin=f"{found.form} in {found.path}",
        left_out=found.left_out,
    )
    for said in (*images.copies(), alike(listing.own_split)):
        if said:
            log.warning("%s in %r", said, str(found.path))
    return images
