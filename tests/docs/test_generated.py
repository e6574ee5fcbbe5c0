"""The generated pages: the ledger, claims, results and docstrings, on data that is awkward on
purpose.
"""

from __future__ import annotations

import json
import sys

import pytest

from tests.docs.pages import DOCS

pytest.importorskip(
    "sphinxcontrib.bibtex",
    reason="the generated pages need Sphinx, which comes with mdtheory[docs]",
)
sys.path.insert(0, str(DOCS / "_ext"))

from mdtheory_pages import api, gallery, ledger, results
from mdtheory_pages.files import Pages
from sphinx.application import Sphinx

from proofs_check.ids import IDS

CHECK = {
    "name": "closed_form",
    "kind": "symbolic",
    "about": "amended",
    "part": "quadratic",
    "refutes": False,
    "covers": "all",
    "drops": [],
    "rests_on": "",
    "what": "s_1 = alpha * beta, and |x|_2 < 1",
    "passed": True,
    "mutants": 2,
    "mutants_killed": 2,
    "mutant_names": ["exponent K + 1", "a_b"],
}
ROW = {
    "id": "C05",
    "as_printed": "FALSE",
    "amended": "PROVED",
    "status": "OK",
    "reasons": [],
    "parts": {
        "quadratic": {
            "verdict": "PROVED",
            "scope": "for all",
            "checks": ["closed_form"],
            "comparisons": 3,
            "page": "",
        }
    },
    "false_statements": 3,
    "false_statements_rejected": 3,
    "checks": [CHECK],
    "mutants": 2,
    "mutants_killed": 2,
    "quantities": {
        "lambda | K=5": {"value": 2.0, "exact": "2", "tolerance": 0.0, "meaning": "1/(alpha K)"}
    },
    "title": "MAML's implicit prior",
    "source": "a lemma",
    "uses": ["C07/a"],
    "remark": "",
    "printed": {"given": {}, "then": r"x\le 1", "parts": {}},
    "amended_statement": {
        "given": {"sum": r"S\succ0"},
        "then": r"y",
        "parts": {"quadratic": r"z^2"},
    },
}


def test_the_overview_has_every_claim_of_the_real_ledger():
    rows = json.loads((DOCS.parent / "proofs_check" / "ledger.json").read_text(encoding="utf-8"))
    page = ledger.overview(rows, ledger.notebooks_by_claim(DOCS / "notebooks"))
    assert [name for name in IDS if f'href="claims/{name.lower()}.html"' not in page] == []
    assert page.count("<tr><td>") == len(rows) == len(IDS)
    assert page.count('href="../notebooks/05_blockiaf.html"') >= 10


def test_every_claim_leads_to_proof_checks_file_and_figure():
    rows = json.loads((DOCS.parent / "proofs_check" / "ledger.json").read_text(encoding="utf-8"))
    told = ledger.notebooks_by_claim(DOCS / "notebooks")
    page = ledger.overview(rows, told)
    for name in (row["id"].lower() for row in rows):
        for place in ("proof", "checks", "file"):
            assert f'href="claims/{name}.html#{name}-{place}"' in page
    assert [row["id"] for row in rows if not told.get(row["id"])] == []
    drawings = {
        stem: (DOCS / "notebooks" / f"{stem}.py").read_text(encoding="utf-8")
        for one in told.values()
        for stem, _ in one
    }
    assert [stem for stem, text in drawings.items() if "plt.show()" not in text] == []


def test_a_claim_s_page_has_statement_proof_checks_and_quantities():
    file = DOCS.parent / "proofs_check" / "claims" / "c05_implicit_prior.py"
    page = ledger.claim_page(
        ROW, [file], [("07_implicit_prior", "The implicit prior of MAML")], ["c05_prior.png"]
    )
    for part in (
        r"$$" + "\n" + r"x\le 1",
        r"- sum: $S\succ0$",
        r"- (quadratic) $z^2$",
        "Uses {claim}`C07` part a",
        "[The implicit prior of MAML](/notebooks/07_implicit_prior.py)",
        "/figures/c05_prior.png",
        "*Proof of (quadratic).*",
        r"$s_1 = \alpha \, \beta$, and $\vert x\vert _2 < 1$",
        "2 of 2",
        "| quadratic | PROVED | for all | `closed_form` | 3 |",
        r"| $\lambda$ \| $K=5$ | 2 | `2` |",
        "literalinclude} /../proofs_check/claims/c05_implicit_prior.py",
    ):
        assert part in page, part


def test_a_long_formula_is_broken_at_its_wide_spaces_and_nowhere_else():
    long = r"a" * 60 + r";\quad " + "b" * 60
    assert (
        ledger.broken(long)
        == r"\begin{gathered}" + "a" * 60 + r";\\" + "b" * 60 + r"\end{gathered}"
    )
    for whole in (r"a;\quad b", "a" * 200, r"\text{" + "a" * 60 + r";\quad " + "b" * 60 + "}"):
        assert ledger.broken(whole) == whole


