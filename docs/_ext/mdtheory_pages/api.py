"""The API reference: one page per package, every public name by autodoc, docstrings made safe for
reStructuredText.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from typing import Any

from mdtheory_pages.bibliography import KEY
from mdtheory_pages.files import Pages

PACKAGES = {
    "core": (
        "mdtheory.core.types",
        "mdtheory.core.tree",
        "mdtheory.core.seeding",
        "mdtheory.core.registry",
        "mdtheory.core.objectives",
    ),
    "maps": "mdtheory.maps",
    "geometry": "mdtheory.geometry",
    "inner": "mdtheory.inner",
    "meta": "mdtheory.meta",
    "contract": "mdtheory.contract",
    "models": "mdtheory.models",
    "data": "mdtheory.data",
    "config": "mdtheory.config",
    "referee": ("proofs_check.claim", "proofs_check.verdict", "proofs_check.tools.models"),
}
TITLES = {
    "core": "Nouns and trees",
    "maps": "mdtheory.maps: between the dual variable and the point",
    "geometry": "mdtheory.geometry: how a gradient moves the state",
    "inner": "mdtheory.inner: the task level",
    "meta": "mdtheory.meta: the meta level",
    "contract": "mdtheory.contract: what every geometry owes",
    "models": "mdtheory.models: networks",
    "data": "mdtheory.data: images, episodes, synthetic tasks",
    "config": "mdtheory.config: a run as a file",
    "referee": "proofs_check: the referee",
}


def modules(package: str | tuple[str, ...]) -> list[str]:
    """The modules of a package, itself first; private ones are left out."""
    if isinstance(package, tuple):
        return list(package)
    found = pkgutil.walk_packages(importlib.import_module(package).__path__, package + ".")
    return [package, *sorted(module.name for module in found if "._" not in module.name)]


def write(pages: Pages) -> None:
    """One page per package and a page that lists them."""
    for name, package in PACKAGES.items():
        lines = [TITLES[name], "=" * len(TITLES[name]), ""]
        for module in modules(package):
            lines += [module, "-" * len(module), "", f".. automodule:: {module}"]
            if not hasattr(importlib.import_module(module), "__path__"):
                lines += ["   :members:", "   :show-inheritance:", "   :ignore-module-all:"]
            lines.append("")
        pages.write(f"api/{name}.rst", "\n".join(lines))
    names = "\n".join(PACKAGES)
    pages.write(
        "api/index.md",
        (
            "# API\n\nEvery public name, with formula, shapes and "
            f"source.\n\n```{{toctree}}\n:maxdepth: 1\n\n{names}\n```\n"
        ),
    )


def process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are plain text with formulas and a few roles; escape what reStructuredText would
    misread.
    """
    lines[:] = safe("\n".join(lines)).split("\n")


_KEEP = re.compile(r"``.+?``|:[\w:]+:`[^`]+`|`[^`]+`(?!`)", re.DOTALL)
_EMPHASIS = re.compile(r"(?<![\w*\\])\*(\w[^*\n]{0,60}?\w|\w)\*(?![\w*])")


def safe(text: str) -> str:
    """The text with indented paragraphs as literal blocks and everything that is not markup
    escaped.
    """
    blocks = re.split(r"(\n\s*\n)", text)
    return "".join(block if i % 2 else _block(block) for i, block in enumerate(blocks))


def _block(block: str) -> str:
    lines = block.split("\n")
    filled = [line for line in lines if line.strip()]
    if not filled or filled[0].lstrip().startswith(">>>"):
        return block
    if all(line.startswith("    ") for line in filled):
        return ".. code-block:: none\n\n" + block
    return _inline(block[:-1] if block.endswith("::") else block)


def _inline(text: str) -> str:
    pieces, last = [], 0
    for kept in _KEEP.finditer(text):
        pieces += [_plain(text[last : kept.start()]), kept[0]]
        last = kept.end()
    return "".join([*pieces, _plain(text[last:])])


def _plain(text: str) -> str:
    pieces, last = [], 0
    for word in _EMPHASIS.finditer(text):
        pieces += [_escape(text[last : word.start()]), word[0]]
        last = word.end()
    return "".join([*pieces, _escape(text[last:])])


def _escape(text: str) -> str:
    escaped = re.sub(r"([\\*|_`])", r"\\\1", text)
    return KEY.sub(lambda key: f":ref:`{key[0]} <bib-{key[0]}>`", escaped)
