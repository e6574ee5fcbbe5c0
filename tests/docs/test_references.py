"""Every source that is named by a bibliography key stands in docs/references.bib, once."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, GUIDES, NOTEBOOKS

ROOT = DOCS.parent
KEY = re.compile(r"\b[a-z]+(?:18|19|20)\d\d[a-z]+\b")
KNOWN = re.findall(
    r"^@\w+\{(\w+),$", (DOCS / "references.bib").read_text(encoding="utf-8"), flags=re.MULTILINE
)
SOURCES = [
    *(path for folder in ("mdtheory", "proofs_check") for path in (ROOT / folder).rglob("*.py")),
    *GUIDES,
    *NOTEBOOKS,
]


def keys_of(path: Path) -> set[str]:
    return set(KEY.findall(path.read_text(encoding="utf-8")))


def test_every_key_is_known():
    used = {key: path.relative_to(ROOT).as_posix() for path in SOURCES for key in keys_of(path)}
    assert len(used) > 20
    assert {key: where for key, where in used.items() if key not in KNOWN} == {}


def test_no_entry_stands_twice():
    assert [key for key, n in Counter(KNOWN).items() if n > 1] == []


@pytest.mark.parametrize("text", ["see finn2017maml, eq. (1)", "source = 'beck2003mirror'"])
def test_keys_are_found(text):
    assert len(KEY.findall(text)) == 1


@pytest.mark.parametrize("text", ["released in 2017", "x1999", "torch2017", "C2001ab"])
def test_other_words_are_no_keys(text):
    assert KEY.findall(text) == []