def test_a_claim_without_a_file_says_so():
    bare = {**ROW, "checks": [], "quantities": {}, "status": "NOT_RUN", "title": None}
    for key in ("printed", "amended_statement", "uses", "source"):
        del bare[key]
    page = ledger.claim_page(bare, [], [], [])
    assert "not yet written down" in page and "## Proof" not in page


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("the norm |x|_p of s * g", r"the norm :math:`\vert x\vert _p` of s \* g"),
        ("*not* this", "*not* this"),
        ("a ``b_c`` and :func:`~m.f`", "a ``b_c`` and :func:`~m.f`"),
        ("one `x_` two_", r"one `x_` two\_"),
        (
            "Then\n\n    A = B_1 * C\n\nholds",
            "Then\n\n.. code-block:: none\n\n    A = B_1 * C\n\nholds",
        ),
        (">>> f(*x)\n1", ">>> f(*x)\n1"),
        ("finn2017maml, eq. (1)", ":cite:`finn2017maml`, eq. (1)"),
    ],
)
def test_docstrings_become_safe_for_restructured_text(text, safe):
    assert api.safe(text) == safe


def test_keys_become_citations_in_claims_but_not_in_code():
    text = "a_b by some_name of li2017metasgd, `li2017metasgd`"
    assert ledger.markdown(text) == r"$a_b$ by some\_name of {cite}`li2017metasgd`, `li2017metasgd`"
    assert ledger.cell("see finn2017maml | eq. (1)") == r"see {cite}`finn2017maml` \| eq. (1)"


def build(folder, text: str) -> tuple[int, str]:
    """The status and the plain text of a site with one page and our bibliography."""
    (folder / "references.bib").write_bytes((DOCS / "references.bib").read_bytes())
    (folder / "index.rst").write_text(f"T\n=\n\n{text}\n\n.. bibliography::\n   :all:\n")
    (folder / "conf.py").write_text(
        "from mdtheory_pages import bibliography\nsetup = bibliography.add\n"
    )
    out = folder / "out"
    app = Sphinx(folder, folder, out, folder / "trees", "text", warningiserror=True)
    app.build()
    return app.statuscode, " ".join((out / "index.txt").read_text(encoding="utf-8").split())


def test_entries_keep_their_capitals_and_citations_have_no_brackets(tmp_path):
    cited = ":cite:`finn2017maml`, :cite:`shalev2012online`, :cite:`attouch2009convergence`"
    status, text = build(tmp_path, f"by {cited}.")
    assert status == 0
    assert "by Finn *et al.*, 2017, Shalev-Shwartz, 2012, Attouch and Bolte, 2009." in text
    assert "[arnold2021kfo] Sébastien" in text
    assert "*Operations Research Letters*, 31(3), 2003." in text
    assert "When MAML Can Adapt Fast and How to Assist When It Cannot" in text


def test_a_key_that_nobody_knows_fails_the_build(tmp_path):
    assert build(tmp_path, ":cite:`nobody2000nothing`")[0] == 1


def test_results_without_records_say_so(tmp_path):
    results.write(Pages(tmp_path / "out"), tmp_path / "experiments")
    assert "No record is here yet" in (tmp_path / "out" / "results" / "index.md").read_text()


def test_results_keep_pictures_and_pages_and_drop_other_links(tmp_path):
    made = tmp_path / "experiments" / "results"
    made.mkdir(parents=True)
    (made / "index.md").write_text(
        "# Results\n\n[smoke](smoke.md) [record](../records/x) [out](https://example.org)\n"
    )
    (made / "smoke.md").write_text("![paths](a.svg) ![gone](b.svg)\n")
    (made / "a.svg").write_text("<svg/>")
    pages = Pages(tmp_path / "out")
    results.write(pages, tmp_path / "experiments")
    index = (tmp_path / "out" / "results" / "index.md").read_text()
    assert "[smoke](smoke.md) record [out](https://example.org)" in index and "\nsmoke\n" in index
    assert (tmp_path / "out" / "results" / "smoke.md").read_text() == "![paths](a.svg) gone\n"
    assert (tmp_path / "out" / "results" / "a.svg").read_text() == "<svg/>"


def test_what_is_no_longer_generated_is_removed(tmp_path):
    old = Pages(tmp_path)
    old.write("a.md", "1")
    old.write("b.md", "2")
    stamp = (tmp_path / "a.md").stat().st_mtime_ns
    new = Pages(tmp_path)
    new.write("a.md", "1")
    new.remove_others()
    assert (tmp_path / "a.md").stat().st_mtime_ns == stamp
    assert not (tmp_path / "b.md").exists()


def test_a_page_of_the_gallery_is_a_notebook_with_the_same_code():
    page = DOCS / "gallery" / "simplex.py"
    made = json.loads(gallery.notebook(page))
    assert gallery.notebook(page) == gallery.notebook(page)
    code = ["".join(cell["source"]) for cell in made["cells"] if cell["cell_type"] == "code"]
    assert "google.colab" in code[0]
    lines = page.read_text().splitlines()
    assert all(line in lines for cell in code for line in cell.splitlines())
    assert made["metadata"]["kernelspec"]["name"] == "python3"
