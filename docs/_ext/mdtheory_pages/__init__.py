"""The generated pages: the ledger, the reference and the results. Written before
Sphinx reads anything.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from mdtheory_pages import api, bibliography, gallery, ledger, poster, results, roles, tables
from mdtheory_pages.files import Pages


def generate(app: Sphinx) -> None:
    """Write every generated page; what is no longer wanted is removed, what has not changed is not
    touched.
    """
    docs = Path(app.srcdir)
    pages = Pages(docs / "generated")
    judged = docs.parent / app.config.mdtheory_ledger
    ledger.write(pages, docs, judged)
    poster.write(pages, judged)
    tables.write(pages)
    api.write(pages)
    results.write(pages, docs.parent / "experiments")
    pages.remove_others()


def plain_title(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """The name of the browser's tab in plain characters, where the heading has a formula."""
    title = str(context.get("title", ""))
    for command, sign in {
        **{r"\gg": "≫", r"\le": "≤", r"\alpha": "α", r"\varepsilon": "ε", r"\nabla ": "∇"},
        **{r"\(": "", r"\)": "", "{": "", "}": ""},
    }.items():
        title = title.replace(command, sign)
    context["title"] = title


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.add_config_value("mdtheory_ledger", "proofs_check/ledger.json", "env")
    app.connect("builder-inited", generate)
    app.connect("autodoc-process-docstring", api.process)
    app.connect("autodoc-process-signature", api.signature)
    app.connect("html-page-context", plain_title)
    app.set_html_assets_policy("always")  # the list of pages has formulas, and it is on every page
    roles.add(app)
    gallery.add(app)
    bibliography.add(app)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
