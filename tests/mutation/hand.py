"""Mutants written by hand: the critical formulas, each broken in the way a person would break
it.
"""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIST = Path(__file__).with_name("hand.toml")


@dataclass(frozen=True)
class HandMade:
    """``old`` becomes ``new`` in ``path``; ``formula`` says what that breaks."""

    name: str
    path: str
    formula: str
    old: str
    new: str

    @property
    def key(self) -> str:
        """A digest of the change."""
        return hashlib.sha256("\0".join((self.path, self.old, self.new)).encode()).hexdigest()[:12]

    def planted(self) -> str:
        """The whole file with the change. ``ValueError`` unless ``old`` is in the file exactly
        once.
        """
        text = (ROOT / self.path).read_text()
        if (count := text.count(self.old)) != 1:
            raise ValueError(
                f"{self.name}: old must occur exactly once in {self.path}, got {count} times; "
                f"correct {LIST.name}"
            )
        return text.replace(self.old, self.new)

    def span(self) -> tuple[int, int]:
        """The lines of the change; a constant of the module counts as the whole file."""
        text = (ROOT / self.path).read_text()
        before = text[: text.index(self.old)]
        if before.endswith("\n") and not self.old.startswith(" "):
            return 1, len(text.splitlines())
        first = before.count("\n") + 1
        return first, first + self.old.rstrip("\n").count("\n")


def hand_made() -> list[HandMade]:
    """The list, in the order of the file."""
    return [HandMade(**entry) for entry in tomllib.loads(LIST.read_text())["mutant"]]
