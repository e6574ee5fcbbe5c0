"""Images decoded once into a file of uint8 pixels that every later start, and every process,
shares.

A cache is a folder ``<name>-<size>-<key>`` with ``images.npy``, ``hashes.npy`` (one hash per image)
and ``index.json``, which holds the digest of the hashes and one of itself. It is written under
another name, flushed, and renamed, all under a lock: a reader sees a whole cache or none. The key
is a sha256 over path, form and the (name, bytes, mtime) of every file, so an edited source is
decoded anew and the old cache is left for the user to remove. A source whose files kept name, size
and mtime but were written to since (their ctime differs) is decoded anew in place.

Nothing in a cache is believed: a wrong index or wrong hashes are decoded anew, pixels are compared
with their hashes whenever they are read (those of a small cache at once, too).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import tokenize
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from mdtheory.core.progress import Progress
from mdtheory.data.decode_all import decode_all
from mdtheory.data.files import open_regular
from mdtheory.data.image_index import Found, Listing, Pixels, arrange, open_items
from mdtheory.data.stored_pixels import HASH_BYTES, StoredPixels, digest_of, hash_of

VERSION = 2
"""Part of the key: raised whenever decoding or the layout changes."""

SMALL = 64 << 20
"""Bytes of pixels up to which a cache is checked whole whenever it is opened."""

SPARE_BYTES = 64 << 20
"""Free space that must remain on the disk beside a new cache."""

log = logging.getLogger(__name__)


def cache_folder(found: Found, image_size: int, cache_dir: Path) -> Path:
    """The folder that the cache of these files at this size has, or will have."""
    parts = [
        VERSION,
        found.form,
        str(found.path.resolve()),
        sorted(stamp[:3] for stamp in found.stamps),
    ]
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
) -> tuple[StoredPixels, Listing]:
    """Pixels (N, image_size, image_size, 3), read from the cache as they are asked for, and their
    listing; decoded first where no cache is.

    ``check(own_split)`` runs before anything is decoded and may raise. ``ValueError`` for bad
    images, an unusable cache folder, or a disk without room; nothing half-written stays in any of
    these cases.
    """
    folder = cache_folder(found, image_size, cache_dir)
    if cached := _load(found, folder, image_size):
        return cached
    if folder.exists():
        log.warning("the cache %r is damaged or older than its source: decoding anew", str(folder))
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            lock = FileLock(folder.with_name(folder.name + ".lock"))
            try:
                stack.enter_context(lock.acquire(timeout=2))
            except Timeout:
                log.warning("another process is decoding %s; waiting for it", found.path)
                stack.enter_context(lock.acquire())
            if cached := _load(found, folder, image_size):
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
    built = _load(found, folder, image_size)
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
            hashes = np.zeros((len(items), HASH_BYTES), dtype=np.uint8)
            np.lib.format.write_array_header_1_0(
                file, {"descr": "|u1", "fortran_order": False, "shape": shape}
            )
            start = file.tell()

            def write(k: int, image: Pixels) -> None:
                file.seek(start + place[k] * image_bytes)
                file.write(image.tobytes())
                hashes[place[k]] = np.frombuffer(hash_of(image), dtype=np.uint8)

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
        with (part / "hashes.npy").open("wb") as file:
            np.save(file, hashes)
            file.flush()
            os.fsync(file.fileno())
        with (part / "index.json").open("w", encoding="ascii") as text:
            json.dump(_index(found, listing, digest_of(hashes, shape[1:])), text)
            text.flush()
            os.fsync(text.fileno())
        part.chmod(0o755)
        if folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder, ignore_errors=True)
        else:  # a file, or a link, of this name
            folder.unlink(missing_ok=True)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _index(found: Found, listing: Listing, pixels_digest: str) -> dict[str, object]:
    files: dict[str, list[str]] = {name: [] for name in listing.own_split}
    for class_id, file in zip(listing.class_ids, listing.files, strict=True):
        files[class_id].append(file)
    content: dict[str, object] = {
        "classes": [[name, listing.own_split[name], names] for name, names in files.items()],
        "pixels_digest": pixels_digest,
        "written": _written(found),
    }
    return {**content, "check": _digest(content)}


def _written(found: Found) -> str:
    """When the files of a source were last written to, as a digest of their ctimes."""
    return _digest(sorted((stamp[0], *stamp[3:]) for stamp in found.stamps))


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _load(found: Found, folder: Path, image_size: int) -> tuple[StoredPixels, Listing] | None:
    """A whole cache of what was found, or None where it is missing, damaged or out of date."""
    try:
        with open_regular(folder / "index.json") as file:
            index = json.load(file)
        check = index.pop("check")
        if check != _digest(index) or index["written"] != _written(found):
            return None
        with open_regular(folder / "hashes.npy") as file:
            hashes = np.load(file, allow_pickle=False)
        pixels = StoredPixels(folder / "images.npy", hashes)
        if pixels.shape[1:] != (image_size, image_size, 3):
            return None
        if digest_of(hashes, pixels.shape[1:]) != index["pixels_digest"]:
            return None
        if len(pixels) * image_size * image_size * 3 <= SMALL:
            pixels.check()
        classes = index["classes"]
        class_ids = tuple(name for name, _, names in classes for _ in names)
        files = tuple(file for _, _, names in classes for file in names)
        own = {name: split for name, split, _ in classes}
    except _BROKEN:
        return None
    return (pixels, Listing(class_ids, files, own)) if len(files) == len(pixels) else None


_BROKEN = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    EOFError,
    SyntaxError,
    RecursionError,
    MemoryError,
    tokenize.TokenError,
)
"""What a damaged cache makes json and numpy raise."""
