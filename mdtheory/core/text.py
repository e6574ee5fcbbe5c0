"""Foreign text made harmless before it reaches a terminal, a table or a picture."""

from __future__ import annotations

import unicodedata

_MOVES = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")
"""Characters that change the direction of writing, so that a name reads as another."""

_FORMULA = ("=", "+", "-", "@")


def printable(text: str) -> str:
    """``text`` with control characters, lone surrogates, line breaks and changes of direction
    written as escapes: what remains moves no cursor, fits one line, and encodes as UTF-8.

    >>> printable("cat\\x1b[2J\\n")
    'cat\\\\x1b[2J\\\\n'
    """
    return "".join(
        c.encode("unicode_escape").decode("ascii")
        if c in _MOVES or unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")
        else c
        for c in text
    )


def csv_cell(text: str) -> str:
    """:func:`printable` text that no spreadsheet takes for a formula: an apostrophe stands before
    what begins with ``=``, ``+``, ``-`` or ``@`` (also behind blanks, or as a wide character).

    >>> csv_cell("=1+1")
    "'=1+1"
    """
    shown = printable(text)
    first = unicodedata.normalize("NFKC", shown).lstrip()[:1]
    return "'" + shown if first in _FORMULA or text[:1] in ("\t", "\r", "\n") else shown
