"""The ledger page with its filter, and one page per claim: statements, proof, checks, quantities
and the file itself.
"""

from __future__ import annotations

import ast
import html
import json
import re
from pathlib import Path
from typing import Any

from mdtheory_pages.bibliography import cited
from mdtheory_pages.files import Pages
from mdtheory_pages.typeset import typeset
from proofs_check.statement import COVERS, ENOUGH, SCOPES, STRENGTHS

Row = dict[str, Any]
Told = dict[str, list[tuple[str, str]]]
WORDS = {
    "HOLDS": "true as printed",
    "NEEDS_CONDITIONS": "true under conditions that are not printed",
    "FALSE": "false as printed",
    "EMPIRICAL": "a statement about measurements",
    **STRENGTHS,
    "OK": "the verdict is the expected one, and every check can fail",
    "NOT_RUN": "not executed when this file was made",
    "INCONSISTENT": "something about this claim surprised the referee",
}
FILTER = """```{raw} html
<form class="ledger-filter" id="ledger-filter" hidden>
<label>as printed <select name="printed"><option value="">all</option></select></label>
<label>amended <select name="amended"><option value="">all</option></select></label>
<label>status <select name="status"><option value="">all</option></select></label>
<output></output>
</form>
```
"""
SCRIPT = """```{raw} html
<script>
(() => {
  const form = document.getElementById("ledger-filter"), output = form.querySelector("output");
  const rows = [...document.querySelectorAll("table.ledger tbody tr")];
  const columns = {printed: 2, amended: 3, status: 7};
  const text = (row, name) => row.cells[columns[name]].textContent.trim();
  for (const name in columns) {
    const select = form.elements[name];
    for (const value of [...new Set(rows.map(row => text(row, name)))].sort())
      select.add(new Option(value, value));
    select.value = new URLSearchParams(location.search).get(name) ?? "";
    if (select.selectedIndex < 0) select.value = "";
  }
  const show = () => {
    let shown = 0;
    for (const row of rows) {
      const fits = Object.keys(columns).every(
        name => ["", text(row, name)].includes(form.elements[name].value));
      row.hidden = !fits;
      shown += fits;
    }
    output.value = `${shown} of ${rows.length} claims`;
  };
  form.addEventListener("change", show);
  form.hidden = false;
  show();
})();
</script>
```
"""


def badge(verdict: str) -> str:
    """A coloured word."""
    return f'<span class="verdict {verdict}" title="{WORDS[verdict]}">{verdict}</span>'


def write(pages: Pages, docs: Path, path: Path) -> None:
    """``ledger.md`` and ``claims/<id>.md`` for every row of the ledger."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    files: dict[str, list[Path]] = {}
    for name in sorted((docs.parent / "proofs_check" / "claims").glob("*_*.py")):
        files.setdefault(name.stem.split("_")[0], []).append(name)
    told = notebooks_by_claim(docs / "notebooks")
    for row in rows:
        slug = row["id"].lower()
        pictures = sorted(
            name.name
            for name in (docs / "figures").glob(f"{slug}[_.-]*")
            if name.suffix in (".png", ".svg")
        )
        page = claim_page(row, files.get(slug, []), told.get(row["id"], []), pictures)
        pages.write(f"claims/{slug}.md", page)
    pages.write("ledger.md", overview(rows, told))


def overview(rows: list[Row], told: Told) -> str:
    """The table of all claims; ``told``: the notebooks that derive and draw each."""
    lines = [
        "# The referee's ledger\n",
        "Every mathematical statement of the {cite}`zhang2024metamida` poster, the theorems about "
        "its map (T1 to T7), the repairs proposed here (RA1 to RE), and statements of other papers "
        "(F1, M1). A verdict is computed from checks that run; each check "
        "also runs on *mutants*, "
        "deliberately broken versions on which it must fail. `python -m proofs_check` makes this "
        "table.\n",
        "- **as printed**: what the statement is, word for word (the project's own, T and R: as "
        "stated here). **amended**: how well the "
        "corrected one is established.\n"
        "- **killed**: mutants rejected, of all mutants; a check that lets one pass counts for "
        "nothing. **false**: statements with a constant halved, an exponent changed, a relation "
        "turned round or a condition dropped, and how many of them were rejected. The id leads to "
        "the claim's own page with statement, proof, checks, quantities and the file itself.\n"
        "- **drawn on**: the page of the theory that tells and draws it.\n",
        FILTER,
        '```{raw} html\n<table class="docutils wide '
        'ledger"><thead><tr><th>id</th><th>claim</th><th>as printed</th>'
        "<th>amended</th><th>checks</th><th>killed</th><th>false</th><th>status</th><th>drawn "
        "on</th></tr></thead><tbody>",
    ]
    for row in rows:
        link = (
            f'<a class="reference internal" href="claims/{row["id"].lower()}.html">{row["id"]}</a>'
        )
        cells = [
            link,
            in_html(title_of(row)) + places(row),
            badge(row["as_printed"]),
            badge(row["amended"]),
            str(len(row["checks"])),
        ]
        cells += [
            f"{row['mutants_killed']}/{row['mutants']}",
            f"{row['false_statements_rejected']}/{row['false_statements']}",
            badge(row["status"]),
            drawn(told.get(row["id"], [])),
        ]
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    lines.append("</tbody></table>\n```\n")
    lines.append(SCRIPT)
    lines.append("## The words\n")
    lines += [f"`{word}`\n: {meaning}.\n" for word, meaning in WORDS.items()]
    lines.append(
        "Every part of a statement has a *scope*, every check a *cover*, and the verdict is "
        "computed from both. A check that rests on a cited theorem covers samples only.\n"
    )
    lines += [f"scope *{word}*\n: {meaning}.\n" for word, meaning in SCOPES.items()]
    for word, meaning in COVERS.items():
        proves = ", ".join(scope for scope, enough in ENOUGH.items() if word in enough)
        lines.append(f"cover *{word}*\n: {meaning}. Proves the scopes: {proves or 'none'}.\n")
    names = "\n".join(f"claims/{row['id'].lower()}" for row in rows)
    lines.append(f"```{{toctree}}\n:hidden:\n\n{names}\n```\n")
    return "\n".join(lines)


def places(row: Row) -> str:
    """Links to the proof and to the file on the claim's page."""
    name = row["id"].lower()
    links = " · ".join(
        f'<a href="claims/{name}.html#{name}-{place}">{place}</a>'
        for place in ("proof", "checks", "file")
    )
    return f'<br><span class="places">{links}</span>' if row["checks"] else ""


