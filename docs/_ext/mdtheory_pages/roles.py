"""A role: ``{claim}`C05``` links to a claim."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxRole


class ClaimRole(SphinxRole):
    """A link to the claim's page: its id and what it is as printed."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        docs = Path(self.env.srcdir)
        verdicts = {
            row["id"]: row
            for row in json.loads((docs.parent / self.config.mdtheory_ledger).read_text())
        }
        if self.text not in verdicts:
            raise ValueError(
                f"claim must be one of the ledger's ids, got {self.text!r}; correct it"
            )
        return [_reference(self, f"claim-{self.text.lower()}", self.text)], []


def _reference(role: SphinxRole, target: str, text: str) -> nodes.Node:
    options: dict[str, Any] = {
        "refdomain": "std",
        "reftype": "ref",
        "reftarget": target,
        "refexplicit": True,
        "refwarn": True,
    }
    reference = addnodes.pending_xref("", refdoc=role.env.docname, **options)
    reference += nodes.inline(text, text, classes=["std", "std-ref"])
    return reference


def add(app: Sphinx) -> None:
    """Make the role known."""
    app.add_role("claim", ClaimRole())
