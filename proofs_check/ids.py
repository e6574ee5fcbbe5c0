"""The statements on trial, read off the files of ``proofs_check/claims``: the poster's claims (C),
the theorems about its map (T), the repairs (R), and other papers'.

``c08a_implicit.py`` holds C08a, ``rb_certified_iaf.py`` RB. A long claim goes on in further files
of the same id, whose names come later in the alphabet.
"""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).with_name("claims")
_PREFIX = re.compile(r"([a-z]{1,2})(\d*)([a-z]?)_[a-z0-9_]+")
_ORDER = "CTR"


def id_of(stem: str) -> str:
    """The id that a file name stands for: ``c08a_implicit`` is C08a."""
    found = _PREFIX.fullmatch(stem)
    if found is None:
        raise ValueError(
            f"a claim's file must be named like c05_implicit_prior.py, got {stem}.py; rename it"
        )
    letters, digits, part = found.groups()
    return letters.upper() + digits + part


def by_order(name: str) -> tuple[int, str]:
    """The ledger's order: the poster, the theorems, the repairs, then other papers."""
    place = _ORDER.find(name[0])
    return (place if place >= 0 else len(_ORDER), name)


def files(folder: Path = FOLDER) -> dict[str, tuple[Path, ...]]:
    """The files of each id, in the ledger's order."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("[!_]*.py")):
        found.setdefault(id_of(path.stem), []).append(path)
    return {name: tuple(found[name]) for name in sorted(found, key=by_order)}


IDS = tuple(files())