def drawn(told: list[tuple[str, str]]) -> str:
    """Links to the notebooks by their numbers."""
    links = (
        f'<a href="../notebooks/{stem}.html" title="{html.escape(title)}">page {int(stem[:2])}</a>'
        for stem, title in told
    )
    return ", ".join(links)


def title_of(row: Row) -> str:
    """The claim's title, or a word for a claim without a file."""
    return str(row.get("title") or "not yet written down as a file")


def own(row: Row) -> bool:
    """Whether the claim is a theorem (T) or a repair (R) of this project, printed nowhere else."""
    return str(row["id"])[0] in "TR"


def where(row: Row) -> str:
    """What the line with the claim's source begins with."""
    if own(row):
        return "Of this project"
    return "Where on the poster" if str(row["id"])[0] == "C" else "Where it is printed"


def in_html(text: str) -> str:
    """Plain text for HTML, its formulas as Sphinx marks them for MathJax."""
    pieces = typeset(text).split("$")
    return "".join(
        rf'<span class="math notranslate nohighlight">\({html.escape(piece)}\)</span>'
        if i % 2
        else html.escape(piece)
        for i, piece in enumerate(pieces)
    )


def claim_page(
    row: Row, files: list[Path], told: list[tuple[str, str]], pictures: list[str]
) -> str:
    """The whole page of one claim."""
    name = row["id"]
    facts = " ".join(
        f"{what} {badge(row[key])}"
        for what, key in (
            ("as stated" if own(row) else "as printed", "as_printed"),
            ("amended", "amended"),
            ("status", "status"),
        )
    )
    lines = [
        f"(claim-{name.lower()})=\n# {name}: {markdown(title_of(row))}\n",
        f"```{{raw}} html\n<p>{facts}</p>\n```\n",
    ]
    lines += [f"{where(row)}: {markdown(row['source'])}.\n"] if row.get("source") else []
    lines += (
        ["**Surprises:** " + "; ".join(markdown(reason) for reason in row["reasons"]) + "\n"]
        if row["reasons"]
        else []
    )
    if row.get("printed"):
        lines += ["## Statement\n" if own(row) else "## As printed\n", statement(row["printed"])]
    if row.get("amended_statement"):
        lines += ["## Amended\n", statement(row["amended_statement"])]
    lines += ["## Part by part\n", parts(row["parts"])] if row["parts"] else []
    lines += [f"{markdown(row['remark'])}\n"] if row.get("remark") else []
    if row.get("uses"):
        links = ", ".join(
            f"{{claim}}`{used.split('/')[0]}`"
            + (f" part {used.split('/')[1]}" if "/" in used else "")
            for used in row["uses"]
        )
        lines.append(f"Uses {links}.\n")
    if told:
        lines.append(
            "Told and drawn in "
            + ", ".join(f"[{title}](/notebooks/{stem}.py)" for stem, title in told)
            + ".\n"
        )
    lines += [f"![{name}](/figures/{picture})\n" for picture in pictures]
    if files:
        lines += [f"({name.lower()}-proof)=\n## Proof\n", *map(proof_text, files)]
    if row["checks"]:
        lines += [
            f"({name.lower()}-checks)=\n## Checks\n",
            *(check(item) for item in row["checks"]),
        ]
    if row["quantities"]:
        lines += ["## Quantities\n", quantities(row["quantities"])]
    for number, file in enumerate(files):
        anchor = f"({name.lower()}-file)=\n" if number == 0 else ""
        lines += [f"{anchor}## The file `proofs_check/claims/{file.name}`\n"]
        lines += [
            f"```{{literalinclude}} /../proofs_check/claims/{file.name}\n:language: python\n```\n"
        ]
    return "\n".join(lines)


