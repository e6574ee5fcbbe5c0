"""The pages of the gallery as notebooks beside them, for Colab and Jupyter."""

from __future__ import annotations

from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxRole


class GalleryRole(SphinxRole):
    """``{gallery}`letters``` links to the notebook of that page."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        if not (Path(self.env.srcdir) / "gallery" / f"{self.text}.py").is_file():
            raise ValueError(f"gallery must be the name of one of its pages, got {self.text!r}")
        return [nodes.reference("", f"{self.text}.ipynb", refuri=f"{self.text}.ipynb")], []


def notebook(page: Path) -> str:
    """The page as an .ipynb without results, the same text every time."""
    import jupytext

    read = jupytext.read(page, fmt="py:percent")
    for place, cell in enumerate(read.cells):
        cell["id"] = f"cell-{place}"
    read.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python"}}
    read.metadata["kernelspec"]["name"] = "python3"
    return jupytext.writes(read, fmt="ipynb")


def write(app: Sphinx, error: Exception | None) -> None:
    """``gallery/<page>.ipynb`` into the finished site."""
    if error is not None or app.builder.format != "html":
        return
    folder = Path(app.outdir) / "gallery"
    folder.mkdir(exist_ok=True)
    for page in sorted((Path(app.srcdir) / "gallery").glob("*.py")):
        (folder / f"{page.stem}.ipynb").write_text(notebook(page), encoding="utf-8")


def add(app: Sphinx) -> None:
    """Make the role known, and write the notebooks at the end."""
    app.add_role("gallery", GalleryRole())
    app.connect("build-finished", write)
