"""The built book, served on the loopback to a browser that reaches nothing else and whose every complaint is kept."""

from __future__ import annotations

import functools
import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

from lab_server import REPOSITORY
from needs import missing
from playwright.sync_api import Browser, Locator, Page

from book.execute import LECTURES, latest


@dataclass
class Site:
    """Where it is served, and what its pages did that they should not: ask outside, complain, miss a file."""

    folder: Path
    address: str
    left: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    at: str = ""

    def pages(self) -> list[str]:
        """Every page, as an address below the site's; slides have a test of their own."""
        names = (path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*.html"))
        return sorted(name for name in names if not name.startswith(("_static/", "slides/")))

    @contextmanager
    def window(self, browser: Browser, width: int = 1280, height: int = 900, **context: str) -> Iterator[Page]:
        """A window without a network beyond the site; what goes wrong in it is noted."""
        window = browser.new_context(viewport={"width": width, "height": height}, **context)
        page = window.new_page()
        page.route(lambda url: not self._ours(url), lambda route: route.abort())
        page.on("request", lambda request: self._ours(request.url) or self.left.append(f"{self.at}: {request.url}"))
        page.on("console", lambda said: said.type == "error" and self.complaints.append(f"{self.at}: {said.text}"))
        page.on("pageerror", lambda error: self.complaints.append(f"{self.at}: {error}"))
        page.on("response", lambda answer: answer.status < 400 or self.complaints.append(f"{self.at}: no {answer.url}"))
        try:
            yield page
        finally:
            window.close()

    def visit(self, page: Page, name: str) -> None:
        """Open a page and wait until its formulas are set."""
        self.at = name
        page.goto(self.address + name)
        page.evaluate("() => window.MathJax?.startup?.promise.then(() => true)")

    def _ours(self, url: str) -> bool:
        return url.startswith((self.address, "data:", "blob:"))


@contextmanager
def served(folder: Path) -> Iterator[Site]:
    """`folder` on the loopback, until the block ends."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            pass  # a page that closes while its pictures are on their way

    with Server(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Site(folder, f"http://127.0.0.1:{server.server_port}/")
        server.shutdown()


@contextmanager
def built(folder: str, *modules: str) -> Iterator[Site]:
    """What `modules` make of the lectures, served. Only CI, where they have just run, runs lectures for it.

    A lecture that fails has failed its own test; here its page is served as far as it goes.
    """
    if any(latest(lecture) is None for lecture in LECTURES):
        if not os.environ.get("CI"):
            missing("the lectures have changed since they ran last: make book, which takes minutes, then this")
        subprocess.run([sys.executable, "-m", "book.execute"], cwd=REPOSITORY, check=False)
    for module in modules:
        subprocess.run([sys.executable, "-m", module], cwd=REPOSITORY, check=True)
    with served(REPOSITORY / "build" / folder) as site:
        yield site


def move(page: Page, explorer: Locator) -> None:
    """Every slider and pad by its keys: value, picture and sentence follow."""
    explorer.scroll_into_view_if_needed()
    for control in explorer.locator("input[type=range], .cmog-plane").all():
        control.focus()
        seen = set()
        for key in ("Home", "ArrowRight", "End"):
            page.keyboard.press(key)
            seen.add(shown(explorer, control))
        label = f"{explorer.get_attribute('aria-label')}: {control.get_attribute('aria-label')}"
        for what, looks in zip(("value", "sentence", "picture"), zip(*seen, strict=True), strict=True):
            assert len(set(looks)) > 1, f"{page.url}, {label}: the {what} does not follow the keys"
    assert explorer.locator("[role=alert]:visible").count() == 0


def shown(explorer: Locator, control: Locator) -> tuple[str | None, str | None, str | None]:
    """What stands there once the picture has come."""
    explorer.evaluate(
        "async (root) => { const frame = () => new Promise(requestAnimationFrame);"
        " do { await frame(); await frame(); } while (root.querySelector('[aria-busy]'));"
        " await root.querySelector('.cmog-changing img')?.decode(); }"
    )
    picture = explorer.locator(".cmog-picture")
    return (
        control.get_attribute("aria-valuetext"),
        picture.get_attribute("aria-label"),
        picture.locator(".cmog-changing img").get_attribute("src"),
    )


class Links(HTMLParser):
    """What a page points to, what can be pointed to in it, and its pictures without words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.targets, self.names, self.wordless = set(), set(), []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        have = dict(attributes)
        self.targets |= {have[name] for name in ("href", "src") if have.get(name)}
        self.names |= {have[name] for name in ("id", "name") if have.get(name)}
        if tag == "img" and not have.get("alt"):
            self.wordless.append(have.get("src"))


def dead_links(folder: Path) -> list[str]:
    """Every link inside the site that leads to no file, or to no place in it."""
    pages = {
        path: Links(path.read_text(encoding="utf-8")) for path in folder.rglob("*.html") if "_static" not in path.parts
    }
    dead = []
    for path, links in pages.items():
        for target in links.targets:
            if urlsplit(target).scheme:
                continue
            file, place = urldefrag(urljoin(path.as_uri(), target))
            found = Path(unquote(urlsplit(file).path))
            found = found / "index.html" if found.is_dir() else found
            known = pages[found].names if found in pages else set()
            if not found.exists() or (place and found in pages and unquote(place) not in known):
                dead.append(f"{path.relative_to(folder)}: {target}")
    return sorted(dead)
