"""The 46 statements on trial: the poster's claims, the theorems about its map, and the repairs."""

from __future__ import annotations

_SPLIT = {8: ("C08a", "C08b"), 24: ("C24a", "C24b")}
POSTER = tuple(name for n in range(1, 33) for name in _SPLIT.get(n, (f"C{n:02d}",)))
THEOREMS = tuple(f"T{n}" for n in range(1, 8))
REPAIRS = ("RA1", "RA2", "RB", "RC", "RD")
IDS = POSTER + THEOREMS + REPAIRS
