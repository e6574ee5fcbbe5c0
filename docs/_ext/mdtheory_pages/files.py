"""A folder of generated pages that keeps what has not changed, so that Sphinx does not read it
again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Pages:
    """Files below ``folder``; :meth:`remove_others` deletes what this run did not write."""

    folder: Path
    written: set[Path] = field(default_factory=set)

    def write(self, name: str, text: str) -> None:
        """Write a page."""
        self.copy(name, text.encode())

    def copy(self, name: str, content: bytes) -> None:
        """Write ``folder/name`` unless it holds this content already."""
        path = self.folder / name
        self.written.add(path)
        if path.exists() and path.read_bytes() == content:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def remove_others(self) -> None:
        """Delete every file of the folder that was not written."""
        for path in self.folder.rglob("*"):
            if path.is_file() and path not in self.written:
                path.unlink()
