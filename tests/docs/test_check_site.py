"""The check of the site finds what it is there to find: in a real browser where there is one, and
from the files alone.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import typer

from tests.docs.pages import DOCS

pytest.importorskip(
    "playwright", reason="the browser check needs playwright, which comes with mdtheory[docs]"
)

PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360606060000000050001a5f645400000000049454e44ae426082"
)
PAGE = (
    "<!doctype html><html><head><meta name=viewport content='width=device-width'><link rel=icon "
    "href=data:,><title>t</title></head><body><article>{}</article></body></html>"
)
SOUND = (
    '<h1 id="top">Title</h1><p>text</p><a href="other.html#there">to</a><a '
    'href="#top">up</a><img src="p.png">'
)
FAULTS = {
    "console: bad news": '<script>console.error("bad news")</script>',
    "exception:": "<script>undefined_function()</script>",
    "link to missing.html: no such page": '<a href="missing.html">x</a>',
    "link to other.html#nowhere: no such place": '<a href="other.html#nowhere">x</a>',
    "asks another host": '<script>fetch("http://example.invalid/").catch(() => 0)</script>',
    "404": '<img src="gone.png">',
    "1 of 1 formulas are not drawn": '<span class="math">x</span>',
    "formula: Undefined control sequence": (
        '<mjx-merror data-mjx-error="Undefined control sequence">?</mjx-merror>'
    ),
    "wider than a desktop": '<div style="width: 3000px">x</div>',
    "small on a desktop: a drawing 4.0 px": '<svg><text font-size="4">x</text></svg>',
}
OUTLINED = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 500 100" width="500pt">
<g id="text_1"><g transform="translate(9 9) scale({0} -{0})"><path d="M0 0h9"/></g></g></svg>"""


@pytest.fixture(scope="module")
def check_site():
    spec = importlib.util.spec_from_file_location("check_site", DOCS / "check_site.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_site"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def browser(check_site):
    if check_site.find_browser() is None:
        pytest.skip("no Chromium or Chrome on this machine, and CHROMIUM is not set")


def site(folder: Path, **pages: str) -> Path:
    for name, body in {"other": '<p id="there">x</p>', **pages}.items():
        (folder / f"{name}.html").write_text(PAGE.format(body))
    (folder / "p.png").write_bytes(PIXEL)
    return folder


def run(check_site, *arguments) -> int:
    """The exit status of the command line."""
    with pytest.raises(SystemExit) as left:
        app = typer.Typer(add_completion=False)
        app.command()(check_site.main)
        app([str(one) for one in arguments])
    return left.value.code


def test_a_sound_site_passes_and_is_photographed(browser, check_site, tmp_path, capsys):
    pictures = tmp_path / "pictures"
    (tmp_path / "site").mkdir()
    assert (
        run(check_site, site(tmp_path / "site", index=SOUND), "--screenshots", str(pictures)) == 0
    )
    assert "2 pages, 0 faults" in capsys.readouterr().out
    assert (pictures / "index-desktop.png").read_bytes().startswith(b"\x89PNG")


def test_every_kind_of_fault_is_found(browser, check_site, tmp_path, capsys):
    assert run(check_site, site(tmp_path, index="".join(FAULTS.values()))) == 1
    found = capsys.readouterr().out
    assert [fault for fault in FAULTS if fault not in found] == []


def test_labels_and_widths_are_measured_as_they_are_shown(browser, check_site, tmp_path, capsys):
    drawn = '<div style="overflow-x: auto"><img src="{}.svg" style="width: {}"></div>'
    for points in (4, 9):
        (tmp_path / f"{points}.svg").write_text(OUTLINED.format(points / 100))
    pages = {
        "index": drawn.format(9, "500px"),
        "tiny": drawn.format(4, "500px"),
        "shrunk": drawn.format(9, "250px"),
        "fluid": drawn.format(9, "min(500px, 90vw)"),
        "broad": '<div style="width: 700px">x</div>',
    }
    assert run(check_site, site(tmp_path, **pages)) == 1
    assert capsys.readouterr().out.splitlines() == [
        "shrunk.html: a label is small on a desktop: 9.svg 4.5 px",
        "tiny.html: a label is small on a desktop: 4.svg 4.0 px",
        "broad.html: wider than a telephone: DIV.",
        "fluid.html: a label is small on a telephone: 9.svg 6.3 px",
        "shrunk.html: a label is small on a telephone: 9.svg 4.5 px",
        "tiny.html: a label is small on a telephone: 4.svg 4.0 px",
        "6 pages, 6 faults",
    ]


def test_a_broken_filter_is_found(browser, check_site, tmp_path, capsys):
    form = (
        '<form id="ledger-filter"><select name="printed"><option '
        'value="">all</option><option>FALSE</option></select></form>'
    )
    row = "<tr><td>{}</td><td>x</td><td>{}</td></tr>"
    rows = row.format("C01", "HOLDS") + row.format("C05", "FALSE")
    body = f'{form}<table class="ledger"><tbody>{rows}</tbody></table>'
    assert run(check_site, site(tmp_path, index=body)) == 1
    assert "the filter does not show the right rows" in capsys.readouterr().out


def test_without_a_browser_it_reads_the_files_and_says_so(
    check_site, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(check_site, "find_browser", lambda: None)
    assert run(check_site, site(tmp_path, index=SOUND)) == 0
    said = capsys.readouterr().out
    assert "2 pages, 0 faults" in said
    assert said.splitlines()[-1].startswith("NOT OPENED IN A BROWSER: none of chromium")


def test_without_a_browser_links_pictures_and_hosts_are_still_checked(
    check_site, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(check_site, "find_browser", lambda: None)
    faults = {
        "link to missing.html: no such page": FAULTS["link to missing.html: no such page"],
        "link to other.html#nowhere: no such place": FAULTS[
            "link to other.html#nowhere: no such place"
        ],
        "loads gone.png: no such file": FAULTS["404"],
        "asks another host: https://example.invalid/a.js": (
            '<script src="https://example.invalid/a.js"></script>'
        ),
        "asks another host: //example.invalid/b.js": (
            '<script src="//example.invalid/b.js"></script>'
        ),
    }
    assert run(check_site, site(tmp_path, index="".join(faults.values()))) == 1
    said = capsys.readouterr().out
    assert [fault for fault in faults if fault not in said] == []


def test_without_a_site_it_says_so(check_site, tmp_path, capsys):
    assert run(check_site, tmp_path) == 2
    assert "run make docs first" in capsys.readouterr().err