def statement(given: Row) -> str:
    """Conditions, conclusion and parts as display mathematics."""
    lines = [":::{container} statement", ""]
    if given["given"]:
        lines += [
            "Given",
            "",
            *(f"- {name}: ${text}$" for name, text in given["given"].items()),
            "",
            "then",
            "",
        ]
    lines += [f"$$\n{broken(given['then'])}\n$$", ""]
    lines += [f"- ({name}) ${text}$" for name, text in given["parts"].items()]
    return "\n".join([*lines, "", ":::"]) + "\n"


def broken(formula: str) -> str:
    """A long formula on several lines, broken where it has a wide space behind a stop outside all
    braces.
    """
    pieces = re.split(r"(?<=[;,:])\\quad\s*", formula)
    if (
        len(formula) < 110
        or len(pieces) == 1
        or any(piece.count("{") != piece.count("}") for piece in pieces)
    ):
        return formula
    return r"\begin{gathered}" + r"\\".join(pieces) + r"\end{gathered}"


def check(item: Row) -> str:
    """One check: what it shows, how it says so, and its mutants."""
    effect = "refutes the printed statement" if item["refutes"] else f"covers {item['covers']}"
    part = f", part {item['part']}" if item["part"] else ""
    passed = "passed" if item["passed"] else "**failed**"
    rests = f" Rests on: {item['rests_on']}." if item["rests_on"] else ""
    mutants = "; ".join(item["mutant_names"])
    killed = f" *Mutants killed: {item['mutants_killed']} of {item['mutants']}* " if mutants else ""
    killed += f"({markdown(mutants)})." if mutants else " *Rejects falsified statements.*"
    return (
        f"`{item['name']}` ({item['kind']}: {effect}{part}; {passed})\n"
        f": {markdown(item['what'])}{theorem(item)}{markdown(rests)}{killed}\n"
    )


def theorem(item: Row) -> str:
    """Where a kernel-checked theorem stands, and what it rests on."""
    found = item.get("theorem")
    if not found:
        return ""
    axioms = ", ".join(f"`{axiom.split('.')[-1]}`" for axiom in found["axioms"])
    return f" File `proofs_check/coq/{found['file']}`, *kernel-checked*, axioms: {axioms}."


def parts(found: dict[str, Row]) -> str:
    """Verdict, scope and checks of every part."""
    lines = ["| part | verdict | scope | by | comparisons |", "|---|---|---|---|---|"]
    for name, part in found.items():
        by = ", ".join(f"`{check}`" for check in part["checks"])
        by = by or (f"[page](/{part['page']})" if part["page"] else "")
        verdict, scope = part["verdict"], part["scope"]
        lines.append(f"| {name or 'all'} | {verdict} | {scope} | {by} | {part['comparisons']} |")
    return "\n".join(lines) + "\n"


def quantities(found: dict[str, Row]) -> str:
    """The named numbers of a claim."""
    lines = ["| quantity | value | exact | meaning |", "|---|---|---|---|"]
    for name, q in found.items():
        exact = f"`{q['exact']}`" if q["exact"] else ""
        lines.append(f"| {cell(name)} | {q['value']:.10g} | {exact} | {cell(q['meaning'])} |")
    return "\n".join(lines) + "\n"


def cell(text: str) -> str:
    """Text inside a Markdown table."""
    return re.sub(r"(?<!\\)\|", r"\\|", markdown(text))


def proof_text(file: Path) -> str:
    """The file's docstring without the id that it starts with: the proof, in Markdown with TeX."""
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    text = re.sub(r"^\w+(, second file)?: ", "", text)
    text = typeset(text[:1].upper() + text[1:])
    pieces = re.split(r"(`+[^`]+`+)", text)
    return "".join(p if i % 2 else cited(p, "{cite}") for i, p in enumerate(pieces)) + "\n"


def markdown(text: str) -> str:
    """Plain text for Markdown: its formulas between dollar signs; what would be markup is escaped
    and keys are cited, except inside $...$ and backticks.
    """
    pieces = re.split(r"(\$[^$]+\$|`+[^`]+`+)", typeset(text))
    return "".join(
        piece if i % 2 else cited(re.sub(r"([\\*_<>\[\]#|~^])", r"\\\1", piece), "{cite}")
        for i, piece in enumerate(pieces)
    )


def notebooks_by_claim(folder: Path) -> Told:
    """Which notebooks cite a claim with the role ``{claim}``: (file stem, title) by id."""
    found: Told = {}
    for path in sorted(folder.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        title = re.search(r"^# # (.+)$", text, re.MULTILINE)
        for name in dict.fromkeys(re.findall(r"\{claim\}`(\w+)`", text)):
            found.setdefault(name, []).append((path.stem, title[1] if title else path.stem))
    return found
