"""Open every page of the built site in a headless browser: ``python docs/check_site.py [SITE]
[--screenshots DIR]``.

A page is sound if nothing is written to the browser's console as an error, nothing is asked of
another host, every picture and formula is drawn, no page is wider than a desktop's or a telephone's
screen, no label of a drawing is smaller than 9 pixels on either, no formula stands in the text in
plain characters, and every internal link leads to a page and a place that exist. The ledger's
filter is operated. Prints one line per fault; exit code 1 if there is any. Without a Chromium or
Chrome on the machine, or CHROMIUM=/path/to/one, the files are read instead, which finds broken
links, missing pictures and other hosts, and the last line says in capitals what was not looked at.
"""

from __future__ import annotations

import contextlib
import functools
import html.parser
import http.server
import os
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote, urldefrag, urljoin

import typer
from playwright.sync_api import ConsoleMessage, Page, sync_playwright

SITE = Path(__file__).parent / "_build" / "html"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SIZES = {"desktop": (1280, 900), "telephone": (390, 800)}
PATIENCE = 60_000  # milliseconds for one page
SMALLEST = 9  # pixels of a label
TALLEST = 16_000  # pixels of a screenshot
SCRIPT = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")


def find_browser() -> str | None:
    """The browser to use, or ``None``."""
    named = os.environ.get("CHROMIUM")
    return named or next((path for name in BROWSERS if (path := shutil.which(name))), None)


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A file server that does not log."""

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing."""


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address at which ``folder`` is served."""
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()


def listen(page: Page, home: str) -> list[str]:
    """What the browser will object to while pages of ``home`` load; nothing is let through to
    another host.
    """
    found: list[str] = []

    def heard(kind: str, text: str) -> None:
        found.append(" ".join(f"{kind}: {text}".split())[:300])

    def wrote(message: ConsoleMessage) -> None:
        if message.type in ("error", "assert"):
            heard("console", f"{message.text} {message.location.get('url', '')}")

    def foreign(address: str) -> bool:
        return not address.startswith((home, "data:", "about:", "blob:"))

    page.on("console", wrote)
    page.on("pageerror", lambda error: heard("exception", str(error)))
    page.on(
        "request",
        lambda request: foreign(request.url) and heard("asks another host", request.url),
    )
    page.route(foreign, lambda route: route.abort())
    return found


def faults_of(seen: dict[str, Any], size: str) -> list[str]:
    """What is wrong with a page as it is drawn."""
    found = [f"formula: {text}" for text in seen["wrong"]] + [
        f"picture is empty: {source}" for source in seen["empty"]
    ]
    if seen["drawn"] < seen["formulas"]:
        found.append(
            f"{seen['formulas'] - seen['drawn']} of {seen['formulas']} formulas are not drawn"
        )
    found += [f"a label is small on a {size}: {label} px" for label in seen["small"]]
    found += [f"a formula in plain characters: {' '.join(text.split())}" for text in seen["plain"]]
    return found + ([f"wider than a {size}: {seen['wide']}"] if seen["wide"] else [])


def broken_links(pages: dict[str, dict[str, Any]], site: Path) -> list[str]:
    """Internal links to pages or places that do not exist."""
    found = []
    for name, seen in pages.items():
        for link in seen["links"]:
            if re.match(r"[a-z]+:", link):
                continue
            address, place = urldefrag(urljoin(name, link))
            target = unquote(address) or name
            if not (site / target).is_file():
                found.append(f"{name}: link to {link}: no such page")
            elif place and target in pages and unquote(place) not in pages[target]["ids"]:
                found.append(f"{name}: link to {link}: no such place")
    return sorted(set(found))


class Reader(html.parser.HTMLParser):
    """What the file of a page says by itself: its links, its places, and the files that it
    loads.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, Any] = {"links": [], "ids": [], "loads": []}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note one element."""
        given = {name: value for name, value in attrs if value}
        self.seen["ids"] += [given[name] for name in ("id", "name") if name in given]
        if tag == "a" and "href" in given:
            self.seen["links"].append(given["href"])
        self.seen["loads"] += [given["src"]] if "src" in given else []
        self.seen["loads"] += (
            [given["href"]] if tag == "link" and "stylesheet" in given.get("rel", "") else []
        )


def read(site: Path, only: str) -> tuple[int, list[str]]:
    """The same without a browser: number of pages, and the faults that the files alone show."""
    names = pages_of(site, only)
    pages: dict[str, dict[str, Any]] = {}
    faults: list[str] = []
    for name in names:
        reader = Reader()
        reader.feed((site / name).read_text(encoding="utf-8"))
        pages[name] = reader.seen
        for load in reader.seen["loads"]:
            if re.match(r"(?:[a-z]+:)?//", load):
                faults.append(f"{name}: asks another host: {load}")
            elif (
                not load.startswith("data:")
                and not (site / unquote(urldefrag(urljoin(name, load))[0]).split("?")[0]).is_file()
            ):
                faults.append(f"{name}: loads {load}: no such file")
    return len(names), sorted(set(faults)) + broken_links(pages, site)


def pages_of(site: Path, only: str) -> list[str]:
    """The pages whose path fits."""
    names = sorted(
        path.relative_to(site).as_posix()
        for path in site.rglob("*.html")
        if "_static" not in path.parts
    )
    return [name for name in names if re.search(only, name)]


def check(site: Path, program: str, pictures: Path | None, only: str = "") -> tuple[int, list[str]]:
    """Number of pages, and their faults."""
    names = pages_of(site, only)
    pages: dict[str, dict[str, Any]] = {}
    faults: list[str] = []
    with serving(site) as home, sync_playwright() as driver:
        options = ["--disable-dev-shm-usage"]
        browser = driver.chromium.launch(executable_path=program, args=options)
        for size, (width, height) in SIZES.items():
            page = browser.new_page(
                viewport={"width": width, "height": height}, is_mobile=width < 600
            )
            page.set_default_timeout(PATIENCE)
            complaints = listen(page, home)
            for name in names:
                complaints.clear()
                page.goto(home + name, wait_until="load")
                pages[name] = seen = page.evaluate(f"({SCRIPT}).look({SMALLEST})")
                if "ledger-filter" in seen["ids"] and not page.evaluate(f"({SCRIPT}).filter()"):
                    complaints.append("the filter does not show the right rows")
                faults += [f"{name}: {fault}" for fault in complaints + faults_of(seen, size)]
                if pictures is not None:
                    file = f"{name.removesuffix('.html').replace('/', '-')}-{size}.png"
                    shown = {"x": 0, "y": 0, "width": width, "height": min(seen["tall"], TALLEST)}
                    page.screenshot(path=pictures / file, full_page=True, clip=shown)
            page.close()
        browser.close()
    return len(names), list(dict.fromkeys(faults)) + broken_links(pages, site)


def main(
    site: Annotated[Path, typer.Argument(help="The folder with index.html.")] = SITE,
    screenshots: Annotated[
        Path | None, typer.Option(help="Save a picture of every page in this folder.")
    ] = None,
    only: Annotated[
        str, typer.Option(metavar="REGEX", help="Look only at pages whose path fits.")
    ] = "",
) -> None:
    """Check a site and print what is wrong; the exit status is 1 where something is."""
    if not (site / "index.html").is_file():
        typer.echo(f"SITE must hold index.html, got {site}; run make docs first", err=True)
        raise typer.Exit(2)
    program = find_browser()
    if program is None:
        count, faults = read(site, only)
    else:
        if screenshots is not None:
            screenshots.mkdir(parents=True, exist_ok=True)
        count, faults = check(site, program, screenshots, only)
    for fault in faults:
        typer.echo(fault)
    typer.echo(f"{count} pages, {len(faults)} faults")
    if program is None:
        typer.echo(
            f"NOT OPENED IN A BROWSER: none of {', '.join(BROWSERS)} is on this machine, and "
            "CHROMIUM is not set. "
            "Formulas, scripts, console and layout were NOT checked; links, pictures and hosts "
            "were, from the files."
        )
    raise typer.Exit(1 if faults or not count else 0)


if __name__ == "__main__":
    typer.run(main)
