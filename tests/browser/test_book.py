"""The built book in a browser without a network: every page opens, every slider moves, every link leads somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from book_site import Links, Site, built, dead_links, move, served
from playwright.sync_api import Browser

from book.execute import LECTURES, code_cells, latest

pytestmark = pytest.mark.browser
# One page of each kind, and all lectures.
KINDS = ["index", "notation", "formulas", "glossary", "references", "search", "library/index", "library/quadrature"]
KINDS += ["_modules/cmog_lib/quadrature", "lectures/index", *(f"lectures/{lecture.stem}" for lecture in LECTURES)]
ONCE = KINDS[: -len(LECTURES) + 2]  # of the lectures two


@pytest.fixture(scope="session")
def book(browser: Browser) -> Iterator[Site]:
    """The book of the lectures and texts as they are now."""
    with built("book", "book.build", "book.slides") as site:
        yield site


def test_no_link_inside_the_book_is_dead(book: Site) -> None:
    assert dead_links(book.folder) == []


def test_every_lecture_leads_to_its_slides(book: Site) -> None:
    pages = {lecture.stem: book.folder / "lectures" / f"{lecture.stem}.html" for lecture in LECTURES}
    leads = {name: Links(page.read_text(encoding="utf-8")).targets for name, page in pages.items()}
    assert all(f"../slides/{name}.html" in targets for name, targets in leads.items())


def test_every_picture_has_words(book: Site) -> None:
    wordless = {name: Links((book.folder / name).read_text(encoding="utf-8")).wordless for name in book.pages()}
    assert {name: pictures for name, pictures in wordless.items() if pictures} == {}


def test_every_page_opens_and_every_slider_moves_without_a_network(book: Site, browser: Browser) -> None:
    explorers = sum(
        shows_explorer(output)
        for lecture in LECTURES
        for cell in code_cells(latest(lecture))
        for output in cell.outputs
    )
    found = 0
    with book.window(browser, reduced_motion="reduce") as page:
        for name in book.pages():
            book.visit(page, name)
            for explorer in page.locator(".cmog").all():
                move(page, explorer)
                found += 1
            assert page.locator("mjx-container").count() == page.locator(".math").count(), (
                f"{name}: a formula is not set"
            )
            assert page.locator("mjx-merror").count() == 0, name
        assert book.left == [] and book.complaints == []
    assert found == explorers + 1, "every explorer of the lectures, and one on the front page"


def shows_explorer(output: dict) -> bool:
    data = output.get("data", {})
    return "application/vnd.jupyter.widget-view+json" in data and "cmog-host" in data.get("text/html", "")


# All lectures have the same parts, so two of them suffice for the dark page at a push.
@pytest.mark.parametrize(
    ("scheme", "pages"), [("light", KINDS), ("dark", ONCE), pytest.param("dark", KINDS, marks=pytest.mark.weekly)]
)
def test_nothing_stands_in_the_way_of_any_reader(
    book: Site, browser: Browser, artifacts: Path, scheme: str, pages: list[str]
) -> None:
    """axe-core finds nothing serious, contrast of words included."""
    found = []
    # What a scheme can change is contrast; and all code is shown alike, so that one lecture's will do.
    options = {"resultTypes": ["violations"], "preload": False} | (
        {} if scheme == "light" else {"runOnly": ["color-contrast"]}
    )
    with book.window(browser, color_scheme=scheme, reduced_motion="reduce") as page:
        for name in pages:
            book.visit(page, f"{name}.html")
            page.screenshot(path=artifacts / f"book-{scheme}-{name.replace('/', '-')}.png")
            code_is_known = name.startswith("lectures/") and not name.endswith(LECTURES[0].stem)
            context = {"exclude": [["pre"]]} if code_is_known else None
            for violation in Axe().run(page, context, options).response["violations"]:
                if violation["impact"] in ("serious", "critical"):
                    where = [node["target"] for node in violation["nodes"][:3]]
                    found.append(f"{name}: {violation['id']} {len(violation['nodes'])} × {where}")
    assert found == []


# What is cut off at the right, or stands out of the window, unless it scrolls in a frame of its own as code does.
CUT_OFF = """
() => [...document.querySelectorAll("main *")].filter((node) => {
  const style = getComputedStyle(node), box = node.getBoundingClientRect();
  if (!box.width || node.closest("mjx-assistive-mml, .cmog, .ellipsis")) return false;
  if (style.overflowX === "hidden" && node.scrollWidth > node.clientWidth + 1 && node.clientWidth) return true;
  if (box.right <= innerWidth + 1) return false;
  for (let at = node; !at.querySelector("h1, h2"); at = at.parentElement) {
    const within = at.getBoundingClientRect().right <= innerWidth + 1;
    if (within && /auto|scroll/.test(getComputedStyle(at).overflowX)) return false;
  }
  return true;
}).map((node) => `${node.tagName} ${node.className} ${node.textContent.trim().slice(0, 40)}`)
"""


def test_nothing_is_wider_than_a_telephone(book: Site, browser: Browser, artifacts: Path) -> None:
    wide = []
    with book.window(browser, width=390, reduced_motion="reduce") as page:
        for name in KINDS:
            book.visit(page, f"{name}.html")
            page.screenshot(path=artifacts / f"book-390-{name.replace('/', '-')}.png")
            width = page.evaluate("document.documentElement.scrollWidth")
            wide += [f"{name}: {width} px"] if width > 390 else []
            wide += [f"{name}: {what}" for what in page.evaluate(CUT_OFF)]
    assert wide == []


def test_the_formula_sheet_prints_on_one_page_in_letters_of_8_points_at_least(
    book: Site, browser: Browser, artifacts: Path
) -> None:
    with book.window(browser) as page:
        book.visit(page, "formulas.html")
        printed = page.pdf(format="A4", print_background=True)
        page.emulate_media(media="print")
        letters = page.locator(".sheet :is(p, li, code, mjx-container)").evaluate_all(
            "(nodes) => nodes.map((node) => parseFloat(getComputedStyle(node).fontSize))"
        )
    (artifacts / "formulas.pdf").write_bytes(printed)
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) == 1
    assert len(letters) > 100 and min(letters) >= 8 * 96 / 72, "a pixel is 1/96 of an inch, a point 1/72"


@pytest.mark.parametrize(("motion", "moves"), [("reduce", False), ("no-preference", True)])
def test_the_front_page_moves_only_for_those_who_like_it(
    book: Site, browser: Browser, motion: str, moves: bool
) -> None:
    with book.window(browser, reduced_motion=motion) as page:
        book.visit(page, "index.html")
        plane = page.locator(".alive .cmog-plane")
        places = set()
        for _ in range(12):
            places.add(plane.get_attribute("aria-valuetext"))
            page.wait_for_timeout(100)
    assert (len(places) > 2) == moves and len(places) >= 1


def test_search_finds_a_word_without_a_network(book: Site, browser: Browser) -> None:
    with book.window(browser) as page:
        book.visit(page, "search.html?q=leapfrog")
        page.get_by_text("Search finished, found").wait_for(timeout=60_000)
        found = [link.get_attribute("href") or "" for link in page.locator("#search-results li a").all()]
    assert any("05_mcmc" in address for address in found) and any("mcmc.leapfrog" in address for address in found)
    assert book.left == [] and book.complaints == []


def test_what_these_tests_look_for_is_found_where_it_is(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(
        '<!doctype html><img src="https://example.org/a.png"><a href="nowhere.html">b</a><a href="#nowhere">c</a>'
        '<script src="missing.js"></script><script>console.error("d"); throw new Error("e")</script>',
        encoding="utf-8",
    )
    with served(tmp_path) as site, site.window(browser) as page:
        site.visit(page, "index.html")
        assert site.left == ["index.html: https://example.org/a.png"]
        assert {complaint.split(": ", 1)[1] for complaint in site.complaints} >= {"d", "e"}
        assert any("missing.js" in complaint for complaint in site.complaints)
    assert dead_links(tmp_path) == ["index.html: #nowhere", "index.html: missing.js", "index.html: nowhere.html"]
