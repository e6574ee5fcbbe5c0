"""Open every page of the built site in a headless browser: ``python docs/check_site.py [SITE]
[--screenshots DIR]``.

A page is sound if nothing is written to the browser's console as an error, nothing is asked of
another host, every picture and formula is drawn, no page is wider than a desktop's or a telephone's
screen, and every internal link leads to a page and a place that exist. The ledger's filter is
operated. Prints one line per fault; exit code 1 if there is any. Without a Chromium or Chrome on
the machine, or CHROMIUM=/path/to/one, the files are read instead, which finds broken links, missing
pictures and other hosts, and the last line says in capitals what was not looked at.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import functools
import html.parser
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

from tornado.websocket import WebSocketClientConnection, websocket_connect

SITE = Path(__file__).parent / "_build" / "html"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SIZES = {"desktop": (1280, 900), "telephone": (400, 800)}
PATIENCE = 60  # seconds for one page
QUIET = (
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
)
LOOK = """(async () => {
  if (window.MathJax?.startup) await MathJax.startup.promise;
  await document.fonts.ready;
  const wide = [...document.querySelectorAll("body *")].filter(e => {
    if (e.getBoundingClientRect().right <= document.documentElement.clientWidth + 1) return false;
    for (let p = e; p; p = p.parentElement)
      if (["auto", "scroll", "hidden"].includes(getComputedStyle(p).overflowX) && p !== document.body) return false;
    return true;
  });
  return {
    formulas: document.querySelectorAll("span.math, div.math").length,
    drawn: [...document.querySelectorAll("span.math, div.math")].filter(e => e.querySelector("mjx-container")).length,
    wrong: [...document.querySelectorAll("mjx-merror, [data-mjx-error]")].map(e => e.dataset.mjxError || e.textContent),
    empty: [...document.images].filter(i => i.complete && !i.naturalWidth && i.loading !== "lazy").map(i => i.src),
    links: [...document.querySelectorAll("a[href]")].map(a => a.getAttribute("href")),
    ids: [...document.querySelectorAll("[id], a[name]")].map(e => e.id || e.name),
    wide: document.documentElement.scrollWidth > document.documentElement.clientWidth + 1 ?
      (wide.slice(0, 3).map(e => e.tagName + "." + e.className).join(" ") || "something") : "",
    tall: document.documentElement.scrollHeight,
  };
})()"""
FILTER = """(() => {
  const form = document.getElementById("ledger-filter"), rows = [...document.querySelectorAll("table.ledger tbody tr")];
  const select = form.elements.printed, word = select.options[select.options.length - 1].value;
  select.value = word;
  select.dispatchEvent(new Event("change", {bubbles: true}));
  const shown = rows.filter(row => row.offsetParent !== null);
  const right = shown.length > 0 && shown.every(row => row.cells[2].textContent.trim() === word);
  select.value = "";
  select.dispatchEvent(new Event("change", {bubbles: true}));
  return right && rows.every(row => row.offsetParent !== null);
})()"""


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


class Browser:
    """A page of a running browser, spoken to by the DevTools protocol."""

    def __init__(self, connection: WebSocketClientConnection):
        self.connection, self.count = connection, 0
        self.answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.events: list[dict[str, Any]] = []
        self.loaded = asyncio.Event()
        self.session: str | None = None

    async def listen(self) -> None:
        """Sort what arrives into answers and events."""
        while (text := await self.connection.read_message()) is not None:
            message = json.loads(text)
            if "id" in message:
                self.answers.pop(message["id"]).set_result(message)
            else:
                self.events.append(message)
                if message["method"] == "Page.loadEventFired":
                    self.loaded.set()

    async def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its result."""
        self.count += 1
        number = self.count
        answered = self.answers[number] = asyncio.get_running_loop().create_future()
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        await self.connection.write_message(json.dumps(message))
        answer = await asyncio.wait_for(
            answered, PATIENCE
        )  # it may have arrived, and left the table, already
        if "error" in answer:
            raise RuntimeError(f"the browser refused {method}: {answer['error']['message']}")
        return answer["result"]

    async def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        result = await self.ask(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in result:
            raise RuntimeError(f"the page's own script failed: {result['exceptionDetails']}")
        return result["result"].get("value")

    async def open(
        self, address: str, size: tuple[int, int], *, dark: bool = False
    ) -> dict[str, Any]:
        """Load a page and look at it."""
        self.events.clear()
        self.loaded.clear()
        width, height = size
        await self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        await self.ask("Emulation.setEmulatedMedia", features=scheme)
        await self.ask("Page.navigate", url=address)
        await asyncio.wait_for(self.loaded.wait(), PATIENCE)
        return await self.evaluate(LOOK)

    async def picture(self, file: Path, *, width: int, height: int) -> None:
        """Save the whole page."""
        clip = {"x": 0, "y": 0, "width": width, "height": min(height, 16000), "scale": 1}
        shot = await self.ask(
            "Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip
        )
        file.write_bytes(base64.b64decode(shot["data"]))


@contextlib.asynccontextmanager
async def browsing(program: str) -> AsyncIterator[Browser]:
    """A browser with one empty page, and an end to it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--remote-debugging-port=0",
            *QUIET,
        ]
        process = subprocess.Popen(
            [program, *options, f"--user-data-dir={profile}", "about:blank"],
            stderr=subprocess.PIPE,
            text=True,
        )
        reader: threading.Thread | None = None
        try:
            address, reader = await asyncio.wait_for(
                asyncio.to_thread(_listening, process), PATIENCE
            )
            browser = Browser(await websocket_connect(address, max_message_size=2**28))
            listener = asyncio.create_task(browser.listen())
            try:
                target = await browser.ask("Target.createTarget", url="about:blank")
                attached = await browser.ask(
                    "Target.attachToTarget", targetId=target["targetId"], flatten=True
                )
                browser.session = attached["sessionId"]
                for domain in ("Page", "Runtime", "Log", "Network"):
                    await browser.ask(f"{domain}.enable")
                yield browser
            finally:
                browser.connection.close()
                await asyncio.wait_for(listener, PATIENCE)
        finally:
            process.terminate()
            process.wait(timeout=PATIENCE)
            if reader is not None:
                await asyncio.to_thread(reader.join)
            if process.stderr is not None:
                process.stderr.close()


def _listening(process: subprocess.Popen[str]) -> tuple[str, threading.Thread]:
    """The address that the browser listens at, and a thread that keeps its error pipe empty."""
    for line in process.stderr or ():
        if found := re.search(r"ws://\S+", line):
            reader = threading.Thread(
                target=lambda: [None for _ in process.stderr or ()], daemon=True
            )
            reader.start()
            return found[0], reader
    raise RuntimeError(
        "the browser must open its debugging port, but it ended; try CHROMIUM=/path/to/another"
    )


def complaints(events: list[dict[str, Any]], home: str) -> list[str]:
    """What the browser objected to while a page loaded."""
    found = []
    for event in events:
        given = event.get("params", {})
        match event["method"]:
            case "Runtime.exceptionThrown":
                found.append(
                    "exception: "
                    + str(given["exceptionDetails"].get("exception", {}).get("description", given))
                )
            case "Runtime.consoleAPICalled" if given["type"] in ("error", "assert"):
                found.append(
                    "console: "
                    + " ".join(str(a.get("value", a.get("description"))) for a in given["args"])
                )
            case "Log.entryAdded" if given["entry"]["level"] == "error":
                found.append(f"log: {given['entry']['text']} {given['entry'].get('url', '')}")
            case "Network.requestWillBeSent" if not given["request"]["url"].startswith(
                (home, "data:", "about:", "blob:")
            ):
                found.append(f"asks another host: {given['request']['url']}")
    return [" ".join(line.split())[:300] for line in found]


def faults_of(seen: dict[str, Any], size: str) -> list[str]:
    """What is wrong with a page as it is drawn."""
    found = [f"formula: {text}" for text in seen["wrong"]] + [
        f"picture is empty: {source}" for source in seen["empty"]
    ]
    if seen["drawn"] < seen["formulas"]:
        found.append(
            f"{seen['formulas'] - seen['drawn']} of {seen['formulas']} formulas are not drawn"
        )
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


async def check(
    site: Path, program: str, pictures: Path | None, only: str = ""
) -> tuple[int, list[str]]:
    """Number of pages, and their faults."""
    names = pages_of(site, only)
    pages: dict[str, dict[str, Any]] = {}
    faults: list[str] = []
    with serving(site) as home:
        async with browsing(program) as browser:
            for name in names:
                for size, extent in SIZES.items():
                    seen = await browser.open(home + name, extent)
                    faults += [
                        f"{name}: {fault}"
                        for fault in complaints(browser.events, home) + faults_of(seen, size)
                    ]
                    pages[name] = seen
                    if pictures is not None:
                        file = (
                            pictures / f"{name.removesuffix('.html').replace('/', '-')}-{size}.png"
                        )
                        await browser.picture(file, width=extent[0], height=seen["tall"])
                if "ledger-filter" in pages[name]["ids"] and not await browser.evaluate(FILTER):
                    faults.append(f"{name}: the filter does not show the right rows")
    return len(names), list(dict.fromkeys(faults)) + broken_links(pages, site)


def main(arguments: list[str] | None = None) -> int:
    """Check a site and print what is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "site", nargs="?", type=Path, default=SITE, help="the folder with index.html"
    )
    parser.add_argument(
        "--screenshots", type=Path, help="save a picture of every page in this folder"
    )
    parser.add_argument(
        "--only", default="", metavar="REGEX", help="look only at pages whose path fits"
    )
    given = parser.parse_args(arguments)
    if not (given.site / "index.html").is_file():
        print(f"SITE must hold index.html, got {given.site}; run make docs first", file=sys.stderr)
        return 2
    program = find_browser()
    if program is None:
        count, faults = read(given.site, given.only)
    else:
        if given.screenshots is not None:
            given.screenshots.mkdir(parents=True, exist_ok=True)
        count, faults = asyncio.run(check(given.site, program, given.screenshots, given.only))
    for fault in faults:
        print(fault)
    print(f"{count} pages, {len(faults)} faults")
    if program is None:
        print(
            f"NOT OPENED IN A BROWSER: none of {', '.join(BROWSERS)} is on this machine, and "
            "CHROMIUM is not set. "
            "Formulas, scripts, console and layout were NOT checked; links, pictures and hosts "
            "were, from the files."
        )
    return 1 if faults or not count else 0


if __name__ == "__main__":
    sys.exit(main())
