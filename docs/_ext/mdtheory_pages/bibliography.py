"""How sphinxcontrib-bibtex prints ``references.bib``: "Finn et al., 2017" in a text, the key as the
label of the entry.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pybtex.plugin import register_plugin
from pybtex.style import labels
from pybtex.style.formatting import toplevel
from pybtex.style.formatting.unsrt import Style as Unsorted
from pybtex.style.template import field as bib_field, optional, optional_field, sentence, tag
from sphinx.application import Sphinx
from sphinxcontrib.bibtex.plugin import register_plugin as register_reference_style
from sphinxcontrib.bibtex.style.referencing import BracketStyle
from sphinxcontrib.bibtex.style.referencing.author_year import AuthorYearReferenceStyle

KEY = re.compile(r"\b[a-z]+(?:18|19|20)\d\d[a-z]+\b")


def cited(text: str, role: str) -> str:
    """The text with every key as a citation; ``role``: how the markup writes the role's name."""
    return KEY.sub(lambda key: f"{role}`{key[0]}`", text)


class KeyLabels(labels.BaseLabelStyle):
    """Entries are labelled with their keys, as they stand in docstrings and claims."""

    def format_labels(self, sorted_entries: list[Any]) -> Iterator[str]:
        """The keys."""
        return (entry.key for entry in sorted_entries)


class Entries(Unsorted):
    """By author and year; titles keep their capitals."""

    default_label_style = KeyLabels
    default_sorting_style = "author_year_title"

    def format_title(self, e: Any, which_field: str, as_sentence: bool = True) -> Any:
        """A title, emphasised."""
        title = tag("em")[bib_field(which_field)]
        return sentence[title] if as_sentence else title

    format_btitle = format_title

    def get_article_template(self, e: Any) -> Any:
        """An article; one with a volume need not have pages."""
        where = sentence[
            tag("em")[bib_field("journal")],
            optional_field("volume"),
            optional["pages ", bib_field("pages")],
            bib_field("year"),
        ]
        names, title = self.format_names("author"), self.format_title(e, "title")
        return toplevel[names, title, where, sentence[optional_field("note")]]


def _bare() -> BracketStyle:
    return BracketStyle(left="", right="")


@dataclass
class AuthorYear(AuthorYearReferenceStyle):
    """Author and year without brackets, which the sentence has where it needs them."""

    bracket_parenthetical: BracketStyle = field(default_factory=_bare)


def add(app: Sphinx) -> None:
    """Choose these styles."""
    register_plugin("pybtex.style.formatting", "mdtheory", Entries)
    register_reference_style("sphinxcontrib.bibtex.style.referencing", "mdtheory", AuthorYear)
    app.setup_extension("sphinxcontrib.bibtex")
    app.config.bibtex_default_style = app.config.bibtex_reference_style = "mdtheory"
    app.config.bibtex_bibfiles = ["references.bib"]
