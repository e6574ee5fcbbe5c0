"""How the site is made: pages that are written, pages that are generated, and notebooks that run at
every build.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # notebooks run beside each other

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(HERE / "_ext"))
FOR_KERNELS = [str(HERE / "_kernel"), str(ROOT), os.environ.get("PYTHONPATH", "")]
os.environ["PYTHONPATH"] = os.pathsep.join(FOR_KERNELS).rstrip(os.pathsep)

import mdtheory

project = "mdtheory"
author = "The mdtheory authors"
project_copyright = author
version = release = mdtheory.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "sphinx_design",
    "mdtheory_pages",
]
# MathJax from the package, so that formulas need no network; without the package, Sphinx's default
# address
OFFLINE_MATHJAX = "sphinx-mathjax-offline"
if find_spec(OFFLINE_MATHJAX) is not None:
    extensions.append(OFFLINE_MATHJAX)

exclude_patterns = [
    "_build",
    "_ext",
    "_kernel",
    "conf.py",
    "check_site.py",
    "how-to/momentum.py",
    "how-to/tracker.py",
    "how-to/w1_means.py",
]
templates_path = ["_templates"]
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "attrs_inline", "deflist"]
myst_heading_anchors = 3
mathjax3_config = {
    "loader": {"load": ["[tex]/mathtools"]},
    "tex": {
        "packages": {
            "[+]": ["mathtools"],
            "[-]": ["noundefined"],
        },  # an unknown command is an error, not red letters
        "macros": {
            "R": r"\mathbb{R}",
            "norm": [r"\lVert#1\rVert", 1],
            "sym": r"\operatorname{sym}",
        },
    },
}


def code_digest() -> str:
    """A digest of all code that the notebooks run, so that a change of the library runs them
    again.
    """
    digest = hashlib.sha256()
    for folder in ("mdtheory", "proofs_check"):
        for path in sorted([*(ROOT / folder).rglob("*.py"), *(ROOT / folder).rglob("*.cpp")]):
            digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def fresh_cache(folder: Path) -> Path:
    """The folder of this code's results; those of other code are removed."""
    mine = folder / code_digest()
    for other in folder.glob("*"):
        if other.is_dir() and other != mine:
            shutil.rmtree(other, ignore_errors=True)
    return mine


nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_mode = "cache"
nb_execution_cache_path = str(fresh_cache(ROOT / ".jupyter_cache"))
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_execution_excludepatterns = ["*.md"]
nb_output_stderr = "error"  # a warning on a page is a fault of the page
nb_merge_streams = True
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"

autodoc_inherit_docstrings = (
    False  # an override without words of its own is documented where it is declared
)
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
autodoc_type_aliases = {
    name: name for name in ("Params", "State", "LossFunction", "Operator", "Partition", "ScaleForm")
}
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
add_module_names = False
toc_object_entries_show_parents = "hide"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "furo"
html_title = "mdtheory"
html_static_path = ["_static"]
html_favicon = "_static/favicon.svg"
html_css_files = ["site.css"]
html_js_files = ["punctuation.js"]
html_show_sphinx = False
html_copy_source = False
