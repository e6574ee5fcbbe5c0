"""What a reader of image files owes: it knows its own form by names alone, and lists every image
once.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mdtheory.contract.check import Finding, findings
from mdtheory.contract.setting import ContractViolation
from mdtheory.data.decode_all import decode_in_memory
from mdtheory.data.image_index import Found

Find = Callable[[Path], Found | None]


@dataclass(frozen=True)
class ReaderSetting:
    """A reader and images in its form."""

    find: Find
    path: Path

    def found(self) -> Found:
        """What the reader says of them."""
        found = self.find(self.path)
        if found is None:
            raise ContractViolation(
                f"a reader must know images in its own form, got None for {str(self.path)!r}; give "
                "--path a sample of that form"
            )
        return found


def knows(setting: ReaderSetting) -> None:
    """it knows its own form, and the same files give the same fingerprint"""
    first, again = setting.found(), setting.found()
    if first.stamps != again.stamps:
        raise ContractViolation(
            "the same files must give the same stamps, got others; take size and time from os.stat"
        )


def abstains(setting: ReaderSetting) -> None:
    """an empty folder, and one with other files, are left to other readers"""
    with tempfile.TemporaryDirectory() as folder:
        empty, other = Path(folder, "empty"), Path(folder, "other")
        empty.mkdir()
        other.mkdir()
        (other / "notes.txt").write_text("no image\n")
        for path in (empty, other):
            if setting.find(path) is not None:
                raise ContractViolation(
                    f"a reader must return None for a folder that is not of its form, got one for "
                    f"{path.name!r}; look for names that only your form has"
                )


def lists(setting: ReaderSetting) -> None:
    """every image is listed once and can be decoded"""
    pixels, listing = decode_in_memory(setting.found(), image_size=8)
    names = list(zip(listing.class_ids, listing.files, strict=True))
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None or len(pixels) != len(names) or not names:
        raise ContractViolation(
            f"every image must be listed once with its class, got {len(names)} names for "
            f"{len(pixels)} images{f', {twice} twice' if twice else ''}; correct the items"
        )


PROPERTIES: dict[str, Callable[[ReaderSetting], None]] = {
    each.__name__: each for each in (knows, abstains, lists)
}
"""Every property of a reader by name."""


def check_reader(find: Find, path: Path) -> Iterator[Finding]:
    """Every property in turn, on the images at ``path``."""
    return findings(lambda: [ReaderSetting(find, path)], PROPERTIES)
