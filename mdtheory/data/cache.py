"""Images decoded once into a memory-mapped uint8 array that every later start, and every process,
shares.

A cache is a folder ``<name>-<size>-<key>`` with ``images.npy`` and ``index.json``. It is written
under another name, flushed, and renamed, all under a lock: a reader sees a whole cache or none. The
key is a sha256 over path, form, size and the (name, bytes, mtime) of every file, so an edited
source is decoded anew and the old cache is left for the user to remove.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from mdtheory.core.progress import Progress
from mdtheory.data.decode_all import decode_all
from mdtheory.data.image_index import Found, Listing, Pixels, arrange, open_items

VERSION = 1
"""Part of the key: raised whenever decoding or the layout changes."""

SPARE_BYTES = 64 << 20
"""Free space that must remain on the disk beside a new cache."""

log = logging.getLogger(__name__)


def cache_folder(found: Found, image_size: int, cache_dir: Path) -> Path:
    """The folder that the cache of these files at this size has, or will have."""
    parts = [VERSION, found.form, str(found.path.resolve()), sorted(found.stamps)]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    name = (
        "".join(
            c if c.isascii() and (c.isalnum() or c in "-_") else "_"
            for c in found.path.resolve().name
        )[:40]
        or "images"
    )
    return cache_dir / f"{name}-{image_size}-{key}"


def open_cached(
    found: Found,
    *,
    image_size: int,
    cache_dir: Path,
    check: Callable[[Mapping[str, str]], object],
    progress: Progress | None = None,
) -> tuple[Pixels, Listing]:
    """Pixels (N, image_size, image_size, 3), memory-mapped and read-only, and their listing;
    decoded first where no cache is.

    ``check(own_split)`` runs before anything is decoded and may raise. ``ValueError`` for bad
    images, an unusable cache folder, or a disk without room; nothing half-written stays in any of
    these cases.
    """
    folder = cache_folder(found, image_size, cache_dir)
    if cached := _load(folder, image_size):
        return cached
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            lock = FileLock(folder.with_name(folder.name + ".lock"))
            try:
                stack.enter_context(lock.acquire(timeout=2))
            except Timeout:
                log.warning("another process is decoding %s; waiting for it", found.path)
                stack.enter_context(lock.acquire())
            if cached := _load(folder, image_size):
                return cached
            for left in cache_dir.glob(f"{folder.name}.part-*"):
                shutil.rmtree(left, ignore_errors=True)
            _build(found, folder, image_size, check, progress)
    except (
        OSError,
        NotImplementedError,
    ) as error:  # the latter from a file system that has no locks
        reason = getattr(error, "strerror", None) or error
        raise ValueError(
            f"the cache folder {str(cache_dir)!r} must be writable and have room, got {reason}; "
            "free some space or name another folder in MDTHEORY_CACHE"
        ) from error
    built = _load(folder, image_size)
    if built is None:
        raise ValueError(
            f"the cache {str(folder)!r} must stay in place while it is read, got a changed one; "
            "start again"
        )
    return built


def _build(
    found: Found,
    folder: Path,
    image_size: int,
    check: Callable[[Mapping[str, str]], object],
    progress: Progress | None,
) -> None:
    items, payloads = open_items(found)
    listing, place = arrange(items, found.path)
    check(listing.own_split)
    image_bytes = image_size * image_size * 3
    needed, free = len(items) * image_bytes, shutil.disk_usage(folder.parent).free
    if needed + SPARE_BYTES > free:
        raise ValueError(
            f"the disk of {str(folder.parent)!r} must have room for the cache of "
            f"{needed / 1e9:.2f} "
            "GB, got "
            f"{free / 1e9:.2f} GB free; free some space or name another folder in MDTHEORY_CACHE"
        )
    part = Path(tempfile.mkdtemp(prefix=f"{folder.name}.part-", dir=folder.parent))
    try:
        with (part / "images.npy").open("wb") as file:
            shape = (len(items), image_size, image_size, 3)
            np.lib.format.write_array_header_1_0(
                file, {"descr": "|u1", "fortran_order": False, "shape": shape}
            )
            start = file.tell()

            def write(k: int, image: Pixels) -> None:
                file.seek(start + place[k] * image_bytes)
                file.write(image.tobytes())

            decode_all(
                items,
                payloads,
                image_size=image_size,
                write=write,
                path=found.path,
                progress=progress,
            )
            file.flush()
            os.fsync(file.fileno())
        (part / "index.json").write_text(json.dumps(_index(listing)), encoding="ascii")
        part.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _index(listing: Listing) -> dict[str, object]:
    files: dict[str, list[str]] = {name: [] for name in listing.own_split}
    for class_id, file in zip(listing.class_ids, listing.files, strict=True):
        files[class_id].append(file)
    return {"classes": [[name, listing.own_split[name], names] for name, names in files.items()]}


def _load(folder: Path, image_size: int) -> tuple[Pixels, Listing] | None:
    """A whole cache, or None where it is missing or damaged."""
    try:
        pixels = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        classes = json.loads((folder / "index.json").read_text(encoding="ascii"))["classes"]
        class_ids = tuple(name for name, _, names in classes for _ in names)
        files = tuple(file for _, _, names in classes for file in names)
        own = {name: split for name, split, _ in classes}
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    if pixels.dtype != np.uint8 or pixels.shape != (len(files), image_size, image_size, 3):
        return None
    return pixels, Listing(class_ids, files, own)
