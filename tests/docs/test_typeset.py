"""Formulas in plain characters become TeX on the pages, and words do not."""

from __future__ import annotations

import json
import re
import sys

import pytest

from mdtheory.core.written import entries
from tests.docs.pages import DOCS

pytest.importorskip(
    "sphinxcontrib.bibtex", reason="the pages need Sphinx, which comes with mdtheory[docs]"
)
sys.path.insert(0, str(DOCS / "_ext"))

from mdtheory_pages import ledger
from mdtheory_pages.typeset import typeset

FORMULAS = {
    "an upper bound for 0 < alpha <= 1/L, as": r"an upper bound for $0 < \alpha \le 1/L$, as",
    "d >> N: rely on R": r"$d \gg N$: rely on R",
    "P^{-1}-weighted prox": "$P^{-1}$-weighted prox",
    "'grad h* = g is a choice'": r"'$\nabla h^* = g$ is a choice'",
    "phi_k = g(z_k), with g a map": r"$\phi_k = g(z_k)$, with g a map",
    "z - task_lr * grad L(phi_k)": r"$z - \mathtt{task\_lr} \, \nabla L(\phi_k)$",
    "R(phi; theta) = sum_i (phi_i - theta_i)^2": (
        r"$R(\phi; \theta) = \sum_i (\phi_i - \theta_i)^2$"
    ),
    "h = 1/2 ||.||^2, and ||phi||_p^2": (
        r"$h = 1/2 \lVert\cdot\rVert^2$, and $\lVert \phi\rVert_p^2$"
    ),
    "A = J J^T at phi_k, all k < K": r"$A = J J^\top$ at $\phi_k$, all $k < K$",
    "<= <g - g', Delta>": r"$\le \langle g - g', \Delta\rangle$",
    "grow by alpha (p - 2) a step": r"grow by $\alpha (p - 2)$ a step",
    "residual <= 1e-10": r"residual $\le 10^{-10}$",
    "stays theta's; see ``z_k``": "stays theta's; see ``z_k``",
    "I have a model, n_way classes, (a) or (b)": "I have a model, n_way classes, (a) or (b)",
    "$x_1$ is typeset, an x86-64 MiB": "$x_1$ is typeset, an x86-64 MiB",
}
PLAIN = re.compile(
    r"[\w)|]\^[-{\w(]|_\{|(^|\s)(<=|>=|>>|<<)\s|\bgrad [a-zA-Z]\b|(^|[^\w-])[A-Za-z]_[a-z0-9]\b"
    r"|\b(phi|theta|lambda|alpha|mu|psi|eps)(_\w|\b\s*[=<>])"
)
"""As in docs/check_site.js."""


@pytest.mark.parametrize(("plain", "typed"), FORMULAS.items())
def test_a_formula_is_typeset_and_words_are_not(plain, typed):
    assert typeset(plain) == typed
    assert typeset(typed) == typed


def said():
    """Every title, source and check of the ledger, and what geometries and maps say they do."""
    for row in json.loads((DOCS.parent / "proofs_check" / "ledger.json").read_text()):
        yield from (str(row["title"]), str(row["source"]))
        for check in row["checks"]:
            yield from (check["what"], *check["mutant_names"])
    for package in ("mdtheory.geometry", "mdtheory.maps"):
        yield from (entry.summary for entry in entries(package))


def test_titles_checks_and_geometries_hold_no_formula_in_plain_characters():
    texts = list(said())
    left = [re.sub(r"\$[^$]+\$|`+[^`]+`+", "@", typeset(text)) for text in texts]
    faults = [text for text in left if PLAIN.search(text)]
    assert faults == []
    assert sum(bool(PLAIN.search(text)) for text in texts) > 300  # the control: they were there


def test_every_formula_has_its_braces():
    for text in said():
        for formula in re.findall(r"\$([^$]+)\$", typeset(text)):
            assert formula.count("{") == formula.count("}"), formula
            assert not re.search(r"_\w+_|\^\w\^", formula.replace(r"\_", "")), formula


def test_the_ledger_marks_formulas_for_mathjax():
    assert ledger.in_html("d >> N & more") == (
        r'<span class="math notranslate nohighlight">\(d \gg N\)</span> &amp; more'
    )


def test_the_site_s_check_looks_for_the_same():
    script = (DOCS / "check_site.js").read_text()
    (found,) = re.findall(r"const ascii = new RegExp\(\[(.*?)\]\.map", script, re.DOTALL)
    parts = re.findall(r"/(.+?)/(?:, |,$|,?\s)", " ".join(found.split()) + " ")
    assert len(parts) == 6 and all(part in PLAIN.pattern for part in parts)
